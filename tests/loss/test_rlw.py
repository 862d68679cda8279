import pytest
import torch

import isonomy
from isonomy.loss import RLW
from tests.fixtures import M, close, set_up, tensor, value_of

LOSSES = [2, 0.5, 2]


class Injected(RLW):
    """Draws these logits."""

    def __init__(self, logits, **options):
        super().__init__(**options)
        self.logits = tensor(logits)

    def draw(self):
        return self.logits


def draws(number: int, tasks: int, **options) -> torch.Tensor:
    stage = set_up(RLW(**options), tasks)
    found = []
    for _ in range(number):
        found.append(stage.draw().softmax(0))
        stage.update(torch.ones(tasks), torch.arange(tasks))
    return torch.stack(found)


@pytest.mark.parametrize(
    ("total", "weights", "value"),
    [("one", [0.499518, 0.111457, 0.389025], 1.832814), ("tasks", [1.498553, 0.334372, 1.167074], 3 * 1.832814)],
)
def test_softmax_of_known_normals(total, weights, value):
    S, w, _ = value_of(set_up(Injected([0.5, -1, 0.25], total=total)), LOSSES)
    close(w, weights)
    close(S, value)


def test_dirichlet_normalises_exponentials():
    _, w, _ = value_of(set_up(Injected(tensor([1, 2, 3]).log(), family="dirichlet")), LOSSES)
    close(w, [1 / 6, 1 / 3, 1 / 2])


@pytest.mark.parametrize(
    ("family", "tasks", "variance"),
    [("dirichlet", 2, 1 / 12), ("dirichlet", 3, 1 / 18), ("normal", 2, 0.0684), ("normal", 3, 0.0494)],
)
def test_moments(family, tasks, variance):
    w = draws(4000, tasks, family=family)
    close(w.sum(1), torch.ones(len(w)), 1e-12)
    # Four standard errors of the mean, and a generous bound on those of the variance.
    close(w.mean(0), torch.full((tasks,), 1 / tasks), 4 * (variance / len(w)) ** 0.5)
    close(w.var(0).mean(), variance, 4e-3)


@pytest.mark.parametrize(("total", "expected"), [("one", 1), ("tasks", 3)])
@pytest.mark.parametrize("family", ["normal", "dirichlet"])
def test_weights_sum_to_one_or_to_the_number_of_tasks(family, total, expected):
    balancer = isonomy.build("rlw", tasks=3, family=family, total=total)
    seen = []
    for _ in range(3):
        m = M()
        m.step(balancer)
        w = balancer.report.loss_weights
        close(w.sum(), expected, 1e-12)
        close(m.heads, w * tensor([2, -2, 6]), 1e-12)
        close(m.theta.grad, w @ tensor([[2, 0], [0, -1], [2, 2]]), 1e-12)
        seen.append(w)
    assert (seen[0] - seen[1]).abs().max() > 1e-3
    assert (seen[1] - seen[2]).abs().max() > 1e-3


def test_seeds_decide_the_draws():
    assert torch.equal(draws(3, 4, seed=1), draws(3, 4, seed=1))
    assert not torch.equal(draws(3, 4, seed=1), draws(3, 4, seed=2))


def test_present_tasks_share_the_total():
    balancer = isonomy.build("rlw", tasks=["a", "b", "c"], allow_missing=True)
    m = M()
    balancer({"a": m.losses[0], "c": m.losses[2]}).backward()
    close(balancer.report.loss_weights[[0, 2]].sum(), 1, 1e-12)


def test_one_task():
    _, w, _ = value_of(set_up(RLW(), 1), [3.0])
    close(w, [1])


@pytest.mark.parametrize("options", [{"family": "cauchy"}, {"total": "two"}])
def test_unknown_options(options):
    with pytest.raises(isonomy.IsonomyError, match="rlw"):
        isonomy.build("rlw", tasks=2, **options)


@pytest.mark.parametrize("seed", [-1, 67280421310721, 2**63])
def test_any_integer_is_a_seed(seed):
    m = M()
    balancer = isonomy.build("rlw", tasks=3, seed=seed)
    m.step(balancer)
    close(balancer.report.loss_weights.sum(), 1)
