"""Gradient balancers, one file a method: each turns the gramian of the task gradients into one weight a task."""

from isonomy.gradient.aligned_mtl import AlignedMTL
from isonomy.gradient.avgnorm import AvgNorm
from isonomy.gradient.cagrad import CAGrad
from isonomy.gradient.config import ConFIG
from isonomy.gradient.cr_mogm import CRMOGM
from isonomy.gradient.dualproj import DualProj
from isonomy.gradient.excess_mtl import ExcessMTL
from isonomy.gradient.fairgrad import FairGrad
from isonomy.gradient.graddrop import GradDrop
from isonomy.gradient.gradnorm import GradNorm
from isonomy.gradient.gradvac import GradVac
from isonomy.gradient.imtl_g import IMTLG
from isonomy.gradient.max_norm import MaxNorm
from isonomy.gradient.metabalance import MetaBalance
from isonomy.gradient.mgda import MGDA
from isonomy.gradient.mgda_free import MGDAFree
from isonomy.gradient.moco import MoCo
from isonomy.gradient.modo import MoDo
from isonomy.gradient.mtadam import MTAdam
from isonomy.gradient.nash_mtl import NashMTL
from isonomy.gradient.pcgrad import PCGrad
from isonomy.gradient.rotograd import RotoGrad
from isonomy.gradient.sdmgrad import SDMGrad
from isonomy.gradient.upgrad import UPGrad

__all__ = [
    "CRMOGM",
    "IMTLG",
    "MGDA",
    "AlignedMTL",
    "AvgNorm",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "ExcessMTL",
    "FairGrad",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "MGDAFree",
    "MTAdam",
    "MaxNorm",
    "MetaBalance",
    "MoCo",
    "MoDo",
    "NashMTL",
    "PCGrad",
    "RotoGrad",
    "SDMGrad",
    "UPGrad",
]
