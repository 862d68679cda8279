"""MTAdam, Adam with moments for each task."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.gramian import Rows
from isonomy.history import history, require_real
from isonomy.stages import GradientBalancer, Measurement

# Below it the average norm of a task's gradient counts as none, as in the official code.
_NO_NORM = 1e-10


class MTAdam(GradientBalancer):
    """Adam with moments m_t, v_t for each task, at equal norms: d = Σ_t m̂_t / max_s (√v̂_s + ε).

    Tensor by tensor, a task's gradient is first scaled to the norm of the first task's, the anchor; norms are averages,
    ν_t ← β₃ ν_t + (1 − β₃) ‖g_t‖. A task without a gradient in a step has no part in it and keeps its moments. Malkiel
    and Wolf, "MTAdam: Automatic Balancing of Multiple Training Loss Terms", EMNLP 2021, Algorithm 1.

    The aggregate is Adam's update already, to be applied by plain SGD: ``optim.SGD(shared, lr=1e-3)`` without momentum,
    whose ``weight_decay`` then acts as AdamW's. Heads get their own gradients: give them an Adam.

    Memory: 2 T x P numbers, the moments.

    Use it where terms of very different scales make up one loss and Adam is the optimiser anyway; the task that is to
    set the scale comes first.

    Args:
        betas: β₁, β₂, β₃ in [0, 1), of m, v and ν.
        eps: ε > 0.

    Raises:
        IsonomyError: A number is out of range, or the shared parameters have changed their number.
    """

    levels = ("parameters",)
    jacobian = True
    is_update = True
    symmetric = False
    lazy = ("first", "second", "norms")
    first: Tensor
    second: Tensor
    norms: Tensor | None
    steps: Tensor

    def __init__(self, betas: tuple[float, float, float] = (0.9, 0.999, 0.9), eps: float = 1e-8) -> None:
        super().__init__()
        if len(betas) != 3 or not all(0 <= beta < 1 for beta in betas):
            raise IsonomyError(f"mtadam: betas={betas!r} must be three numbers in [0, 1).")
        if not eps > 0:
            raise IsonomyError(f"mtadam: eps={eps!r} must be positive.")
        self.betas, self.eps = betas, eps

    def setup(self, tasks: int) -> None:  # noqa: D102
        super().setup(tasks)
        for name in self.lazy:
            self.register_buffer(name, None)
        self.register_buffer("steps", torch.zeros(tasks, dtype=torch.int64))

    def forward(self, measurement: Measurement) -> list[Tensor]:  # noqa: D102
        assert measurement.jacobian is not None
        require_real(self, measurement.jacobian.rows)
        # No state: what update() takes up, so that norms are taken once.
        self._norms_now = self._norms(measurement.jacobian.rows, measurement.active)
        steps = self.steps[measurement.active, None] + 1
        first, second = (1 - beta ** steps.double() for beta in self.betas[:2])
        aggregate = []
        for like, (_, m, v) in zip(measurement.jacobian.shared, self._moments(measurement), strict=True):
            deviations = (v / second.to(v)).sqrt() + self.eps
            update = (m / first.to(m)).sum(0) / deviations.amax(0)
            aggregate.append(update.view_as(like).to(like.dtype))
        return aggregate

    def update(self, measurement: Measurement, weights: list[Tensor]) -> None:  # noqa: D102
        active = measurement.active
        # Once more rather than kept since forward(), which would double the memory.
        for place, m, v in self._moments(measurement):
            self.first[active, place] = m
            self.second[active, place] = v
        self.norms = self._norms_now
        self.steps[active] += 1

    def _norms(self, rows: Rows, active: Tensor) -> Tensor:
        """Average norms after this step, of every task and shared tensor, shape (T, S)."""
        now = torch.stack([torch.stack([part.norm(dtype=torch.float64) for part in row]) for row in rows])
        kept = now.new_zeros(self.tasks, now.shape[1]) if self.norms is None else self.norms
        moved = kept[active].lerp(now, 1 - self.betas[2])
        return kept.index_copy(0, active, torch.where(self.steps[active, None] == 0, now, moved))

    def _moments(self, measurement: Measurement) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """For each shared tensor its place in the history, and m and v after this step, shape (K, its size)."""
        assert measurement.jacobian is not None
        rows, active = measurement.jacobian.rows, measurement.active
        first, second = (history(self, name, rows, self.tasks) for name in ("first", "second"))
        present = self._norms_now > _NO_NORM
        anchors = self._norms_now.gather(0, present.int().argmax(0, keepdim=True))
        factors = torch.where(present, anchors / self._norms_now, 1.0)[active].to(first.dtype)
        start = 0
        for number, parts in enumerate(zip(*rows, strict=True)):
            place = slice(start, start + parts[0].numel())
            g = torch.stack([part.reshape(-1) for part in parts]).to(first.dtype) * factors[:, number, None]
            m = first[active, place].lerp(g, 1 - self.betas[0])
            v = (second[active, place] * self.betas[1]).addcmul_(g, g, value=1 - self.betas[1])
            yield place, m, v
            start = place.stop
