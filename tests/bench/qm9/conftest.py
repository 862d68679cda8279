import pytest

from isonomy.bench.data.roots import VARIABLE
from tests.bench.qm9 import by_hand


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The molecules written by hand, which ``--data-root`` names, and an empty cache."""
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return by_hand.write(tmp_path / "qm9")
