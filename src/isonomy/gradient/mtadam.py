"""MTAdam, Adam with moments for each task."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.errors import IsonomyError
from isonomy.gramian import Rows
from isonomy.history import history, require_real, views
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
        rows, active = measurement.jacobian.rows, measurement.active
        require_real(self, rows)
        norms = self._norms(rows, active)
        present = norms > _NO_NORM
        anchors = norms.gather(0, present.int().argmax(0, keepdim=True))
        factors = torch.where(present, anchors / norms, 1.0)[active].tolist()
        steps = [step + 1 for step in self.steps[active].tolist()]
        first, second = (history(self, name, rows, self.tasks) for name in ("first", "second"))
        sums, most = ([torch.zeros_like(part, dtype=first.dtype) for part in rows[0]] for _ in range(2))
        for row, scales, step, task in zip(rows, factors, steps, active.tolist(), strict=True):
            corrections = [1 - beta**step for beta in self.betas[:2]]
            moments = zip(views(first[task], row), views(second[task], row), strict=True)
            # In place, here and not in update(): 2 T x P numbers are too many to compute twice or to keep twice.
            for (m, v), part, scale, total, top in zip(moments, row, scales, sums, most, strict=True):
                g = part.to(m.dtype) * scale
                m.lerp_(g, 1 - self.betas[0])
                v.mul_(self.betas[1]).addcmul_(g, g, value=1 - self.betas[1])
                total.add_(m, alpha=1 / corrections[0])
                torch.maximum(top, v / corrections[1], out=top)
        self.norms = norms
        self.steps[active] += 1
        return [
            total.div_(top.sqrt_().add_(self.eps)).to(like.dtype)
            for total, top, like in zip(sums, most, measurement.jacobian.shared, strict=True)
        ]

    def _norms(self, rows: Rows, active: Tensor) -> Tensor:
        """Average norms after this step, of every task and shared tensor, shape (T, S)."""
        now = torch.stack([torch.stack([part.norm(dtype=torch.float64) for part in row]) for row in rows])
        kept = now.new_zeros(self.tasks, now.shape[1]) if self.norms is None else self.norms
        moved = kept[active].lerp(now, 1 - self.betas[2])
        return kept.index_copy(0, active, torch.where(self.steps[active, None] == 0, now, moved))
