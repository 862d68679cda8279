"""What a Monitor costs: a step with one beside the same step without, in turn in one run.

``python benchmarks/monitor.py`` prints a table and writes benchmarks/monitor.md. A step that is looked at and one that
is not are timed apart, since of fifty steps one is: the cost of a step is a fiftieth of the one and the rest of the
other.
"""

from __future__ import annotations

import argparse
import functools
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from models import BATCH, Workload, workload

import isonomy

FOLDER = Path(__file__).parent
CASES = (("ew", "features"), ("ew", "parameters"), ("imtl_g", "features"), ("imtl_g", "parameters"))
EVERY, GOAL = 50, 1.0  # steps between two looks; percent of a step
SECONDS, LEAST, MOST = 12.0, 5, 60
IDLE_STEPS = 3000
READING = """A look is a step at which the monitor records and writes a line to disk; for plain summing (ew) it takes
the task gradients as well, at the feature, which it finds by itself where it is not given. Overhead: of a step, in
percent, with a look at every {every}th: (time of a look − time of a step) / {every} plus the {idle:.1f} µs that a
monitor takes at any step; the median of the rounds. Processor time of one thread. Goal: at most {goal:g} %, in **bold**
where missed."""


def step(work: Workload, balancer: isonomy.Balancer, side: str) -> None:
    """Forward pass, losses, balancing and backward pass."""
    z = work.trunk(work.x)
    balancer(work.losses(z), shared=z if side == "features" else work.trunk).backward()


def timed(run: Callable[[], None], clear: Callable[[], None]) -> float:
    """Seconds of processor time."""
    gc.collect()
    began = time.process_time()
    run()
    taken = time.process_time() - began
    clear()
    return taken


def look(model: str, tasks: int, method: str, side: str, rounds: int | None) -> tuple[float, float]:
    """Seconds of a step without a monitor, and how many more one takes that is looked at.

    Args:
        model: Of the workload.
        tasks: T.
        method: Of the balancer.
        side: Where gradients are taken.
        rounds: How many turns each has; None for as many as time allows.
    """
    work = workload(model, tasks, torch.device("cpu"))
    plain, watched = (isonomy.build(method, tasks) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        isonomy.Monitor(watched, every=1, folder=folder)
        runs = [functools.partial(step, work, balancer, side) for balancer in (plain, watched)]
        for run in runs:
            run()
            work.zero_grad()
        usual = timed(runs[0], work.zero_grad)
        turns = [
            [timed(run, work.zero_grad) for run in runs]
            for _ in range(rounds or min(MOST, max(LEAST, int(SECONDS / 2 / usual))))
        ]
    return median(turn[0] for turn in turns), median(turn[1] - turn[0] for turn in turns)


def idle(steps: int) -> float:
    """Seconds that a monitor takes at a step that it does not look at, from the smallest step there is."""
    shared = torch.ones((), requires_grad=True)
    balancers = [isonomy.build("ew", 2) for _ in range(2)]
    isonomy.Monitor(balancers[1], every=1 << 40)

    def small(balancer: isonomy.Balancer) -> None:
        balancer([shared * 1, shared * 2], shared=[shared])

    small(balancers[1])  # the first step is looked at
    times: list[list[float]] = [[], []]
    for _ in range(steps):
        for balancer, taken in zip(balancers, times, strict=True):
            began = time.perf_counter()
            small(balancer)
            taken.append(time.perf_counter() - began)
    return median(times[1]) - median(times[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds: whether it runs, not how fast")
    parser.add_argument("--models", default=",".join(BATCH), help="some of conv,mlp,vit")
    parser.add_argument("--tasks", default="3,10,40", help="numbers of tasks")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for monitor.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # else looking through all that is loaded would take longer than a step
    rest = idle(100 if arguments.quick else IDLE_STEPS)
    numbers = arguments.tasks.split(",")
    lines = [
        READING.format(every=EVERY, idle=1e6 * rest, goal=GOAL),
        "\n| | step | " + " | ".join(f"T = {tasks}" for tasks in numbers) + " |\n" + "|---" * (len(numbers) + 2) + "|",
    ]
    for model in arguments.models.split(","):
        for method, side in CASES:
            cells, times = [], []
            for tasks in numbers:
                usual, more = look(model, int(tasks), method, side, 2 if arguments.quick else None)
                percent = 100 * (more / EVERY + rest) / usual
                times.append(f"{1000 * usual:.3g}")
                cells.append(f"{percent:.2f} %" if percent <= GOAL else f"**{percent:.2f} %**")
            lines.append(f"| {model}, {method} at the {side} | {', '.join(times)} ms | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "monitor.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
