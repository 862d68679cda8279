"""DualProj, the projection of the mean gradient; gradient episodic memory's rule for several tasks."""

from __future__ import annotations

from torch import Tensor

from isonomy.gradient.preference import Preferring
from isonomy.solvers import dual_cone
from isonomy.stages import Measurement


class DualProj(Preferring):
    """Projects the mean gradient on the directions that harm no task: min ‖d − Σ p_t g_t‖² with J d ≥ 0.

    w ≥ p, and without a conflict d is the mean. Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual
    Learning", NeurIPS 2017, project the gradient of a new task so that it harms none of the old ones; Quinton and Rey,
    "Jacobian Descent for Multi-Objective Optimization", 2024, do so with the mean of all and gave it this name.

    Use it when the mean loss is what counts and no task's loss may rise; where tasks conflict, some of them stand
    still, and UPGrad treats them more alike.

    Args:
        preference: p, one number of 0 or more a task; None for 1/T, the mean.

    Raises:
        IsonomyError: ``preference`` holds a number that is negative or not finite, nothing but zeros, or not one number
            for every task.
    """

    method = "dualproj"

    def forward(self, measurement: Measurement) -> Tensor:  # noqa: D102
        return dual_cone(measurement.gramian, self.preference(measurement.active)[None])[0]
