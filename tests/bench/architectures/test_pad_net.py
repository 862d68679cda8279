from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from isonomy.bench import backbones
from isonomy.bench.architectures.blocks import Distillation
from isonomy.bench.architectures.pad_net import PADNet

from .dense import NYUD, OUTPUTS, PASCAL, Pyramid, built, count, losses, reached, shake

hrnet = partial(backbones.make, "hrnet18", size=(64, 96))


@pytest.mark.parametrize(
    ("outputs", "published"),
    [(NYUD, 19_521_848), (PASCAL, 29_304_992), ({"semseg": 40, "depth": 1}, 7_019_056)],
)
def test_published_numbers_of_parameters(outputs, published):
    assert built(lambda: PADNet(hrnet, outputs, 0)) == published


def test_parts_have_the_published_sizes_and_one_task_distils_itself():
    tasks, one = (PADNet(Pyramid, outputs, 0) for outputs in (NYUD, {"semseg": 40}))
    assert count(tasks.distillation) == 4 * 3 * 1_179_648
    assert count(one.distillation) == 1_179_648
    assert count(one.branches) + count(one.heads) < count(tasks.branches) + count(tasks.heads)
    with torch.device("meta"):
        fused = PADNet(hrnet, NYUD, 0).fusion
    assert count(fused) == 73_710


def test_resolutions_on_the_published_backbone_and_no_dead_parameter():
    net = PADNet(hrnet, OUTPUTS, 0)
    output = net(torch.rand(2, 3, 64, 96))
    assert [tuple(z.shape[1:]) for z in output.feature] == [(18, 16, 24), (36, 8, 12), (72, 4, 6), (144, 2, 3)]
    for predictions in (output.predictions, *output.aux):
        assert {task: tuple(y.shape) for task, y in predictions.items()} == {
            task: (2, k, 16, 24) for task, k in OUTPUTS.items()
        }
    assert len(output.aux) == 1
    assert reached(net, sum(losses(output, OUTPUTS).values())) == {name for name, _ in net.named_parameters()}


@pytest.mark.parametrize("tasks", [["a"], ["a", "b", "c"]])
def test_distillation_is_each_feature_plus_gated_convolutions_of_the_others(tasks):
    distillation = Distillation(tasks, 2, 0, "distillation")
    features = {task: torch.randn(1, 2, 4, 5) for task in tasks}
    refined = distillation(features, tasks)
    for target in tasks:
        wanted = features[target].clone()
        for source in tasks:
            if source == target and len(tasks) > 1:
                continue
            take = distillation.takes[target][source]
            content, gate = (
                functional.conv2d(features[source], layer.weight, padding=1) for layer in (take.content, take.gate)
            )
            wanted += content / (1 + torch.exp(-gate))
        torch.testing.assert_close(refined[target], wanted)


def test_a_forward_pass_by_hand():
    net = shake(PADNet(Pyramid, OUTPUTS, 0, width=8)).eval()
    x = torch.rand(2, 3, 64, 96)
    output = net(x)
    maps = net.encoder(x)
    torch.testing.assert_close(output.feature, maps)
    joined = torch.cat([nn.Upsample(size=maps[0].shape[-2:], mode="bilinear", align_corners=False)(z) for z in maps], 1)
    convolution, norm, _ = net.fusion.mix
    fused = norm(torch.einsum("bchw,oc->bohw", joined, convolution.weight[..., 0, 0]) + convolution.bias[:, None, None])
    features = {task: net.branches[task](fused.clamp(min=0)) for task in OUTPUTS}
    refined = net.distillation(features, OUTPUTS)
    for task in OUTPUTS:
        torch.testing.assert_close(output.aux[0][task], net.initial[task](features[task]))
        torch.testing.assert_close(output.predictions[task], net.heads[task](refined[task]))


def test_the_order_of_tasks_does_not_matter():
    x = torch.rand(2, 3, 64, 96)
    one, other = (PADNet(Pyramid, dict(order), 0, width=8)(x) for order in (OUTPUTS.items(), [*OUTPUTS.items()][::-1]))
    for task in OUTPUTS:
        torch.testing.assert_close(one.predictions[task], other.predictions[task])
        torch.testing.assert_close(one.aux[0][task], other.aux[0][task])
