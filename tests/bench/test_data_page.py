"""docs/data.md, and the table in the README, have the layouts and options of the code."""

import re
from pathlib import Path

import pytest

from isonomy.bench.data import NAMES, load, stand_ins

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text()
README = (ROOT / "README.md").read_text()


def section(name):
    return PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def paragraph(text, title):
    return " ".join(text.partition(f"\n{title}: ")[2].partition("\n\n")[0].split())


def written(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def test_every_data_set_of_files_has_a_section_and_a_row():
    assert sorted(re.findall(r"^## (\w+)$", PAGE, flags=re.M)) == sorted(stand_ins.NAMES)
    assert set(stand_ins.NAMES) == {name for name in NAMES if hasattr(load(name), "layout")}


@pytest.mark.parametrize("name", stand_ins.NAMES)
def test_layout_source_counts_tasks_and_options_are_those_of_the_code(name):
    problem, text = load(name), section(name)
    assert f"```text\n{problem.layout.tree.strip()}\n```\n" in text
    assert problem.layout.source in " ".join(text.split())
    assert all(f"{count:,} {split}" in text for split, count in problem.images.items())
    options = dict(re.findall(r"`(\w+)=([^`]+)`", paragraph(text, "Options")))
    assert options == {option: written(getattr(problem, option)) for option in problem.options}
    if len(problem.tasks) < 12:
        tasks = dict(re.findall(r"`(\w+)` \(([^)]+)\)", paragraph(text, "Tasks")))
        assert tasks == {task.name: ", ".join(metric.name for metric in task.metrics) for task in problem.tasks}


@pytest.mark.parametrize("name", stand_ins.NAMES)
def test_the_readme_names_its_options(name):
    (row,) = (line for line in README.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1])
    assert set(re.findall(r"`(\w+)`", row.split("|")[-2])) == set(load(name).options) - {"batch_size"}
