from functools import partial

import torch

from isonomy.bench.architectures.cgc import CGC
from tests.bench.architectures.networks import OFFICE, OFFICE_HOME, count, images, large, small
from tests.bench.architectures.test_mmoe import office


def test_counts():
    whole = partial(large, CGC, head="linear", encoder=office, gate_input="image", image=(3, 224, 224))
    assert count(whole(outputs=OFFICE).parameters()) == 46_711_651
    network = whole(outputs=OFFICE_HOME)
    assert count(network.parameters()) == 58_538_572
    assert count(network.shared_parameters()) == 11_440_192


def test_gates_that_are_forced():
    network = small("cgc").eval()
    for position in range(3):
        predictions = {}
        for task in network.heads:
            bias = network.gates[task].linear.bias
            bias.data = 1e4 * torch.nn.functional.one_hot(torch.tensor(position), 3).float()
        predictions = network(images()).predictions
        for task, head in network.heads.items():
            expert = [*network.shared, *network.own[task]][position]
            torch.testing.assert_close(predictions[task], head(expert(images())[-1]))


def test_brute_force():
    network = small("cgc", 2).eval()
    x = images()
    pooled = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
    predictions = network(x).predictions
    for task, head in network.heads.items():
        gate = network.gates[task].linear
        weights = torch.softmax(pooled @ gate.weight.T + gate.bias, dim=1)
        maps = torch.stack([network.shared[0](x)[-1], network.shared[1](x)[-1], network.own[task][0](x)[-1]])
        mixed = torch.einsum("be,ebchw->bchw", weights, maps)
        torch.testing.assert_close(predictions[task], head(mixed), rtol=1e-4, atol=1e-5)
