"""Loss balancers, one file a method: what they do happens before any gradient is taken."""

from isonomy.loss.dsg import DSG
from isonomy.loss.dtp import DTP
from isonomy.loss.dwa import DWA
from isonomy.loss.ew import EW
from isonomy.loss.famo import FAMO
from isonomy.loss.fixed import Fixed
from isonomy.loss.gls import GLS
from isonomy.loss.go4align import GO4Align
from isonomy.loss.igb_v1 import IGBv1
from isonomy.loss.igb_v2 import IGBv2
from isonomy.loss.imtl_l import IMTLL
from isonomy.loss.ldc_mtl import LDCMTL
from isonomy.loss.log import Log
from isonomy.loss.rlw import RLW
from isonomy.loss.stch import STCH
from isonomy.loss.uw import UW

__all__ = [
    "DSG",
    "DTP",
    "DWA",
    "EW",
    "FAMO",
    "GLS",
    "IMTLL",
    "LDCMTL",
    "RLW",
    "STCH",
    "UW",
    "Fixed",
    "GO4Align",
    "IGBv1",
    "IGBv2",
    "Log",
]
