"""Gloo processes, and what each of them returns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import isonomy

# A test that would wait for ever fails instead.
_PATIENCE = timedelta(seconds=60)


def run(worker: Callable[..., Any], world: int, folder: Path, *args: Any) -> list[Any]:
    """What ``worker(rank, world, *args)`` returns on each of ``world`` processes."""
    # One process imports torch for all; it is a fresh one, since a process that has run backward must not be forked.
    mp.get_context("forkserver").set_forkserver_preload(["isonomy", "torch.distributed.fsdp", worker.__module__])
    mp.start_processes(_start, (world, folder, worker, args), nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _start(rank: int, world: int, folder: Path, worker: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    # A file to meet at: a port that was free a moment ago may be taken by now.
    meet = f"file://{folder / 'meet'}"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world, timeout=_PATIENCE)
    torch.save(worker(rank, world, *args), folder / f"{rank}.pt")
    dist.destroy_process_group()


def message(call: Callable[[], Any]) -> str:
    """The error that a call raises; empty if it raises none."""
    try:
        call()
    except isonomy.IsonomyError as error:
        return str(error)
    return ""
