import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isonomy.bench.procedures.auto_lambda import AutoLambda, hypergradient
from isonomy.bench.procedures.virtual import gradient, leaves, moved
from isonomy.errors import IsonomyError
from tests.bench.procedures.bilevel import OUTER, TRAIN, flat, losses, parameters
from tests.bench.tiny import trainer
from tests.fixtures import close, tensor

RATE = 0.1


def exact(weights, primary, rate, train=TRAIN, outer=OUTER):
    """−α dᵀ∇ℓ_t by autograd, through the virtual step itself."""
    weights = weights.clone().requires_grad_()
    at = leaves(parameters())
    step = torch.autograd.grad(weights @ losses(at, train), list(at.values()), create_graph=True)
    there = {name: at[name] - rate * g for name, g in zip(at, step, strict=True)}
    return torch.autograd.grad(losses(there, outer) @ primary, weights)[0]


def test_the_virtual_step_and_what_lies_behind_it():
    at = leaves(parameters())
    there = moved(at, gradient(losses(at, TRAIN).sum() * 0.1, at), -RATE)
    close(flat(there), [0.96, 1.99, 0.98, 1.02, 0.94])
    close(losses(there, OUTER), [0.442552, 0.000444, 0.298765])
    there = leaves(there)
    close(flat(gradient(losses(there, OUTER).sum(), there)).norm(), 3.051261)


def test_the_papers_hypergradient():
    found = hypergradient(losses, parameters(), TRAIN, OUTER, tensor([0.1] * 3), tensor([1, 1, 1]), RATE)
    close(found, [-0.510358, 0.087562, -1.849388])


@pytest.mark.parametrize(
    ("primary", "expected"),
    [([1, 1, 1], [-0.510354, 0.087562, -1.849334]), ([1, 0, 0], [-0.365030, 0, -0.184397])],
)
def test_the_exact_hypergradient(primary, expected):
    weights, primary = tensor([0.1] * 3), tensor(primary)
    close(exact(weights, primary, RATE), expected)
    close(hypergradient(losses, parameters(), TRAIN, OUTER, weights, primary, RATE), expected, 1e-4)


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.floats(1e-3, 0.1))
def test_central_differences_are_the_derivative_through_the_virtual_step(weights, rate):
    primary = tensor([1, 1, 1])
    found = hypergradient(losses, parameters(), TRAIN, OUTER, tensor(weights), primary, rate)
    expected = exact(tensor(weights), primary, rate)
    assert (found - expected).norm() <= 1e-3 * expected.norm()


def test_where_the_outer_losses_are_flat_nothing_is_learned():
    def flat_outside(at, targets):
        return losses(at, targets) * (targets is TRAIN)

    arguments = parameters(), TRAIN, OUTER, tensor([0.1] * 3), tensor([1, 1, 1]), RATE
    assert not hypergradient(flat_outside, *arguments).isfinite().any()


def test_the_first_step_moves_every_weight_by_the_learning_rate_against_its_hypergradient():
    one = trainer("auto_lambda")
    batch = next(one.begin(0))
    before = {name: value.clone() for name, value in one.network.state_dict().items()}
    expected = hypergradient(
        one.losses_at,
        one.named_parameters(),
        batch[0],
        next(one.stream("outer", 0)),
        one.weights.clone(),
        torch.ones(3, dtype=torch.float64),
        one.cell.config["learning_rate"],
    )
    one.procedure.before_step(batch[0])
    close(one.procedure.weights.grad, expected, 1e-12)
    close(one.weights, 0.1 - 1e-4 * expected.sign(), 1e-7)
    assert all(torch.equal(before[name], value) for name, value in one.network.state_dict().items())
    one.step(batch)
    close(one.balancer.report.loss_weights, one.weights)


@pytest.mark.parametrize("outer", ["train", "val"])
def test_the_outer_batches_are_not_the_steps(outer):
    one = trainer("auto_lambda")
    procedure = AutoLambda(one, 0.1, 1e-4, outer)
    procedure.begin(0)
    seen = torch.cat([next(procedure.stream)[0] for _ in range(8)])
    split = torch.cat([x for x, _ in one.problem.batches(0, 0, "cpu", outer)])
    for turn in seen.split(64):  # a whole epoch each
        assert torch.equal(turn.sort(0).values, split.sort(0).values)
        assert not torch.equal(turn, split)
    assert not torch.equal(seen[:64], seen[64:])


def test_an_unknown_outer_split_is_refused():
    with pytest.raises(IsonomyError, match="Unknown outer of auto_lambda 'vall': did you mean 'val'"):
        AutoLambda(trainer("ew"), 0.1, 1e-4, "vall")


def test_a_step_that_is_not_finite_leaves_the_weights():
    one = trainer("auto_lambda")
    ((x, y),) = next(one.begin(0))
    one.procedure.before_step((x * torch.nan, y))
    close(one.weights, [0.1] * 3)
    assert not one.procedure.optimizer.state
