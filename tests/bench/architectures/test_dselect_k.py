from functools import partial

import pytest
import torch

from isonomy.bench.architectures.dselect_k import DSelectK, Selector, smooth_step
from isonomy.bench.architectures.experts import View
from isonomy.errors import IsonomyError
from tests.bench.architectures.networks import OFFICE, count, images, large, small
from tests.bench.architectures.test_mmoe import office


def test_counts():
    network = large(DSelectK, OFFICE, head="linear", encoder=office, gate_input="image", image=(3, 224, 224))
    assert count(network.parameters()) == 48_517_999
    assert count(network.shared_parameters()) == 4 * 11_440_192


@pytest.mark.parametrize("gamma", [0.5, 1.0, 4.0])
def test_smooth_step(gamma):
    v = gamma * torch.tensor([-9.0, -0.5, -0.25, 0.0, 0.25, 0.5, 9.0], dtype=torch.float64, requires_grad=True)
    step = smooth_step(v, gamma)
    expected = [0.0, 0.0, 0.15625, 0.5, 0.84375, 1.0, 1.0]
    torch.testing.assert_close(step, torch.tensor(expected, dtype=torch.float64))
    (slope,) = torch.autograd.grad(step.sum(), v)
    # The derivative 3/(2γ) - 6 v²/γ³ is continuous: it vanishes where the cubic ends.
    expected = torch.tensor([0.0, 0.0, 1.125, 1.5, 1.125, 0.0, 0.0], dtype=torch.float64) / gamma
    torch.testing.assert_close(slope, expected)


def selector(experts, k=2, gamma=1.0, seed=0):
    torch.manual_seed(seed)
    return Selector(View((3,), "pooled"), k, gamma, experts)


def test_first_weights():
    made = selector(4, gamma=2.0)
    for layer, bound in ((made.bits, 0.02), (made.mixing, 0.05)):
        for parameter in layer.parameters():
            assert parameter.abs().max() <= bound
        assert layer.weight.abs().max() > 0.9 * bound


def by_hand(made, x, experts, gamma):
    """Weights and penalty of one image, one number after the other."""
    bits = (experts - 1).bit_length()
    view = torch.nn.functional.adaptive_avg_pool2d(x[None], 4).flatten()
    logits = (made.bits.weight @ view + made.bits.bias).tolist()
    mixing = torch.softmax(made.mixing.weight @ view + made.mixing.bias, 0).tolist()
    weights, penalty = [0.0] * experts, 0.0
    for i in range(made.k):
        total = 0.0
        for expert in range(experts):
            weight = 1.0
            for j in range(bits):
                v = logits[i * bits + j]
                s = 0.0 if v <= -gamma / 2 else 1.0 if v >= gamma / 2 else -2 * (v / gamma) ** 3 + 1.5 * v / gamma + 0.5
                weight *= s if expert >> j & 1 else 1 - s
            weights[expert] += mixing[i] * weight
            penalty -= 1e-6 * weight * float(torch.tensor(weight + 1e-6, dtype=torch.float64).log())
            total += weight
        if 2**bits != experts:
            penalty += 1 / (total + 1e-6)
    return weights, penalty


@pytest.mark.parametrize("gamma", [1.0, 3.0])
@pytest.mark.parametrize("experts", [2, 3, 4, 5])
def test_brute_force(experts, gamma):
    made = selector(experts, gamma=gamma).double()
    for parameter in made.parameters():
        parameter.data *= 20
    x = images().double()
    weights, penalty = made(x)
    expected = [by_hand(made, each, experts, gamma) for each in x]
    torch.testing.assert_close(weights, torch.tensor([each for each, _ in expected], dtype=torch.float64))
    assert penalty.item() == pytest.approx(sum(each for _, each in expected) / 3, rel=1e-9)
    if experts in {2, 4}:
        torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("expert", range(4))
def test_saturated_bits_select_one_expert(expert):
    made = selector(4, k=1)
    made.bits.weight.data.zero_()
    made.bits.bias.data = torch.tensor([9.0 if expert >> bit & 1 else -9.0 for bit in range(2)])
    weights, penalty = made(images())
    assert torch.equal(weights, torch.nn.functional.one_hot(torch.tensor([expert] * 3), 4).float())
    assert abs(penalty.item()) < 1e-11


def test_codes_of_no_expert_are_expensive_and_finite():
    made = selector(3, k=1)
    made.bits.weight.data.zero_()
    made.bits.bias.data.fill_(9.0)
    weights, penalty = made(images())
    assert not weights.any()
    assert penalty.item() == pytest.approx(1e6)
    penalty.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in made.parameters())


def test_the_penalty_is_summed_over_the_tasks_computed():
    network = small("dselect_k 3")
    x = images()
    parts = {task: network.gates[task](x)[1] for task in network.heads}
    torch.testing.assert_close(network(x).penalty, sum(parts.values()))
    torch.testing.assert_close(network(x, tasks=["depth"]).penalty, parts["depth"])
    network(x).penalty.backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert reached == {f"gates.{task}.bits.{kind}" for task in network.heads for kind in ("weight", "bias")}


def test_one_selection_reads_one_expert():
    network = small("dselect_k", 2, k=1).eval()
    for task, bias in (("seg", [9.0, -9.0]), ("depth", [-9.0, 9.0])):
        network.gates[task].bits.weight.data.zero_()
        network.gates[task].bits.bias.data = torch.tensor(bias)
    predictions = network(images()).predictions
    for task, expert in (("seg", 1), ("depth", 2)):
        torch.testing.assert_close(predictions[task], network.heads[task](network.shared[expert](images())[-1]))


def test_what_cannot_be_built_is_refused():
    build = partial(small, "dselect_k")
    with pytest.raises(IsonomyError, match="k=5 is more than there are experts, 4"):
        build(k=5)
    for gamma in (0.0, -1.0, float("nan")):
        with pytest.raises(IsonomyError, match="must be positive"):
            build(gamma=gamma)
