"""Smoothings: they act on the task gradients themselves, between the loss balancers and the gradient balancer."""

from isonomy.smoothing.ema import EMA
from isonomy.smoothing.tracking import Tracking

__all__ = ["EMA", "Tracking"]
