"""Recordings made by hand, and small trainings in which it is known what is wrong."""

from __future__ import annotations

import string

import torch
from torch import nn

import isonomy
from isonomy.diagnostics import Recording
from isonomy.gramian import Gramian
from tests.fixtures import tensor

NAMES = tuple(string.ascii_letters)


def seen(J, looks=1, *, losses=1.0, loss_weights=1.0, weights=1.0, skipped=0.0, **facts):
    """Looks at gradients J of the losses as they are, shape (T, P) or (N, T, P); other numbers as they broadcast."""
    J = tensor(J)
    J = J.expand(looks, *J.shape) if J.ndim == 2 else J
    here = J.isnan().any(2)

    def column(values):
        return tensor(values).expand(J.shape[:2]).masked_fill(here, torch.nan)

    gramian = Gramian.of(J @ J.mT)
    scales = column(loss_weights)
    return Recording(
        NAMES[: J.shape[1]],
        10 * torch.arange(len(J)),
        column(losses),
        scales,
        column(weights),
        gramian.norms * scales,
        gramian.cosines,
        skipped=tensor(skipped).expand(len(J)),
        **facts,
    )


def orthogonal(*norms):
    return torch.diag(tensor(norms))


def pair(cosine, first=1.0, second=1.0):
    return tensor([[first, 0], [second * cosine, second * (1 - cosine**2) ** 0.5]])


class Regressions(nn.Module):
    """Tasks that share two layers, on noisy targets, so that no loss ends at 0."""

    def __init__(self, tasks=3, seed=0, noise=0.3):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(16, 1) for _ in range(tasks))
        self.draws = torch.Generator().manual_seed(seed)
        self.teacher = torch.randn(6, tasks, generator=self.draws) / 6**0.5
        self.noise = noise

    def batch(self, rows):
        x = torch.randn(rows, 6, generator=self.draws)
        return x, x @ self.teacher + self.noise * torch.randn(rows, len(self.heads), generator=self.draws)


def train(
    method="ew",
    *,
    tasks=3,
    scales=(1.0, 1.0, 1.0),
    pulls=(1.0, 1.0, 1.0),
    prepare=None,
    change=None,
    rates=(1.0, 1.0, 1.0),
    lr=0.05,
    rows=32,
    steps=200,
    every=5,
    seed=0,
    noise=0.3,
    at="feature",
    **options,
):
    """A monitor after a training.

    Losses are multiplied by ``scales``; gradients at the shared part, and only these, by ``pulls``. ``prepare(net)`` is
    called before, ``change(step, losses)`` on the losses of every step; heads have ``rates`` times the learning rate.
    """
    net = Regressions(tasks, seed, noise)
    if prepare is not None:
        prepare(net)
    balancer = isonomy.build(method, NAMES[:tasks], **options)
    monitor = isonomy.Monitor(balancer, every=every)
    parts = [{"params": head.parameters(), "lr": lr * rate} for head, rate in zip(net.heads, rates, strict=False)]
    optimizer = torch.optim.SGD([{"params": net.trunk.parameters()}, *parts], lr)
    for step in range(steps):
        x, targets = net.batch(rows)
        z = net.trunk(x)
        losses = {}
        for name, head, target, scale, pull in zip(balancer.tasks, net.heads, targets.T, scales, pulls, strict=False):
            own = pull * z + (1 - pull) * z.detach()
            losses[name] = scale * (head(own).squeeze(1) - target).square().mean()
        if change is not None:
            losses = change(step, losses)
        loss = balancer(losses, shared=z if at == "feature" else net.trunk)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return monitor


def tug(method="ew", directions=((1.0, 0.0), (-0.6, 0.8)), scales=(3.0, 1.0), steps=60, lr=1e-3):
    """A monitor after the first steps of linear regressions that share all parameters and have other targets."""
    draws = torch.Generator().manual_seed(0)
    directions = tensor(directions)
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    balancer = isonomy.build(method, NAMES[: len(directions)])
    monitor = isonomy.Monitor(balancer, every=1)
    for _ in range(steps):
        x = torch.randn(64, 2, generator=draws, dtype=torch.float64)
        out = x @ theta
        losses = [scale * (out - x @ to).square().mean() for scale, to in zip(scales, directions, strict=True)]
        loss = balancer(losses, shared=[theta], probe=[theta])
        theta.grad = None
        loss.backward()
        with torch.no_grad():
            theta -= lr * theta.grad
    return monitor
