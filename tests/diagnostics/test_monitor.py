"""Monitor: it sees what is there, changes nothing, forgets within bounds and goes on after a crash."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import isonomy
from isonomy import IsonomyError, Monitor, engine
from isonomy.diagnostics import load
from isonomy.diagnostics.recording import FILE
from tests.diagnostics.nets import TASKS, Net, recorded

LEVELS = ("features", "parameters")
METHODS = ("ew", "uw", "imtl_g", "db_mtl", "pcgrad", "graddrop", "mtadam")


@pytest.mark.parametrize(
    ("method", "at"), [(name, at) for name in METHODS for at in isonomy.build(name, TASKS).levels or LEVELS]
)
def test_it_changes_no_bit_of_a_training(method, at):
    ends = []
    for watched in (False, True):
        net, balancer = Net(), isonomy.build(method, TASKS)
        monitor = Monitor(balancer, every=2) if watched else None
        for _ in range(7):
            net.step(balancer, at)
        ends.append(tree_leaves([net.state_dict(), balancer.state_dict(), balancer.report.as_dict()]))
    assert monitor.recording.steps.tolist() == [0, 2, 4, 6]
    assert repr(ends[0]) == repr(ends[1])
    for plain, watched in zip(*ends, strict=True):
        if isinstance(plain, torch.Tensor):
            torch.testing.assert_close(watched, plain, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("method", "at"), [("imtl_g", "features"), ("imtl", "parameters"), ("db_mtl", "parameters")])
def test_a_method_that_measures_is_taken_at_its_word(method, at):
    net, balancer = Net(), isonomy.build(method, TASKS)
    monitor = Monitor(balancer, every=1)
    for _ in range(3):
        net.step(balancer, at)
        seen, report = monitor.recording, balancer.report
        assert torch.equal(seen.norms[-1], report.norms)
        assert torch.equal(seen.cosines[-1], report.cosines)
        torch.testing.assert_close(seen.alignment[-1], report.alignment)
        assert torch.equal(seen.losses[-1], report.losses)


@pytest.mark.parametrize("method", ["ew", "uw", "log", "imtl_l"])
def test_a_method_that_does_not_is_measured_at_the_feature(method):
    net, balancer = Net(), isonomy.build(method, TASKS)
    monitor = Monitor(balancer, every=1)
    losses, z = net.losses()
    expected = engine.measure([*losses.values()], z)
    balancer(losses, shared=z).backward()
    seen = monitor.recording
    assert seen.place == "the shared feature"
    torch.testing.assert_close(seen.raw_norms[0], expected.norms)
    torch.testing.assert_close(seen.cosines[0], expected.cosines)
    weighted = balancer.report.loss_weights * expected.norms
    torch.testing.assert_close(seen.parts[0], weighted)
    torch.testing.assert_close(seen.alignment[0], expected.alignment(balancer.report.loss_weights))


@pytest.mark.parametrize("at", ["parameters", None])
def test_without_a_feature_it_measures_where_the_tasks_part(at):
    net, balancer = Net(), isonomy.build("ew", TASKS)
    monitor = Monitor(balancer, every=1)
    losses, z = net.losses()
    expected = engine.measure([*losses.values()], z)
    balancer(losses, shared=net.trunk.parameters() if at else None).backward()
    assert monitor.recording.place == "the features where the tasks part"
    torch.testing.assert_close(monitor.recording.norms[0], expected.norms)
    torch.testing.assert_close(monitor.recording.cosines[0], expected.cosines)


def test_tasks_with_batches_of_their_own_are_compared_at_the_last_shared_layer():
    net, balancer = Net(), isonomy.build("ew", TASKS)
    monitor = Monitor(balancer, every=1)
    losses = {task: net.losses()[0][task] for task in TASKS}
    expected = engine.measure([*losses.values()], net.trunk[2])
    balancer(losses, shared=net.trunk).backward()
    assert monitor.recording.place == "the last shared layer"
    torch.testing.assert_close(monitor.recording.norms[0], expected.norms)


def test_parameters_may_come_from_an_iterator():
    seen = []
    for watched in (False, True):
        net, balancer = Net(), isonomy.build("imtl_g", TASKS)
        if watched:
            Monitor(balancer, every=1)
        losses, _ = net.losses()
        balancer(losses, net.trunk.parameters(), probe=net.trunk[2].parameters()).backward()
        seen.append(balancer.report.norms)
    assert torch.equal(*seen)


def test_a_probe_is_where_it_measures():
    net, balancer = Net(), isonomy.build("ew", TASKS)
    monitor = Monitor(balancer, every=1)
    losses, z = net.losses()
    expected = engine.measure([*losses.values()], net.trunk[0])
    balancer(losses, shared=z, probe=net.trunk[0]).backward()
    assert monitor.recording.place == "the probe"
    torch.testing.assert_close(monitor.recording.norms[0], expected.norms)


def test_tasks_that_share_no_layer_are_refused_with_the_way_out():
    balancer = isonomy.build("ew", TASKS)
    Monitor(balancer)
    losses = {task: nn.Linear(2, 1)(torch.ones(1, 2)).sum() for task in TASKS}
    with pytest.raises(IsonomyError, match="'a', 'b' and 'c' all depend on: call the balancer with shared=feature"):
        balancer(losses)


def test_errors_of_the_losses_are_the_balancers_own():
    balancer = isonomy.build("ew", TASKS)
    Monitor(balancer)
    with pytest.raises(IsonomyError, match="lacks task"):
        balancer({"a": torch.ones((), requires_grad=True)})
    with pytest.raises(IsonomyError, match="needs no gradient"):
        balancer(dict.fromkeys(TASKS, torch.ones(())))


def test_evaluation_and_steps_in_between_are_not_looked_at():
    net, balancer = Net(), isonomy.build("ew", TASKS)
    monitor = Monitor(balancer, every=3)
    balancer.eval()
    net.step(balancer)
    with torch.no_grad():
        balancer.train()(net.losses()[0])
    assert not monitor.looks
    with pytest.raises(IsonomyError, match="seen no step yet"):
        _ = monitor.recording
    for _ in range(7):
        net.step(balancer)
    assert monitor.recording.steps.tolist() == [0, 3, 6]


def test_a_look_waits_for_the_next_step_that_measures():
    net, balancer = Net(), isonomy.build("imtl_g", TASKS, update_every=4)
    monitor = Monitor(balancer, every=3)
    for _ in range(14):
        net.step(balancer)
    assert monitor.recording.steps.tolist() == [0, 4, 8, 12]
    assert not monitor.recording.norms.isnan().any()


def test_skipped_steps_are_counted():
    net, balancer = Net(), isonomy.build("imtl_g", TASKS, nonfinite="skip")
    monitor = Monitor(balancer, every=2)
    for step in range(6):
        losses, z = net.losses((float("nan") if step in (1, 2, 4) else 1.0, 1.0, 1.0))
        balancer(losses, shared=z).backward()
    assert monitor.recording.steps.tolist() == [0, 2]
    assert monitor.recording.skipped.tolist() == [0, 3]


def test_partial_labels():
    net, balancer = Net(), isonomy.build("ew", TASKS, allow_missing=True)
    monitor = Monitor(balancer, every=1)
    losses, z = net.losses()
    expected = engine.measure([losses["a"], losses["c"]], z)
    balancer({"a": losses["a"], "c": losses["c"]}, shared=z).backward()
    seen = monitor.recording
    assert seen.norms[0].isnan().tolist() == [False, True, False]
    torch.testing.assert_close(seen.norms[0, [0, 2]], expected.norms)


@pytest.mark.parametrize("method", ["ew", "imtl_g"])
def test_a_grad_scaler_does_not_show(method):
    plain, scaled = [], []
    for scaler, found in ((None, plain), (torch.amp.GradScaler("cpu", init_scale=1024.0), scaled)):
        net, balancer = Net(), isonomy.build(method, TASKS)
        monitor = Monitor(balancer, every=1)
        losses, z = net.losses()
        balancer(losses, shared=z, grad_scaler=scaler).backward()
        found.append(monitor.recording)
    torch.testing.assert_close(scaled[0].norms, plain[0].norms)


def test_memory_is_bounded_and_spans_the_whole_training():
    seen = recorded(steps=100, every=1, limit=10).recording.steps
    assert len(seen) <= 10
    assert seen[0] == 0
    assert seen[-1] >= 88
    assert len(set(seen.diff().tolist())) == 1


def test_the_file_has_every_look_and_strict_json(tmp_path):
    monitor = recorded("graddrop", steps=40, every=1, limit=4, folder=tmp_path)
    header, *looks = [
        json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / FILE).read_text().splitlines()
    ]
    assert header == {"tasks": list(TASKS), "method": "GradDrop", "place": "the shared feature"}
    assert [look["step"] for look in looks] == list(range(40))
    assert len(monitor.looks) <= 4


def resumed(folder, steps, state=None):
    net, balancer = Net(), isonomy.build("imtl_g", TASKS)
    if state is not None:
        net.load_state_dict(state[0])
        balancer.load_state_dict(state[1])
        net.draws.set_state(state[2])
    Monitor(balancer, every=2, folder=folder)
    for _ in range(steps):
        net.step(balancer)
    return net.state_dict(), balancer.state_dict(), net.draws.get_state()


def test_a_training_goes_on_where_it_was_and_its_recording_too(tmp_path):
    resumed(tmp_path / "whole", 12)
    state = resumed(tmp_path / "parts", 5)
    resumed(tmp_path / "parts", 4, copy.deepcopy(state))  # killed three looks later: what the checkpoint has not goes
    resumed(tmp_path / "parts", 7, state)
    whole, parts = load(tmp_path / "whole"), load(tmp_path / "parts")
    assert parts.steps.tolist() == [0, 2, 4, 6, 8, 10]
    assert torch.equal(parts.norms, whole.norms)
    resumed(tmp_path / "parts", 1)
    assert load(tmp_path / "parts").steps.tolist() == [0]


def test_a_balancer_that_goes_back_takes_its_monitor_with_it():
    net, balancer = Net(), isonomy.build("ew", TASKS)
    monitor = Monitor(balancer, every=2)
    state = copy.deepcopy(balancer.state_dict())
    for _ in range(9):
        net.step(balancer)
    balancer.load_state_dict(state)
    for _ in range(3):
        net.step(balancer)
    assert monitor.recording.steps.tolist() == [0, 2]


def test_numbers_go_to_any_callable():
    heard = []
    monitor = recorded("imtl", log=lambda numbers, step: heard.append((step, numbers)))
    assert [step for step, _ in heard] == [0, 5, 10, 15, 20]
    assert heard[-1][1] == monitor.balancer.report.as_dict()
    assert set(map(type, heard[0][1].values())) == {float}


def test_closed_it_looks_no_more():
    net, balancer = Net(), isonomy.build("ew", TASKS)
    monitor = Monitor(balancer, every=1)
    net.step(balancer)
    monitor.close()
    net.step(balancer)
    assert monitor.recording.steps.tolist() == [0]


def test_a_balancer_with_a_monitor_can_be_copied(tmp_path):
    monitor = recorded(folder=tmp_path)
    twin = copy.deepcopy(monitor.balancer)
    Net().step(twin)
    assert monitor.recording.steps.tolist() == [0, 5, 10, 15, 20]


def test_the_report_is_written_where_it_belongs(tmp_path):
    pytest.importorskip("matplotlib")
    monitor = recorded(folder=tmp_path / "here")
    assert monitor.save() == tmp_path / "here" / "report.html"
    assert monitor.save(tmp_path / "deep" / "other.html").read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(IsonomyError, match="path= is missing"):
        recorded().save()


def test_without_matplotlib_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("isonomy.diagnostics.monitor.find_spec", lambda name: None)
    with pytest.raises(IsonomyError, match=r"pip install 'isonomy\[plot\]'"):
        recorded(folder=tmp_path).save()


def test_bad_arguments_are_named():
    balancer = isonomy.build("ew", TASKS)
    for options, said in (({"every": 0}, "every=0"), ({"limit": 1}, "limit=1")):
        with pytest.raises(IsonomyError, match=said):
            Monitor(balancer, **options)
    with pytest.raises(IsonomyError, match="balancer= is a Linear"):
        Monitor(nn.Linear(1, 1))
    assert not balancer._forward_hooks


def test_a_folder_of_other_tasks_is_refused(tmp_path):
    recorded(folder=tmp_path)
    with pytest.raises(IsonomyError, match="has the recording of tasks 'a', 'b' and 'c'"):
        Monitor(isonomy.build("ew", ["x", "y"]), folder=tmp_path)
