"""Gradient balancers, one file a method: each turns the gramian of the task gradients into one weight a task."""

from isonomy.gradient.avgnorm import AvgNorm
from isonomy.gradient.cagrad import CAGrad
from isonomy.gradient.gradnorm import GradNorm
from isonomy.gradient.imtl_g import IMTLG
from isonomy.gradient.max_norm import MaxNorm
from isonomy.gradient.mgda import MGDA
from isonomy.gradient.mgda_free import MGDAFree
from isonomy.gradient.nash_mtl import NashMTL
from isonomy.gradient.pcgrad import PCGrad

__all__ = ["IMTLG", "MGDA", "AvgNorm", "CAGrad", "GradNorm", "MGDAFree", "MaxNorm", "NashMTL", "PCGrad"]
