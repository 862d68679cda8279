"""What a file of an experiment says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from isonomy.bench.recipe import Recipe
from isonomy.errors import IsonomyError, unknown

TABLE, FIGURE, DRAWING, CLAIM = "table", "figure", "drawing", "claim"
KINDS = (TABLE, FIGURE, DRAWING, CLAIM)
# A method's option in a file: what it learns is learned at the rate of the panel's recipe.
MODEL_RATE = "own_lr=model"

Made = TypeVar("Made")


@dataclass(frozen=True)
class Published:
    """Where a panel's numbers stand in ``published.csv``.

    Attributes:
        dataset: As printed there.
        architecture: As printed there.
        experiments: Their names, where it is not this experiment's: a figure may draw what tables print.
    """

    dataset: str
    architecture: str
    experiments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """One sweep: a data set with a network.

    Attributes:
        name: Of its folder, unique in the experiment.
        data: The data set, with options.
        architecture: The network; None for the data set's first.
        recipe: What is other than in the data set's own recipe.
        backbone: The encoder; None where the data set brings its own.
        head: As ``isonomy compare --head``.
        level: As ``isonomy compare --level``.
        baseline: As ``isonomy compare --baseline``.
        observe: What is measured beside the training.
        tasks: Some of the data set's; None for all.
        scales: As ``isonomy compare --scales``.
        weights: The pretrained file's name without its ending; None where the paper starts from random weights, too.
        methods: As the paper prints them, and as ``isonomy compare --methods`` has them.
        published: None where the paper prints no numbers.
        unmeasured: Methods of the paper that cannot be compared here, and why.
        suffix: Of the metrics' names in ``published.csv``.
        reference: The panel whose single-task networks the overall score is relative to; None for its own.
        mini: What the panel is on the embedded data, where ``mini.toml`` does not say it; ``False`` to leave it out.
    """

    name: str
    data: str
    methods: Mapping[str, str]
    architecture: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    backbone: str | None = None
    head: str | None = None
    level: str | None = None
    baseline: str | None = None
    observe: str | None = None
    tasks: tuple[str, ...] | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    weights: str | None = None
    published: Published | None = None
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""
    reference: str | None = None
    mini: Mapping[str, Any] | bool = field(default_factory=dict)

    @property
    def flags(self) -> dict[str, Any]:
        """What ``plan.resolve`` reads, but for methods, seeds and the file of weights; None where nothing is said."""
        network = {
            name: getattr(self, name) for name in ("data", "architecture", "backbone", "head", "level", "baseline")
        }
        other = {"tasks": self.tasks, "observe": self.observe, "scales": dict(self.scales) or None}
        return {**network, **other, **self.recipe}


@dataclass(frozen=True)
class Experiment:
    """A table or figure of a paper.

    Attributes:
        name: Its file's path, such as ``"dbmtl/table1"``; on the embedded data with ``"@mini"``.
        kind: One of ``KINDS``; a drawing trains nothing.
        what: In a line.
        note: What the paper leaves open, or what is done otherwise.
        seeds: How many.
        single: How the paper prints the single-task row; None where it prints none.
        panels: In the paper's order.
        figure: The function that draws it, ``"draw"``, and its arguments.
        claim: What the paper says, as it is tried.
        check: The function that tells whether it holds.
    """

    name: str
    kind: str
    what: str
    note: str = ""
    seeds: int = 3
    single: str | None = None
    panels: tuple[Panel, ...] = ()
    figure: Mapping[str, Any] | None = None
    claim: str = ""
    check: str = ""

    @property
    def mini(self) -> bool:
        """Whether it is on the embedded data."""
        return self.name.endswith("@mini")

    def panel(self, name: str) -> Panel:
        """The panel of a name."""
        return next(panel for panel in self.panels if panel.name == name)


def experiment(name: str, found: Mapping[str, Any], sets: Mapping[str, Mapping[str, str]]) -> Experiment:
    """The experiment that a file describes.

    Args:
        name: Of the experiment.
        found: The file as TOML.
        sets: Named sets of methods.

    Raises:
        IsonomyError: The file has an entry that is unknown, missing or of another kind.
    """
    common = found.get("methods", {})
    panels = tuple(
        _panel(f"{name}, panel {number}", {"methods": common, **entry}, sets)
        for number, entry in enumerate(found.get("panels", []), 1)
    )
    made = _made(
        Experiment, name, {**{k: v for k, v in found.items() if k != "methods"}, "name": name, "panels": panels}
    )
    _require(made.kind in KINDS, name, f"kind is {made.kind!r}, which is none of {', '.join(KINDS)}")
    names = [panel.name for panel in panels]
    _require(len(set(names)) == len(names), name, "two panels have one name")
    _require(bool(panels) == (made.kind != DRAWING), name, "a drawing has no panels, everything else has some")
    for panel in panels:
        _require(panel.reference in (None, *names), name, f"there is no panel {panel.reference!r} to be a reference")
    return made


def _panel(where: str, entry: Mapping[str, Any], sets: Mapping[str, Mapping[str, str]]) -> Panel:
    given = dict(entry)
    if isinstance(given["methods"], str):
        if given["methods"] not in sets:
            raise unknown(f"set of methods of experiment {where}", given["methods"], sets)
        given["methods"] = sets[given["methods"]]
    if rate := given.get("recipe", {}).get("learning_rate"):
        given["methods"] = {
            name: ours.replace(MODEL_RATE, f"own_lr={rate:g}") for name, ours in given["methods"].items()
        }
    if "published" in given:
        published = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given["published"].items()
        }
        given["published"] = _made(Published, f"{where}, published", published)
    if "tasks" in given:
        given["tasks"] = tuple(given["tasks"])
    made = _made(Panel, where, given)
    known = {entry.name for entry in fields(Recipe)}
    for ingredient in made.recipe:
        if ingredient not in known:
            raise unknown(f"ingredient in the recipe of experiment {where}", ingredient, known)
    return made


def _made(kind: type[Made], where: str, given: Mapping[str, Any]) -> Made:
    """A dataclass of these values, all of them known and none missing."""
    of: Any = kind
    known = {entry.name: entry.default is MISSING and entry.default_factory is MISSING for entry in fields(of)}
    for key in given:
        if key not in known:
            raise unknown(f"entry of experiment {where}", key, known)
    for key, needed in known.items():
        _require(not needed or key in given, where, f"{key} is missing")
    return kind(**given)


def _require(fine: bool, where: str, reason: str) -> None:
    if not fine:
        raise IsonomyError(f"The file of experiment {where} cannot be used ({reason}): correct it.")
