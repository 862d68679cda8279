"""Small problems with known answers, shared by the tests of methods and solvers."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

import isonomy
from isonomy.gramian import Gramian

A = [[1, 0], [1, 1]]
B = [[-4, 1, 1], [6, 1, 1]]
E = [[2, 1, 0], [-1, 1, 1], [1, -3, 0]]  # All pairs conflict; det 7.
F = [[-2, 0, 1], [-1, 0, 0], [0, -1, -2]]  # IMTL-G's closed form ascends here.
OPPOSED = [[1, 2, 2], [-1, -2, -2]]
UNEQUALLY_OPPOSED = [[2, 4, 4], [-1, -2, -2]]
OPPOSED_AND_ORTHOGONAL = [[1, 0], [-1, 0], [0, 1]]
DEPENDENT = [[1, 0], [0, 1], [1, 1]]
FAR_NORMS = [[-4, 1, 1], [6e8, 1e8, 1e8]]
ZERO_ROW = [[0, 0, 0], [6, 1, 1]]


def tensor(values) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected, tolerance: float = 1e-6) -> None:
    """Equal up to a tolerance relative to the largest entry, or absolute below 1."""
    expected = tensor(expected).detach()
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual.detach().double(), expected, rtol=0, atol=tolerance * scale)


def weights(name: str, J, **options) -> Tensor:
    J = tensor(J)
    return isonomy.build(name, tasks=len(J), **options).weights(J @ J.T)


def aggregate(name: str, J, **options) -> Tensor:
    J = tensor(J)
    return isonomy.build(name, tasks=len(J), **options).aggregate(J)


def gramian_of(J) -> Gramian:
    J = tensor(J)
    return Gramian.of(J @ J.T)


class M:
    """Three tasks that share two parameters: ℓ_t = ½ (ψ_t a_tᵀθ − y_t)² with θ = (1, 2) and ψ = (1, 1, 1).

    At y = (-1, 3, 1) the losses are (2, 0.5, 2), the gradients in θ (2, 0), (0, -1), (2, 2), and in ψ (2, -2, 6).
    """

    def __init__(self, targets=(-1.0, 3.0, 1.0), scales=(1.0, 1.0, 1.0)):
        self.theta = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
        self.psi = [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(3)]
        features = tensor([[1, 0], [0, 1], [1, 1]])
        self.losses = [
            k * 0.5 * (psi * (a @ self.theta) - y) ** 2
            for k, psi, a, y in zip(scales, self.psi, features, targets, strict=True)
        ]

    def step(self, balancer, **options) -> Tensor:
        """One call and backward pass; returns the scalar."""
        loss = balancer(self.losses, shared=[self.theta], **options)
        loss.backward()
        return loss

    @property
    def heads(self) -> Tensor:
        return torch.stack([psi.grad for psi in self.psi])


def linear(J, values=None, scales=None) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Parameters θ, heads ψ and losses with these values (1 by default) and gradients: J in θ, 1 in each head."""
    J = tensor(J)
    theta = torch.zeros(J.shape[1], dtype=torch.float64, requires_grad=True)
    heads = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in J]
    values = [1.0] * len(J) if values is None else values
    scales = [1.0] * len(J) if scales is None else scales
    losses = [k * (v + row @ theta + head) for k, v, row, head in zip(scales, values, J, heads, strict=True)]
    return theta, heads, losses


def value_of(stage, losses) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A loss balancer's S, its weights ∂S/∂ℓ and the gradients of its own parameters."""
    losses = tensor(losses).requires_grad_()
    total = stage(losses, torch.arange(len(losses))).sum()
    weights, *own = torch.autograd.grad(total, [losses, *stage.parameters()])
    return total.detach(), weights, own


def set_up(stage, tasks: int = 3):
    """A stage for so many tasks, with its own parameters in float64."""
    stage.setup(tasks)
    return stage.double()


def random_jacobian(tasks: int, columns: int, seed: int, *, rank: int | None = None, spread: float = 0.0) -> Tensor:
    """A T x P matrix of the given rank; norms differ by up to 10^spread."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    J = normal(tasks, columns) if rank is None else normal(tasks, rank) @ normal(rank, columns) / rank**0.5
    return J * 10 ** (spread * (torch.rand(tasks, 1, generator=generator, dtype=torch.float64) - 0.5))


@st.composite
def jacobians(draw, smallest: int = 1, largest: int = 6, regular: bool = False) -> Tensor:
    """Matrices over shapes, ranks and scales; full row rank if ``regular``."""
    tasks = draw(st.integers(smallest, largest))
    columns = draw(st.integers(tasks + 2 if regular else 1, 2 * tasks + 3))
    rank = None if regular else draw(st.sampled_from([None, *range(1, tasks + 1)]))
    spread = draw(st.sampled_from([0.0, 1.0, 3.0]))
    scale = 10.0 ** draw(st.integers(-5, 5))
    return scale * random_jacobian(tasks, columns, draw(st.integers(0, 10_000)), rank=rank, spread=spread)


def parallel(x: Tensor, y: Tensor) -> float:
    return float(x @ y / (x.norm() * y.norm()))


def rotation(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(random_jacobian(size, size, seed))[0]
