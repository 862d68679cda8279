"""Time and memory of a training step: Isonomy, plain summing, the floor and other people's code, in turn in one run.

``python benchmarks/step.py`` prints tables and writes benchmarks/step.csv and benchmarks/step.md, afresh whenever a
network with so many tasks is done. A peer that is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import csv
import gc
import itertools
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler, which counts memory, would announce each of its runs

import torch
from models import BATCH, workload
from peak import Memory, memory
from sides import METHODS, REFERENCE, SIDES, Contestant, contestants, references

FOLDER = Path(__file__).parent
TASKS = (3, 10, 40)
LEFT_OUT = {("conv", 40, "parameters"), ("conv", 40, "lean")}  # without a goal; minutes, unless asked for by --tasks
# Seconds for the rounds of one side of one network, and how many rounds these may be.
SECONDS, LEAST, MOST = {"features": 8.0, "parameters": 15.0, "lean": 12.0}, 3, 30
SHORT, REPEATS = 0.1, 3  # seconds below which a turn is as many steps, after one to warm up
Goals = dict[tuple[str, str], dict[int, float]]
TIME: Goals = {
    ("features", "conv"): {3: 1.02, 10: 1.02, 40: 1.02},
    ("features", "vit"): {3: 1.02, 10: 1.02, 40: 1.02},
    ("features", "mlp"): {3: 1.08, 10: 1.10, 40: 1.20},
    ("parameters", "conv"): {3: 1.02, 10: 1.02},
    ("parameters", "vit"): {3: 1.04, 10: 1.04, 40: 1.04},
    ("parameters", "mlp"): {3: 1.20, 10: 1.20, 40: 1.20},
    ("lean", "mlp"): {3: 0.90, 10: 0.70, 40: 0.55},
}
MEMORY: Goals = {("parameters", "vit"): {3: 2, 10: 9}, ("lean", "mlp"): {3: 2, 10: 3, 40: 8}}
READING = """A step is forward pass, losses, balancing and backward pass, without an optimiser. First line: seconds of a
step. The others: how many times as long as the first line of their table, in the same rounds: median (quartiles). Then
the most memory above plain summing, in copies P of the shared parameters, and what stays from step to step if anything
does. *Sum* is plain summing, *floor* one backward pass of the trunk a task and nothing else. Goals are for Isonomy, at
the numbers of tasks in their order; **bold** misses its goal."""
HEADINGS = {
    "features": "at the feature, relative to plain summing",
    "parameters": "at the parameters, relative to the floor",
    "lean": "at the parameters with little memory, relative to the floor",
}


@dataclass(frozen=True)
class Line:
    """What one contestant made of one network and number of tasks; the fields are the columns of the CSV.

    Attributes:
        model: Of the workload.
        tasks: T.
        side: What was compared.
        solver: Whose code.
        method: The method; empty for plain summing and the floor.
        rounds: How many turns it had.
        seconds: The median of a step.
        low: Quartile of the ratios to the reference in the same round.
        ratio: Their median.
        high: The other quartile.
        to_sum: The median ratio to plain summing in the same round.
        parameters: P.
        above_sum: Peak memory of a step less plain summing's, in P floats.
        peak: Peak memory of a step above what lived before it, in P floats.
        held: What stays between steps, in P floats.
        time_goal: For ``ratio``; None without one.
        memory_goal: For ``above_sum``.
    """

    model: str
    tasks: int
    side: str
    solver: str
    method: str
    rounds: int
    seconds: float
    low: float
    ratio: float
    high: float
    to_sum: float
    parameters: int
    above_sum: float
    peak: float
    held: float
    time_goal: float | None
    memory_goal: float | None


def now(device: torch.device) -> float:
    """Seconds: processor time, which other jobs hardly change; on an accelerator the clock, once it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def turn(entry: Contestant, device: torch.device, usual: float) -> float:
    """Seconds of a step; of a short one the median, warmed up, since the caches hold what the last contestant left."""
    gc.collect()
    times = []
    for _ in range(1 + REPEATS if usual < SHORT else 1):
        began = now(device)
        entry.step()
        times.append(now(device) - began)
        entry.clear()
    return median(times[1:] or times)


def race(usual: dict[Contestant, float], device: torch.device, rounds: int) -> dict[Contestant, list[float]]:
    """The times of all contestants, who take turns, so that a busy machine slows all of them alike.

    Args:
        usual: About how many seconds a step of each takes.
        device: Where the steps compute.
        rounds: How many turns each gets.
    """
    times: dict[Contestant, list[float]] = {entry: [] for entry in usual}
    for _ in range(rounds):
        for entry, taken in times.items():
            taken.append(turn(entry, device, usual[entry]))
    return times


def compare(model: str, tasks: int, side: str, arguments: argparse.Namespace, failures: dict[str, str]) -> list[Line]:
    """One table: the reference of a side, plain summing, and all who take part."""
    gc.unfreeze()
    gc.collect()
    device = torch.device(arguments.device)
    work = workload(model, tasks, device)
    known = references(work)
    found, missing = contestants(work, arguments.methods, side, arguments.alone)
    failures.update(missing)
    gc.freeze()  # else looking through all that is loaded would take longer than a step
    known["sum"].step()  # The first step ever allocates workspaces that stay.
    known["sum"].clear()
    usual: dict[Contestant, float] = {}
    memories: dict[Contestant, Memory] = {}
    for entry in [*dict.fromkeys((known["sum"], known[REFERENCE[side]])), *found]:
        try:
            # Before anything else, so that what the first step leaves behind is seen.
            memories[entry] = memory(entry.step, entry.clear, device)
            entry.clear()
            usual[entry] = turn(entry, device, SHORT)
        except Exception as error:
            if entry.ours:
                raise
            entry.clear()
            failures[f"{entry.solver} {entry.method}, {model}, T = {tasks}, {side}"] = repr(error)[:200]
    round_time = sum(time * (1 + REPEATS if time < SHORT else 1) for time in usual.values())
    rounds = arguments.rounds or min(MOST, max(LEAST, int(SECONDS[side] / round_time)))
    times = race(usual, device, rounds)
    plain, reference = times[known["sum"]], times[known[REFERENCE[side]]]
    least = memories[known["sum"]]
    return [
        line_of((model, tasks, side), entry, work.size, (taken, reference, plain), (memories[entry], least))
        for entry, taken in times.items()
    ]


def line_of(
    place: tuple[str, int, str],
    entry: Contestant,
    parameters: int,
    times: tuple[list[float], list[float], list[float]],
    memories: tuple[Memory, Memory],
) -> Line:
    """The figures of one contestant.

    Args:
        place: Model, tasks and side.
        entry: Who it is.
        parameters: P.
        times: Its own, those of its reference and those of plain summing, in the same rounds.
        memories: Its own and that of plain summing.
    """
    model, tasks, side = place
    (taken, reference, plain), (used, least) = times, memories
    ratios = [own / other for own, other in zip(taken, reference, strict=True)]
    low, ratio, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    time_goal, memory_goal = (
        table.get((side, model), {}).get(tasks) if entry.solver == "Isonomy" else None for table in (TIME, MEMORY)
    )
    return Line(
        model=model,
        tasks=tasks,
        side=side,
        solver=entry.solver,
        method=entry.method,
        rounds=len(taken),
        seconds=median(taken),
        low=low,
        ratio=ratio,
        high=high,
        to_sum=median(own / other for own, other in zip(taken, plain, strict=True)),
        parameters=parameters,
        above_sum=(used.peak - least.peak) / (4 * parameters),
        peak=used.peak / (4 * parameters),
        held=used.held / (4 * parameters),
        time_goal=time_goal,
        memory_goal=memory_goal,
    )


def write_csv(lines: Sequence[Line], path: Path) -> None:
    """Every figure, with four digits."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Line.__dataclass_fields__)
        for line in lines:
            writer.writerow([f"{x:.4g}" if isinstance(x, float) else x for x in vars(line).values()])


def cell(line: Line) -> str:
    """Time and memory as in the table."""
    pace = f"× {line.ratio:.3g} ({line.low:.3g}–{line.high:.3g})"
    if line.solver == REFERENCE[line.side]:
        pace = f"{line.seconds:.3g} s"
    elif line.time_goal is not None and line.ratio > line.time_goal:
        pace = f"**{pace}**"
    space = f"{line.above_sum:.2f} P"
    if line.memory_goal is not None and line.above_sum > line.memory_goal:
        space = f"**{space}**"
    return f"{pace}; {space}" + (f", holds {line.held:.2g} P" if line.held > 0.01 else "")


def goal(lines: Sequence[Line]) -> str:
    """The goals of a row, in the order of its cells."""
    parts = []
    for what, goals in (("time", [x.time_goal for x in lines]), ("memory", [x.memory_goal for x in lines])):
        if any(goals):
            parts.append(f"{what} ≤ " + ", ".join("–" if value is None else f"{value:.3g}" for value in goals))
    return "; ".join(parts)


def markdown(lines: Sequence[Line]) -> str:
    """A table a network and side: contestants down, numbers of tasks across."""
    parts = []
    for model, side in dict.fromkeys((line.model, line.side) for line in lines):
        group = [line for line in lines if (line.model, line.side) == (model, side)]
        cells = {(line.solver, line.method, line.tasks): line for line in group}
        tasks = sorted({line.tasks for line in group})
        title = f"{model} (P = {group[0].parameters / 1e6:.2f} million, batch {BATCH[model]}), {HEADINGS[side]}"
        parts += [f"\n**{title}**\n", "| | " + " | ".join(f"T = {t}" for t in tasks) + " | goal |"]
        parts.append("|---" * (len(tasks) + 2) + "|")
        names = list(dict.fromkeys((line.solver, line.method) for line in group))
        names.sort(key=lambda name: name[0] != REFERENCE[side])
        for name in names:
            row = [cells.get((*name, t)) for t in tasks]
            present = [line for line in row if line is not None]
            texts = ["–" if line is None else cell(line) for line in row]
            parts.append(f"| {' '.join(name).strip()} | " + " | ".join(texts) + f" | {goal(present)} |")
    return "\n".join(parts)


def report(lines: Sequence[Line], failures: dict[str, str], arguments: argparse.Namespace) -> str:
    """Writes both files and returns the text."""
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else "processor time of one thread"
    reasons = "; ".join(f"{name} ({reason})" for name, reason in failures.items()) or "nothing"
    text = f"{READING}\n\nTimes: {where}. Left out: {reasons}.\n" + markdown(lines) + "\n"
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_csv(lines, arguments.out / "step.csv")
    (arguments.out / "step.md").write_text(text)
    return text


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def some_of(allowed: Sequence[str]) -> Callable[[str], list[str]]:
        def read(text: str) -> list[str]:
            chosen = text.split(",")
            if unknown := set(chosen) - set(allowed):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {','.join(allowed)}")
            return chosen

        return read

    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    for name, allowed in (("models", tuple(BATCH)), ("methods", METHODS), ("sides", SIDES)):
        parser.add_argument(f"--{name}", type=some_of(allowed), default=list(allowed), help=f"of {','.join(allowed)}")
    parser.add_argument("--tasks", type=numbers, help="numbers of tasks; 3,10,40 by default")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--rounds", type=int, help="as many instead of as time allows")
    parser.add_argument("--quick", action="store_true", help="two rounds: whether it runs, not how fast")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for step.csv and step.md")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.rounds = 2
    return arguments


def places(arguments: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """The models, numbers of tasks and sides to run."""
    for place in itertools.product(arguments.models, arguments.tasks or TASKS, arguments.sides):
        if arguments.tasks or place not in LEFT_OUT:
            yield place


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines: list[Line] = []
    failures: dict[str, str] = {}
    text = ""
    for model, tasks, side in places(arguments):
        began = time.perf_counter()
        lines += compare(model, tasks, side, arguments, failures)
        text = report(lines, failures, arguments)
        print(f"{model}, T = {tasks}, {side}: {time.perf_counter() - began:.0f} s", flush=True)
    print(text)


if __name__ == "__main__":
    main()
