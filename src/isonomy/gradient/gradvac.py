"""GradVac, gradient vaccine: cosines between tasks are pulled up to what they used to be."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.gradient.groups import Groups, group, group_gramians, weigh_groups
from isonomy.gradient.pcgrad import others_of, shuffled
from isonomy.gramian import Gramian
from isonomy.stages import GradientBalancer, Measurement, step_generator

ORDERS = ("random", "ascending")


def vaccinate(gramian: Gramian, targets: Tensor, orders: Tensor) -> tuple[Tensor, Tensor]:
    """GradVac's weights from cosines alone, for S groups at once.

    A gradient that has been changed stays a combination p_i = Σ_j c_j u_j of the unit gradients, with product (C c)_j
    with u_j and norm √(cᵀC c), so nothing of size P is touched.

    Args:
        gramian: Norms (S, K) and cosines (S, K, K).
        targets: The cosine to which that of p_i and u_j is raised, shape (S, K, K).
        orders: Row i lists the tasks that task i meets, in turn; shape (K, K - 1).

    Returns:
        w, shape (S, K): Jᵀw is the sum of the changed gradients; and the cosines that were met, shape (S, K, K), with
        those of ``targets`` where a gradient was zero.
    """
    norms, C = gramian.norms, gramian.cosines
    coefficients = torch.eye(C.shape[1], dtype=C.dtype, device=C.device).repeat(len(C), 1, 1)
    rows = torch.arange(C.shape[1], device=C.device)
    met = targets.clone()
    for others in orders.T:
        target = targets[:, rows, others].clamp(-1 + 1e-6, 1 - 1e-6)
        squares = (coefficients @ C * coefficients).sum(2)
        lengths = squares.clamp_min(0).sqrt()
        cosines = ((C[:, others] * coefficients).sum(2) / lengths).clamp(-1, 1)
        # What cancels to rounding errors has no direction.
        there = (norms > 0) & (norms[:, others] > 0) & (squares > 1e-14 * coefficients.square().sum(2))
        raised = lengths * (target * ((1 - cosines**2) / (1 - target**2)).sqrt() - cosines)
        coefficients[:, rows, others] += torch.where(there & (cosines < target), raised, 0.0)
        met[:, rows, others] = torch.where(there, cosines, met[:, rows, others])
    lengths = (norms[:, None] @ coefficients).squeeze(1)
    return torch.where(norms > 0, lengths / norms, 0.0), met


class GradVac(GradientBalancer):
    """Raises the cosine of every two tasks' gradients to its moving average ρ_ij where it lies below.

    g_i meets the others in a random order of its own; where cos(g_i, g_j) = φ < ρ_ij, it gains ‖g_i‖ (ρ √(1 − φ²) − φ
    √(1 − ρ²)) / (‖g_j‖ √(1 − ρ²)) g_j. Then ρ_ij ← (1 − β) ρ_ij + β φ, from 0. Wang et al., "Gradient Vaccine:
    Investigating and Improving Multi-task Optimization in Massively Multilingual Models", ICLR 2021, equation 2.
    With β = 0 it is PCGrad. The paper uses ``beta=0.01, groups="tensor"``, or larger groups.

    Use it for many related tasks whose gradients are similar on the whole; weights are larger than PCGrad's, since
    gradients are added where nothing conflicts.

    Args:
        beta: β in [0, 1].
        groups: One ρ_ij for the whole ``"model"``, or one for each shared ``"tensor"``, at the parameters alone.
        order: ``"random"`` as in the paper or ``"ascending"`` by position.
        seed: Of the stage's own generator.

    Raises:
        IsonomyError: An option is out of range or unknown, or the number of shared tensors has changed.
    """

    symmetric = False
    lazy = ("rho",)
    rho: Tensor
    steps: Tensor

    def __init__(
        self,
        beta: float = 0.5,
        groups: Groups = "model",
        order: Literal["random", "ascending"] = "random",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise IsonomyError(f"gradvac: beta={beta!r} must lie in [0, 1]; the paper uses 0.01.")
        if order not in ORDERS:
            raise unknown("order of gradvac", order, ORDERS)
        group(self, "gradvac", groups)
        self.beta, self.order, self.seed = beta, order, seed
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        self.register_buffer("rho", torch.zeros(0, tasks, tasks, dtype=torch.float64))

    def forward(self, measurement: Measurement) -> Tensor | list[Tensor]:  # noqa: D102
        gramian = group_gramians(measurement, "gradvac", len(self.rho))
        norms, active = gramian.norms, measurement.active
        rho = self.rho.clone() if len(self.rho) else norms.new_zeros(len(norms), self.tasks, self.tasks)
        orders = others_of(len(active), norms.device)
        if self.order == "random":
            orders = shuffled(orders, self.tasks, step_generator(self.seed, self.steps))
        pairs = (slice(None), active[:, None], active)
        weights, met = vaccinate(gramian, rho[pairs], orders)
        rho[pairs] = (1 - self.beta) * rho[pairs] + self.beta * met
        self._found = rho  # For update, which is called with the same measurement.
        return weigh_groups(measurement, weights)

    def update(self, measurement: Measurement, weights: Tensor | list[Tensor]) -> None:  # noqa: D102
        self.rho = self._found
        self.steps += 1
