"""The pages of the methods say what the code does, and their examples run."""

import functools
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import isonomy
from isonomy.catalogue import CATALOGUE
from isonomy.stages import Stage

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "methods"
DIFFERENCES = (ROOT / "docs" / "differences.md").read_text()
# Arguments of the balancer and its call, which every method has.
GENERAL = {"heads", "feature_reduce", "own_optimizer", "probe", "learning_rate"}
FORMULA = re.compile(r"\w [=∝←≤] [\wΣ‖(]|[‖Σ]")
ROW = re.compile(r"`([a-z_0-9]+\.\d+)`")


@functools.cache
def generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(name, language):
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / f"{name}.md").read_text(), flags=re.DOTALL)


def stages():
    packages = (isonomy.loss, isonomy.smoothing, isonomy.gradient)
    return [
        stage for package in packages for name in package.__all__ if issubclass(stage := getattr(package, name), Stage)
    ]


def test_pages_are_what_the_generator_writes():
    written = generator().pages()
    assert {path.name for path in PAGES.glob("*.md")} == set(written), "run `make docs`"
    for name, text in written.items():
        assert (PAGES / name).read_text() == text, f"docs/methods/{name} is out of date: run `make docs`"


@pytest.mark.parametrize("stage", stages(), ids=lambda stage: stage.__name__)
def test_every_stage_says_what_it_does_and_when_to_use_it(stage):
    text = generator().Text.of(stage.__doc__)
    assert text.use.startswith("Use it "), "no sentence starts with 'Use it'"
    assert FORMULA.search(text.formula + text.body[0]), "no formula in the first line or paragraph"


@pytest.mark.parametrize("method", isonomy.methods(), ids=lambda method: method.name)
def test_every_page_has_paper_formula_options_and_example(method):
    text = (PAGES / f"{method.name}.md").read_text()
    assert method.paper in text
    assert FORMULA.search(text.split("\n> ")[1].split("**When.**")[0]), "no formula"
    assert "**When.** Use it " in text
    for option in method.options:
        (description,) = re.findall(rf"^\| `{option}` \| .+ \| (.+) \|$", text, flags=re.MULTILINE)
        assert description.strip()
    assert len(blocks(method.name, "python") + blocks(method.name, "sh")) == 1


@pytest.mark.parametrize("name", [method.name for method in isonomy.methods() if method.kind != "procedure"])
def test_the_example_trains(name):
    torch.manual_seed(0)
    (code,) = blocks(name, "python")
    names = {}
    exec(compile(code, f"{name}.md", "exec"), names)
    assert names["balancer"].steps == 2 * 6 // names["balancer"].batches
    for module in (names["encoder"], names["heads"]):
        assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
    # Stopped tasks and vanishing aggregates aside, everything has moved.
    assert any(parameter.grad.any() for parameter in names["encoder"].parameters())


def test_examples_call_what_the_method_needs():
    for method in isonomy.methods():
        if method.kind == "procedure":
            continue
        (code,) = blocks(method.name, "python")
        assert ("step_end(" in code) == ("step_losses" in method.needs), method.name
        assert ("epoch_end(" in code) == bool({"epoch_end", "validation"} & set(method.needs)), method.name
        assert ("shared=" in code) == bool(method.levels), method.name


def test_the_command_of_a_procedure_names_what_exists():
    for method in isonomy.methods():
        if method.kind == "procedure":
            (command,) = blocks(method.name, "sh")
            assert set(re.search(r"--methods (\S+)", command)[1].split(",")) <= set(CATALOGUE)


def test_a_sentence_is_found_wherever_it_stands():
    text = generator().Text.of(
        """One line: x = 1.

        Before. Use it when x, as in
        ``y.z``, holds. After.

        Args:
            x: A number,
                of sorts.
            y: Another.

        Raises:
            IsonomyError: Never.
        """
    )
    assert text.formula == "One line: x = 1."
    assert text.use == "Use it when x, as in ``y.z``, holds."
    assert text.options == {"x": "A number, of sorts.", "y": "Another."}
    assert " ".join(text.body) == "Before. After."


def test_differences_are_of_methods_and_their_rows_are_named_once():
    sections = re.findall(r"^##+ ([a-z]\w+)$", DIFFERENCES, flags=re.MULTILINE)
    assert set(sections) <= {"general", *CATALOGUE}
    rows = re.findall(r"^\| `([a-z_0-9]+)\.(\d+)`", DIFFERENCES, flags=re.MULTILINE)
    assert len(set(rows)) == len(rows)
    for section in sections:
        body = re.split(rf"\n##+ {section}\n", DIFFERENCES)[1].split("\n##")[0]
        numbers = re.findall(r"^\| `(\w+)\.(\d+)`", body, flags=re.MULTILINE)
        assert numbers == [(section, str(number + 1)) for number in range(len(numbers))]
        widths = {line.count("|") for line in body.splitlines() if line.startswith("|")}
        assert len(widths) == 1, f"{section}: rows of different length"
        assert not body.strip().endswith("|"), f"{section}: no word on why"


def test_differences_name_options_that_exist():
    for section, options in re.findall(r"^\| `(\w+)\.\d+`.*?(`\w+=[^`]*`.*)$", DIFFERENCES, flags=re.MULTILINE):
        known = set(CATALOGUE[section].options) if section in CATALOGUE else set()
        for option in re.findall(r"`(\w+)=[^`]*`", options):
            assert option in known | GENERAL, f"{section}: {option}= is no option"


def test_peers_point_to_rows_that_exist():
    rows = set(ROW.findall(DIFFERENCES))
    for file in (ROOT / "tests" / "peers").glob("test_*.py"):
        pinned = re.findall(r'@pytest.mark.peers\("([\w.]+)"\)', file.read_text())
        assert set(pinned) <= rows
        assert pinned


def test_readme_names_every_method():
    table = (ROOT / "README.md").read_text().split("## Methods")[1].split("\n## ")[0]
    assert set(re.findall(r"`([a-z_0-9]+)`", table)) >= set(CATALOGUE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [method.name for method in isonomy.methods() if method.kind == "procedure"])
def test_the_command_of_a_procedure_runs(name, tmp_path):
    from isonomy.bench.cli import run

    (command,) = blocks(name, "sh")
    program, *arguments = command.split()
    assert program == "isonomy"
    assert run([*arguments, "--out", str(tmp_path)]) == 0
