"""The methods' own parameters, trained by the methods: an Adam for each stage that has any."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from isonomy.errors import IsonomyError
from isonomy.stages import Stage

# Adam's steps do not depend on the scale of gradients, but their squares have to be finite in float32.
LARGEST = 1e18


class OwnOptimizers:
    """The optimisers of the stages' own parameters, which follow the parameters wherever a module moves them.

    Args:
        stages: Of a balancer; those without parameters are left out.
        tasks: How many tasks there are; a parameter of shape (T, ...) holds something for each.
    """

    def __init__(self, stages: Sequence[Stage], tasks: int) -> None:
        self.tasks = tasks
        self.stages = [stage for stage in stages if list(stage.parameters())]
        self.optimizers = [self._make(stage) for stage in self.stages]

    @staticmethod
    def _make(stage: Stage) -> Adam:
        for option in ("own_lr", "own_weight_decay"):
            if not 0 <= getattr(stage, option) < float("inf"):
                raise IsonomyError(
                    f"{type(stage).__name__}: {option}={getattr(stage, option)!r} must be a finite number of 0 or more."
                )
        return Adam(stage.parameters(), lr=stage.own_lr, weight_decay=stage.own_weight_decay)

    def step(self, gradients: dict[Tensor, Tensor], active: Tensor) -> None:
        """Trains every parameter that has a gradient.

        Args:
            gradients: By parameter.
            active: Positions of the tasks that take part; what belongs to others stays as it is, moments included.
        """
        self.follow()
        for optimizer in self.optimizers:
            kept: list[tuple[Tensor, Tensor]] = []
            for parameter in optimizer.param_groups[0]["params"]:
                if parameter in gradients:
                    gradient = gradients[parameter].clamp(-LARGEST, LARGEST).to(parameter)
                    if len(active) < self.tasks and parameter.shape[:1] == (self.tasks,):
                        # Moments that do not exist yet start at 0 for the tasks that have no part.
                        gradient = torch.zeros_like(gradient).index_copy_(0, active, gradient[active])
                        of_tasks = [parameter, *optimizer.state[parameter].values()]
                        kept += [(t, t.detach().clone()) for t in of_tasks if t.shape == parameter.shape]
                    parameter.grad = gradient
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for tensor, before in kept:
                    before[active] = tensor[active]
                    tensor.copy_(before)

    def follow(self) -> None:
        """Takes up the parameters anew after a module has moved or replaced them; moments go along."""
        for position, (stage, optimizer) in enumerate(zip(self.stages, self.optimizers, strict=True)):
            parameters = list(stage.parameters())
            known = optimizer.param_groups[0]["params"]
            moments = [state["exp_avg"] for state in optimizer.state.values()]
            if any(a is not b for a, b in zip(parameters, known, strict=True)) or any(
                moment.device != parameters[0].device for moment in moments
            ):
                state = optimizer.state_dict()
                self.optimizers[position] = self._make(stage)
                self.optimizers[position].load_state_dict(state)

    def state(self) -> list[dict[str, Any]]:
        """Of all optimisers."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Takes back what ``state`` gave; copies it, since an optimiser would train on in the caller's tensors."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))
