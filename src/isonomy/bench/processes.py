"""Several processes that train one cell together, each on a device of its own."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from typing import NamedTuple

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from isonomy import distributed
from isonomy.bench import parts
from isonomy.bench.cell import Cell
from isonomy.errors import ElsewhereError, IsonomyError

# The processes of a cell are on one machine.
HOST = "127.0.0.1"
# Seconds that the other processes have to say what went wrong with them, once one has failed.
GRACE = 10.0

Work = Callable[[Callable[[int], None]], None]


class KilledError(Exception):
    """A process of the cell was killed."""


class _Report(NamedTuple):
    """Why a process has failed: in a line and in full, and whether the input was at fault."""

    reason: str
    trace: str
    refused: bool


class _TraceError(Exception):
    """Carries the traceback of another process to where it is printed."""


def launch(work: Work, cell: Cell, on_epoch: Callable[[int], None]) -> None:
    """Does a work in all processes of a cell at once.

    Args:
        work: Called in each of them, with what is to be called with the number of epochs done; can be pickled.
        cell: Which is trained.
        on_epoch: Called here as the first process calls it there.

    Raises:
        IsonomyError: One of them has refused its input.
        KilledError: One of them was killed.
        RuntimeError: One of them has failed otherwise.
    """
    count, device = cell.config["devices"], cell.config["device"]
    # The store finds a port that nobody has; the processes come to it.
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    queue: SimpleQueue[int | _Report] = get_context("spawn").SimpleQueue()
    running = start_processes(  # type: ignore[no-untyped-call]
        _process, (count, device, store.port, work, queue), nprocs=count, join=False, start_method="spawn"
    )
    failed: _Report | None = None
    end, over = float("inf"), False
    try:
        while not over and time.monotonic() < end:
            over = running.join(timeout=0.1)
            while not queue.empty():
                message = queue.get()
                if isinstance(message, int):
                    on_epoch(message)
                elif failed is None:
                    failed, end = message, time.monotonic() + GRACE
    except ProcessExitedException as error:
        if error.signal_name is not None and (failed is None or error.signal_name == "SIGKILL"):
            reason = f"process {error.error_index} of {count} was ended by {error.signal_name}"
            raise KilledError(f"{reason}, perhaps for want of memory") from None
        if failed is None:
            raise RuntimeError(
                f"process {error.error_index} of {count} has ended with code {error.exit_code}"
            ) from None
    finally:
        for process in running.processes:
            process.terminate()
            process.join()
    if failed is not None:
        raise (IsonomyError if failed.refused else RuntimeError)(failed.reason) from _TraceError(failed.trace)


def _process(rank: int, count: int, device: str, port: int, work: Work, queue: SimpleQueue[int | _Report]) -> None:
    """One of the processes; its errors go to the one that has started it."""
    # What Fabric asks for where somebody else has started the processes.
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    try:
        # Gloo beside NCCL, so that a few numbers on a CPU need not wait for the GPU.
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        store = TCPStore(HOST, port, is_master=False)
        if device == "cuda":
            torch.cuda.set_device(rank)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
        work(queue.put if rank == 0 else _nobody)
        dist.destroy_process_group()
    except ElsewhereError:
        pass  # the process where it was raised says what is wrong
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        queue.put(_Report(reason, traceback.format_exc(), isinstance(error, IsonomyError)))


def _nobody(done: int) -> None:
    """Hears of epochs in all processes but the first."""


def fabric(cell: Cell) -> Fabric:
    """The devices that a cell is trained on.

    Args:
        cell: Which.

    Returns:
        Launched: for all processes of the cell where this is one of them, else for one device.
    """
    device = cell.config["device"]
    if distributed.world_size() == 1:
        return Fabric(accelerator=device, devices=1)
    strategy = DDPStrategy(cluster_environment=LightningEnvironment())
    made = Fabric(accelerator=device, devices=cell.config["devices"], strategy=strategy)
    made.launch()
    return made


def share_buffers(network: nn.Module) -> None:
    """Gives every process the first one's buffers, which are those that are saved.

    Running statistics are of a process's own part of the batches.

    Args:
        network: Not wrapped.
    """
    if distributed.world_size() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def own_draws(*purpose: str | int) -> tuple[str | int, ...]:
    """What a process's own random numbers are for, such as dropout's: the first one draws as if it were alone.

    Args:
        purpose: For which all processes draw.
    """
    return (*purpose, "process", parts.rank()) if parts.rank() else purpose
