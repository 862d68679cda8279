"""A callback for Lightning's ``Trainer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isonomy.balancer import Balancer
from isonomy.integrations.common import read_metrics, read_report, require_metrics, require_training

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "isonomy.integrations.lightning needs Lightning: pip install 'isonomy[lightning]'", name=error.name
    ) from error


class BalancerCallback(Callback):
    """Logs what the balancer did, every ``log_every_n_steps`` steps, and tells it when an epoch is over.

    Make the balancer an attribute of the ``LightningModule``: its state is then in every checkpoint, and it is in
    evaluation mode, where it returns the plain sum, whenever the module is.

    An epoch is over for the balancer when the next one begins, since only then its learning rate is known. Methods
    whose ``needs`` hold ``"step_losses"`` want a ``balancer.step_end(losses)`` of yours, in ``on_train_batch_end``.

    Args:
        balancer: The one that ``training_step`` calls.
        metrics: For methods whose ``needs`` hold ``"validation"``: by task, the name under which ``validation_step``
            logs its metric; with ``sync_dist=True`` on several processes. The latest value counts.
        prefix: Put before the name of every number that is logged.

    Raises:
        IsonomyError: A task is unknown, or the method needs metrics and there are none.
    """

    def __init__(self, balancer: Balancer, metrics: Mapping[str, str] | None = None, prefix: str = "balancer/") -> None:
        self.balancer, self.prefix = balancer, prefix
        self.metrics = require_metrics(balancer, metrics)
        self._validated: dict[str, float] = {}
        self._epoch: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises an error for a module that was in evaluation mode, since Lightning leaves it there."""
        require_training(self.balancer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ends the epoch before this one with its first batch.

        Lightning leaves out ``on_train_epoch_start`` when it resumes after the last step of an epoch.
        """
        if self._epoch is not None and trainer.current_epoch > self._epoch:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self.balancer.epoch_end(read_metrics(self.metrics, self._validated), learning_rate=rate)
        self._epoch = trainer.current_epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the report of a step whose metrics Lightning is about to log."""
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and step % every == 0:
            pl_module.log_dict(read_report(self.balancer, self.prefix))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the metrics, which a checkpoint does not hold; not those of the few batches of a sanity check."""
        if not trainer.sanity_checking:
            logged = trainer.callback_metrics
            self._validated |= {name: float(logged[name]) for name in self.metrics.values() if name in logged}

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the metrics of its validation; all else is in the balancer's own state."""
        return {"epoch": self._epoch, "validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
        self._epoch, self._validated = state_dict["epoch"], dict(state_dict["validated"])
