from functools import partial

import pytest
import torch
from torch import nn

from isonomy.bench import backbones
from isonomy.bench.architectures import invpt
from isonomy.bench.architectures.invpt import InvPT, JointNorm, Stage
from isonomy.errors import IsonomyError

from .dense import NYUD, OUTPUTS, PASCAL, Grid, Pyramid, built, count, losses, reached, shake

PASCAL = PASCAL | {"sal": 2}


def vit(name, height, width):
    return partial(backbones.make, name, size=(height, width))


def unused(channels, common, tasks):
    """What the authors' network has and never uses, for a backbone of so many channels."""
    skip = 9 * channels * common + common  # of the first stage, never added
    reductions = tasks * (common**2 + common)  # of the first stage, which has the common width
    norm = 2 * tasks * common // 4  # after the last stage
    mix = 4 * 2 + 2  # of the first stage, which has no scores to go on from
    return skip + reductions + norm + mix


@pytest.mark.parametrize(("channels", "common", "tasks", "number"), [(768, 576, 4, 5_312_458), (192, 256, 4, 706_314)])
def test_numbers_of_unused_parameters(channels, common, tasks, number):
    assert unused(channels, common, tasks) == number


@pytest.mark.parametrize(
    ("backbone", "channels", "outputs", "published"),
    [
        ("vit_tiny", 192, NYUD, 44_328_472),
        ("vit_small", 384, NYUD, 69_889_240),
        ("vit_base", 768, NYUD, 160_823_896),
        ("vit_large", 1024, NYUD, 402_092_888),
        ("vit_tiny", 192, PASCAL, 52_211_154),
        ("vit_small", 384, PASCAL, 79_655_442),
        ("vit_base", 768, PASCAL, 176_347_794),
        # Single tasks, with the same modules.
        ("vit_tiny", 192, {"semseg": 40}, 20_626_334),
        ("vit_base", 768, {"semseg": 40}, 114_225_758),
        ("vit_tiny", 192, {"depth": 1}, 20_561_360),
    ],
)
def test_published_numbers_of_parameters_less_the_unused_ones(backbone, channels, outputs, published):
    encoder = vit(backbone, *((512, 512) if outputs is PASCAL else (448, 576)))
    assert built(lambda: InvPT(encoder, outputs, 0)) == published - unused(channels, 576, len(outputs))


@pytest.mark.parametrize(
    ("backbone", "channels", "preliminary", "skips"),
    [
        ("vit_tiny", 192, 4_871_680, 1_742_832),
        ("vit_small", 384, 12_393_472, 3_484_656),
        ("vit_base", 768, 35_399_680, 6_968_304),
        ("vit_large", 1024, 56_635_392, 9_290_736),
    ],
)
def test_published_numbers_of_parameters_part_by_part(backbone, channels, preliminary, skips):
    with torch.device("meta"):
        net = InvPT(vit(backbone, 448, 576), NYUD, 0)
    first_skip, mix = 9 * channels * 576 + 576, 10  # of the first stage, never used
    assert count(net.preliminary) == preliminary
    assert count(net.skips) == skips - first_skip
    stages = [count(net.stages[0]), *(count(net.lifts[i - 1]) + count(net.stages[i]) for i in (1, 2))]
    assert stages == [4_014_154 - mix, 9_974_314, 2_498_842]
    predictions = count(net.initial) + sum(count(head[-1]) for head in net.heads.values())
    rest = count(net) - sum(map(count, (net.encoder, net.preliminary, net.skips))) - predictions
    assert rest == 31_984_590 - (unused(channels, 576, 4) - first_skip)


def test_a_narrow_network_has_the_published_number_less_the_unused_ones():
    assert built(lambda: InvPT(vit("vit_tiny", 448, 576), NYUD, 0, width=192)) == 15_442_552 - 706_314


def test_resolutions_on_a_published_backbone_and_no_dead_parameter():
    encoder = vit("vit_tiny", 128, 192)
    net = InvPT(encoder, OUTPUTS, 0, width=192)
    output = net(torch.rand(2, 3, 128, 192))
    assert [tuple(z.shape) for z in output.feature] == [(2, 192, 8, 12)] * 3
    for predictions, size in ((output.predictions, (32, 48)), (output.aux[0], (4, 6))):
        assert {task: tuple(y.shape) for task, y in predictions.items()} == {
            task: (2, k, *size) for task, k in OUTPUTS.items()
        }
    assert len(output.aux) == 1
    assert reached(net, sum(losses(output, OUTPUTS).values())) == {name for name, _ in net.named_parameters()}


def test_the_grid_is_taken_from_the_images():
    net = shake(InvPT(Grid, OUTPUTS, 0, width=8)).eval()
    for size in ((64, 64), (128, 192), (192, 64)):
        assert net(torch.rand(1, 3, *size)).predictions["seg"].shape[-2:] == (size[0] // 4, size[1] // 4)


@pytest.mark.parametrize(("stride", "size", "multiple"), [(16, (64, 96), 64), (16, (96, 64), 64), (14, (112, 126), 56)])
def test_other_sizes_are_refused(stride, size, multiple):
    net = InvPT(partial(Grid, stride=stride), OUTPUTS, 0, width=8)
    with pytest.raises(IsonomyError, match=rf"multiples of {multiple}, not {size[0]} x {size[1]}"):
        net(torch.rand(2, 3, *size))


def test_backbones_with_several_resolutions_are_refused():
    with pytest.raises(IsonomyError, match=r"strides \(4, 8, 16, 32\); InvPT reads three or more of one resolution"):
        InvPT(Pyramid, OUTPUTS, 0, width=8)


def test_maps_and_tokens_are_inverse_and_task_by_task():
    maps = {task: torch.randn(2, 3, 4, 5) for task in ("a", "b")}
    tokens = invpt.to_tokens(maps)
    assert tokens.shape == (2, 40, 3)
    assert torch.equal(tokens[1, 20 + 2 * 5 + 3], maps["b"][1, :, 2, 3])
    back = invpt.to_maps(tokens, ["a", "b"], 4, 5)
    assert all(torch.equal(back[task], maps[task]) for task in maps)


def test_scores_are_enlarged_task_by_task_and_key_by_key():
    scores = torch.randn(2, 2, 3 * 2 * 4, 5)
    finer = invpt.enlarge_scores(scores, 3, 2, 4)
    assert finer.shape == (2, 2, 3 * 4 * 8, 5)
    twice = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    for head in range(2):
        for task in range(3):
            for key in range(5):
                own = scores[:, head, task * 8 : (task + 1) * 8, key].reshape(2, 1, 2, 4)
                wanted = twice(own).reshape(2, 32)
                torch.testing.assert_close(finer[:, head, task * 32 : (task + 1) * 32, key], wanted)


@pytest.mark.parametrize("index", [0, 1])
def test_a_stage_by_hand(index):
    """Attention one query, one key and one head at a time."""
    tasks, width, height, breadth = ["a", "b"], 6, 4 * 2**index, 2 * 2**index
    stage = shake(Stage(tasks, index, width, 0).double(), 0.5).eval()
    maps = {task: torch.randn(1, width, height, breadth, dtype=torch.float64) for task in tasks}
    before = torch.randn(1, 2, 2 * height // 4 * breadth // 4, 4, dtype=torch.float64) if index else None
    got, scores = stage(maps, before)

    normed = {task: stage.norm(x.movedim(1, -1)).movedim(-1, 1)[0] for task, x in maps.items()}
    queries, keys, values = [], [], []
    for task in tasks:
        convolution, norm = stage.narrow[task]
        padded = nn.functional.pad(normed[task], (1, 1, 1, 1))
        for i in range(0, height, 2):
            for j in range(0, breadth, 2):
                window = padded[:, i : i + 3, j : j + 3]
                q = (window * convolution.weight[:, 0]).sum((1, 2))
                q = (q - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
                queries.append(stage.query(q))
        pool = 2 ** (index + 1)
        for i in range(0, height, pool):
            for j in range(0, breadth, pool):
                mean = normed[task][:, i : i + pool, j : j + pool].mean((1, 2))
                keys.append(stage.key(mean))
                values.append(stage.value(mean))
    assert len(keys) == 2 * height // pool * breadth // pool
    wanted = torch.empty(2, len(queries), len(keys), dtype=torch.float64)
    for head in range(2):
        own = slice(3 * head, 3 * head + 3)
        for i, q in enumerate(queries):
            for j, k in enumerate(keys):
                wanted[head, i, j] = q[own] @ k[own] / width**0.5
    if index:
        both = torch.cat([wanted, invpt.enlarge_scores(before, 2, height // 4, breadth // 4)[0]])
        wanted = torch.stack(
            [sum(stage.mix.weight[o, h, 0, 0] * both[h] for h in range(4)) + stage.mix.bias[o] for o in range(2)]
        )
    torch.testing.assert_close(scores[0], wanted)

    attended = []
    for i in range(len(queries)):
        heads = []
        for head in range(2):
            weights = wanted[head, i].exp() / wanted[head, i].exp().sum()
            heads.append(sum(w * v[3 * head : 3 * head + 3] for w, v in zip(weights, values, strict=True)))
        attended.append(stage.project(torch.cat(heads)))
    coarse = torch.stack(attended).reshape(2, height // 2, breadth // 2, width).permute(0, 3, 1, 2)
    fine = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(coarse)
    for t, task in enumerate(tasks):
        y = (maps[task][0] + fine[t]).movedim(0, -1)
        torch.testing.assert_close(got[task][0], (y + stage.mlp(y)).movedim(-1, 0))


def test_all_tasks_channels_are_normalised_together():
    module = shake(JointNorm(2, 3))
    maps = {task: torch.randn(2, 3, 4, 5) for task in ("a", "b")}
    joined = torch.cat([maps["a"], maps["b"]], 1)
    mean, variance = joined.mean(1, keepdim=True), joined.var(1, correction=0, keepdim=True)
    weight, bias = (p[:, None, None] for p in module.norm.parameters())
    wanted = (joined - mean) / (variance + 1e-5).sqrt() * weight + bias
    normed = module(maps)
    torch.testing.assert_close(torch.cat([normed["a"], normed["b"]], 1), wanted)


def test_a_forward_pass_by_hand():
    net = shake(InvPT(Grid, OUTPUTS, 0, width=8)).eval()
    x = torch.rand(2, 3, 128, 192)
    output = net(x)
    first, second, _, last = net.encoder(x)
    torch.testing.assert_close(output.feature, [first, second, last])

    def bilinear(y, height, width):
        return nn.functional.interpolate(y, (height, width), mode="bilinear", align_corners=False)

    hidden = {task: net.preliminary[task](bilinear(last, 4, 6)) for task in OUTPUTS}
    maps = {}
    for task, y in hidden.items():
        initial = net.initial[task](y)
        torch.testing.assert_close(output.aux[0][task], initial)
        maps[task] = net.embed[task](torch.cat([y, initial], 1))
    maps, scores = net.stages[0](maps, None)
    sums = {task: bilinear(y, 32, 48) for task, y in net.norms[0](maps).items()}
    for i, skip in ((1, net.skips[0](second)), (2, net.skips[1](first))):
        lifted = {}
        for task in OUTPUTS:
            _, one, two = net.lifts[i - 1][task]
            lifted[task] = two(one(bilinear(maps[task], 4 * 2**i, 6 * 2**i))) + skip
        maps, scores = net.stages[i](lifted, scores)
        for task, y in net.norms[i](maps).items():
            sums[task] = sums[task] + bilinear(net.reductions[i][task](y), 32, 48)
    for task in OUTPUTS:
        torch.testing.assert_close(output.predictions[task], net.heads[task](sums[task]))


def test_the_order_of_tasks_does_not_matter_once_joined_channels_are_reordered():
    tasks, order = list(OUTPUTS), [2, 0, 1]
    net = shake(InvPT(Grid, OUTPUTS, 0, width=8)).double().eval()
    other = InvPT(Grid, {tasks[i]: OUTPUTS[tasks[i]] for i in order}, 0, width=8).double().eval()
    state = net.state_dict()
    for name in [name for name in state if name.startswith("norms.")]:
        state[name] = torch.cat([state[name].chunk(3)[i] for i in order])
    other.load_state_dict(state)
    x = torch.rand(2, 3, 64, 128, dtype=torch.float64)
    mine, its = net(x), other(x)
    for one, two in zip((mine.predictions, *mine.aux), (its.predictions, *its.aux), strict=True):
        assert list(two) == [tasks[i] for i in order]
        for task in tasks:
            torch.testing.assert_close(one[task], two[task])
