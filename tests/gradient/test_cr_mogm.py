import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy import gradient
from tests.fixtures import E, M, close, jacobians, random_jacobian, tensor

WEIGHTINGS = {
    "mgda": gradient.MGDA,
    "mgda l2": lambda: gradient.MGDA(normalize="l2"),
    "cagrad": gradient.CAGrad,
    "pcgrad": gradient.PCGrad,
    "gradvac": gradient.GradVac,
    "nash_mtl": gradient.NashMTL,
    "imtl_g": gradient.IMTLG,
    "gradnorm": gradient.GradNorm,
    "gradnorm epoch": lambda: gradient.GradNorm(baseline="epoch"),
    "cr_mogm": gradient.CRMOGM,
}
every = pytest.mark.parametrize("make", WEIGHTINGS.values(), ids=WEIGHTINGS)


class Given(isonomy.GradientBalancer):
    """Weights that are given."""

    def __init__(self, *steps):
        super().__init__()
        self.steps = iter(steps)

    def forward(self, measurement):
        return tensor(next(self.steps))[measurement.active]


def wrapped(weighting, tasks=3, momentum=0.9, **options):
    return isonomy.build("cr_mogm", tasks, weighting=weighting, momentum=momentum, **options)


def targets(count):
    return [(-1.0 - k, 3.0 + 0.5 * k, 1.0 + k / 3) for k in range(count)]


def gradients(balancer, count=4):
    """Of θ and the heads, step by step, with an epoch's end after the second."""
    found = []
    for number, target in enumerate(targets(count)):
        m = M(target)
        m.step(balancer)
        found.append(torch.cat([m.theta.grad, m.heads]))
        if number == 1:
            balancer.epoch_end()
    return torch.stack(found)


def test_known_weights():
    balancer = wrapped(Given([1, 0], [0, 1]), tasks=2)
    close(balancer.weights(torch.eye(2)), [1, 0], 1e-15)
    close(balancer.weights(torch.eye(2)), [0.9, 0.1], 1e-15)


@given(st.lists(jacobians(3, 3), min_size=1, max_size=6), st.floats(0, 1))
def test_weights_are_averaged_from_the_first_on(steps, momentum):
    balancer, plain = wrapped(gradient.MGDA(), momentum=momentum), isonomy.build("mgda", 3)
    expected = None
    for J in steps:
        fresh = plain.weights(J @ J.T)
        expected = fresh if expected is None else momentum * expected + (1 - momentum) * fresh
        w = balancer.weights(J @ J.T)
        close(w, expected, 1e-12)
        assert float(w.sum()) == pytest.approx(1, abs=1e-9)
        assert float(w.min()) >= 0


@every
def test_without_momentum_it_is_the_other_method(make):
    plain = isonomy.Balancer(make(), tasks=3)
    close(gradients(wrapped(make(), momentum=0.0)), gradients(plain), 1e-12)


@every
def test_with_momentum_the_other_method_sees_what_it_would_see_alone(make):
    plain, balancer = isonomy.Balancer(make(), tasks=3), wrapped(make(), momentum=0.5)
    plain._side.balancer.max_norm = balancer._side.balancer.max_norm = None
    expected = None
    for target in targets(4):
        M(target).step(plain)
        M(target).step(balancer)
        fresh = plain.report.weights
        expected = fresh if expected is None else 0.5 * expected + 0.5 * fresh
        close(balancer.report.weights, expected, 1e-12)


@every
def test_contract(make):
    isonomy.check_balancer(lambda tasks: wrapped(make(), tasks))


@every
def test_declares_what_the_other_method_declares(make):
    other = make()
    stage = gradient.CRMOGM(other)
    for name in ("heads", "levels", "max_norm", "domain", "uses", "uses_losses", "symmetric", "own_lr", "jacobian"):
        assert getattr(stage, name) == getattr(other, name), name


def test_mgda_is_the_default_and_its_heads_get_the_average():
    m = M()
    balancer = isonomy.build("cr_mogm", tasks=3)
    m.step(balancer)
    close(m.theta.grad, [6 / 13, -4 / 13])
    close(m.heads, [0, -2 * 10 / 13, 6 * 3 / 13])
    other = M((0.0, 0.0, 0.0))
    other.step(balancer)
    w = balancer.report.weights
    fresh = isonomy.build("mgda", 3)
    M((0.0, 0.0, 0.0)).step(fresh)
    close(w, 0.9 * tensor([0, 10 / 13, 3 / 13]) + 0.1 * fresh.report.weights, 1e-9)
    close(other.heads, w * tensor([1, 4, 9]), 1e-9)


def test_the_aggregate_of_averaged_weights_is_clipped():
    balancer = wrapped(gradient.NashMTL(max_norm=0.5))
    for seed in range(3):
        d = balancer.aggregate(random_jacobian(3, 5, seed))
        assert float(d.norm()) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("weighting", [gradient.NashMTL, gradient.FairGrad])
def test_a_step_without_a_solution_leaves_the_weights_as_they_were(weighting):
    balancer = wrapped(weighting(max_norm=None), tasks=2)
    known = balancer.weights(tensor([[4, 0], [0, 1]]))
    close(known[1], 1, 1e-9)
    close(balancer.weights(tensor([[1, -1], [-1, 1]])), known, 1e-9)
    close(balancer.weights(tensor([[4, 0], [0, 1]])), known, 1e-9)


def test_tasks_that_are_missing_keep_their_weight():
    balancer = isonomy.build(
        "cr_mogm", ["a", "b", "c"], weighting=Given([1, 2, 3], [4, 5, 6], [7, 8, 9]), allow_missing=True, momentum=0.5
    )
    J = tensor(E)

    def step(names):
        theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        balancer({name: 1 + J["abc".index(name)] @ theta for name in names}, shared=[theta]).backward()
        return balancer.stages[0].last

    close(step("ab").nan_to_num(nan=-1), [1, 2, -1], 0)
    close(step("bc"), [1, 3.5, 6], 0)
    close(step("abc"), [4, 5.75, 7.5], 0)


def test_momentum_may_change_with_the_learning_rate():
    balancer = wrapped(Given([1, 0], [0, 1]), tasks=2)
    balancer.weights(torch.eye(2))
    balancer.stages[0].momentum = 1 - 0.25
    close(balancer.weights(torch.eye(2)), [0.75, 0.25], 1e-15)


def test_the_other_methods_parameters_are_trained():
    plain, balancer = isonomy.Balancer(gradient.GradNorm(own_lr=0.1), tasks=3), wrapped(gradient.GradNorm(own_lr=0.1))
    for one in (plain, balancer):
        gradients(one)
    scores = balancer.stages[0].weighting.scores
    assert torch.equal(scores, plain.stages[0].scores)
    assert not torch.equal(scores, torch.ones(3))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"momentum": 1.1}, "momentum=1.1"),
        ({"momentum": -0.1}, "momentum=-0.1"),
        ({"weighting": "mgda"}, "gradient balancer, not a str"),
        ({"weighting": isonomy.loss.Log()}, "gradient balancer, not a Log"),
        ({"weighting": gradient.GradVac(groups="tensor")}, "GradVac works on the task gradients themselves"),
        ({"weighting": gradient.MetaBalance()}, "MetaBalance works on the task gradients themselves"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        isonomy.build("cr_mogm", tasks=2, **options)


def test_a_weighting_has_one_balancer():
    one = gradient.CAGrad()
    wrapped(one)
    with pytest.raises(isonomy.IsonomyError, match="CAGrad belongs to another balancer"):
        wrapped(one)
    with pytest.raises(isonomy.IsonomyError, match="belongs to another balancer"):
        isonomy.Balancer(one, tasks=3)
