"""LTB: an encoder a task, and learning which of them each task's next stage reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional

from isonomy.bench.architectures import sharing
from isonomy.bench.architectures.columns import Columns, weighted
from isonomy.bench.architectures.output import Output


class LTB(nn.Module):
    """A staged encoder for each task; each of its stages reads what one encoder, a learned choice, gives before it.

    Guo et al., "Learning to branch for multi-task learning", ICML 2020. In the first hundredth of the epochs a stage
    reads the sum of all encoders' features. Then one is drawn, at every step, from a Gumbel softmax that cools down as
    1 / √epoch; evaluation takes the likeliest. A single task has no choice.

    Args:
        encoder: Makes a staged backbone.
        heads: For each task, what makes its head.
        seed: Of the initial weights.

    Raises:
        IsonomyError: There is no task, or the encoder has no stages.
    """

    temperature: Tensor

    def __init__(
        self, encoder: Callable[[], nn.Module], heads: Mapping[str, Callable[[], nn.Module]], seed: int
    ) -> None:
        super().__init__()
        self.columns = Columns(encoder, list(heads), seed, 3, "LTB")
        count = len(heads)
        # Before each of the four stages: row t has the logits of what task t reads.
        self.choices = nn.ParameterList(torch.ones(count, count) for _ in range(4 if count > 1 else 0))
        self.heads = sharing.make_heads(heads, seed)
        # Infinitely hot while it warms up. A tensor, so that it is saved, and read without waiting for a device.
        self.register_buffer("temperature", torch.tensor(torch.inf))

    def begin(self, epoch: int, epochs: int) -> None:
        """Sets the temperature of an epoch.

        Args:
            epoch: From 0.
            epochs: Of the whole training.
        """
        self.temperature.fill_(torch.inf if epoch < epochs / 100 else epochs / 20 / (epoch + 1) ** 0.5)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The encoders without their last stages, and the choices."""
        return chain(self.columns.shared_parameters(), self.choices.parameters())

    def last_layer(self) -> list[nn.Parameter]:
        """The last convolution of each encoder's third stage."""
        return self.columns.last_layer()

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """The predictions.

        Args:
            x: Images.
            tasks: Only these are computed, from every encoder; None for all.

        Raises:
            IsonomyError: A task is unknown.
        """
        chosen = sharing.wanted(self.heads, tasks)
        mix = {stage: partial(weighted, self.weights(logits)) for stage, logits in enumerate(self.choices)}
        maps = self.columns(x, mix, chosen)
        return Output(None, {task: sharing.predict(self.heads[task], maps[task]) for task in chosen})

    def weights(self, logits: Tensor) -> Tensor:
        """What the tasks read, shape (T, T): a one in every row, or ones only while it warms up.

        Args:
            logits: One of ``choices``.
        """
        if self.training:
            # The value is a one-hot row; the gradient is that of the softmax.
            picked = functional.gumbel_softmax(logits, tau=self.temperature, hard=True, dim=1)  # type: ignore[arg-type]
        else:
            picked = functional.one_hot(logits.argmax(dim=1), len(logits)).to(logits)
        return torch.where(self.temperature.isinf(), torch.ones_like(logits), picked)
