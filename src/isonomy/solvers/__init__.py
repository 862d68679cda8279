"""Exact solvers of the T x T problems, in float64 and in the scale of cosines; torch alone."""

from isonomy.solvers.cagrad import cagrad
from isonomy.solvers.min_norm import min_norm
from isonomy.solvers.nash import nash
from isonomy.solvers.nnqp import nnqp

__all__ = ["cagrad", "min_norm", "nash", "nnqp"]
