"""Stand-ins of all data sets of files: each is read by its data set, from the first sample to the last."""

from __future__ import annotations

from pathlib import Path

import pytest

from isonomy.bench import data
from isonomy.bench.data import check, stand_ins
from isonomy.bench.data.roots import VARIABLE
from isonomy.errors import IsonomyError


@pytest.mark.parametrize("name", stand_ins.NAMES)
def test_a_stand_in_has_the_layout_and_no_damaged_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    stand_ins.write(name, tmp_path / name, size=(64, 64))
    problem = check.opened(name)
    found = check.check(problem)
    assert not found.damaged
    assert tuple(found.counts) == problem.splits == ("train", "val", "test")
    assert all(found.counts.values())
    assert all(field.valid for ranges in found.ranges.values() for field in ranges.values())


def test_every_data_set_of_files_has_one():
    assert {name for name in data.NAMES if hasattr(data.load(name), "example")} == set(stand_ins.NAMES)


def test_numbers_of_samples_are_those_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    stand_ins.write("nyuv2", tmp_path / "nyuv2", size=(64, 64), counts={"train": 2, "val": 1, "test": 3})
    found = check.check(check.opened("nyuv2:split=paper"))
    assert found.counts == {"train": 3, "test": 3}


def test_a_data_set_that_there_is_not(tmp_path: Path):
    with pytest.raises(IsonomyError, match="Unknown data set with a stand-in 'nyu': did you mean 'nyuv2'"):
        stand_ins.write("nyu", tmp_path)
