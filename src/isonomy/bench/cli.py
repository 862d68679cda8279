"""The command line: reads arguments, and turns what can go wrong into one sentence and an exit code."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import isonomy
from isonomy.bench import backbones
from isonomy.bench.architectures import ARCHITECTURES, fits
from isonomy.bench.data.roots import VARIABLE
from isonomy.bench.methods import split
from isonomy.errors import IsonomyError, unknown

FAILED_CELLS, BAD_INPUT, INTERRUPTED = 1, 2, 130


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Without the program's name; None for the process's own.

    Returns:
        The exit code: 0, 1 if a run of a sweep failed, 2 for bad input (also when it shows in a run), 130 when
        interrupted.
    """
    try:
        return int(commands.main(args=arguments, prog_name="isonomy", standalone_mode=False) or 0)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; the same command goes on from here.", err=True)
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message())
        return BAD_INPUT
    except click.ClickException as error:
        click.echo(f"Error: {' '.join(error.format_message().split())}", err=True)
        return BAD_INPUT
    except IsonomyError as error:
        click.echo(f"Error: {error}", err=True)
        return BAD_INPUT


def names(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """Names separated by commas; None if the option was not given."""
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


def methods(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """Methods separated by commas, which separate a method's options, too; None if the option was not given."""
    return None if value is None else split(value)


def scales(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, float] | None:
    """Numbers by task, ``seg=10,depth=0.5``; None if the option was not given."""
    try:
        pairs = [pair.split("=") for pair in names(context, parameter, value) or []]
        return None if value is None else {task: float(scale) for task, scale in pairs}
    except ValueError:
        raise IsonomyError(f"--scales is {value!r}: write something like seg=10,depth=0.5.") from None


def data_root(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Remembers where files are, for this process and those that it starts."""
    if value is not None:
        os.environ[VARIABLE] = str(Path(value).absolute())


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(isonomy.__version__, message="isonomy %(version)s")
def commands() -> None:
    """Balanced multi-task learning: compare methods, list what there is, rebuild a report."""


@commands.command()
@click.option("--data", help="Data set, digits by default, with options if wanted: rooms:size=96x128,train=960.")
@click.option("--data-root", callback=data_root, expose_value=False, help="Folder with the files of data sets.")
@click.option(
    "--methods",
    callback=methods,
    help="Methods or hybrids separated by commas, with options if wanted: ew,log+pcgrad,db_mtl:beta=0.5; or all.",
)
@click.option("--seeds", type=int, help="How many seeds, from 0. Default 3.")
@click.option("--epochs", type=int, help="Budget of every run. Default, as for the next six: the data set's.")
@click.option("--learning-rate", type=float, help="In the first epoch.")
@click.option("--schedule", help="constant, linear, poly, step:every=100,factor=0.5 or plateau.")
@click.option("--optimizer", help="adam or adamw.")
@click.option("--weight-decay", type=float, help="Of the optimiser.")
@click.option("--clip", type=float, help="Largest norm of all gradients together; 0 for none.")
@click.option("--select", help="Which model counts: last, mean_last_10, best_val or best_test (which flatters).")
@click.option("--scales", callback=scales, help="Other units for losses: seg=10 multiplies that of seg by ten.")
@click.option("--out", help="Folder of the sweep. Default: runs/ and data, architecture and backbone, as far as given.")
@click.option(
    "--level",
    help="Where all methods measure gradients: features, parameters or last_layer. Default: as in their papers.",
)
@click.option("--device", help="cpu (default), cuda or auto.")
@click.option("--tasks", callback=names, help="Some of the data set's tasks. Default: all.")
@click.option("--architecture", help="Network. Default: the data set's first.")
@click.option("--backbone", help="Encoder. Default: the first of the data set's that fits.")
@click.option("--head", help="Heads on the backbone's maps. Default: the backbone's.")
@click.option("--weights", help="File with the backbone's pretrained weights. Default: random ones.")
@click.option("--baseline", help="Single-task networks: matched (same architecture, default) or plain (one encoder).")
@click.option("--trials", type=int, help="Trainings a grid_search may make for every seed. Default 12.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Runs at a time, each on one thread.")
@click.option("--resume", is_flag=True, help="Go on with the sweep stored in --out; no other flag is needed.")
def compare(out: str | None, jobs: int, resume: bool, **flags: Any) -> int:
    """Train single-task baselines and methods on the same seeds, and report who wins.

    Kill it anywhere and start the same command again: it goes on from the last epoch. More methods or seeds may be
    added to a finished sweep.
    """
    from rich.console import Console  # noqa: PLC0415 - `isonomy list` should not wait for it, nor for Lightning

    from isonomy.bench.compare import compare as run_comparison  # noqa: PLC0415

    if jobs < 1:
        raise IsonomyError(f"--jobs is {jobs}: it must be at least 1.")
    if out == "":
        raise IsonomyError("--out is empty: name a folder.")
    named = "-".join(filter(None, [flags["data"] or "digits", flags["architecture"], flags["backbone"]]))
    folder = Path(out) if out else Path("runs") / re.sub(r"[^\w=.-]+", "-", named)
    # A pipe is not cut to the width of a terminal that is not there.
    console = Console(width=None if sys.stdout.isatty() else 160)
    failures = run_comparison(flags, folder, jobs, resume, console)
    if all(failure.refused for failure in failures):
        return BAD_INPUT if failures else 0
    return FAILED_CELLS


@commands.command("list")
@click.argument("what", metavar="[methods|data|architectures|backbones]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(what: str, as_json: bool) -> None:
    """List methods, data sets, architectures or backbones."""
    kinds = {"methods": _methods, "data": _data, "architectures": _architectures, "backbones": _backbones}
    if what not in kinds:
        raise unknown("list", what, kinds)
    entries = kinds[what]()
    if as_json:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    width = max(len(entry["name"]) for entry in entries)
    for entry in entries:
        click.echo(f"{entry['name']:<{width}}  {entry['summary']}")


def _methods() -> list[dict[str, Any]]:
    return [
        {
            "name": method.name,
            "title": method.title,
            "kind": method.kind,
            "paper": method.paper,
            "year": method.year,
            "options": {
                name: None if value is inspect.Parameter.empty else value for name, value in method.options.items()
            },
            "levels": method.levels,
            "needs": method.needs,
            "summary": method.summary,
        }
        for method in isonomy.methods("*")
    ]


def _data() -> list[dict[str, Any]]:
    from isonomy.bench import data  # noqa: PLC0415

    return [
        {
            "name": problem.name,
            "version": problem.version,
            "tasks": {
                task.name: {metric.name: "up" if metric.up else "down" for metric in task.metrics}
                for task in problem.tasks
            },
            "architectures": problem.architectures,
            "backbones": problem.backbones,
            "levels": problem.levels,
            "options": {name: getattr(problem, name) for name in getattr(problem, "options", ())},
            "recipe": asdict(problem.recipe),
            "summary": problem.summary,
        }
        for problem in map(data.load, data.NAMES)
    ]


def _architectures() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "levels": entry.levels,
            "backbones": [each for each in backbones.CATALOGUE if fits(name, each)] if entry.network else [],
            "summary": entry.summary,
        }
        for name, entry in ARCHITECTURES.items()
    ]


def _backbones() -> list[dict[str, Any]]:
    return [
        {"name": name, "head": entry.head, "multiple": entry.multiple, "summary": entry.summary}
        for name, entry in backbones.CATALOGUE.items()
    ]


@commands.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--picture", type=click.Path(path_type=Path), help="Also save the first figure here (.svg, .png, .pdf).")
def report(folder: Path, picture: Path | None) -> None:
    """Rebuild results.csv, summary.csv and report.html of a sweep from its run folders."""
    from isonomy.bench import plan, records, results  # noqa: PLC0415
    from isonomy.bench.compare import write  # noqa: PLC0415
    from isonomy.bench.report import require_picture, save_picture  # noqa: PLC0415

    plan.survey(folder, plan.cells(plan.read(folder)))
    records.require_writable(folder)
    if picture is not None:
        require_picture(picture)
    found = write(folder)
    click.echo(folder / results.REPORT)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        save_picture(found, picture)
        click.echo(picture)


@commands.group("data")
def data_() -> None:
    """Look after your own files of data sets."""


@data_.command("check")
@click.argument("name")
@click.argument("folder", callback=data_root, expose_value=False)
@click.option("--picture", type=click.Path(path_type=Path), help="Sheet of samples. Default: NAME-samples.png.")
@click.option("--limit", type=int, help="How many samples of every split to look at. Default: all.")
def check(name: str, picture: Path | None, limit: int | None) -> int:
    """Read all files of data set NAME in FOLDER: how many, their ranges, which are damaged, what they look like."""
    from isonomy.bench.data import check, sheet  # noqa: PLC0415

    problem = check.opened(name)
    picture = sheet.require(picture or Path(f"{problem.name.partition(':')[0]}-samples.png"))
    found = check.check(problem, limit, _watched)
    click.echo("\n".join(found.lines()))
    if sheet.save(problem, picture):
        click.echo(picture)
    return BAD_INPUT if found.damaged else 0


def _watched(items: Sequence[Any]) -> Iterator[Any]:
    with click.progressbar(items, label="reading", file=sys.stderr) as shown:
        yield from shown
