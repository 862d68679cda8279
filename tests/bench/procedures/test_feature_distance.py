import shutil
from pathlib import Path

import pytest
import torch

from isonomy.bench import plan, records, runner
from isonomy.bench.cell import single
from isonomy.bench.procedures.url import distance
from isonomy.errors import IsonomyError
from tests.bench.tiny import cell, load, trainer

OBSERVED = {"observe": "feature_distance", "epochs": 3}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A sweep's folder with finished single-task runs."""
    out = tmp_path_factory.mktemp("alone")
    for task in "abc":
        runner.run_cell(cell(single(task), out, epochs=3), out, load)
    return out


@pytest.fixture
def out(alone, tmp_path):
    return Path(shutil.copytree(alone, tmp_path / "sweep"))


def trained(method, out, **flags):
    """The lines of a method's epochs."""
    runner.run_cell(cell(method, out, **flags), out, load)
    return records.read_metrics(out / method / "0")


@pytest.mark.parametrize("method", ["ew", "rlw", "imtl", "log+pcgrad"])
def test_the_network_is_trained_to_the_bit_as_without(out, tmp_path, method):
    lines, others = trained(method, out, **OBSERVED), trained(method, tmp_path, epochs=3)
    models = [records.load_checkpoint(folder / method / "0")["model"] for folder in (out, tmp_path)]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
    assert lines[-1]["test"] == others[-1]["test"]
    assert all(set(line["feature_distance"]) == set("abc") for line in lines)
    assert not any("feature_distance" in line for line in others)


def test_adaptors_learn_so_the_distance_of_equal_features_falls():
    one = trainer("ew", observe="feature_distance", epochs=3)
    batch = next(one.begin(0))
    # Teachers that are not trained yet are the student at its start, seen through adaptors.
    feature = one.problem.losses(one.model, batch[0], one.cell.tasks).feature
    first = {task: float(distance(one.procedure.adaptors[task](feature), feature).detach()) for task in "abc"}
    for epoch in range(2):
        one.procedure.begin(epoch)
        for _ in range(100):
            assert one.procedure.extra(batch[0], feature) is None
    # The mean begins anew in every epoch.
    mean = one.procedure.record()["feature_distance"]
    assert all(0 <= mean[task] < 0.1 * first[task] for task in "abc")
    assert all(parameter.grad is None for parameter in one.network.parameters())


def test_the_first_step_is_recorded_before_the_adaptors_have_learned():
    one = trainer("ew", observe="feature_distance", epochs=3)
    batch = next(one.begin(0))
    feature = one.problem.losses(one.model, batch[0], one.cell.tasks).feature.detach()
    expected = {task: float(distance(one.procedure.adaptors[task](feature), feature).detach()) for task in "abc"}
    one.step(batch)
    assert one.procedure.record()["feature_distance"] == pytest.approx(expected, rel=1e-6)


def test_teachers_are_the_finished_single_task_runs(alone):
    one = trainer("ew", observe="feature_distance", epochs=3)
    one.procedure.prepare(alone)
    for task, teacher in one.procedure.teachers.items():
        expected = records.load_model(alone / single(task) / "0")
        assert all(torch.equal(value, expected[name]) for name, value in teacher.state_dict().items())
        assert not teacher.training


def test_it_waits_for_single_task_runs(tmp_path):
    watched = cell("ew", tmp_path, **OBSERVED)
    assert watched.waits
    assert not cell("ew", tmp_path, epochs=3).waits
    with pytest.raises(IsonomyError, match="single_task-a/0, which has not finished"):
        runner.run_cell(watched, tmp_path, load)


class KilledError(Exception):
    pass


def test_it_resumes_where_it_was(alone, out, tmp_path):
    def kill(done):
        if done == 2:
            raise KilledError

    with pytest.raises(KilledError):
        runner.run_cell(cell("ew", out, **OBSERVED), out, load, kill)
    resumed = trained("ew", out, **OBSERVED)
    whole = trained("ew", Path(shutil.copytree(alone, tmp_path / "whole")), **OBSERVED)
    assert [line["feature_distance"] for line in resumed] == [line["feature_distance"] for line in whole]


def test_what_it_cannot_look_at_is_refused(tmp_path):
    flags = {"data": "rooms", "methods": ["ew"], "observe": "feature_distance"}
    with pytest.raises(IsonomyError, match="the one feature that all heads read, which 'mtan' has not"):
        plan.resolve(flags | {"architecture": "mtan", "backbone": "resnet_mini"}, tmp_path, False)
    with pytest.raises(IsonomyError, match="does not look at procedures: leave method 'url' out"):
        plan.resolve(flags | {"methods": ["ew", "url"]}, tmp_path, False)
    with pytest.raises(IsonomyError, match="observer 'nothing'"):
        plan.resolve(flags | {"observe": "nothing"}, tmp_path, False)


def test_timing_leaves_it_out(tmp_path):
    found = plan.resolve({"data": "tiny", "methods": ["ew", "uw"], **OBSERVED}, tmp_path, False, load)
    assert [each.config["observe"] for each in plan.timed(found, load)] == [None, None]
    observed = {each.method: each.config["observe"] for each in plan.cells(found, load)}
    assert observed == {**dict.fromkeys(map(single, "abc")), "ew": "feature_distance", "uw": "feature_distance"}
