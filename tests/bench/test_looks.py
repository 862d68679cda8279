"""A run's folder as a recording: the numbers of its epochs, as findings and figures read them."""

import math

import pytest

from isonomy import IsonomyError
from isonomy.bench import looks, records, training
from tests.bench.tiny import load, trainer

METHODS = ["ew", "log", "imtl", "mtadam", "auto_lambda"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    for method in (*METHODS, "single_task-b"):
        training.train(trainer(method, epochs=2), out / method / "0", lambda done: None)
    return out


@pytest.mark.parametrize("method", METHODS)
def test_a_look_is_an_epoch(swept, method):
    seen, lines = looks.recording(swept / method / "0", load), records.read_metrics(swept / method / "0")
    assert (seen.tasks, seen.unit, seen.steps.tolist()) == (("a", "b", "c"), "epoch", [1, 2])
    assert seen.seconds.tolist() == [line["seconds"] for line in lines]
    for k, line in enumerate(lines):
        assert seen.losses[k].tolist() == [*line["train_losses"].values()]
        assert seen.raw_norms[k].tolist() == pytest.approx([*line["gradient_norms"].values()])
        assert seen.cosines[k].tolist() == line["cosines"]
        assert seen.norms[k].tolist() == pytest.approx(
            [line["gradient_norms"][task] * line["loss_weights"][task] for task in "abc"]
        )


def test_a_method_that_takes_no_gradients_weights_them_by_one(swept):
    for method in ("ew", "log", "auto_lambda"):
        assert looks.recording(swept / method / "0", load).weights.tolist() == [[1.0] * 3] * 2
    assert looks.recording(swept / "mtadam" / "0", load).weights.isnan().all()
    (line, _) = records.read_metrics(swept / "imtl" / "0")
    assert looks.recording(swept / "imtl" / "0", load).weights[0].tolist() == [*line["weights"].values()]


def test_alignment_of_one_look_an_epoch_is_what_was_recorded(swept):
    """Of plain summing, where means over an epoch's looks are those of the one look there is."""
    seen, lines = looks.recording(swept / "ew" / "0", load), records.read_metrics(swept / "ew" / "0")
    assert seen.alignment[0].tolist() == pytest.approx([*lines[0]["alignment"].values()], abs=1e-6)


def test_it_has_the_methods_name_and_where_it_was_measured(swept):
    seen = [looks.recording(swept / name / "0", load) for name in ("imtl", "auto_lambda", "single_task-b")]
    assert [each.method for each in seen] == ["IMTL", "Auto-λ", "EW"]
    assert seen[0].place == "the shared part"
    assert seen[2].tasks == ("b",)


def test_lines_of_an_earlier_version_lack_what_it_did_not_record(tmp_path, swept):
    config = records.read_json(swept / "ew" / "0" / records.CONFIG)
    records.write_json(tmp_path / records.CONFIG, config)
    records.write_lines(tmp_path / records.METRICS, [{"epoch": 1, "train_losses": {"a": 1.0, "b": 2.0, "c": math.nan}}])
    seen = looks.recording(tmp_path, load)
    assert seen.losses[0, :2].tolist() == [1.0, 2.0]
    assert all(each.isnan().all() for each in (seen.losses[:, 2], seen.norms, seen.cosines, seen.seconds))


def test_what_is_no_run_is_named_with_the_way_out(tmp_path, swept):
    with pytest.raises(IsonomyError, match=r"is no run's folder: config.json is missing; name one METHOD/SEED"):
        looks.recording(swept, load)
    records.write_json(tmp_path / records.CONFIG, {})
    with pytest.raises(IsonomyError, match="no finished epoch yet"):
        looks.recording(tmp_path, load)
    records.write_lines(tmp_path / records.METRICS, [{"epoch": 1, "train_losses": {}}])
    with pytest.raises(IsonomyError, match=r"is damaged \('tasks' is not as a sweep writes it\): delete it"):
        looks.recording(tmp_path, load)
