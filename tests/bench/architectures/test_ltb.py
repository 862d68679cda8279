import pytest
import torch

from isonomy.bench.architectures.ltb import LTB
from tests.bench.architectures.networks import NYUV2, count, images, large, small


@pytest.mark.parametrize(("deep", "published"), [(False, 47_700_487), (True, 118_904_839)])
def test_counts(deep, published):
    # LibMTL makes logits of six layers, 54 numbers, and reads those of four.
    assert count(large(LTB, NYUV2, deep=deep).parameters()) == published - 18


def by_hand(network, weights):
    """The predictions of a network in evaluation, given what each of its four stages reads."""
    backbones = list(network.columns.backbones.values())
    x = [backbone.maxpool(backbone.act1(backbone.bn1(backbone.conv1(images())))) for backbone in backbones]
    for stage, rows in enumerate(weights, start=1):
        read = torch.einsum("tj,jbchw->tbchw", rows, torch.stack(x))
        x = [getattr(backbone, f"layer{stage}")(each) for backbone, each in zip(backbones, read, strict=True)]
    return {task: head(last) for (task, head), last in zip(network.heads.items(), x, strict=True)}


def close(predictions, expected):
    for task, prediction in predictions.items():
        torch.testing.assert_close(prediction, expected[task], rtol=1e-4, atol=1e-4)


def test_it_sums_while_it_warms_up():
    network = small("ltb").eval()
    expected = by_hand(network, torch.ones(4, 3, 3))
    close(network(images()).predictions, expected)
    network.begin(0, 200)
    close(network(images()).predictions, expected)
    network.begin(1, 200)
    close(network(images()).predictions, expected)
    network.begin(2, 200)
    assert not torch.allclose(network(images()).predictions["seg"], expected["seg"])


def test_evaluation_takes_the_likeliest_and_repeats():
    network = small("ltb").eval()
    network.begin(5, 10)
    picks = [(0, 2, 1), (1, 1, 1), (2, 0, 0), (0, 1, 2)]
    for logits, pick in zip(network.choices, picks, strict=True):
        logits.data = torch.nn.functional.one_hot(torch.tensor(pick), 3) + 0.5
    rows = [torch.nn.functional.one_hot(torch.tensor(pick), 3).float() for pick in picks]
    first = network(images()).predictions
    close(first, by_hand(network, rows))
    torch.manual_seed(99)
    again = network(images()).predictions
    assert all(torch.equal(first[task], again[task]) for task in first)


def test_the_temperature_falls_and_is_saved():
    network = small("ltb")
    for epoch in (1, 3, 24):
        network.begin(epoch, 100)
        assert network.temperature.item() == pytest.approx(5 / (epoch + 1) ** 0.5)
    resumed = small("ltb")
    assert resumed.temperature.isinf()
    resumed.load_state_dict(network.state_dict())
    assert resumed.temperature.item() == pytest.approx(1.0)
    network.begin(0, 100)
    assert network.temperature.isinf()


def test_draws_follow_the_logits_at_any_temperature():
    network = small("ltb")
    logits = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.manual_seed(0)
    for epoch in (1, 80):
        network.begin(epoch, 100)
        draws = torch.stack([network.weights(logits) for _ in range(4000)])
        assert torch.equal((draws > 0.5).sum(2), torch.ones(4000, 3, dtype=torch.long))
        # Three standard deviations of a share of 4000 draws.
        torch.testing.assert_close(draws.mean(0), logits.softmax(1), rtol=0, atol=3 * 0.5 / 4000**0.5)


def test_the_gradient_is_the_softmaxs():
    network = small("ltb")
    network.begin(3, 100)
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    into = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    (found,) = torch.autograd.grad((network.weights(logits) * into).sum(), logits)
    torch.manual_seed(5)
    noise = -torch.empty(3, 3).exponential_().log()
    soft = ((logits + noise) / 2.5).softmax(1)
    (expected,) = torch.autograd.grad((soft * into).sum(), logits)
    torch.testing.assert_close(found, expected)


def test_what_nobody_reads_gets_a_gradient_of_zero():
    network = small("ltb", 2)
    network.begin(99, 100)
    for logits in network.choices:
        # Both tasks read the second encoder.
        logits.data = torch.tensor([[0.0, 1e4], [0.0, 1e4]])
    output = network(images())
    sum(prediction.square().sum() for prediction in output.predictions.values()).backward()
    first, second = network.columns.backbones.values()
    for part in (first.conv1, first.layer1, first.layer2, first.layer3):
        assert all(not parameter.grad.any() for parameter in part.parameters())
    for part in (second.conv1, second.layer1, second.layer2, second.layer3, second.layer4, first.layer4):
        assert any(parameter.grad.any() for parameter in part.parameters())


def test_warming_up_leaves_the_choices_where_they_are():
    network = small("ltb")
    sum(prediction.square().sum() for prediction in network(images()).predictions.values()).backward()
    assert all(not logits.grad.any() for logits in network.choices)
