"""The core needs torch and the standard library alone, and never the bench."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import isonomy

SOURCE = Path(isonomy.__file__).parent
OUTSIDE = {"bench", "integrations", "diagnostics"}


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module
            if node.module == "isonomy":
                yield from (f"isonomy.{alias.name}" for alias in node.names)


def core_files():
    files = SOURCE.rglob("*.py")
    return [f for f in files if f.relative_to(SOURCE).parts[0] not in OUTSIDE | {"__init__.py", "__main__.py"}]


@pytest.mark.parametrize("file", core_files(), ids=lambda f: str(f.relative_to(SOURCE)))
def test_core_imports_torch_and_the_standard_library_only(file):
    for module in imported(file):
        top, *rest = module.split(".")
        assert top in {"torch", "isonomy", "__future__"} or top in sys.stdlib_module_names, f"imports {module}"
        assert not (top == "isonomy" and rest and rest[0] in OUTSIDE), f"imports {module}"


def test_no_module_is_longer_than_350_lines():
    assert {f: n for f in SOURCE.rglob("*.py") if (n := len(f.read_text().splitlines())) > 350} == {}


def test_import_loads_no_extra():
    code = (
        "import sys; before = set(sys.modules); import torch; import isonomy; "
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for extra in (
        "sklearn",
        "matplotlib",
        "lightning_fabric",
        "torchmetrics",
        "rich",
        "click",
        "scipy",
        "pandas",
        "lightning",
        "transformers",
        "accelerate",
    ):
        assert f"'{extra}'" not in loaded


def test_at_most_twelve_names_at_the_top():
    assert len(isonomy.__all__) <= 12
    assert all(hasattr(isonomy, name) for name in isonomy.__all__)
