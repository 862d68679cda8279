"""What a step should give: every task's gradient by plain autograd, one task after the other, in the model's precision.

The method gets these rows by hand (``aggregate``, ``weights``), so what is tested against this is the engine: which
gradients are taken, where they are cut, and who receives what.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import isonomy
from isonomy.gramian import Gramian
from isonomy.stages import Jacobian, Measurement

LEVELS = ("features", "parameters", "lean")  # Lean is at the parameters, too.
METHODS = ("uw", "imtl_g", "nash_mtl", "db_mtl", "graddrop")  # A method of every kind.
READING = ("db_mtl", "graddrop")  # Which lean memory does without, as it holds no task's gradient.
CASES = [(level, name) for level in LEVELS for name in METHODS if level != "lean" or name not in READING]
TASKS = 3
SCALES = (1.0, 30.0, 0.01)


class Net(nn.Module):
    """A trunk and three heads whose losses live on very different scales.

    Args:
        trunk: From inputs of shape (8, 4) to features of shape (8, 5).
        head: Makes a head that reads such features.
        size: What all losses are multiplied by.
    """

    def __init__(self, trunk=None, head=lambda: nn.Linear(5, 2), size=1.0, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh()) if trunk is None else trunk()
        self.heads = nn.ModuleList(head() for _ in range(TASKS))
        self.register_buffer("x", torch.randn(8, 4))
        self.register_buffer("y", torch.randn(TASKS, 8, 2))
        self.size = size
        self.to(dtype)

    def features(self):
        return [self.trunk(self.x)]

    def outputs(self, features):
        return [head(features[0]) for head in self.heads]

    def losses(self, features):
        outputs = self.outputs(features)
        return [self.size * s * (o - y).square().mean() for s, o, y in zip(SCALES, outputs, self.y, strict=True)]


def build(name, level, **options):
    """A method of ``METHODS``; a history goes with the parameters alone."""
    if level == "lean":
        options["memory"] = "lean"
    if (name, level) == ("db_mtl", "features"):
        options["beta"] = 0.0
    return isonomy.build(name, TASKS, **options)


def step(balancer, net, level, shared=None, **options):
    """One call of the balancer; returns the scalar and what it was taken of."""
    features = net.features()
    losses = net.losses(features)
    if shared is None:
        shared = features if level == "features" else net.trunk
    return balancer(losses, shared=shared, **options)


class Reference:
    """A method of ``METHODS`` that is fed by hand, step by step."""

    def __init__(self, name, level):
        self.name, self.level = name, "features" if level == "features" else "parameters"
        self.method = build(name, self.level)
        self.log_variances = nn.Parameter(torch.zeros(TASKS))
        self.adam = torch.optim.Adam([self.log_variances], lr=0.025)

    def backward(self, net):
        """Adds the gradients of a step to ``.grad``, and returns the losses."""
        leaves = [p for p in net.parameters() if p.requires_grad]
        features = net.features()
        cut = [f.detach().requires_grad_() for f in features] if self.level == "features" else features
        losses = net.losses(cut)
        inside = {id(p) for p in net.trunk.parameters()}
        shared = cut if self.level == "features" else [p for p in leaves if id(p) in inside]
        outer = [p for p in leaves if self.level == "features" or id(p) not in inside]
        before = self.loss_weights(torch.stack([loss.detach() for loss in losses]))
        rows, heads = [], []
        for weight, loss in zip(before, losses, strict=True):
            row = torch.autograd.grad(weight * loss, [*shared, *outer], retain_graph=True, allow_unused=True)
            filled = [torch.zeros_like(p) if g is None else g for p, g in zip([*shared, *outer], row, strict=True)]
            rows.append(filled[: len(shared)])
            heads.append(filled[len(shared) :])
        aggregate, factors = self.gradient_side(rows, shared)
        for p, *own in zip(outer, *heads, strict=True):
            p.grad = (0 if p.grad is None else p.grad) + sum(f * g for f, g in zip(factors, own, strict=True))
        if self.level == "features":
            torch.autograd.backward(features, aggregate)
        else:
            for p, g in zip(shared, aggregate, strict=True):
                p.grad = g if p.grad is None else p.grad + g
        return losses

    def loss_weights(self, losses):
        """∂ℓ'/∂ℓ of the loss balancer: UW with its own Adam, the logarithm for DB-MTL."""
        if self.name == "db_mtl":
            return 1 / (losses + 1e-8)
        if self.name != "uw":
            return torch.ones_like(losses)
        weights = (0.5 * torch.exp(-self.log_variances.detach())).double()
        self.log_variances.grad = (0.5 - weights * losses.double()).float()
        self.adam.step()
        return weights.to(losses)

    def gradient_side(self, rows, shared):
        """What the method makes of the rows, and what the heads' gradients are multiplied by."""
        ones = torch.ones(TASKS, dtype=torch.float64)
        if self.name == "uw":
            return [sum(parts) for parts in zip(*rows, strict=True)], ones
        flat = torch.stack([torch.cat([_real(part) for part in row]) for row in rows]).double()
        if self.name == "graddrop":
            stage = self.method.stages[-1]
            jacobian = Jacobian([rows], [tensor.detach() for tensor in shared], self.level)
            seen = Measurement(Gramian.of(flat @ flat.T), torch.arange(TASKS), None, ones, jacobian)
            aggregate = stage(seen)
            stage.update(seen, aggregate)
            return aggregate, ones
        whole, factors = self.method.aggregate(flat), ones
        if self.name == "nash_mtl":
            # Heads get α with α_t (G α)_t = 1, the trunk α cut to norm 1.
            w = self.method.held[0]
            factors = w / (w * (flat @ flat.T @ w)).mean().sqrt()
        split = torch.split(whole, [_real(part).numel() for part in rows[0]])
        return [_like(part, tensor) for part, tensor in zip(split, rows[0], strict=True)], factors


def _real(tensor: Tensor) -> Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)


def _like(flat: Tensor, tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return torch.view_as_complex(flat.view(*tensor.shape, 2).contiguous()).to(tensor.dtype)
    return flat.view(tensor.shape).to(tensor.dtype)
