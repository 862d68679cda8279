import pytest
import torch

import isonomy
from isonomy import IsonomyError
from isonomy.loss.epochs import EpochMeans, EpochReference, require_epochs, require_rate
from tests.fixtures import close, linear, tensor

ALL = torch.arange(3)


def test_means_of_an_epoch():
    means = EpochMeans(3)
    means.add(tensor([1, 2, 3]), ALL)
    means.add(tensor([3, 7]), torch.tensor([0, 2]))
    close(means.read(), [2, 2, 5])
    means.clear()
    assert means.read().isnan().all()
    means.add(tensor([4, 4, 4]), ALL)
    close(means.read(), [4, 4, 4])


def through(reference, *epochs):
    for losses in epochs:
        reference.means.add(tensor(losses), ALL)
        reference.epoch_end("igb_v1")
    return reference


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_the_reference_is_one_epoch_kept_for_good(epoch):
    epochs = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    reference = EpochReference(3, epoch)
    now = tensor([0.5, 0.25, 0.125])
    for number, losses in enumerate(epochs):
        close(reference.of(now, ALL), now if number <= epoch else epochs[epoch])
        through(reference, losses)
    close(reference.of(now, ALL), epochs[epoch])
    close(reference.of(now[[2, 0]], torch.tensor([2, 0])), tensor(epochs[epoch])[[2, 0]])
    assert int(reference.epochs) == 4


def test_a_task_that_comes_late_gets_its_first_epoch():
    reference = EpochReference(2, 0)
    for losses, active in (([3], [0]), ([5], [0]), ([6, 8], [0, 1]), ([1, 1], [0, 1])):
        reference.means.add(tensor(losses), torch.tensor(active))
        reference.epoch_end("igb_v1")
    close(reference.values, [3, 8])


def test_no_reference_may_be_zero():
    reference = through(EpochReference(3, 1), [1, 0, 1])
    reference.means.add(tensor([1, 1, 0]), ALL)
    before = {name: value.clone() for name, value in reference.state_dict().items()}
    with pytest.raises(IsonomyError, match=r"igb_v1: the losses of task number 2 \(from 0\)"):
        reference.epoch_end("igb_v1")
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("epoch", [-1, 1.0, None])
def test_epochs_are_counted_from_zero(epoch):
    require_epochs("stch", nadir_epoch=0)
    with pytest.raises(IsonomyError, match="stch: nadir_epoch="):
        require_epochs("stch", nadir_epoch=epoch)


@pytest.mark.parametrize("rate", [-1e-3, float("nan"), float("inf"), [1e-3], "1e-3"])
@pytest.mark.parametrize("method", ["dsg", "igb_v2"])
def test_a_learning_rate_is_one_number_and_a_wrong_one_changes_nothing(method, rate):
    for fine in (None, 0, 1e-3, torch.tensor(1e-3)):
        require_rate(method, fine)
    balancer = isonomy.build(method, tasks=2)
    before = {name: value.clone() for name, value in balancer.stages.named_buffers()}
    with pytest.raises(IsonomyError, match=f"{method}: learning_rate=.*get_last_lr"):
        balancer.epoch_end({"0": 0.5, "1": 0.5}, learning_rate=rate)
    for name, value in balancer.stages.named_buffers():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("method", ["dwa", "igb_v1", "igb_v2", "stch", "ldc_mtl", "dsg", "dtp", "famo"])
def test_hooks_may_be_called_in_inference_mode(method):
    options = {"normalize": "log_ratio"} if method == "ldc_mtl" else {}
    plain, inferring = (isonomy.build(method, tasks=3, **options) for _ in range(2))
    for epoch in range(6):
        for balancer, inference in ((plain, False), (inferring, True)):
            for _ in range(2):
                _, _, losses = linear(torch.eye(3), [2.0 + epoch, 0.5, 2])
                balancer(losses).backward()
                with torch.inference_mode(inference):
                    balancer.step_end(tensor([1.9 + epoch, 0.5, 1]))
            with torch.inference_mode(inference):
                balancer.epoch_end({"0": 0.1 * epoch, "1": 0.5, "2": 0.6}, learning_rate=0.1)
        torch.testing.assert_close(inferring.report.loss_weights, plain.report.loss_weights, rtol=0, atol=0)
    inferring.step_end(tensor([1.9, 0.5, 1]))
    assert not any(value.is_inference() for value in (*inferring.buffers(), *inferring.parameters()))
