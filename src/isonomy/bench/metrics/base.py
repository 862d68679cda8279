"""What every metric is built from: sums, and a look at what it is given."""

from __future__ import annotations

import torch
from torch import Tensor

from isonomy.bench._compat import repair_torchvision
from isonomy.errors import IsonomyError

repair_torchvision()

from torchmetrics import Metric  # noqa: E402 - the repair comes before

PADDING = 255  # the label of what is not there, in masks of 0 and 1


class Sums(Metric):
    """A metric that is a function of sums over the whole set.

    So neither the size of the batches nor the number of processes changes it. Sums are float64 or int64: counts are
    exact, and pixels of hundreds of images lose nothing.
    """

    full_state_update = False

    def add_sum(self, name: str, *shape: int, dtype: torch.dtype = torch.int64) -> None:
        """Declares a sum that starts at zero, is reset by ``reset`` and added up over processes.

        Args:
            name: Of the attribute.
            shape: Of the tensor.
            dtype: int64 for counts, else float64.
        """
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def error(self, message: str) -> IsonomyError:
        """An error that names the metric.

        Args:
            message: What is wrong, and the way out.
        """
        return IsonomyError(f"{type(self).__name__}: {message}")

    def check(self, prediction: Tensor, target: Tensor, expected: tuple[int, ...]) -> None:
        """Refuses a prediction that cannot be judged, before any sum is touched.

        Args:
            prediction: Any shape, floating.
            target: Of the metric's shape.
            expected: The shape that the prediction has to have for this target.

        Raises:
            IsonomyError: The prediction has another shape, is not floating or not finite.
        """
        if tuple(prediction.shape) != expected:
            raise self.error(
                f"a target of shape {tuple(target.shape)} wants a prediction of shape {expected}, "
                f"not {tuple(prediction.shape)}: resize it to the labels first."
            )
        if not prediction.is_floating_point():
            raise self.error(f"predictions have to be floating, not {prediction.dtype}: pass values or logits.")
        if not prediction.isfinite().all():
            raise self.error("a prediction is not finite: the network has diverged, or its output overflows.")

    def check_values(self, prediction: Tensor, target: Tensor, *shape: int | str) -> None:
        """Refuses values that cannot be compared one by one.

        Args:
            prediction: Of the target's shape.
            target: Floating.
            shape: Of the target, a number where it is fixed and a letter where it is not.

        Raises:
            IsonomyError: As ``check``; the target is not floating, or has another shape.
        """
        same = target.dim() == len(shape)
        if not same or any(
            isinstance(want, int) and have != want for have, want in zip(target.shape, shape, strict=True)
        ):
            wanted = ", ".join(map(str, shape))
            raise self.error(f"the target's shape has to be ({wanted}), not {tuple(target.shape)}.")
        if not target.is_floating_point():
            raise self.error(f"the target has to be floating, not {target.dtype}.")
        self.check(prediction, target, tuple(target.shape))

    def check_labels(self, target: Tensor, dimensions: int, allowed: tuple[int, ...] | None = None) -> None:
        """Refuses labels that are none.

        Args:
            target: Integer or boolean labels.
            dimensions: How many the metric's targets have.
            allowed: The values that may occur; None for any.

        Raises:
            IsonomyError: The target is floating, has another number of dimensions, or other values.
        """
        if target.dim() != dimensions or target.is_floating_point():
            raise self.error(
                f"the target has to be integers in {dimensions} dimensions, not {target.dtype} in {target.dim()}."
            )
        if allowed is not None and not torch.isin(target.long(), torch.tensor(allowed, device=target.device)).all():
            raise self.error(f"the target may hold the values {', '.join(map(str, allowed))} alone.")
