"""What the loss balancers share or do not share: effective weights, scales, order, one task, and resuming."""

import io
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.loss import igb_v2
from isonomy.testing import same_state
from tests.fixtures import M, close, linear, parallel, tensor

# Gradients of the problem M in its two shared parameters, one row a task.
J = tensor([[2, 0], [0, -1], [2, 2]])


@dataclass
class Method:
    """A method and what is known of it.

    Attributes:
        scale: What multiplying a loss by a constant does to the shared gradient once the state has adapted: nothing
            (``"exact"``), nothing to its direction (``"direction"``), or something (``"changes"``).
        one: Whether a single task trains as it would alone, the weights being 1.
        potential: Whether weights are the derivatives of S; otherwise S is Σ w ℓ or Σ w log ℓ with weights held fixed.
    """

    name: str
    scale: str
    one: bool = False
    potential: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, tasks, **options):
        return isonomy.build(self.name, tasks, **self.options, **options)


METHODS = [
    Method("ew", "changes", one=True, potential=True),
    Method("fixed", "changes", potential=True, options={"weights": [0.5]}),
    Method("rlw", "changes", one=True),
    Method("rlw", "changes", one=True, options={"family": "dirichlet"}),
    Method("gls", "direction", one=True, potential=True),
    Method("uw", "direction", potential=True, options={"own_lr": 0.0}),
    Method("dwa", "changes", one=True),
    Method("dwa", "changes", one=True, options={"window": 1}),
    Method("imtl_l", "direction", potential=True, options={"own_lr": 0.0}),
    Method("log", "exact", potential=True),
    Method("igb_v1", "exact"),
    # Until it acts the agent's weights are the same, whatever the losses are.
    Method("igb_v2", "exact", options={"policy_epoch": 1000}),
    Method("famo", "direction", one=True),
    Method("dtp", "changes"),
    Method("stch", "exact", potential=True, options={"nadir_epoch": 1}),
    Method("stch", "exact", potential=True, options={"nadir_epoch": 1, "mu": 0.3}),
    Method("stch", "changes", one=True, potential=True, options={"form": "paper"}),
    Method("go4align", "changes", one=True, options={"beta": 0.5}),
    Method("ldc_mtl", "direction", one=True, potential=True, options={"own_lr": 0.0}),
    Method("dsg", "changes", one=True),
]
every = pytest.mark.parametrize("method", METHODS, ids=[f"{m.name}-{i}" for i, m in enumerate(METHODS)])


def of(method, tasks):
    """The method for so many tasks; weights that a user passes are made to fit."""
    if method.name == "fixed":
        return isonomy.build("fixed", tasks, weights=[1.0 + t for t in range(tasks)])
    return method.build(tasks)


def play(balancer, steps, begin=0, factors=1.0, order=None):
    """Steps of a scripted run with everything that a method may want to hear; the weights, shape (steps, T)."""
    tasks = len(balancer.tasks)
    order = torch.arange(tasks) if order is None else order
    positions = torch.arange(tasks, dtype=torch.float64)
    found = []
    for step in range(begin, begin + steps):
        losses = (
            factors
            * (1 + positions)
            * torch.exp(-0.1 * step / (1 + positions))
            * (1 + 0.3 * torch.sin(positions + step))
        )
        theta, _, values = linear(torch.eye(tasks), losses[order])
        balancer(values, shared=[theta]).backward()
        found.append(balancer.report.loss_weights)
        if "step_losses" in balancer.needs:
            balancer.step_end((losses * (0.9 + 0.02 * positions))[order])
        if step % 3 == 2:
            metrics = (0.3 + 0.1 * torch.sin(positions + step))[order]
            balancer.epoch_end(
                dict(zip(balancer.tasks, metrics.tolist(), strict=True)), learning_rate=0.1 / (1 + step // 9)
            )
    return torch.stack(found)


@every
@pytest.mark.parametrize("steps", [0, 10])
def test_shared_parameters_and_heads_get_the_reported_weights(method, steps):
    balancer = of(method, 3)
    if steps:
        play(balancer, steps)
    m = M()
    total = m.step(balancer)
    w = balancer.report.loss_weights
    close(total, 4.5)
    torch.testing.assert_close(m.theta.grad, w @ J, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(m.heads, w * tensor([2, -2, 6]), rtol=1e-6, atol=1e-12)


@every
@given(losses=st.lists(st.floats(0.1, 10), min_size=3, max_size=3))
def test_weights_are_the_derivatives_of_the_value(method, losses):
    balancer = of(method, 3)
    play(balancer, 7)
    stage, active = balancer.stages[0], torch.arange(3)
    stage.double()
    at = tensor(losses).requires_grad_()
    balanced = stage(at, active)
    (w,) = torch.autograd.grad(balanced.sum(), at)
    if method.potential:
        for t in range(3):
            by = torch.zeros(3, dtype=torch.float64)
            by[t] = 1e-6 * losses[t]
            difference = stage(tensor(losses) + by, active).sum() - stage(tensor(losses) - by, active).sum()
            # The neighbours' penalty has a kink where two weighted losses are equal.
            if method.name != "ldc_mtl" or not kinked(stage, losses):
                assert float(difference / (2 * by[t])) == pytest.approx(float(w[t]), rel=1e-5, abs=1e-8)
    elif method.name.startswith(("igb", "famo")):
        # Weights times logarithms.
        shifted = tensor(losses) + 1e-8
        close(balanced, w * shifted * shifted.log(), 1e-9)
    else:
        close(balanced, w * tensor(losses), 1e-12)


def kinked(stage, losses):
    weighted = torch.sigmoid(stage.scores) * stage._normalized(tensor(losses), torch.arange(3))
    return bool((weighted.diff().abs() < 1e-4).any())


@every
def test_scale_of_one_loss(method):
    factors = tensor([10, 1, 1])
    one, other = of(method, 3), of(method, 3)
    w, scaled = play(one, 10), play(other, 10, factors=factors)
    if method.name in ("uw", "imtl_l"):
        # At the optimum of the learned scales, where every weighted loss is the same.
        for balancer, k in ((one, torch.ones(3)), (other, factors)):
            (s,) = balancer.parameters()
            s.copy_(k.log() if method.name == "uw" else -k.log())
        w, scaled = (values(b, k) for b, k in ((one, torch.ones(3)), (other, factors)))
    else:
        w, scaled = w[-1], scaled[-1]
    first, second = w @ J, (scaled * factors) @ J
    if method.scale == "exact":
        torch.testing.assert_close(second, first, rtol=1e-6, atol=1e-12)
    elif method.scale == "direction":
        assert parallel(first, second) == pytest.approx(1, abs=1e-9)
    else:
        assert parallel(first, second) < 0.9999


def values(balancer, losses):
    theta, _, made = linear(torch.eye(3), losses)
    balancer(made, shared=[theta]).backward()
    return balancer.report.loss_weights


@pytest.mark.parametrize(
    ("name", "options", "cosine"),
    [("stch", {"form": "paper", "mu": 0.5}, 0.926), ("go4align", {"beta": 0.5, "groups": 3}, 0.968)],
)
def test_known_effects_of_ten_times_a_loss(name, options, cosine):
    found = []
    for scales in ((1, 1, 1), (10, 1, 1)):
        m = M(scales=scales)
        m.step(isonomy.build(name, tasks=3, **options))
        found.append(m.theta.grad)
    assert parallel(*found) == pytest.approx(cosine, abs=1e-3)


@every
@pytest.mark.parametrize("order", [[1, 2, 0], [2, 1, 0], [0, 2, 1]])
def test_permuted_tasks_have_permuted_weights(method, order):
    one, other = of(method, 3), of(method, 3)
    order = torch.tensor(order)
    w, permuted = play(one, 10), play(other, 10, order=order)
    same = torch.allclose(permuted, w[:, order], rtol=1e-9, atol=1e-12)
    if one.stages[0].symmetric or (method.name == "ldc_mtl" and order.tolist() == [2, 1, 0]):
        # Turned round, tasks keep their neighbours.
        assert same
    else:
        # Draws, constants and neighbours belong to positions; a method that says so has to mean it.
        assert not same


@every
def test_one_task(method):
    learns = {"own_lr": 0.1} if method.name in ("uw", "imtl_l", "ldc_mtl") else {}
    w = play(isonomy.build(method.name, 1, **{**method.options, **learns}), 12)
    assert w.isfinite().all()
    assert (w > 0).all()
    if method.one:
        close(w, torch.ones(12, 1), 1e-7)
    else:
        assert (w - 1).abs().max() > 0.01


@every
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_a_run_that_is_saved_mid_epoch_goes_on_bit_for_bit(method, steps, monkeypatch):
    monkeypatch.setattr(igb_v2, "EVERY", 4)
    balancer, resumed = of(method, 3), of(method, 3)
    play(balancer, steps)
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert same_state(balancer.state_dict(), resumed.state_dict())
    assert torch.equal(play(balancer, 8, steps), play(resumed, 8, steps))
    assert same_state(balancer.state_dict(), resumed.state_dict())


@every
def test_learned_methods_resume_their_optimiser_too(method):
    if "own_lr" not in method.options:
        return
    options = {**method.options, "own_lr": 0.1}
    balancer, resumed = (isonomy.build(method.name, 3, **options) for _ in range(2))
    play(balancer, 4)
    resumed.load_state_dict(balancer.state_dict())
    w = play(balancer, 5, 4)
    assert torch.equal(w, play(resumed, 5, 4))
    assert (w - play(method.build(3), 5, 4)).abs().max() > 1e-3
