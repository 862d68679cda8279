"""The command line: reads arguments, and turns what can go wrong into one sentence and an exit code."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

import isonomy
from isonomy.bench.data.roots import VARIABLE
from isonomy.bench.listings import LISTS
from isonomy.bench.methods import split
from isonomy.errors import IsonomyError, unknown

FAILED_CELLS, BAD_INPUT, INTERRUPTED = 1, 2, 130


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Without the program's name; None for the process's own.

    Returns:
        The exit code: 0, 1 if a run of a sweep or a script failed, 2 for bad input (also when it shows in a run), 130
        when interrupted.
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


def hardware(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags that say what its runs train on, and where."""
    for option in reversed(
        (
            click.option("--jobs", type=int, default=1, show_default=True, help="Runs at a time, a thread a device."),
            click.option("--device", help="cpu (default), cuda or auto."),
            click.option("--devices", type=int, help="On how many devices of a machine each run trains. Default 1."),
            click.option("--precision", help="32-true (default), bf16-mixed or 16-mixed."),
            click.option("--executor", help="Where runs are: local (default), or ray, tasks of a Ray cluster."),
            click.option("--address", help="Ray cluster to join, or auto. Default: one on this machine."),
        )
    ):
        command = option(command)
    return command


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
@click.option("--tasks", callback=names, help="Some of the data set's tasks. Default: all.")
@click.option("--architecture", help="Network. Default: the data set's first.")
@click.option("--backbone", help="Encoder. Default: the first of the data set's that fits.")
@click.option("--head", help="Heads on the backbone's maps. Default: the backbone's.")
@click.option("--weights", help="File with the backbone's pretrained weights. Default: random ones.")
@click.option("--baseline", help="Single-task networks: matched (same architecture, default) or plain (one encoder).")
@click.option("--trials", type=int, help="Trainings a grid_search may make for every seed. Default 12.")
@hardware
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


@commands.command("run")
@click.argument("name")
@click.option("--data-root", callback=data_root, expose_value=False, help="Folder with the files of data sets.")
@click.option("--weights-root", help="Folder with pretrained weights; none to start from random ones.")
@click.option("--methods", callback=methods, help="Some of the experiment's methods, by their names or the paper's.")
@click.option("--seeds", type=int, help="How many seeds, from 0. Default: the experiment's.")
@click.option("--epochs", type=int, help="Budget of every run. Default: the paper's.")
@click.option("--out", help="Folder of the experiment. Default: runs/ and its name.")
@hardware
@click.option(
    "--smoke",
    is_flag=False,
    flag_value="small",
    type=click.Choice(["small", "full"]),
    help="Instead try every run for two steps, on generated files, with small images or full ones.",
)
def run_(name: str, jobs: int, **flags: Any) -> int:
    """Run a paper's table or figure, and print what is published beside what is measured.

    NAME is one of `isonomy list experiments`, a pattern such as 'dbmtl/*', or all; followed by @mini, on embedded data
    that stand for the paper's. Start a killed one again: it goes on.
    """
    from isonomy.bench.experiments.command import execute  # noqa: PLC0415

    failed, refused = execute(name, jobs=jobs, **flags)
    if not failed:
        return 0
    return BAD_INPUT if refused else FAILED_CELLS


@commands.command("list")
@click.argument("what", metavar="[methods|data|architectures|backbones|experiments]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(what: str, as_json: bool) -> None:
    """List methods, data sets, architectures, backbones or experiments."""
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    entries = LISTS[what]()
    if as_json:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    width = max(len(entry["name"]) for entry in entries)
    for entry in entries:
        click.echo(f"{entry['name']:<{width}}  {entry['summary']}")


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


@commands.command()
@click.argument("target", metavar="SCRIPT_OR_RUN", type=click.Path(path_type=Path))
@click.argument("arguments", metavar="[-- SCRIPT ARGS...]", nargs=-1)
@click.option("--steps", default=200, show_default=True, help="Backward passes after which a script is stopped.")
@click.option("--every", default=5, show_default=True, help="Backward passes of a script between two looks.")
@click.option("--report", type=click.Path(path_type=Path), help="Also write findings and figures here, as HTML.")
def doctor(target: Path, arguments: tuple[str, ...], steps: int, every: int, report: Path | None) -> int:
    """Say in words which tasks dominate, conflict or starve, and what is the cheapest remedy.

    SCRIPT_OR_RUN is a Monitor's folder, the folder of a run, a sweep or an experiment, or a training script, which is
    run as it is, with Isonomy in it or without: losses that it adds up are taken apart again. Its numbers stay the
    same. It has to train in one process, without torchrun.

    The exit code is 0 whether something is wrong or not, 1 if the script fails, and 2 if there is nothing to judge.
    """
    from isonomy.bench.doctor import diagnose  # noqa: PLC0415

    return diagnose(target, steps, every, report, arguments)
