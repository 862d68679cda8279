"""UPGrad, the unconflicting projection of every gradient."""

from __future__ import annotations

from torch import Tensor

from isonomy.gradient.preference import Preferring
from isonomy.solvers import dual_cone
from isonomy.stages import Measurement


class UPGrad(Preferring):
    """Projects each task's gradient on the directions that harm no task and averages: d = Σ p_t π(g_t), J π(g) ≥ 0.

    d is linear in the lengths of the gradients, w ≥ p, and without a conflict d is the mean. Quinton and Rey,
    "Jacobian Descent for Multi-Objective Optimization", 2024. Solved to rounding for gradients of any
    length; the common codes add a ridge of 1e-4 and return plain means for short gradients.

    Use it when no task's loss may rise and long gradients should keep their influence; it costs T small quadratic
    programs a step, which is noticeable from about 40 conflicting tasks on.

    Args:
        preference: p, one number of 0 or more a task; None for 1/T, the mean.

    Raises:
        IsonomyError: ``preference`` holds a number that is negative or not finite, nothing but zeros, or not one number
            for every task.
    """

    method = "upgrad"

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        return dual_cone(measurement.gramian, self.preference(measurement.active).diag()).sum(0)
