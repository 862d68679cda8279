"""Monitor: looks at a balancer's steps now and then, remembers, writes down and tells."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isonomy import distributed, engine, reading
from isonomy.balancer import Balancer
from isonomy.diagnostics.findings import Finding, findings
from isonomy.diagnostics.probe import last_shared_layer
from isonomy.diagnostics.recording import FILE, Recording, as_look, read_lines, replace
from isonomy.errors import IsonomyError, listing
from isonomy.gramian import Gramian
from isonomy.report import StepReport

FEATURE = "the shared feature"
Log = Callable[[dict[str, float], int], object]


class Monitor:
    """Records a balancer's reports at every so many-th step, from where it is made on.

    Nothing in the training loop changes. Methods that take task gradients have everything that is recorded at hand.
    For the others, plain summing among them, the monitor takes the gradients itself at the steps it looks at: at the
    feature or the ``probe=`` that the balancer is called with, otherwise at the features where the tasks part, or,
    where they share parameters alone, at the last layer that all of them reach.

    Under data parallelism every process has a monitor of its own, and the first one writes and tells.

    Args:
        balancer: Whose steps are looked at.
        every: Steps between two looks. A look is put off to the next step that measures, for a balancer with
            ``update_every``.
        folder: Where looks are written, a JSON line each, and where ``save`` puts the report; None for nowhere. A
            recording that is there already goes on where the balancer does; one of a balancer that begins anew is
            replaced.
        log: Called as ``log(numbers, step)`` at each look with the numbers of ``StepReport.as_dict``.
        limit: Looks held in memory; of more, every second one is forgotten there, again and again.

    Raises:
        IsonomyError: An argument is out of range, or the folder has the recording of other tasks.

    Example:
        >>> monitor = isonomy.Monitor(balancer, folder="diagnosis")
        >>> ...  # the training loop, as it was
        >>> monitor.save()  # diagnosis/report.html
    """

    def __init__(
        self,
        balancer: Balancer,
        every: int = 50,
        *,
        folder: str | os.PathLike[str] | None = None,
        log: Log | None = None,
        limit: int = 1000,
    ) -> None:
        if not isinstance(balancer, Balancer):
            raise IsonomyError(
                f"balancer= is a {type(balancer).__name__}: pass the Balancer that the losses go through."
            )
        for name, value, least in (("every", every, 1), ("limit", limit, 2)):
            if value < least:
                raise IsonomyError(f"{name}={value}: it must be at least {least}.")
        self.balancer, self.every, self.limit, self.log = balancer, every, limit, log
        self.method = " + ".join(type(stage).__name__ for stage in balancer._stages)
        self.place = "the shared part"
        self.folder = None if folder is None else Path(folder)
        self.looks: list[dict[str, Any]] = []
        self._stride = 1
        self._fresh = True  # whether the file is still that of an earlier run
        self._next: int | None = None  # the step that is to be looked at
        self._before: int | None = None  # what the balancer had counted when the step began
        self._gramian: Gramian | None = None
        self._skipped, self._since = 0, (0, 0.0)
        if self.folder is not None and (self.folder / FILE).exists():
            header, self.looks = read_lines(self.folder / FILE)
            if header["tasks"] != list(balancer.tasks):
                raise IsonomyError(
                    f"folder={str(folder)!r} has the recording of tasks {listing(header['tasks'])}: choose another "
                    "folder, or delete it."
                )
        self._handles = (
            balancer.register_forward_pre_hook(self._begin, with_kwargs=True),
            balancer.register_forward_hook(self._end),
        )

    @property
    def recording(self) -> Recording:
        """What is held in memory.

        Raises:
            IsonomyError: Nothing was seen yet.
        """
        if not self.looks:
            raise IsonomyError("The monitor has seen no step yet: call the balancer on a batch's losses first.")
        *looks, last = self.looks
        last = last | {"skipped": (last["skipped"] or 0) + self._skipped}  # since it, after which no look may follow
        return Recording.read(self.balancer.tasks, [*looks, last], method=self.method, place=self.place)

    def findings(self) -> list[Finding]:
        """What is wrong, the most important first; empty where nothing is.

        Raises:
            IsonomyError: Nothing was seen yet.
        """
        return findings(self.recording)

    def save(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Writes the report: one HTML file with findings and figures, which needs nothing but itself.

        Args:
            path: Where; None for ``report.html`` in the monitor's folder.

        Returns:
            The path.

        Raises:
            IsonomyError: Nothing was seen yet, there is neither a path nor a folder, or matplotlib is missing.
        """
        if find_spec("matplotlib") is None:
            raise IsonomyError("The report's figures are drawn by matplotlib: pip install 'isonomy[plot]'.")
        from isonomy.diagnostics import html  # noqa: PLC0415 - only those who draw wait for it

        if path is None and self.folder is None:
            raise IsonomyError("path= is missing: say where the report goes, or give the monitor a folder=.")
        where = Path(path) if path is not None else self.folder / html.REPORT  # type: ignore[operator]
        if _first():
            where.parent.mkdir(parents=True, exist_ok=True)
            replace(where, html.render(self.recording))
        return where

    def close(self) -> None:
        """Stops looking; what was seen stays."""
        for handle in self._handles:
            handle.remove()

    @torch._compile._disable_dynamo
    def _begin(
        self, balancer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before a step: takes the gradients, if it is to be looked at and the method does not."""
        self._gramian, self._before = None, None
        steps = self.balancer.steps
        if not (balancer.training and torch.is_grad_enabled()):
            return None
        self._before = steps
        if self._next is None or steps < self._next - self.every:
            self._rewind(steps)
        if steps < self._next:  # type: ignore[operator]
            return None
        # An iterator such as model.parameters() can be gone through once only, and the balancer wants to.
        arguments = tuple(list(each) if isinstance(each, Iterator) else each for each in arguments)
        named = {name: list(each) if isinstance(each, Iterator) else each for name, each in named.items()}
        self._look(*arguments, **named)
        return arguments, named

    def _look(
        self, losses: Any, shared: Any = None, *, probe: Any = None, grad_scaler: Any = None, **others: Any
    ) -> None:
        """What ``Balancer`` is called with, seen first."""
        if self.balancer.levels:
            self.place = _place(shared, probe)
            return
        try:
            positions, values = reading.read_losses(losses, self.balancer.tasks, self.balancer.allow_missing)
        except IsonomyError:
            return  # which the balancer is about to say, on all processes
        names = [self.balancer.tasks[position] for position in positions]
        self._gramian = self._measure(values, names, shared, probe, grad_scaler)

    def _measure(
        self, losses: Sequence[Tensor], names: Sequence[str], shared: Any, probe: Any, scaler: Any
    ) -> Gramian | None:
        """The gramian of the losses where it costs little; None if one of them has no graph."""
        if not all(loss.requires_grad for loss in losses):
            return None  # which the balancer is about to say
        scale = float(scaler.get_scale()) if scaler is not None and scaler.is_enabled() else 1.0
        scaled = [loss * scale for loss in losses] if scale != 1 else losses
        self.place = _place(shared, probe)
        if probe is not None or self.place == FEATURE:
            measured = engine.measure(scaled, shared if probe is None else probe)
        elif (found := engine.measure_parting(scaled)) is not None:
            measured, self.place = found, "the features where the tasks part"
        elif at := last_shared_layer(losses):  # of tasks with batches of their own, which meet in parameters alone
            measured, self.place = engine.measure(scaled, at), "the last shared layer"
        else:
            raise IsonomyError(
                f"The monitor finds nothing that the losses of {listing(names)} all depend on: call the balancer with "
                "shared=feature, or with probe=parameters at which gradients are to be compared."
            )
        return Gramian(measured.norms / scale, measured.cosines)

    @torch._compile._disable_dynamo
    def _end(self, balancer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        """After a step: remembers its report, if it is to be looked at."""
        if self._before is None:
            return
        if self.balancer.steps == self._before:
            self._skipped += 1
            return
        if self._before < self._next:  # type: ignore[operator]
            return
        report = self.balancer.report
        if self._gramian is not None:
            report = _completed(report, self._gramian)
        elif report.gramian is None:
            return  # weights of an earlier step; the next one that measures is looked at
        self._remember(report, self._before)
        self._next = (self._before // self.every + 1) * self.every

    def _remember(self, report: StepReport, step: int) -> None:
        now = time.perf_counter()
        before, then = self._since
        seconds = (now - then) / (step - before) if then and step > before else None
        look = {"step": step, "seconds": seconds, "skipped": self._skipped, **as_look(report)}
        self._skipped, self._since = 0, (step, now)
        if (step // self.every) % self._stride == 0:
            self.looks.append(look)
        self._thin()
        if _first():
            if self.folder is not None:
                self._write(self.folder / FILE, look)
            if self.log is not None:
                self.log(report.as_dict(), step)

    def _thin(self) -> None:
        while len(self.looks) > self.limit:
            self._stride *= 2
            self.looks = self.looks[::2]

    def _write(self, file: Path, look: dict[str, Any]) -> None:
        if self._fresh:
            kept = [old for old in (read_lines(file)[1] if file.exists() else []) if old["step"] < look["step"]]
            header = {"tasks": self.balancer.tasks, "method": self.method, "place": self.place}
            file.parent.mkdir(parents=True, exist_ok=True)
            replace(file, "".join(json.dumps(line) + "\n" for line in (header, *kept, look)))
            self._fresh = False
            return
        with file.open("a") as stream:
            stream.write(json.dumps(look) + "\n")

    def _rewind(self, steps: int) -> None:
        """Begins, or goes back to where the balancer is, which may have been loaded from a checkpoint."""
        self._next = -(-steps // self.every) * self.every
        self._since, self._skipped, self._fresh = (0, 0.0), 0, True
        self.looks = [look for look in self.looks if look["step"] < steps]
        self._thin()


def _first() -> bool:
    """Whether this is the process that writes."""
    return distributed.world_size() == 1 or torch.distributed.get_rank() == 0


def _place(shared: Any, probe: Any) -> str:
    """Where a method takes gradients, in words."""
    if probe is not None:
        return "the probe"
    tensors = [shared] if isinstance(shared, Tensor) else shared if isinstance(shared, list | tuple) else []
    computed = any(isinstance(tensor, Tensor) and not tensor.is_leaf for tensor in tensors)
    return FEATURE if computed else "the shared parameters"


def _completed(report: StepReport, gramian: Gramian) -> StepReport:
    """The report of a method that takes no gradients, with those of the losses that were there."""
    active = (~report.loss_weights.isnan()).nonzero().squeeze(1)
    losses, weights = report.losses[active], report.loss_weights[active]
    return StepReport.of(report.tasks, active, losses, weights, torch.ones_like(weights), gramian.scaled(weights))
