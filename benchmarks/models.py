"""The networks that benchmarks/step.py trains: one trunk, T small heads, made-up images and labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES, SIDE, PATCH = 10, 64, 8
CONVOLUTIONS = ((64, 2), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
WIDTH, HIDDEN = 512, 1024
EMBEDDING, ATTENTION_HEADS, BLOCKS = 256, 4, 6
BATCH = {"conv": 16, "mlp": 128, "vit": 4}


class Positions(nn.Module):
    """Adds a learned position to every token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, (B, N, D)."""
        return x + self.table


class Attention(nn.Module):
    """Self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, (B, N, D)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block that normalises before attention and before the perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, (B, N, D)."""
        x = x + self.attend(x)
        return x + self.think(x)


class Pool(nn.Module):
    """The mean over positions."""

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C), or (B, N, D) to (B, D)."""
        return z.mean((2, 3)) if z.ndim == 4 else z.mean(1)


def conv() -> nn.Sequential:
    """Nine 3 x 3 convolutions, 4.7 million parameters; the feature is a map of 512 x 2 x 2."""
    channels = [3, *(width for width, _ in CONVOLUTIONS)]
    strides = [stride for _, stride in CONVOLUTIONS]
    pairs = zip(itertools.pairwise(channels), strides, strict=True)
    return nn.Sequential(*(nn.Sequential(nn.Conv2d(a, b, 3, s, padding=1), nn.ReLU()) for (a, b), s in pairs))


def mlp() -> nn.Sequential:
    """Two layers, 1.0 million parameters."""
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH), nn.ReLU())


def vit() -> nn.Sequential:
    """Six blocks over 64 patches, 4.8 million parameters; the feature is all tokens."""
    tokens = (SIDE // PATCH) ** 2
    return nn.Sequential(
        nn.PixelUnshuffle(PATCH),
        nn.Flatten(2),
        Transpose(),
        nn.Linear(3 * PATCH**2, EMBEDDING),
        Positions(tokens, EMBEDDING),
        *(Block(EMBEDDING, ATTENTION_HEADS) for _ in range(BLOCKS)),
        nn.LayerNorm(EMBEDDING),
    )


class Transpose(nn.Module):
    """Channels first to channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N) to (B, N, C)."""
        return x.transpose(1, 2)


TRUNKS: dict[str, Callable[[], nn.Sequential]] = {"conv": conv, "mlp": mlp, "vit": vit}
FEATURES = {"conv": CONVOLUTIONS[-1][0], "mlp": WIDTH, "vit": EMBEDDING}


@dataclass(frozen=True)
class Workload:
    """A network and a batch.

    Attributes:
        trunk: The shared part.
        heads: One a task, from the trunk's output to logits (B, 10).
        x: The batch.
        labels: Shape (T, B).
    """

    trunk: nn.Module
    heads: nn.ModuleList
    x: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """P, the number of shared parameters."""
        return sum(parameter.numel() for parameter in self.trunk.parameters())

    def losses(self, z: Tensor | list[Tensor]) -> list[Tensor]:
        """The T losses from the trunk's output, or from a copy of it for each task."""
        features = z if isinstance(z, list) else [z] * len(self.heads)
        parts = zip(self.heads, features, self.labels, strict=True)
        return [functional.cross_entropy(head(feature), labels) for head, feature, labels in parts]

    def zero_grad(self) -> None:
        """Frees all gradients."""
        self.trunk.zero_grad()
        self.heads.zero_grad()


def workload(model: str, tasks: int, device: torch.device) -> Workload:
    """The same network and batch at every call."""
    torch.manual_seed(0)
    batch = BATCH[model]
    trunk = TRUNKS[model]()
    pool = [] if model == "mlp" else [Pool()]
    heads = nn.ModuleList(nn.Sequential(*pool, nn.Linear(FEATURES[model], CLASSES)) for _ in range(tasks))
    x = torch.randn(batch, WIDTH) if model == "mlp" else torch.randn(batch, 3, SIDE, SIDE)
    labels = torch.randint(CLASSES, (tasks, batch))
    return Workload(trunk.to(device), heads.to(device), x.to(device), labels.to(device))
