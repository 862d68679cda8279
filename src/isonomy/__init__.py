"""Isonomy balances multi-task learning in PyTorch: any loss balancer with any gradient balancer."""

from importlib.metadata import version as _version

from isonomy import gradient as gradient
from isonomy import loss as loss
from isonomy import smoothing as smoothing
from isonomy.balancer import Balancer
from isonomy.catalogue import build, methods
from isonomy.diagnostics import Monitor
from isonomy.errors import IsonomyError
from isonomy.report import StepReport
from isonomy.stages import GradientBalancer, LossBalancer
from isonomy.testing import check_balancer

__version__ = _version("isonomy")

__all__ = [
    "Balancer",
    "GradientBalancer",
    "IsonomyError",
    "LossBalancer",
    "Monitor",
    "StepReport",
    "__version__",
    "build",
    "check_balancer",
    "methods",
]
