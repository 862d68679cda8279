from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from isonomy.bench import backbones
from isonomy.bench.architectures.mti_net import MTINet, Propagation, SqueezeExcite

from .dense import NYUD, OUTPUTS, PASCAL, Pyramid, built, count, losses, reached, shake

hrnet = partial(backbones.make, "hrnet18", size=(64, 96))


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize(
    ("outputs", "published"),
    [
        (NYUD, 17_960_945),
        (PASCAL, 24_494_171),
        ({"semseg": 40, "depth": 1}, 8_578_179),
        # Single tasks, with the same modules.
        ({"semseg": 40}, 6_204_814),
        ({"semseg": 21}, 6_194_459),
        ({"human_parts": 7}, 6_186_829),
        ({"normals": 3}, 6_184_649),
        ({"depth": 1}, 6_183_559),
    ],
)
def test_published_numbers_of_parameters(outputs, published, reference):
    assert built(lambda: MTINet(hrnet, outputs, 0, reference_fpm_layout=reference)) == published


@pytest.mark.parametrize(
    ("outputs", "propagations", "initial", "distillations", "heads"),
    [
        (
            NYUD,
            [156_968, 626_128, 2_502_180],
            [75_447, 298_593, 1_188_117, 2_997_117],
            [69_984, 279_936, 1_119_744, 4_478_976],
            307_035,
        ),
        (
            PASCAL,
            [221_995, 885_908, 3_540_933],
            [93_867, 372_381, 1_483_449, 3_743_025],
            [116_640, 466_560, 1_866_240, 7_464_960],
            377_493,
        ),
    ],
)
def test_published_numbers_of_parameters_part_by_part(outputs, propagations, initial, distillations, heads):
    with torch.device("meta"):
        net = MTINet(hrnet, outputs, 0)
    assert list(map(count, net.propagations)) == propagations
    assert [count(a) + count(b) for a, b in zip(net.branches, net.deep, strict=True)] == initial
    assert list(map(count, net.distillations)) == distillations
    assert count(net.heads) == heads


def test_a_task_that_is_alone_has_the_published_propagations():
    with torch.device("meta"):
        assert count(MTINet(hrnet, {"depth": 1}, 0).propagations) == 616_128


def test_resolutions_on_the_published_backbone_and_no_dead_parameter():
    net = MTINet(hrnet, OUTPUTS, 0)
    output = net(torch.rand(2, 3, 64, 96))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(z.shape[1:]) for z in output.feature] == [
        (c, *size) for c, size in zip((18, 36, 72, 144), sizes, strict=True)
    ]
    for predictions, size in zip((output.predictions, *output.aux), [sizes[0], *sizes], strict=True):
        assert {task: tuple(y.shape) for task, y in predictions.items()} == {
            task: (2, k, *size) for task, k in OUTPUTS.items()
        }
    assert reached(net, sum(losses(output, OUTPUTS).values())) == {name for name, _ in net.named_parameters()}


def test_features_are_passed_on_from_coarse_to_fine():
    net = shake(MTINet(Pyramid, OUTPUTS, 0)).eval()
    maps = net.encoder(torch.rand(2, 3, 64, 96))
    features = net.features(maps)
    for changed in range(4):
        other = net.features([z + (0.5 if scale == changed else 0) for scale, z in enumerate(maps)])
        for scale in range(4):
            for task in OUTPUTS:
                same = torch.equal(other[scale][task], features[scale][task])
                assert same == (scale > changed)


def test_a_forward_pass_by_hand():
    net = shake(MTINet(Pyramid, OUTPUTS, 0)).eval()
    x = torch.rand(2, 3, 64, 96)
    output = net(x)
    maps = net.encoder(x)
    twice = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    levels = [{task: net.branches[3][task](maps[3]) for task in OUTPUTS}]
    for scale in (2, 1, 0):
        passed = net.propagations[scale](levels[0])
        inputs = {task: torch.cat([maps[scale], twice(passed[task])], 1) for task in OUTPUTS}
        levels.insert(0, {task: net.branches[scale][task](inputs[task]) for task in OUTPUTS})
    for scale, level in enumerate(levels):
        for task in OUTPUTS:
            torch.testing.assert_close(output.aux[scale][task], net.deep[scale][task](level[task]))
    for task in OUTPUTS:
        refined = [net.distillations[scale](level, [task])[task] for scale, level in enumerate(levels)]
        torch.testing.assert_close(output.predictions[task], net.heads[task](refined))


@pytest.mark.parametrize("reference", [False, True])
def test_propagation_by_hand(reference):
    tasks, channels = ["a", "b", "c"], 4
    module = shake(Propagation(tasks, channels, reference, 0, "propagation")).eval()
    features = {task: torch.randn(2, channels, 3, 5) for task in tasks}
    joined = torch.cat(list(features.values()), 1)
    exponentials = module.attend(joined).exp()
    weights = torch.empty_like(exponentials)
    for channel in range(len(tasks) * channels):
        first = channel // len(tasks) * len(tasks)
        rivals = range(first, first + len(tasks)) if reference else range(channel % channels, len(tasks) * channels, 4)
        assert channel in rivals
        assert len(rivals) == len(tasks)
        weights[:, channel] = exponentials[:, channel] / sum(exponentials[:, rival] for rival in rivals)
    torch.testing.assert_close(module.attention(joined), weights)

    common = module.common(joined * weights)
    for task, passed in module(features).items():
        down, _, up, _ = module.excite[task].gate
        hidden = (common.mean((2, 3)) @ down.weight.T + down.bias).clamp(min=0)
        gate = torch.sigmoid(hidden @ up.weight.T + up.bias)
        torch.testing.assert_close(passed, features[task] + common * gate[:, :, None, None])


def test_attention_sums_to_one_over_tasks_and_not_in_the_reference_layout():
    joined = torch.randn(2, 12, 3, 5)
    ours, theirs = (shake(Propagation(["a", "b", "c"], 4, layout, 0, "p")).eval() for layout in (False, True))
    sums = ours.attention(joined).unflatten(1, (3, 4)).sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert (theirs.attention(joined).unflatten(1, (3, 4)).sum(1) - 1).abs().max() > 0.01


def test_a_task_that_is_alone_has_constant_attention_and_zero_gradients_there():
    net = shake(MTINet(Pyramid, {"seg": 4}, 0))
    losses(net(torch.rand(2, 3, 64, 96)), ["seg"])["seg"].backward()
    for propagation, coarser in zip(net.propagations, (6, 8, 10), strict=True):
        attention = propagation.attention(torch.randn(2, coarser, 3, 5))
        assert torch.equal(attention, torch.ones_like(attention))
        assert all(not parameter.grad.any() for parameter in propagation.attend.parameters())
        assert any(parameter.grad.any() for parameter in propagation.common.parameters())


def test_narrow_maps_keep_a_channel_inside():
    x = 1 + torch.arange(120.0).view(2, 4, 3, 5) / 120
    excite = SqueezeExcite(4)
    for layer in (excite.gate[0], excite.gate[2]):
        torch.nn.init.ones_(layer.weight)
    gates = excite(x) / x
    assert not torch.allclose(gates[0, :, 0, 0], gates[1, :, 0, 0], atol=1e-4)


def test_the_order_of_tasks_does_not_matter_once_joined_channels_are_reordered():
    tasks = list(OUTPUTS)
    order = [2, 0, 1]
    net = shake(MTINet(Pyramid, OUTPUTS, 0)).double().eval()
    other = MTINet(Pyramid, {tasks[i]: OUTPUTS[tasks[i]] for i in order}, 0).double().eval()
    state = net.state_dict()
    for scale, channels in enumerate((6, 8, 10)):
        index = torch.cat([torch.arange(i * channels, (i + 1) * channels) for i in order])
        block, _, last = (f"propagations.{scale}.attend.{layer}." for layer in range(3))
        for first in (block, f"propagations.{scale}.common."):
            for name in ("conv1.weight", "downsample.0.weight"):
                state[first + name] = state[first + name][:, index]
        for name in ("weight", "bias"):
            state[last + name] = state[last + name][index]
    other.load_state_dict(state)
    x = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    mine, its = net(x), other(x)
    for one, two in zip((mine.predictions, *mine.aux), (its.predictions, *its.aux), strict=True):
        assert list(two) == [tasks[i] for i in order]
        for task in tasks:
            torch.testing.assert_close(one[task], two[task])


def test_scales_are_passed_on_between_any_resolutions():
    class Dilated(Pyramid):
        """Its last maps have the resolution of the second."""

        def forward(self, x):
            maps = super().forward(x)
            return [*maps[:2], *(nn.functional.interpolate(z, maps[1].shape[-2:]) for z in maps[2:])]

    output = MTINet(Dilated, OUTPUTS, 0)(torch.rand(2, 3, 64, 96))
    sizes = [tuple(each["seg"].shape[-2:]) for each in output.aux]
    assert sizes == [(16, 24), *[(8, 12)] * 3]
    assert all(coarse <= fine for fine, coarse in pairwise(sizes))
