"""Smoothings: they act on the task gradients themselves, between the loss balancers and the gradient balancer."""

from isonomy.smoothing.ema import EMA

__all__ = ["EMA"]
