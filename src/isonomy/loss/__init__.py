"""Loss balancers, one file a method: what they do happens before any gradient is taken."""

from isonomy.loss.dwa import DWA
from isonomy.loss.ew import EW
from isonomy.loss.fixed import Fixed
from isonomy.loss.gls import GLS
from isonomy.loss.imtl_l import IMTLL
from isonomy.loss.log import Log
from isonomy.loss.rlw import RLW
from isonomy.loss.uw import UW

__all__ = ["DWA", "EW", "GLS", "IMTLL", "RLW", "UW", "Fixed", "Log"]
