"""A callback for the ``Trainer`` of Hugging Face Transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from isonomy.balancer import Balancer
from isonomy.errors import IsonomyError
from isonomy.integrations.common import read_metrics, read_report, require_metrics, require_training

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "isonomy.integrations.transformers needs Transformers: pip install 'isonomy[transformers]'", name=error.name
    ) from error

FILE = "balancer.pt"


class BalancerCallback(TrainerCallback):
    """Logs what the balancer did, with whatever the ``Trainer`` logs; ends its epochs; saves and resumes its state.

    Keep the balancer beside the model, as an attribute of your ``Trainer``: safetensors, the format in which models are
    saved, holds tensors alone, and a balancer remembers more. Its state is saved as ``balancer.pt`` in every checkpoint
    and loaded when training resumes from ``output_dir`` or ``TrainingArguments(resume_from_checkpoint=...)``.

    Callbacks hear of a log one after the other, and those that report to trackers come before yours. For these, put it
    first: ``trainer.callback_handler.callbacks.insert(0, BalancerCallback(balancer))``.

    An epoch is over for the balancer when the next one begins, since only then its learning rate is known. Methods
    whose ``needs`` hold ``"step_losses"`` want a ``balancer.step_end(losses)`` of yours, after the optimiser's step.

    Args:
        balancer: The one that ``compute_loss`` calls.
        metrics: For methods whose ``needs`` hold ``"validation"``: by task, the name under which the evaluation logs
            its metric, such as ``"eval_accuracy"``. The latest value counts.
        prefix: Put before the name of every number that is logged.

    Raises:
        IsonomyError: A task is unknown, or the method needs metrics and there are none.
    """

    def __init__(self, balancer: Balancer, metrics: Mapping[str, str] | None = None, prefix: str = "balancer/") -> None:
        self.balancer, self.prefix = balancer, prefix
        self.metrics = require_metrics(balancer, metrics)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Loads the balancer's state if training resumes.

        Raises:
            IsonomyError: The balancer is a part of the model or in evaluation mode, or its state is not found.
        """
        require_training(self.balancer)
        if model is not None and any(module is self.balancer for module in model.modules()):
            raise IsonomyError(
                "The balancer is a part of the model, which could not be saved with it: make it an attribute of the "
                "Trainer instead."
            )
        if state.global_step:
            folder = Path(args.resume_from_checkpoint or _folder(args, state))
            if not (folder / FILE).is_file() or not _same_run(folder, state):
                raise IsonomyError(
                    f"Training resumes after step {state.global_step}, and {folder} does not hold the balancer's state "
                    "of it: pass the checkpoint's folder as TrainingArguments(resume_from_checkpoint=...), too."
                )
            self.balancer.load_state_dict(torch.load(folder / FILE, map_location="cpu", weights_only=True))

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Ends the epoch before this one; not when training resumes in the midst of it."""
        if state.epoch and state.epoch == int(state.epoch):
            logged = {name: value for entry in state.log_history for name, value in entry.items()}
            rate = None if optimizer is None else optimizer.param_groups[0]["lr"]
            self.balancer.epoch_end(read_metrics(self.metrics, logged), learning_rate=rate)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds the report of the last step to the numbers of a training step, and to the history."""
        if logs is not None and "loss" in logs:
            numbers = read_report(self.balancer, self.prefix)
            logs.update(numbers)
            state.log_history[-1].update(numbers)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Saves the balancer's state beside the model's."""
        if args.should_save:
            torch.save(self.balancer.state_dict(), _folder(args, state) / FILE)


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"


def _same_run(folder: Path, state: TrainerState) -> bool:
    """Whether a checkpoint is the one that was resumed from, and not another run's of the same step."""
    saved = TrainerState.load_from_json(str(folder / "trainer_state.json"))
    # As text, since a loss that is not a number does not equal itself.
    return json.dumps(saved.log_history) == json.dumps(state.log_history)
