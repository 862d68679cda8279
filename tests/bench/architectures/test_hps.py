import pytest
import torch

import isonomy
from isonomy.bench.architectures.hps import HPS
from isonomy.bench.backbones.heads import HRNetHead
from isonomy.bench.backbones.resnet import resnet_mini
from isonomy.errors import IsonomyError
from tests.bench.architectures.networks import CITY, NYUD, NYUV2, PASCAL, count, images, large, small


@pytest.mark.parametrize(
    ("outputs", "deep", "published"),
    [
        (NYUV2, False, 25_347_409),
        (NYUV2, True, 71_888_721),
        (CITY, True, 55_760_968),
        (NYUD, False, 30_076_781),
        (NYUD, True, 88_021_357),
        (PASCAL, False, 34_795_873),
        (PASCAL, True, 104_143_713),
    ],
)
def test_counts(outputs, deep, published):
    network = large(HPS, outputs, deep=deep)
    assert count(network.parameters()) == published
    assert count(network.shared_parameters()) == (23_508_032 if deep else 11_176_512)


@pytest.mark.parametrize(
    ("outputs", "deep", "published"),
    [
        ({"semseg": 40}, False, 15_908_968),
        ({"depth": 1}, False, 15_898_945),
        ({"normals": 3}, False, 15_899_459),
        ({"semseg": 21}, False, 15_904_085),
        ({"human_parts": 7}, False, 15_900_487),
        ({"seg": 13}, True, 39_636_813),
        ({"seg": 7}, True, 39_635_271),
        ({"semseg": 40}, True, 39_643_752),
        ({"semseg": 21}, True, 39_638_869),
        ({"depth": 1}, True, 39_633_729),
        ({"normals": 3}, True, 39_634_243),
    ],
)
def test_counts_of_single_task_networks(outputs, deep, published):
    assert count(large(HPS, outputs, deep=deep).parameters()) == published


def test_predictions_are_the_heads_of_the_feature():
    network = small("hps").eval()
    output = network(images())
    feature = network.encoder(images())[-1]
    assert torch.equal(output.feature, feature)
    for task, head in network.heads.items():
        assert torch.equal(output.predictions[task], head(feature))


def test_an_encoder_that_returns_a_tensor_and_heads_of_any_kind():
    nn = torch.nn
    network = HPS(lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh()), {"a": lambda: nn.Linear(8, 2)}, 0)
    x = torch.randn(5, 4)
    output = network(x)
    assert torch.equal(output.feature, network.encoder(x))
    assert torch.equal(output.predictions["a"], network.heads["a"](output.feature))
    assert [tuple(parameter.shape) for parameter in network.last_layer()] == [(8, 4), (8,)]


def test_what_stands_between_gives_every_head_its_own_input():
    network = small("hps").eval()
    network.between = lambda z: [z, 2 * z, 3 * z]
    feature = network.encoder(images())[-1]
    for tasks in (None, ["normal"]):
        predictions = network(images(), tasks=tasks).predictions
        torch.testing.assert_close(predictions["normal"], network.heads["normal"](3 * feature))
    several = small("hps", head=HRNetHead)
    several.between = network.between
    with pytest.raises(IsonomyError, match="heads read 4 of the encoder's maps"):
        several(images())


def test_features_that_depend_on_each_other_are_balanced_once():
    network = small("hps", 2, head=HRNetHead).double().eval()

    def step():
        output = network(images().double())
        assert len(output.feature) == 4
        return output.feature, [prediction.square().mean() for prediction in output.predictions.values()]

    feature, losses = step()
    rows = [
        torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, retain_graph=True) for loss in losses
    ]
    balancer = isonomy.build("imtl_g", tasks=2)
    balancer(losses, shared=feature).backward()
    weights = balancer.report.weights
    shared = {id(parameter) for parameter in network.shared_parameters()}
    for index, parameter in enumerate(network.parameters()):
        factors = weights if id(parameter) in shared else torch.ones(2)
        gradients = [factor * row[index] for factor, row in zip(factors, rows, strict=True) if row[index] is not None]
        torch.testing.assert_close(parameter.grad, sum(gradients), rtol=1e-8, atol=1e-12)


def test_the_feature_is_what_any_head_reads_once_and_from_shallow_to_deep():
    class Ends(torch.nn.Module):
        reads = (-1, 0)

        def forward(self, maps):
            return maps[0].mean(dim=(1, 2, 3)) + maps[1].mean(dim=(1, 2, 3))

    class Last(Ends):
        reads = (3,)

        def forward(self, x):
            return x.mean(dim=(1, 2, 3))

    network = HPS(resnet_mini, {"a": Ends, "b": Last}, 0).eval()
    feature = network(images()).feature
    maps = network.encoder(images())
    assert len(feature) == 2
    assert torch.equal(feature[0], maps[0])
    assert torch.equal(feature[1], maps[3])
