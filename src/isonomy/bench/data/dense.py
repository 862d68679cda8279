"""Dense prediction: several maps of one image. A data set of this kind has tasks, and a way to read its arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isonomy.bench import architectures, data
from isonomy.bench.architectures import Design
from isonomy.bench.losses import resized
from isonomy.bench.parts import own, turns
from isonomy.bench.seeds import key, order
from isonomy.distributed import world_size

# How many test images are kept with their predictions, to be looked at.
SHOWN = 2
# The networks that predict maps, the default first.
ARCHITECTURES = (
    "hps", "cross_stitch", "mtan", "mmoe", "cgc", "ple", "dselect_k", "ltb", "pad_net", "mti_net", "invpt",
)  # fmt: skip

Batch = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class DenseTask(data.Task):
    """A map to be predicted.

    Attributes:
        outputs: Channels of its prediction.
        loss: Of a prediction (B, outputs, h, w) and the labels.
        judge: Makes the ``torchmetrics.Metric`` that computes its metrics from the same; told whether it may take its
            time, as on the test split.
        picture: What a prediction (outputs, H, W) looks like: an RGB image (H, W, 3), uint8.
        paint: The same for an image's labels.
        mirror: Turns labels that are mirrored left to right into those of the mirrored images: directions, and names
            such as left hand, change; None where nothing does.
    """

    outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]
    judge: Callable[[bool], Any]
    picture: Callable[[Tensor], NDArray[np.uint8]]
    paint: Callable[[Tensor], NDArray[np.uint8]]
    mirror: Callable[[Tensor], Tensor] | None = None


class Dense(data.Embedded, ABC):
    """What data sets of images and maps have in common; see ``Problem`` for the members.

    A subclass has the attributes of a ``Problem``, its tasks being ``DenseTask``s, and ``batch_size`` and ``flip``.

    Attributes:
        steps: Batches an epoch of training, which goes on where the last one has ended; 0 for one pass over the images.
    """

    name: str
    tasks: tuple[DenseTask, ...]
    size: tuple[int, int]
    batch_size: int
    flip: bool
    steps: int = 0

    @abstractmethod
    def count(self, split: str) -> int:
        """How many images a split has."""

    @abstractmethod
    def read(self, split: str, chosen: NDArray[np.int64]) -> Batch:
        """Images of a split, with labels.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            chosen: Which.

        Returns:
            ``"image"``, (B, 3, H, W) in [0, 1], and for each task its labels.
        """

    def network(self, design: Design, tasks: Sequence[str], seed: int) -> nn.Module:  # noqa: D102
        outputs = {task.name: task.outputs for task in self._select(tasks)}
        return architectures.build(design, outputs, self.size, seed)

    def batches(self, seed: int, epoch: int, device: Any, split: str = "train") -> Iterator[Batch]:  # noqa: D102
        count = self.count(split)
        # A smaller last batch would be weighted like the others, and normalised by few images.
        in_pass = max(count // self.batch_size, 1)
        steps = self.steps if self.steps and split == "train" else in_pass
        done, end = epoch * steps, (epoch + 1) * steps
        while done < end:
            turn, first = divmod(done, in_pass)
            visited = torch.split(order(count, seed, turn), self.batch_size)
            chunks = [own(chosen).numpy() for chosen in visited[first : min(first + end - done, in_pass)]]
            trained = (seed, turn) if split == "train" else None
            for batch in self.loaded(split, chunks, trained):
                yield {name: tensor.to(device) for name, tensor in batch.items()}
            done += len(chunks)

    def loaded(
        self, split: str, chunks: Sequence[NDArray[np.int64]], trained: tuple[int, int] | None = None
    ) -> Iterator[Batch]:
        """Batches of a split, one after the other.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            chunks: Which images each batch has.
            trained: Seed and epoch of the draws, where images are changed at random to be trained on; else None.
        """
        draws = torch.Generator().manual_seed(key(trained[0], "augmentation", trained[1])) if trained else None
        for chosen in chunks:
            batch = self.read(split, chosen)
            yield batch if draws is None else self.augmented(batch, draws)

    def augmented(self, batch: Batch, draws: torch.Generator) -> Batch:
        """A training batch as it is trained on: some of the images mirrored left to right, if the data set wants it.

        Args:
            batch: As ``read`` gives it; not changed.
            draws: Where random numbers come from.
        """
        if not self.flip:
            return batch
        # Drawn for the whole batch, whichever part of it this is.
        chosen = own(torch.rand(len(batch["image"]) * world_size(), generator=draws)) < 0.5
        mirrors = {task.name: task.mirror for task in self.tasks}
        result = {}
        for name, tensor in batch.items():
            mirrored, mirror = tensor.flip(-1), mirrors.get(name)
            where = chosen.view(-1, *[1] * (tensor.ndim - 1))
            result[name] = torch.where(where, mirrored if mirror is None else mirror(mirrored), tensor)
        return result

    def losses(self, model: Callable[..., Any], batch: Batch, tasks: Sequence[str]) -> data.Losses:  # noqa: D102
        output = model(batch["image"])
        losses = {}
        for task in self._select(tasks):
            every = [predictions[task.name] for predictions in (output.predictions, *output.aux)]
            terms = [task.loss(prediction, batch[task.name]) for prediction in every]
            losses[task.name] = torch.stack(terms).sum()
        return data.Losses(losses, output.feature, output.penalty)

    def evaluate(  # noqa: D102
        self, model: nn.Module, tasks: Sequence[str], split: str, thorough: bool = True
    ) -> dict[str, dict[str, float]]:
        device = next(model.parameters()).device
        judges = {task.name: task.judge(thorough and split == "test").to(device) for task in self._select(tasks)}
        chunks = np.array_split(np.arange(self.count(split)), -(-self.count(split) // self.batch_size))
        for read in self.loaded(split, turns(chunks)):
            batch = {name: tensor.to(device) for name, tensor in read.items()}
            with torch.inference_mode():
                predictions = model(batch["image"]).predictions
                for name, judge in judges.items():
                    judge.update(resized(predictions[name], batch[name].shape[-2:]), batch[name])
        found = {name: judge.compute() for name, judge in judges.items()}
        return {
            task.name: {metric.name: float(found[task.name][metric.name]) for metric in task.metrics}
            for task in self._select(tasks)
        }

    def pictures(self, model: nn.Module, tasks: Sequence[str]) -> dict[str, NDArray[np.uint8]]:  # noqa: D102
        batch = self.read("test", np.arange(min(SHOWN, self.count("test"))))
        device = next(model.parameters()).device
        with torch.inference_mode():
            predictions = model(batch["image"].to(device)).predictions
        found = {}
        for i, image in enumerate(batch["image"]):
            found[f"{i}-image"] = (255 * image.permute(1, 2, 0)).byte().numpy()
            for task in self._select(tasks):
                prediction = resized(predictions[task.name][i : i + 1], image.shape[-2:])[0].detach().cpu()
                found[f"{i}-{task.name}"] = task.picture(prediction)
                found[f"{i}-{task.name}-truth"] = task.paint(batch[task.name][i])
        return found

    def _select(self, names: Sequence[str]) -> list[DenseTask]:
        return [task for task in self.tasks if task.name in names]
