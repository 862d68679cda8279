"""Recordings: what they derive agrees with the gradients themselves, and what is on disk comes back."""

import json
import math

import pytest
import torch

import isonomy
from isonomy.diagnostics import Recording, load
from isonomy.diagnostics.recording import FILE, as_look
from isonomy.report import StepReport
from tests.diagnostics.nets import TASKS, recorded
from tests.fixtures import gramian_of, tensor

J = tensor([[3.0, 0, 1], [-1, 2, 0], [0.5, 1, -2]])
LOSS_WEIGHTS, WEIGHTS = tensor([2.0, 0.5, 1.0]), tensor([1.0, 3.0, -0.5])


def report(J=J, tasks=TASKS, weights=WEIGHTS):
    balanced = J * LOSS_WEIGHTS[: len(J), None]
    return StepReport(tuple(tasks), tensor(range(len(J))), LOSS_WEIGHTS[: len(J)], weights, gramian_of(balanced))


def test_everything_derived_equals_brute_force_on_the_gradients():
    seen = Recording.of([report()])
    parts = WEIGHTS[:, None] * LOSS_WEIGHTS[:, None] * J
    aggregate = parts.sum(0)
    expected = {
        "raw_norms": J.norm(dim=1),
        "parts": parts.norm(dim=1),
        "dots": J @ J.T,
        "alignment": J @ aggregate / J.norm(dim=1) / aggregate.norm(),
        "shares": parts @ aggregate / (aggregate @ aggregate),
        "conflicts": tensor([float((J @ J.T)[i, j] < 0) for i, j in ((0, 1), (0, 2), (1, 2))]).mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(seen, name)[0], value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(seen.alignment[0], report().alignment)
    assert seen.shares.sum() == pytest.approx(1)


def test_weights_below_zero_do_not_turn_inner_products():
    signs = tensor([1.0, -1.0, 1.0])
    seen = Recording.of(
        [StepReport(TASKS, signs, LOSS_WEIGHTS * signs, WEIGHTS, gramian_of((LOSS_WEIGHTS * signs)[:, None] * J))]
    )
    torch.testing.assert_close(seen.dots[0], J @ J.T)


def test_a_task_without_a_loss_is_nan_and_the_others_are_as_without_it():
    active = torch.tensor([0, 2])
    present = gramian_of((J * LOSS_WEIGHTS[:, None])[active])
    partial = StepReport.of(TASKS, active, tensor([0.0, 2]), LOSS_WEIGHTS[active], WEIGHTS[active], present)
    seen = Recording.of([report(), partial])
    small = Recording.of([StepReport(("a", "c"), tensor([0.0, 2]), LOSS_WEIGHTS[active], WEIGHTS[active], present)])
    for name in ("raw_norms", "parts", "alignment", "shares"):
        assert getattr(seen, name)[1, 1].isnan()
        torch.testing.assert_close(getattr(seen, name)[1, active], getattr(small, name)[0])
        assert not getattr(seen, name)[0].isnan().any()
    assert seen.conflicts.tolist() == [2 / 3, float(small.conflicts)]


def test_zero_gradients_align_with_nothing():
    seen = Recording.of([report(tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]))])
    assert seen.alignment[0, 0] == 0
    assert seen.shares[0, 0] == 0
    nothing = Recording.of([report(torch.zeros(3, 3, dtype=torch.float64))])
    assert nothing.alignment.tolist() == [[0, 0, 0]]


def test_a_method_without_weights_has_no_parts():
    seen = Recording.of([report(weights=None)])
    assert seen.parts.isnan().all()
    assert seen.alignment.isnan().all()
    assert seen.shares.isnan().all()
    assert not seen.dots.isnan().any()


def test_a_look_holds_the_report_in_plain_numbers():
    look = json.loads(json.dumps(as_look(report())))
    assert look["weights"] == WEIGHTS.tolist()
    torch.testing.assert_close(tensor(look["cosines"]), report().cosines)
    assert as_look(report(weights=None)).get("weights") is None
    assert as_look(isonomy.diagnostics.probe(torch.nn.Linear(1, 1), _losses())).keys() == look.keys()


def _losses():
    return lambda model: {"a": model(torch.ones(1, 1)).sum(), "b": model(-torch.ones(1, 1)).sum()}


def test_what_is_on_disk_comes_back(tmp_path):
    monitor = recorded("imtl", folder=tmp_path)
    seen, back = monitor.recording, load(tmp_path)
    assert (back.tasks, back.method, back.place) == (seen.tasks, seen.method, seen.place)
    for name in ("steps", "losses", "loss_weights", "weights", "norms", "cosines", "skipped"):
        assert torch.equal(getattr(back, name), getattr(seen, name))
    assert torch.equal(load(tmp_path / FILE).seconds.nan_to_num(), seen.seconds.nan_to_num())
    assert math.isnan(seen.seconds[0])
    assert (seen.seconds[1:] > 0).all()


def test_a_line_that_a_crash_has_cut_off_is_left_out(tmp_path):
    recorded(folder=tmp_path)
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text[:-20])
    assert load(tmp_path).steps.tolist() == [0, 5, 10, 15]


HEADER = '{"tasks": ["a"], "method": "m", "place": "p"}\n'


@pytest.mark.parametrize("text", ["", "{}\n", "no\nlines\n", HEADER + '{"step": "x"}\n', "[1]\n[2]\n"])
def test_what_is_no_recording_is_refused(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(isonomy.IsonomyError, match="not a Monitor's recording"):
        load(tmp_path)
    with pytest.raises(isonomy.IsonomyError, match="cannot be read"):
        load(tmp_path / "nowhere")
