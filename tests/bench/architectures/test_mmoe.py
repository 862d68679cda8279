from functools import partial

import torch

from isonomy.bench.architectures.hps import HPS
from isonomy.bench.architectures.mmoe import MMoE
from isonomy.bench.backbones.resnet import resnet18
from isonomy.bench.backbones.tops import Pooled
from tests.bench.architectures.networks import OFFICE, count, images, large, small


def office(hidden=512):
    """The trunk of the Office networks."""
    return Pooled(resnet18(output_stride=32), hidden)


def test_counts():
    whole = partial(large, outputs=OFFICE, head="linear", encoder=office)
    assert count(whole(HPS).parameters()) == 11_487_901
    network = whole(MMoE, gate_input="image", image=(3, 224, 224))
    assert count(network.parameters()) == 47_614_825
    assert count(network.shared_parameters()) == 4 * 11_440_192
    assert count(network.gates["dslr"].parameters()) == 602_116
    pooled = whole(MMoE)
    assert count(pooled.gates["dslr"].parameters()) == 48 * 4 + 4


def test_one_expert_is_hard_sharing():
    network, plain = small("mmoe", experts=1), small("hps")
    network.shared[0].load_state_dict(plain.encoder.state_dict())
    predictions, expected = network(images()).predictions, plain(images()).predictions
    assert count(network.parameters()) == count(plain.parameters())
    for task, prediction in predictions.items():
        assert torch.equal(prediction, expected[task])


def test_brute_force():
    network = small("mmoe image").eval()
    x = images()
    maps = [expert(x)[-1] for expert in network.shared]
    predictions = network(x).predictions
    for task, head in network.heads.items():
        gate = network.gates[task].linear
        for sample in range(3):
            weights = torch.softmax(gate.weight @ x[sample].reshape(-1) + gate.bias, 0)
            mixed = sum(weights[e] * maps[e][sample] for e in range(3))
            torch.testing.assert_close(predictions[task][sample], head(mixed[None])[0], rtol=1e-4, atol=1e-5)


def test_every_head_reads_its_own_mixture():
    network = small("mmoe").eval()
    for position, task in enumerate(network.heads):
        network.gates[task].linear.bias.data[position] = 1e4
    predictions = network(images()).predictions
    for position, (task, head) in enumerate(network.heads.items()):
        torch.testing.assert_close(predictions[task], head(network.shared[position](images())[-1]))


def test_experts_differ():
    first, second, *_ = small("mmoe").shared
    assert not torch.equal(first.conv1.weight, second.conv1.weight)
