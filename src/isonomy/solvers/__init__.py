"""Exact solvers of the T x T problems, in float64 and in the scale of cosines; torch alone."""

from isonomy.solvers.cagrad import cagrad
from isonomy.solvers.dual_cone import dual_cone
from isonomy.solvers.fair import fair, nash
from isonomy.solvers.kmeans import kmeans
from isonomy.solvers.min_norm import min_norm
from isonomy.solvers.nnqp import nnqp
from isonomy.solvers.simplex import among, project_simplex, share

__all__ = ["among", "cagrad", "dual_cone", "fair", "kmeans", "min_norm", "nash", "nnqp", "project_simplex", "share"]
