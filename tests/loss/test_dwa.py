import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import DWA
from tests.fixtures import M, close, set_up, tensor, value_of

BEFORE, LAST = [2, 1, 0.5], [1, 0.9, 0.5]


def after(*epochs, temperature: float = 2.0):
    """The stage after epochs of one batch each."""
    stage = set_up(DWA(temperature), len(epochs[0]))
    for losses in epochs:
        stage.update(tensor(losses), torch.arange(len(losses)))
        stage.epoch_end(None, None)
    return stage


def weights(*epochs, **options):
    return value_of(after(*epochs, **options), torch.ones(len(epochs[0])))[1]


def test_known_weights():
    S, w, _ = value_of(after(BEFORE, LAST), [2, 0.5, 2])
    close(w, [0.855816, 1.045295, 1.098889])
    close(S, 4.432057)


def test_two_epochs_of_equal_weights_then_their_ratio_on_a_model():
    balancer = isonomy.build("dwa", tasks=3)
    seen = []
    # Epochs of two batches: the means over them count, of the last two epochs.
    for scales in [(9, 9, 9), (2, 1, 1), (1, 0.9, 1), (1, 1, 1)]:
        for factor in (0.5, 1.5):
            m = M(scales=[factor * k for k in scales])
            m.step(balancer)
            seen.append(balancer.report.loss_weights)
        balancer.epoch_end()
    for w in seen[:4]:
        close(w, [1, 1, 1], 0)
    close(seen[4], seen[5], 0)
    close(seen[4], 3 * (tensor([2, 1, 1]) / 9 / 2).softmax(0), 1e-12)
    expected = tensor([0.855816, 1.045295, 1.098889])
    close(seen[6], expected)
    close(m.theta.grad, 1.5 * expected @ tensor([[2, 0], [0, -1], [2, 2]]))
    close(m.heads, 1.5 * expected * tensor([2, -2, 6]))


losses = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3)


@given(losses, losses, losses)
def test_weights_sum_to_the_number_of_tasks_and_ignore_scales(before, last, scales):
    w = weights(before, last)
    close(w.sum(), 3, 1e-12)
    close(weights(tensor(scales) * tensor(before), tensor(scales) * tensor(last)), w, 1e-9)


def test_equal_ratios_and_high_temperatures_make_equal_weights():
    close(weights([4, 2, 1], [2, 1, 0.5]), [1, 1, 1], 1e-12)
    close(weights(BEFORE, LAST, temperature=1e9), [1, 1, 1], 1e-8)


def test_the_slower_task_gets_more_at_any_temperature():
    w = weights([1, 1], [0.5, 0.9], temperature=0.1)
    close(w, 2 * tensor([5, 9]).softmax(0), 1e-12)


def test_zero_and_exploding_means():
    close(weights([0, 1, 1], [1, 1, 1]), [1, 1, 1], 1e-12)
    capped = weights([1e-9, 1e-3, 1], [1, 0.1, 1], temperature=1e3)
    close(capped, 3 * tensor([1, 0.1, 1e-3]).softmax(0), 1e-12)


def test_a_task_that_was_missing_for_an_epoch_counts_as_steady():
    stage = set_up(DWA(), 3)
    for epoch, present in ((BEFORE, [0, 1, 2]), (LAST, [0, 1])):
        stage.update(tensor(epoch)[present], torch.tensor(present))
        stage.epoch_end(None, None)
    close(value_of(stage, [1, 1, 1])[1], 3 * (tensor([0.5, 0.9, 1]) / 2).softmax(0), 1e-12)


def windowed(steps, window=2, tasks=3):
    """Weights at each step of a run of losses, shape (steps, tasks)."""
    stage = set_up(DWA(window=window), tasks)
    found = []
    for losses in steps:
        found.append(value_of(stage, losses)[1])
        stage.update(tensor(losses), torch.arange(tasks))
        stage.epoch_end(None, None)
    return torch.stack(found)


def test_windows_of_steps_slide_and_hold_the_current_one():
    steps = tensor([[9, 9, 9], [1, 1, 0.5], [3, 1, 0.5], [0.5, 0.8, 0.25], [1.5, 1, 0.75], [4, 4, 4]])
    w = windowed(steps)
    close(w[:3], torch.ones(3, 3), 0)
    for step in (3, 4, 5):
        before, last = steps[step - 3 : step - 1].mean(0), steps[step - 1 : step + 1].mean(0)
        close(w[step], 3 * (last / before / 2).softmax(0), 1e-12)
    # Means of (2, 1, 0.5) and (1, 0.9, 0.5), as after epochs with these.
    close(w[4], [0.855816, 1.045295, 1.098889])


def test_a_window_of_one_step_compares_with_the_step_before():
    w = windowed([[2, 1, 0.5], [1, 0.9, 0.5]], window=1)
    close(w, [[1, 1, 1], [0.855816, 1.045295, 1.098889]])


def test_windows_need_no_epochs_and_count_a_tasks_own_steps():
    balancer = isonomy.build("dwa", tasks=["a", "b"], window=1, allow_missing=True)
    assert balancer.needs == ()
    stage = balancer.stages[0]
    stage.update(tensor([2, 1]), torch.arange(2))
    stage.update(tensor([3]), torch.tensor([0]))
    # Task a fell from 3 to 1.5, task b did not move since its last step.
    close(value_of(stage, [1.5, 1])[1], 2 * tensor([0.25, 0.5]).softmax(0), 1e-12)


@pytest.mark.parametrize("window", [0, -1, 2.5])
def test_unusable_windows(window):
    with pytest.raises(isonomy.IsonomyError, match="window"):
        isonomy.build("dwa", tasks=2, window=window)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_unusable_temperatures(temperature):
    with pytest.raises(isonomy.IsonomyError, match="temperature"):
        isonomy.build("dwa", tasks=2, temperature=temperature)
