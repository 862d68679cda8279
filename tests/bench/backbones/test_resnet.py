"""The residual networks equal timm's, dilated or not."""

import pytest
import torch

from isonomy.bench import backbones
from isonomy.bench.backbones.inputs import IMAGENET
from tests.bench.backbones.nets import built, sample, shaken, timm


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_equals_timm_to_the_last_bit(name, output_stride):
    ours = shaken(built(name, normalize=None, output_stride=output_stride))
    theirs = timm.create_model(name, features_only=True, output_stride=output_stride).eval()
    theirs.load_state_dict(ours.state_dict())
    x = sample(name)
    assert ours.strides == tuple(theirs.feature_info.reduction()[1:])
    assert ours.channels == tuple(theirs.feature_info.channels()[1:])
    for got, expected in zip(ours(x), theirs(x)[1:], strict=True):
        assert torch.equal(got, expected)


def test_stem_and_stages_are_the_network():
    network = built("resnet_mini")
    x = sample("resnet_mini")
    expected = network.eval()(x)
    z = network.stem(x)
    for stage, map_ in zip(network.stages, expected, strict=True):
        for block in stage:
            z = block(z)
        assert torch.equal(z, map_)
    parts = [*network.stem.parameters(), *(p for stage in network.stages for p in stage.parameters())]
    assert {id(p) for p in parts} == {id(p) for p in network.parameters()}


def test_images_are_normalised_inside():
    plain, inside = built("resnet18", normalize=None).eval(), built("resnet18").eval()
    x = sample("resnet18")
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in IMAGENET)
    assert torch.equal(inside(x)[-1], plain((x - mean) / std)[-1])
    assert inside.state_dict().keys() == plain.state_dict().keys()


def test_a_classifier_s_stride_is_32():
    network = backbones.make("resnet_mini", size=(64, 96), output_stride=32)
    assert [m.shape[2:] for m in network(sample("resnet_mini"))] == [(16, 24), (8, 12), (4, 6), (2, 3)]
