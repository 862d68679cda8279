"""Hard parameter sharing: one encoder, one head a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from isonomy.bench.seeds import drawn


class HPS(nn.Module):
    """An encoder that every task shares and a head for each.

    The initial weights of the encoder and of each head depend on the seed and the part's name alone.

    Attributes:
        between: What stands between the shared feature and the heads, from z to an input for each head; None for
            nothing. For methods that change the feature task by task.

    Args:
        encoder: Makes the encoder.
        heads: For each task, what makes its head.
        seed: Of the initial weights.
    """

    def __init__(
        self, encoder: Callable[[], nn.Module], heads: Mapping[str, Callable[[], nn.Module]], seed: int
    ) -> None:
        super().__init__()
        with drawn(seed, "encoder"):
            self.encoder = encoder()
        self.between: Callable[[Tensor], Sequence[Tensor]] | None = None
        self.heads = nn.ModuleDict()
        for task, head in heads.items():
            with drawn(seed, "head", task):
                self.heads[task] = head()

    def features(self, x: Tensor) -> Tensor:
        """The shared feature z of a batch."""
        z: Tensor = self.encoder(x)
        return z

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The encoder's parameters."""
        return self.encoder.parameters()

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The shared feature and every task's prediction."""
        z = self.features(x)
        inputs = [z] * len(self.heads) if self.between is None else self.between(z)
        return z, {task: head(r) for (task, head), r in zip(self.heads.items(), inputs, strict=True)}
