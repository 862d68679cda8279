"""What has to hold of a step's numbers: on a CPU looked at once it is known, on a GPU read to the host all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Literal

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, listing
from isonomy.stages import Domain

NonFinite = Literal["raise", "skip", "ignore"]


class Doubts:
    """What may be wrong with a step's losses and gradients.

    Reading a number from a GPU waits for all that was launched before, so doubts gather there until they are settled.

    Args:
        names: Of the K tasks of the step.
        nonfinite: Whether numbers that are not finite raise an error, skip the step or, with everything else, are not
            looked at.
    """

    def __init__(self, names: Sequence[str], nonfinite: NonFinite) -> None:
        self.names, self.nonfinite = names, nonfinite
        self._open: list[tuple[Tensor, Callable[[list[bool]], None]]] = []
        self._fine = True

    def finite(self, what: str, fine: Tensor) -> bool:
        """Notes which losses or gradients are finite, shape (K,); False if it is known that the step is to be skipped.

        Raises:
            IsonomyError: One is not, and that is an error; now or when the doubts are settled.
        """

        def answer(bad: list[bool]) -> None:
            if self.nonfinite == "raise":
                raise IsonomyError(
                    f"The {what} of task {listing(compress(self.names, bad))} is not finite: find out why (in float16, "
                    "pass grad_scaler=), or build the balancer with nonfinite='skip' to leave such steps out."
                )
            self._fine = False

        return self._doubt(~fine, answer)

    def domain(self, values: Tensor, domain: Domain, method: str, what: str = "loss") -> None:
        """Notes which losses, shape (K,), lie outside a method's domain.

        Raises:
            IsonomyError: One does; now or when the doubts are settled.
        """

        def answer(bad: list[bool]) -> None:
            index = bad.index(True)
            wanted = "a loss of 0 or more" if domain == "nonnegative" else "a positive loss"
            raise IsonomyError(
                f"The {what} of task {self.names[index]!r} is {float(values[index]):.6g}, and {method} needs {wanted}: "
                "add a constant that bounds it below, or choose a method without a logarithm or ratio of losses."
            )

        if domain != "any":
            self._doubt(values < 0 if domain == "nonnegative" else values <= 0, answer)

    def _doubt(self, bad: Tensor, answer: Callable[[list[bool]], None]) -> bool:
        if self.nonfinite == "ignore":
            return True
        self._open.append((bad, answer))
        return bad.device.type != "cpu" or self.settle()

    def settle(self) -> bool:
        """Reads what is open to the host; whether the step goes on.

        Raises:
            IsonomyError: A number makes the step impossible, the first that was noted.
        """
        opened, self._open = self._open, []
        read = torch.stack([bad for bad, _ in opened]).tolist() if opened else []
        for (_, answer), bad in zip(opened, read, strict=True):
            if self._fine and any(bad):
                answer(bad)
        return self._fine
