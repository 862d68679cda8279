import pytest
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from tests.fixtures import E, M, aggregate, close, jacobians, tensor, weights

ROWS = [[1, 0], [0, -2], [1, 1]]  # Of norms 1, 2 and 1.414214.


@pytest.mark.parametrize(
    ("alpha", "norm", "d"),
    [
        ("max", 2, [3.414213, -0.585786]),
        ("min", 1, [1.707107, -0.292893]),
        ("mean", 1.471405, [2.511845, -0.430964]),
        ("median", 1.414214, [2.414214, -0.414214]),
    ],
)
def test_all_gradients_get_the_chosen_norm(alpha, norm, d):
    close(weights("max_norm", ROWS, alpha=alpha) * tensor(ROWS).norm(dim=1), [norm] * 3)
    close(aggregate("max_norm", ROWS, alpha=alpha), d)


@pytest.mark.parametrize(("alpha", "norm"), [("max", 10), ("min", 1), ("mean", 4), ("median", 2.5)])
def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two(alpha, norm):
    J = tensor([[3, 0], [10, 0], [0, 1], [0, 2]])
    close(weights("max_norm", J, alpha=alpha, eps=0.0) * J.norm(dim=1), [norm] * 4, 1e-12)


@given(jacobians(), st.sampled_from(["max", "min", "mean", "median"]))
def test_norms_are_equal_at_any_scale(J, alpha):
    lengths = weights("max_norm", J, alpha=alpha, eps=0.0) * J.norm(dim=1)
    close(lengths / lengths.mean(), [1] * len(J), 1e-12)


def test_eps_is_added_to_the_norms():
    n = tensor(E).norm(dim=1)
    close(weights("max_norm", E, eps=0.5), n.max() / (n + 0.5), 1e-12)
    close(weights("max_norm", [[3e-9, 4e-9]]), [1 / 3])


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("max_norm", tasks=3))
    close(m.theta.grad, 8**0.5 * tensor([1, -1]) + tensor([2, 2]))
    close(m.heads, [2, -2, 6])


def test_unknown_norm():
    with pytest.raises(isonomy.IsonomyError, match="alpha"):
        isonomy.build("max_norm", tasks=2, alpha="maximum")
