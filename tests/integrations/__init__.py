"""The frameworks; in every process that runs them a torchvision that does not match torch is repaired first."""

from isonomy.bench._compat import repair_torchvision

repair_torchvision()
