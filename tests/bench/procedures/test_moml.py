import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isonomy.bench.procedures.moml import MOML, common_descent, outer_gradients
from isonomy.bench.procedures.virtual import leaves
from isonomy.errors import IsonomyError
from tests.bench.procedures.bilevel import OUTER, TRAIN, losses, parameters
from tests.bench.tiny import trainer
from tests.fixtures import close, tensor

RATE = 0.1
Q = [[-0.047934, 0.049133, -0.001198], [-0.003114, 0.013182, -0.010067], [0.048, 0.069333, -0.117333]]


def by_autograd(logits, rate):
    """∂ℓ'_i/∂α through the virtual step."""
    logits = logits.clone().requires_grad_()
    at = leaves(parameters())
    step = torch.autograd.grad(logits.softmax(0) @ losses(at, TRAIN), list(at.values()), create_graph=True)
    there = {name: at[name] - rate * g for name, g in zip(at, step, strict=True)}
    values = losses(there, OUTER)
    return torch.stack([torch.autograd.grad(value, logits, retain_graph=True)[0] for value in values])


def found(logits=(1 / 3, 1 / 3, 1 / 3), rate=RATE):
    return outer_gradients(losses, parameters(), TRAIN, OUTER, tensor(logits).softmax(0), rate)


def test_the_papers_gradients():
    q, values = found()
    close(values, [0.327151, 0.004780, 0.035556])
    close(q, Q)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.floats(1e-4, 0.2))
def test_the_closed_form_is_the_derivative_through_the_virtual_step(logits, rate):
    q, _ = found(logits, rate)
    close(q, by_autograd(tensor(logits), rate), 1e-12)
    close(q.sum(1), [0, 0, 0], 1e-12)


@pytest.mark.parametrize(("normalize", "shares"), [("l2", [0.5, 0, 0.5]), ("none", [0, 1, 0]), ("loss", [1, 0, 0])])
def test_the_papers_common_descent(normalize, shares):
    q, values = found()
    close(common_descent(q, values, normalize), shares)


def test_the_papers_combinations():
    q, values = found()
    shares = common_descent(q, values, "l2")
    close(shares @ q, [0.000033, 0.059233, -0.059266])
    close(shares @ (q / q.norm(dim=1, keepdim=True)), [-0.183011, 0.597756, -0.414745])


@pytest.mark.parametrize("normalize", ["l2", "none", "loss", "loss+"])
def test_no_convex_combination_is_shorter(normalize):
    q, values = found()
    norms = q.norm(dim=1)
    scaled = q / {"l2": norms, "none": 1 + 0 * norms, "loss": values, "loss+": values * norms}[normalize][:, None]
    shares = common_descent(q, values, normalize)
    grid = [tensor([i, j, 40 - i - j]) / 40 for i in range(41) for j in range(41 - i)]
    assert (shares @ scaled).norm() <= min((other @ scaled).norm() for other in grid) + 1e-12


def test_what_has_no_direction_is_left_out():
    q, values = found()
    q[0] = 0
    shares = common_descent(q, values, "l2")
    assert shares[0] == 0
    close(shares.sum(), 1)
    close(common_descent(q * 0, values, "l2"), [0, 0, 0])


def test_the_first_step_follows_the_common_descent_and_moves_nothing_else():
    one = trainer("moml")
    batch = next(one.begin(0))
    before = {name: value.clone() for name, value in one.network.state_dict().items()}
    q, values = outer_gradients(
        one.losses_at, one.named_parameters(), batch[0], next(one.stream("outer", 0, "val")), one.weights, 1e-4
    )
    direction = common_descent(q, values, "l2") @ q
    one.procedure.before_step(batch[0])
    close(one.procedure.logits.grad, direction, 1e-12)
    close(one.procedure.logits, 1 / 3 - 1e-3 * direction.sign(), 1e-5)
    close(one.weights, one.procedure.logits.softmax(0))
    assert all(torch.equal(before[name], value) for name, value in one.network.state_dict().items())
    one.step(batch)
    close(one.balancer.report.loss_weights, one.weights)


def test_one_task_has_nothing_to_learn():
    one = trainer("moml", tasks=["b"])
    one.step(next(one.begin(0)))
    close(one.weights, [1.0])
    assert not one.procedure.optimizer.state


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(IsonomyError, match=r"Unknown normalize of moml 'l3': did you mean 'l2'"):
        MOML(trainer("ew"), 1e-4, 1e-3, "l3")
