import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import LDCMTL
from tests.fixtures import M, close, set_up, tensor, value_of

LOSSES = [2, 0.5, 2]


def started(first, share=None, **options):
    """The stage after a first batch, with these values of the sigmoid."""
    stage = set_up(LDCMTL(**options), len(first))
    stage.update(tensor(first), torch.arange(len(first)))
    if share is not None:
        stage.scores.data = torch.logit(tensor(share))
    return stage


def test_known_value_and_weights():
    S, w, _ = value_of(started([4, 1, 2], [0.5, 0.3, 0.2]), LOSSES)
    close(S, 0.6075)
    close(w, [0.13125, 0.27, 0.105])
    S, w, _ = value_of(started([4, 1, 2], [0.5, 0.3, 0.2], penalty=0.0), LOSSES)
    close(S, 0.6)
    close(w, [0.125, 0.3, 0.1])


def test_the_vector_learns_by_the_value_but_for_the_sum():
    share = tensor([0.5, 0.3, 0.2])
    _, _, (own,) = value_of(started([4, 1, 2], share), LOSSES)
    # Weighted losses are 0.25, 0.15 and 0.2: the first is above its neighbour, the middle one below both.
    by_share = tensor([0.5, 0.5, 1]) * (1 + 0.05 * tensor([1, -2, 1]))
    close(own, by_share * share * (1 - share), 1e-9)


@pytest.mark.parametrize(
    ("normalize", "normalized"),
    [("none", [2, 0.5, 2]), ("log_ratio", [-0.693147, -0.693147, 0]), ("ratio", [0.5, 0.5, 1])],
)
def test_normalisations(normalize, normalized):
    share, n = tensor([0.5, 0.3, 0.2]), tensor(normalized)
    S = value_of(started([4, 1, 2], share, normalize=normalize), LOSSES)[0]
    close(S, share @ n + 0.05 * (share * n).diff().abs().sum())


positive = st.lists(st.floats(1e-2, 1e2), min_size=1, max_size=5)


@given(positive, st.floats(0, 1), st.data())
def test_against_a_loop_over_tasks(losses, penalty, data):
    size = len(losses)
    numbers = st.lists(st.floats(0.05, 0.95), min_size=size, max_size=size)
    share, first = data.draw(numbers), data.draw(numbers)
    factors = [share[t] * min(first) / first[t] for t in range(size)]
    value = sum(factors[t] * losses[t] for t in range(size)) / sum(share)
    weights = [factor / sum(share) for factor in factors]
    gaps = [factors[t] * losses[t] - factors[t + 1] * losses[t + 1] for t in range(size - 1)]
    assume(all(abs(gap) > 1e-9 for gap in gaps))
    for t, gap in enumerate(gaps):
        value += penalty * abs(gap)
        weights[t] += penalty * factors[t] * (1 if gap > 0 else -1)
        weights[t + 1] -= penalty * factors[t + 1] * (1 if gap > 0 else -1)
    S, w, _ = value_of(started(first, share, penalty=penalty), losses)
    close(S, value, 1e-9)
    close(w, weights, 1e-9)


def test_on_a_model_the_vector_is_trained():
    m = M()
    balancer = isonomy.build("ldc_mtl", tasks=3, own_lr=0.01)
    (scores,) = balancer.parameters()
    m.step(balancer)
    # All first losses become 0.5, so nothing differs.
    w = tensor([0.25, 1, 0.25]) / 3
    close(m.theta.grad, w @ tensor([[2, 0], [0, -1], [2, 2]]))
    close(m.heads, w * tensor([2, -2, 6]))
    close(scores, [0.99, 0.99, 0.99])


def test_learning_pulls_weighted_losses_together():
    balancer = isonomy.build("ldc_mtl", tasks=2, normalize="none", penalty=1.0, own_lr=0.05)
    (scores,) = balancer.parameters()
    losses = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.0, 4.0)]
    gaps = []
    for _ in range(30):
        weighted = scores.sigmoid() * tensor([1, 4])
        gaps.append(float((weighted[1] - weighted[0]).abs()))
        balancer(losses)
    assert gaps[-1] < 0.3 * gaps[0]


def test_first_losses():
    stage = started([4, 1, 2])
    stage.update(tensor([9, 9, 9]), torch.arange(3))
    stage.epoch_end(None, None)
    close(stage.first, [4, 1, 2], 0)
    stage = started([4, 1, 2], normalize="log_ratio")
    stage.update(tensor([9, 9, 9]), torch.arange(3))
    close(stage.first, [4, 1, 2], 0)
    stage.epoch_end(None, None)
    stage.update(tensor([9, 9, 9]), torch.arange(3))
    close(stage.first, [9, 9, 9], 0)


def test_a_task_that_comes_late_has_its_own_first_loss():
    stage = set_up(LDCMTL(penalty=0.0))
    stage.update(tensor([4, 2]), torch.tensor([0, 2]))
    close(stage.first[[0, 2]], [4, 2], 0)
    # The smallest first loss is now task 1's, of this batch.
    close(value_of(stage, LOSSES)[1] * 3, tensor([0.5 / 4, 1, 0.5 / 2]), 1e-12)


def test_one_task_is_plain_training():
    stage = started([4], [0.3])
    S, w, _ = value_of(stage, [2])
    close(S, 2)
    close(w, [1])


def test_needs():
    assert isonomy.build("ldc_mtl", tasks=2).needs == ()
    assert isonomy.build("ldc_mtl", tasks=2, normalize="log_ratio").needs == ("epoch_end",)


def test_a_first_loss_of_zero_is_refused_and_a_later_one_is_not():
    balancer = isonomy.build("ldc_mtl", tasks=3)
    m = M(scales=(1, 0, 1))
    with pytest.raises(isonomy.IsonomyError, match=r"ldc_mtl: the first loss of task number 1 \(from 0\) is 0"):
        m.step(balancer)
    assert balancer.stages[0].first.isnan().all()
    M().step(balancer)
    m.step(balancer)
    assert balancer.report.loss_weights.isfinite().all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"penalty": -0.1}, "penalty=-0.1"),
        ({"penalty": float("inf")}, "penalty=inf"),
        ({"normalize": "log"}, "log_ratio"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        isonomy.build("ldc_mtl", tasks=2, **options)
