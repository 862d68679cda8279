"""The repair acts on a torchvision without its compiled part, and on nothing else."""

import subprocess
import sys

import pytest

from isonomy.bench import _compat
from isonomy.bench._compat import import_timm
from isonomy.errors import IsonomyError

# What torchvision's Python part does first, and what fails when its compiled part is for another torch.
NEEDS_OPERATORS = """
from torch import library

@library.register_fake("torchvision::nms")
def nms(dets, scores, threshold):
    return dets
"""
CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from isonomy.bench._compat import repair_torchvision
print(repair_torchvision(), repair_torchvision())
try:
    import torchvision
    print("imports")
except ImportError:
    print("is not there")
"""


@pytest.mark.parametrize(
    ("package", "expected"),
    [(NEEDS_OPERATORS, ["True True", "imports"]), ("", ["False False", "imports"])],
    ids=["broken", "matching"],
)
def test_repair(tmp_path, package, expected):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(package)
    run = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == expected


def test_another_error_is_not_hidden(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('something else')")
    run = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "something else" in run.stderr


def test_timm_is_imported_beside_the_repaired_torchvision():
    assert (
        import_timm().create_model("resnet18", pretrained=False, features_only=True).feature_info.channels()[-1] == 512
    )


def test_a_missing_timm_names_the_extra(monkeypatch):
    monkeypatch.setattr(_compat.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(IsonomyError, match=r"not installed: pip install 'isonomy\[bench\]'"):
        import_timm()
