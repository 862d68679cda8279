"""Hard parameter sharing: one encoder, one head a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from isonomy.bench.architectures import sharing
from isonomy.bench.architectures.output import Output
from isonomy.bench.seeds import drawn
from isonomy.errors import IsonomyError


class HPS(nn.Module):
    """An encoder that every task shares and a head for each.

    Caruana, "Multitask learning", Machine Learning 28, 1997. The initial weights of the encoder and of each head depend
    on the seed and the part's name alone.

    Attributes:
        between: What stands between the shared feature and the heads, from z to an input for each head; None for
            nothing. For methods that change the feature task by task.

    Args:
        encoder: Makes the encoder: a backbone, or any module that returns one tensor.
        heads: For each task, what makes its head.
        seed: Of the initial weights.

    Raises:
        IsonomyError: There is no task.
    """

    def __init__(
        self, encoder: Callable[[], nn.Module], heads: Mapping[str, Callable[[], nn.Module]], seed: int
    ) -> None:
        super().__init__()
        with drawn(seed, "encoder"):
            self.encoder = encoder()
        self.heads = sharing.make_heads(heads, seed)
        self.between: Callable[[Tensor], Sequence[Tensor]] | None = None

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The encoder's parameters."""
        return self.encoder.parameters()

    def last_layer(self) -> list[nn.Parameter]:
        """Those of the encoder's last layer."""
        return sharing.last_layer(self.encoder)

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """The predictions, and as the shared feature the maps that the heads read.

        Args:
            x: A batch.
            tasks: Only these are computed; None for all.

        Raises:
            IsonomyError: A task is unknown, or ``between`` meets heads that read several maps.
        """
        chosen = sharing.wanted(self.heads, tasks)
        maps = sharing.run(self.encoder, x)
        indices = sorted({index % len(maps) for head in self.heads.values() for index in sharing.reads(head)})
        feature = [maps[index] for index in indices]
        if self.between is None:
            predictions = {task: sharing.predict(self.heads[task], maps) for task in chosen}
            return Output(feature[0] if len(feature) == 1 else feature, predictions)
        if len(feature) > 1:
            raise IsonomyError(
                f"The method changes one shared feature, but the heads read {len(feature)} of the encoder's maps: use "
                "heads that read one, such as aspp."
            )
        inputs = dict(zip(self.heads, self.between(feature[0]), strict=True))
        return Output(feature[0], {task: self.heads[task](inputs[task]) for task in chosen})
