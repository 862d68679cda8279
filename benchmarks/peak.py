"""The memory that a step takes, as its allocator saw it: autograd's intermediates included."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.autograd.profiler import profile, record_function

MARK = "the measured step begins"


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        held: What the first step left behind, such as a history of gradients.
        peak: The most that lived at once during the second step, above what lived before it.
    """

    held: int
    peak: int


def memory(step: Callable[[], object], clear: Callable[[], object], device: torch.device) -> Memory:
    """Runs a step twice and measures the second one.

    Args:
        step: Whose second call is measured.
        clear: Called after the first, to free what does not count, such as gradients.
        device: Where the step computes.
    """
    return _on_cuda(step, clear) if device.type == "cuda" else _on_cpu(step, clear)


def _on_cuda(step: Callable[[], object], clear: Callable[[], object]) -> Memory:
    gc.collect()
    start = torch.cuda.memory_allocated()
    step()
    clear()
    gc.collect()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return Memory(held - start, torch.cuda.max_memory_allocated() - held)


def _on_cpu(step: Callable[[], object], clear: Callable[[], object]) -> Memory:
    # The profiler hears of every allocation on the thread, and of the end of those it saw begin: hence both steps.
    gc.collect()
    with profile(profile_memory=True) as profiler:
        step()
        clear()
        gc.collect()
        with record_function(MARK):
            pass
        step()
    seen = [(event.start_ns(), event.name(), event.nbytes()) for event in profiler.kineto_results.events()]
    began = next(start for start, name, _ in seen if name == MARK)
    changes = sorted((start, number, size) for number, (start, name, size) in enumerate(seen) if name == "[memory]")
    held = sum(size for start, _, size in changes if start < began)
    measured = (size for start, _, size in changes if start >= began)
    return Memory(held, max(itertools.accumulate(measured, initial=0)))
