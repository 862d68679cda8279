"""What a procedure may add to training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from isonomy.bench.trainer import Trainer


class Procedure:
    """Hooks that a trainer calls; as they stand here they do nothing.

    Args:
        trainer: Whose model is trained. A procedure that learns weights writes them to ``trainer.weights``, which the
            losses are multiplied by.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def prepare(self, out: Path) -> None:
        """Before the first epoch: reads what it needs of other runs from the sweep's folder."""

    def begin(self, epoch: int) -> None:
        """Before each epoch, from 0."""

    def before_step(self, batch: Any) -> None:
        """Before the forward pass on a batch."""

    def extra(self, batch: Any, feature: Tensor | list[Tensor] | None) -> Tensor | None:
        """A loss that is added to the balanced ones, 0-d."""
        return None

    def record(self) -> dict[str, Any]:
        """After each epoch: what ``metrics.jsonl`` is to say of it, by name."""
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Takes back what ``state`` gave."""
