"""A small network of three regressions, and its training."""

import torch
from torch import nn

import isonomy

TASKS = ("a", "b", "c")


class Net(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(5, 1) for task in TASKS})
        self.to(dtype)
        self.draws = torch.Generator().manual_seed(1)
        self.optimizer = torch.optim.SGD(self.parameters(), 0.05)

    def losses(self, scales=(1.0, 1.0, 1.0), rows=16):
        x = torch.randn(rows, 6, generator=self.draws, dtype=torch.float64).to(next(self.parameters()))
        z = self.trunk(x)
        losses = {
            task: scale * (head(z).squeeze(1) - x[:, k]).square().mean()
            for k, ((task, head), scale) in enumerate(zip(self.heads.items(), scales, strict=True))
        }
        return losses, z

    def step(self, balancer, at="features", **options):
        losses, z = self.losses()
        shared = {"features": z, "parameters": self.trunk, None: None}[at]
        loss = balancer(losses, shared=shared, **options)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def recorded(method="ew", steps=21, every=5, at="features", **options):
    """A monitor after a few steps of a fresh network."""
    net, balancer = Net(), isonomy.build(method, TASKS)
    monitor = isonomy.Monitor(balancer, every=every, **options)
    for _ in range(steps):
        net.step(balancer, at)
    return monitor
