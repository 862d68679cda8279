import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import IMTLL, UW
from tests.fixtures import M, close, linear, set_up, tensor, value_of

LOSSES = [2, 0.5, 2]


def with_s(s, **options):
    stage = set_up(UW(**options), len(s))
    stage.log_variances.data = tensor(s)
    return stage


@pytest.mark.parametrize(
    ("s", "value", "weights", "own"),
    [
        ([0, 0, 0], 2.25, [0.5, 0.5, 0.5], [-0.5, 0.25, -0.5]),
        ([-0.5] * 3, 2.959623, [0.824361] * 3, [-1.148721, 0.087820, -1.148721]),
        (tensor(LOSSES).log(), 1.846574, [0.25, 1, 0.25], [0, 0, 0]),
    ],
)
def test_unified_form(s, value, weights, own):
    S, w, (gradient,) = value_of(with_s(s), LOSSES)
    close(S, value)
    close(w, weights)
    close(gradient, own)


@pytest.mark.parametrize(
    ("likelihood", "loss", "s", "value"),
    [
        ("gaussian", 2, 2 * math.log(1.5), 0.849910),
        ("classification", 0.5, 2 * math.log(0.8), 0.558106),
        ("laplace", 2, math.log(2), 1.693147),
    ],
)
def test_likelihoods_of_the_paper(likelihood, loss, s, value):
    close(value_of(with_s([s], likelihood=likelihood), [loss])[0], value)


@given(st.floats(0.1, 10), st.floats(0, 100))
def test_logarithms_of_the_noise_scale_are_the_papers_forms(sigma, loss):
    forms = {
        "unified": (2 * math.log(sigma), loss / (2 * sigma**2) + math.log(sigma)),
        "gaussian": (2 * math.log(sigma), loss / (2 * sigma**2) + math.log(sigma)),
        "classification": (2 * math.log(sigma), loss / sigma**2 + math.log(sigma)),
        "laplace": (math.log(sigma), loss / sigma + math.log(sigma)),
    }
    for likelihood, (s, value) in forms.items():
        close(value_of(with_s([s], likelihood=likelihood), [loss])[0], value, 1e-9)


def test_a_likelihood_for_each_task():
    names = ["gaussian", "classification", "laplace"]
    S, w, (own,) = value_of(with_s([0, 0, 0], likelihood=names), LOSSES)
    close(S, 1 + 0.5 + 2)
    close(w, [0.5, 1, 1])
    close(own, [0.5 - 1, 0.5 - 0.5, 1 - 2])


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5), st.sampled_from(["unified", "classification", "laplace"])
)
def test_at_the_optimum_every_weighted_loss_is_its_coefficient(losses, likelihood):
    a, b = {"unified": (0.5, 0.5), "classification": (1, 0.5), "laplace": (1, 1)}[likelihood]
    _, w, (own,) = value_of(with_s((a * tensor(losses) / b).log(), likelihood=likelihood), losses)
    close(w * tensor(losses), torch.full((len(losses),), b), 1e-9)
    close(own, torch.zeros(len(losses)), 1e-9)


def test_imtl_l_is_twice_the_unified_form_with_the_opposite_sign():
    s = tensor([0.3, -1, 2])
    other = set_up(IMTLL())
    other.log_scales.data = -s
    close(2 * value_of(with_s(s), LOSSES)[0], value_of(other, LOSSES)[0], 1e-12)


def test_gradients_on_a_model_and_the_users_optimiser():
    m = M()
    balancer = isonomy.build("uw", tasks=3, init=-0.5, own_optimizer=False)
    m.step(balancer)
    (s,) = balancer.parameters()
    close(m.theta.grad, 0.824361 * tensor([4, 1]))
    close(m.heads, 0.824361 * tensor([2, -2, 6]))
    close(s.grad, [-1.148721, 0.087820, -1.148721])


def test_own_optimiser_is_adam():
    balancer = isonomy.build("uw", tasks=3)
    (s,) = balancer.parameters()
    M().step(balancer)
    close(s, [0.025, -0.025, 0.025])
    for _ in range(3000):
        M().step(balancer)
    close(s, tensor(LOSSES).log(), 1e-3)
    close(balancer.report.loss_weights, [0.25, 1, 0.25], 1e-3)


@pytest.mark.parametrize("likelihood", ["poisson", ["gaussian", "poisson", "laplace"], ["gaussian", "laplace"]])
def test_unusable_likelihoods(likelihood):
    with pytest.raises(isonomy.IsonomyError, match="likelihood"):
        isonomy.build("uw", tasks=3, likelihood=likelihood)


@pytest.mark.parametrize("method", ["uw", "imtl_l", "ldc_mtl"])
@pytest.mark.parametrize("spike", [1e30, 1e300])
def test_a_loss_beyond_float32_does_not_stop_learning(method, spike):
    balancer = isonomy.build(method, tasks=2, **({"normalize": "none"} if method == "ldc_mtl" else {}))
    parameter = next(balancer.parameters())
    for value in (1, spike, 1):
        _, _, losses = linear([[1], [1]], [value, 3])
        before = parameter.clone()
        balancer(losses)
    assert parameter.isfinite().all()
    assert (parameter != before).all()


@pytest.mark.parametrize("option", ["own_lr", "own_weight_decay"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_the_optimiser_s_own_options_are_checked(option, value):
    with pytest.raises(isonomy.IsonomyError, match=f"FAMO: {option}="):
        isonomy.build("famo", tasks=2, **{option: value})
