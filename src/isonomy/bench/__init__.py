"""The bench: compares balancers on a data set, reproducibly, from one command. Needs ``isonomy[bench]``."""
