import pytest
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from tests.fixtures import A, B, E, M, aggregate, close, jacobians, tensor, weights


@pytest.mark.parametrize(
    ("J", "c", "w"),
    [
        (A, 0.5, [1.059017, 0.5]),
        (B, 0.4, [0.663299, 0.5]),
        (B, 0.5, [0.704124, 0.5]),
        (E, 0.5, [0.333333, 0.569036, 0.333333]),
    ],
)
def test_known_weights(J, c, w):
    close(weights("cagrad", J, c=c, rescale=0), w)
    close(aggregate("cagrad", J, c=c, rescale=0), tensor(w) @ tensor(J), 1e-5)


@pytest.mark.parametrize(
    ("J", "options", "d"),
    [
        (A, {"rescale": 0}, [1.559017, 0.5]),
        (B, {"rescale": 0}, [0.183503, 1.204124, 1.204124]),
        (B, {}, [0.146803, 0.963299, 0.963299]),
        (B, {"rescale": 2}, [0.183503 / 1.5, 1.204124 / 1.5, 1.204124 / 1.5]),
        (E, {"rescale": 0}, [0.430964, -0.097631, 0.569036]),
    ],
)
def test_known_directions(J, options, d):
    close(aggregate("cagrad", J, **options), d)


def test_a_small_radius_may_leave_a_conflict():
    close(tensor(E) @ aggregate("cagrad", E, c=0.4, rescale=0), [0.811438, -0.100981, 0.912419])


@given(jacobians())
def test_radius_0_gives_the_mean(J):
    close(aggregate("cagrad", J, c=0.0) / J.abs().max(), J.mean(0) / J.abs().max(), 1e-12)


@given(jacobians(regular=True), st.sampled_from([0.1, 0.5, 0.9, 2.0]))
def test_the_correction_is_on_the_sphere(J, c):
    mean = J.mean(0)
    distance = float((aggregate("cagrad", J, c=c, rescale=0) - mean).norm() / mean.norm())
    assert distance == pytest.approx(c, rel=1e-8)


@given(jacobians(), st.sampled_from([1.0, 1.5]))
def test_a_radius_of_1_or_more_lowers_no_tasks_gain_below_0(J, c):
    J = J / J.norm(dim=1).max()
    assert float((J @ aggregate("cagrad", J, c=c)).min()) >= -1e-9


@given(jacobians(), st.sampled_from([0.1, 0.5, 0.9]))
def test_the_worst_task_gains_at_least_as_much_as_from_the_mean(J, c):
    J = J / J.norm(dim=1).max()
    d = aggregate("cagrad", J, c=c, rescale=0)
    assert float((J @ d).min()) >= float((J @ J.mean(0)).min()) - 1e-12


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("cagrad", tasks=3))
    close(m.heads, [2, -2, 6])
    close(m.theta.grad, aggregate("cagrad", [[2, 0], [0, -1], [2, 2]]), 1e-12)


@pytest.mark.parametrize("options", [{"c": -0.1}, {"c": float("nan")}, {"rescale": 3}])
def test_unusable_options(options):
    with pytest.raises(isonomy.IsonomyError, match=next(iter(options))):
        isonomy.build("cagrad", tasks=2, **options)
