"""Small encoders for dense networks, and what a task's loss reaches."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from isonomy.bench.architectures.output import Output

OUTPUTS = {"seg": 4, "depth": 1, "normal": 3}
NYUD = {"semseg": 40, "depth": 1, "normals": 3, "edge": 1}
PASCAL = {"semseg": 21, "human_parts": 7, "sal": 1, "normals": 3, "edge": 1}


class Pyramid(nn.Module):
    """Four maps, each half as fine as the one before and made of it."""

    def __init__(self, channels: tuple[int, ...] = (4, 6, 8, 10)) -> None:
        super().__init__()
        self.channels, self.strides = channels, (4, 8, 16, 32)
        inputs = (3, *channels[:-1])
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=s, padding=1 if s == 2 else 0)
            for a, b, s in zip(inputs, channels, (4, 2, 2, 2), strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            x = torch.tanh(layer(x))
            maps.append(x.clone())  # beside the trunk, as those of an HRNet and of a ViT
        return maps

    def last_layer(self) -> list[nn.Parameter]:
        return list(self.layers[-1].parameters())


class Grid(nn.Module):
    """Four maps of one width and resolution, a sixteenth of the image's."""

    def __init__(self, width: int = 8, stride: int = 16) -> None:
        super().__init__()
        self.channels, self.strides = (width,) * 4, (stride,) * 4
        self.patches = nn.Conv2d(3, width, stride, stride)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patches(x)
        maps = []
        for block in self.blocks:
            x = x + torch.tanh(block(x))
            maps.append(x.clone())
        return maps

    def last_layer(self) -> list[nn.Parameter]:
        return list(self.blocks[-1].parameters())


class Bare(nn.Module):
    """An encoder without parameters, for counting what comes after it."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.channels, self.strides = channels, strides


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def built(make: Callable[[], nn.Module]) -> int:
    """The number of parameters of a network that is never allocated."""
    with torch.device("meta"):
        return count(make())


def losses(output: Output, tasks: Iterable[str]) -> dict[str, Tensor]:
    """A loss of each task's predictions, the further ones included. It tells their elements apart."""
    return {
        task: sum(((each[task] - 0.3).square() * 1.1).mean() for each in (output.predictions, *output.aux))
        for task in tasks
    }


def reached(net: nn.Module, loss: Tensor) -> set[str]:
    """The names of the parameters that a loss depends on."""
    names, parameters = zip(*net.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}


def shake(net: nn.Module, amount: float = 0.1) -> nn.Module:
    """Moves all parameters and running statistics away from ones and zeros, depending on their names alone."""
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if tensor.is_floating_point():
                generator = torch.Generator().manual_seed(sum(map(ord, name)))
                tensor.add_(torch.rand(tensor.shape, generator=generator) - 0.5, alpha=amount)
    return net
