"""The cells of a sweep as tasks of a Ray cluster: one that is running, or one on this machine for the sweep alone."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from isonomy.bench import pool, records
from isonomy.bench.attempt import Failure, Listener, Load, attempt, died, tell
from isonomy.bench.cell import Cell
from isonomy.bench.data.roots import VARIABLE
from isonomy.bench.hardware import RAY
from isonomy.bench.sweep import Execute
from isonomy.errors import IsonomyError

# How often a cell may lose its worker without an epoch in between.
TRIES = 4
POLL = 0.3  # seconds between two looks at what the cells have written
# A worker takes these from the sweep's process; what is not set there stays as the worker's machine has it.
VARIABLES = (VARIABLE, "ISONOMY_CACHE")
# No cell has anything to put into the object store.
STORE = 100 * 2**20
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # a worker that dies is the sweep's to report
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # beside anything else that runs, Ray's 15 is hardly at all
}


@contextmanager
def executor(flags: Mapping[str, Any], out: Path, jobs: int, cells: Sequence[Cell]) -> Iterator[Execute]:
    """Where the cells of a sweep run.

    Args:
        flags: ``executor`` and ``address``, where the user gave them.
        out: The sweep's folder; exists.
        jobs: Cells at a time.
        cells: What is left to do.

    Raises:
        IsonomyError: There is no such cluster, or it cannot run the cells.
    """
    if flags.get("executor") == RAY and cells:
        with started(flags.get("address"), out, jobs, cells) as execute:
            yield execute
    else:
        yield pool.run


@contextmanager
def started(address: str | None, out: Path, jobs: int, cells: Sequence[Cell]) -> Iterator[Execute]:
    """A connection to a cluster whose nodes can run the cells.

    Args:
        address: Of a running cluster, ``"auto"`` for the one of this machine; None to start one here, and end it after.
        out: The sweep's folder; exists.
        jobs: Cells at a time.
        cells: What is going to run, at least one; they all need the same.

    Raises:
        IsonomyError: Ray is not installed, there is no such cluster, none of its nodes has what a cell needs, or one of
            them does not see the folder.
    """
    if find_spec("ray") is None:
        raise IsonomyError("--executor ray needs Ray: pip install 'isonomy[cluster]', or use --executor local.")
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    ray = _ray()

    needs = _needs(cells)
    connected = ray.is_initialized()
    if not connected:
        own = {
            "num_cpus": max(jobs, 1) * int(needs["num_cpus"]),
            "object_store_memory": STORE,
            "include_dashboard": False,
        }
        try:
            ray.init(
                address=address or "local",
                logging_level=logging.CRITICAL,
                log_to_driver=False,
                **(own if address is None else {}),
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise IsonomyError(
                f"There is no Ray cluster at --address {address} ({' '.join(str(error).split())}): start one with "
                "`ray start --head`, or leave --address out."
            ) from None
    token = out / f".{uuid.uuid4().hex}"
    try:
        records.write_text(token, "")
        _require(needs, token)
        yield partial(run, needs=needs, token=token)
    finally:
        token.unlink(missing_ok=True)
        if not connected:
            ray.shutdown()


def _ray() -> Any:
    """The library, without its types, which know no options of a task; other sweeps need not spend its seconds."""
    return import_module("ray")


def _needs(cells: Sequence[Cell]) -> dict[str, float]:
    """What a task reserves: a CPU a process, and a GPU each where it trains on them."""
    config = cells[0].config
    devices = float(config["devices"])
    return {"num_cpus": devices, "num_gpus": devices if config["device"] == "cuda" else 0.0}


def _require(needs: Mapping[str, float], token: Path) -> None:
    """Refuses a cluster that would never run a cell, or a node that would write it elsewhere."""
    ray = _ray()
    on = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    for flag, resource in (("num_gpus", "GPU"), ("num_cpus", "CPU")):
        most = max(node["Resources"].get(resource, 0) for node in nodes)
        if most < needs[flag]:
            raise IsonomyError(
                f"A run needs {needs[flag]:g} {resource}s of one node, and no node of the cluster has more than "
                f"{most:g}: use fewer --devices, or another cluster."
            )
    sees = ray.remote(num_cpus=0, max_retries=1)(_sees)
    looks = {sees.options(scheduling_strategy=on(node["NodeID"], soft=False)).remote(token): node for node in nodes}
    for look, node in looks.items():
        if not ray.get(look):
            raise _unseen(token, f"Node {node['NodeManagerHostname']} of the cluster")


def _sees(token: Path) -> bool:
    return token.exists()


def _unseen(token: Path, who: str) -> IsonomyError:
    return IsonomyError(f"{who} does not see {token.parent}: choose an --out on storage that all nodes share.")


def run(
    cells: Sequence[Cell],
    out: Path,
    jobs: int,
    listener: Listener,
    load: Load,
    *,
    needs: Mapping[str, float],
    token: Path,
) -> list[Failure]:
    """Runs cells that do not wait for each other.

    A cell whose worker dies is given to another one, which goes on from its checkpoint.

    Args:
        cells: Not finished yet.
        out: The sweep's folder.
        jobs: How many at a time.
        listener: Hears of the progress.
        load: Finds data sets; must be importable by name.
        needs: What a task reserves.
        token: A file in the folder that every node has to see.

    Returns:
        The failures.
    """
    ray = _ray()

    lost = ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError
    # Tries are counted here: Ray does not know which of them got anywhere.
    task = ray.remote(**needs, max_retries=0)(_attempt)
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    failures: list[Failure] = []
    waiting, running = list(cells), dict[Any, Cell]()
    epochs: dict[str, int] = {}
    tries: dict[str, int] = {}

    def submit(cell: Cell) -> None:
        running[task.remote(cell, out.absolute(), load, variables, token)] = cell

    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                submit(waiting.pop(0))
            over, _ = ray.wait(list(running), timeout=POLL)
            for cell in running.values():
                done = _epochs(out / cell.name)
                if done is not None and done != epochs.get(cell.name):
                    tries[cell.name] = 0
                    epochs[cell.name] = done
                    listener.epoch(cell, done)
            for reference in over:
                cell = running.pop(reference)
                try:
                    failure = ray.get(reference)
                except lost:
                    failure = Failure("its process was killed, perhaps for want of memory", killed=True)
                except ray.exceptions.RayError as error:
                    failure = died(cell, out, " ".join(str(error).split()))
                if failure is None or not failure.killed:
                    failures += tell(listener, cell, failure)
                    continue
                tries[cell.name] = tries.get(cell.name, 0) + 1
                if tries[cell.name] < TRIES:
                    submit(cell)
                else:
                    reason = f"{failure.reason}, {TRIES} times without an epoch in between; try fewer --jobs"
                    failures += tell(listener, cell, died(cell, out, reason))
    except BaseException:
        for reference in running:
            ray.cancel(reference, force=True)
        raise
    return failures


def _epochs(folder: Path) -> int | None:
    """The epochs that a cell has recorded, in all of a search's trials; None when it has not begun."""
    if not (folder / records.CONFIG).exists():
        return None
    own = folder / records.METRICS
    files = [own] if own.exists() else (folder / "trials").glob(f"*/{records.METRICS}")
    return sum(file.read_bytes().count(b"\n") for file in files)


def _attempt(cell: Cell, out: Path, load: Load, variables: Mapping[str, str], token: Path) -> Failure | None:
    """In a worker."""
    if not _sees(token):  # it may have joined after the others were asked
        return Failure(str(_unseen(token, f"Node {os.uname().nodename} of the cluster")), refused=True)
    os.environ.update(variables)
    return attempt(cell, out, load)
