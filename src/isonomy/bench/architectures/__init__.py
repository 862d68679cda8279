"""Networks: what the tasks of a data set share."""

# Name: what it is. A data set says which of them fit it.
ARCHITECTURES = {
    "hps": "hard parameter sharing: one encoder, one head a task",
    "point": "no network: the shared parameters are a point of the plane",
}
