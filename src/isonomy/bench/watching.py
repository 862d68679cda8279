"""Runs a training script as it is, and looks at what it balances or adds up."""

from __future__ import annotations

import functools
import os
import runpy
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from isonomy.balancer import Balancer
from isonomy.diagnostics import summands
from isonomy.diagnostics.monitor import Monitor
from isonomy.diagnostics.recording import Recording
from isonomy.errors import IsonomyError

RAISED, INTERRUPTED = 1, 130


class _EnoughError(BaseException):
    """Stops a script from inside, past what catches its errors."""


@dataclass
class Sum:
    """A place in a script where a sum of losses is backpropagated.

    Attributes:
        where: In words.
        calls: How often.
        tasks: Names of all losses that were there.
        looks: By the names of the losses, column by column.
        place: Where gradients were taken.
    """

    where: str
    calls: int = 0
    tasks: dict[str, None] = field(default_factory=dict)
    looks: list[dict[str, Any]] = field(default_factory=list)
    place: str = ""

    def add(self, found: Sequence[summands.Summand], place: str, seen: dict[str, Any]) -> None:
        """Remembers a look."""
        names = [summand.name for summand in found]
        self.place = place
        self.tasks |= dict.fromkeys(names)
        self.looks.append({"names": names, "step": self.calls, **seen})

    @property
    def recording(self) -> Recording:
        """What was seen; a loss that was not there has NaN."""
        return Recording.read([*self.tasks], [self._spread(look) for look in self.looks], place=self.place)

    def _spread(self, look: dict[str, Any]) -> dict[str, Any]:
        position = {name: number for number, name in enumerate(look["names"])}
        order = [position.get(task) for task in self.tasks]

        def row(values: Sequence[Any]) -> list[Any]:
            return [None if number is None else values[number] for number in order]

        columns = {name: row(look[name]) for name in ("losses", "loss_weights", "weights", "norms")}
        absent = [None] * len(order)
        cosines = [absent if number is None else row(look["cosines"][number]) for number in order]
        return {"step": look["step"], "cosines": cosines, **columns}


class Watch:
    """Looks on while a script runs.

    Args:
        path: The script.
        steps: Backward passes after which it is stopped.
        every: Of these, how many there are to a look.
    """

    def __init__(self, path: Path, steps: int, every: int) -> None:
        self.path, self.steps, self.every = path, steps, every
        self.monitors: list[Monitor] = []
        self.sums: dict[tuple[str, int], Sum] = {}
        self.calls = 0
        self.refusal: IsonomyError | None = None  # what stopped the script, if that is not its own fault
        self.reason: str | None = None  # why there was nothing to see in a sum
        self._scaled: tuple[Any, Any] | None = None  # what a GradScaler has made last, and the scaler
        self._within = False

    def run(self, arguments: Sequence[str]) -> int:
        """Runs the script as ``python SCRIPT ARGUMENTS`` would, until it ends or enough was seen.

        Args:
            arguments: The script's own.

        Returns:
            0; 1 if it has failed, and has said why; 130 if somebody has interrupted it.

        Raises:
            IsonomyError: Its gradients cannot be looked at.
        """
        code = 0
        with self._replaced(), _as_main(self.path, arguments):
            try:
                runpy.run_path(str(self.path), run_name="__main__")
            except _EnoughError:
                pass
            except KeyboardInterrupt:
                code = INTERRUPTED
            except SystemExit as end:
                code = RAISED if end.code else 0
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
            except BaseException as error:
                _show(error, self.path)
                code = RAISED
        if self.refusal is not None:
            raise self.refusal
        return code

    def recordings(self) -> list[tuple[str, Recording]]:
        """What was seen: of balancers, in the order in which they were made, and of sums; with what to call each."""
        balanced = [monitor.recording for monitor in self.monitors if monitor.looks]
        called = "the balancer" if len(balanced) == 1 else "balancer {}"
        numbered = [
            (f"{called.format(number)} of {self.path.name}", recording)
            for number, recording in enumerate(balanced, start=1)
        ]
        return numbered + [(each.where, each.recording) for each in self.sums.values() if each.looks]

    def nothing_seen(self) -> str:
        """Why there is nothing to judge, and the way out."""
        if self.reason is not None:
            return (
                f"{self.reason}: the doctor needs the sum of several tasks' losses, in one backward pass and with "
                "parameters that the tasks share."
            )
        if self.calls:
            return f"{self.path} calls backward on nothing that needs a gradient: run the script that trains."
        return (
            f"{self.path} never calls backward: run the script that trains, with its arguments after --; one that "
            "trains in other processes needs an isonomy.Monitor there."
        )

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        """Puts what looks on in the place of what a script calls."""
        made, backward, scale = Balancer.__init__, torch.autograd.backward, torch.amp.GradScaler.scale

        @functools.wraps(made)
        def monitored(balancer: Balancer, *arguments: Any, **named: Any) -> None:
            made(balancer, *arguments, **named)
            self.monitors.append(Monitor(balancer, self.every))

        @functools.wraps(backward)
        def watched(tensors: Any, grad_tensors: Any = None, *arguments: Any, **named: Any) -> None:
            if self._within:  # of a pass, as reentrant checkpoints do
                return backward(tensors, grad_tensors, *arguments, **named)
            self._before(tensors, grad_tensors, sys._getframe(1))
            self._within = True
            try:
                backward(tensors, grad_tensors, *arguments, **named)
            finally:
                self._within = False

        @functools.wraps(scale)
        def scaled(scaler: Any, outputs: Any) -> Any:
            result = scale(scaler, outputs)
            self._scaled = (result.grad_fn, scaler) if isinstance(result, Tensor) and scaler.is_enabled() else None
            return result

        with ExitStack() as stack:
            for owner, name, ours in (
                (Balancer, "__init__", monitored),
                (torch.autograd, "backward", watched),
                (torch.amp.GradScaler, "scale", scaled),
            ):
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, ours)
            yield

    def _before(self, tensors: Any, seeds: Any, frame: FrameType) -> None:
        """Before a backward pass: stops the script, or looks."""
        if self.calls >= self.steps or self.refusal is not None:
            raise _EnoughError
        self.calls += 1
        scaled, self._scaled = self._scaled, None
        totals = [tensors] if isinstance(tensors, Tensor) else [*tensors]
        given = [None] * len(totals) if seeds is None else [seeds] if isinstance(seeds, Tensor) else [*seeds]
        if not all(isinstance(total, Tensor) and total.grad_fn is not None for total in totals):
            return
        try:
            self._look(totals, given, [*_callers(frame)], scaled)
        except IsonomyError as error:
            self.refusal = error
            raise _EnoughError from error

    def _look(self, totals: list[Tensor], given: list[Any], frames: list[FrameType], scaled: Any) -> None:
        spot = next((frame for frame in frames if not _installed(frame)), frames[0])
        name = Path(spot.f_code.co_filename).name
        here = self.sums.setdefault((spot.f_code.co_filename, spot.f_lineno), Sum(f"line {spot.f_lineno} of {name}"))
        if here.calls % self.every == 0:
            sources = [source for frame in frames for source in summands.named(frame)]
            found = summands.take_apart(totals, given, sources)
            if not any(type(summand.edge[0]).__name__ == "_HandoverBackward" for summand in found):
                at, place = summands.meeting_place(found)
                scale = scaled[1].get_scale() if scaled is not None and scaled[0] is totals[0].grad_fn else 1.0
                if len(found) > 1 and at:
                    quiet = [tensor for source in sources for _, tensor in source.values()]
                    here.add(found, place, summands.look(found, at, float(scale), quiet))
                else:
                    fault = "a sum of losses that share no parameter" if len(found) > 1 else "not a sum of several"
                    self.reason = self.reason or f"{here.where}: there is nothing to balance, the loss is {fault}"
        here.calls += 1


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a script that lead to a call, the nearest first."""
    while frame is not None and frame.f_globals.get("__name__") != "runpy":
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in ("torch", "isonomy"):
            yield frame
        frame = frame.f_back


def _installed(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith((sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")))


@contextmanager
def _as_main(path: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Makes the process look to a script as Python does; the working directory is the user's in either case."""
    before = sys.argv, [*sys.path], sys.stdout, sys.stderr
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, os.fspath(path.resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:], sys.stdout, sys.stderr = before


def _show(error: BaseException, path: Path) -> None:
    """Prints a script's traceback, from its first line on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(path):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)  # none of one that Python cannot read
