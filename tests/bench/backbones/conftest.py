"""Transformers small enough for tests."""

from types import SimpleNamespace

import pytest

from isonomy.bench import _compat


@pytest.fixture
def narrow(monkeypatch):
    """timm's transformers with four narrow blocks; its other networks as they are."""
    timm = _compat.import_timm()

    def create(name, **options):
        small = {"embed_dim": 48, "depth": 4, "num_heads": 3} if "vit" in name else {}
        return timm.create_model(name, **options, **small)

    monkeypatch.setattr(_compat, "import_timm", lambda: SimpleNamespace(create_model=create, models=timm.models))
