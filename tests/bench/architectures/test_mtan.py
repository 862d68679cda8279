from functools import partial

import pytest
import torch
from torch.nn import functional

from isonomy.bench.architectures.hps import HPS
from isonomy.bench.architectures.mtan import MTAN
from isonomy.bench.backbones.heads import ConvHead, SegNetHead
from isonomy.bench.backbones.resnet import BasicBlock, Bottleneck, ResNet
from isonomy.bench.backbones.segnet import SegNet
from isonomy.bench.backbones.unet import UNet
from isonomy.errors import IsonomyError
from tests.bench.architectures.networks import (
    CITY,
    NYUD,
    NYUV2,
    PASCAL,
    count,
    declared,
    images,
    large,
    own_and_shared,
    small,
)


@pytest.mark.parametrize(
    ("variant", "outputs", "deep", "published", "masks", "refine"),
    [
        ("libmtl", NYUV2, False, 33_308_113, 1_046_144, 4_822_272),
        ("libmtl", NYUV2, True, 92_347_921, 4_175_936, 7_931_392),
        ("libmtl", CITY, True, 72_044_232, 4_175_936, 7_931_392),
        ("survey", NYUD, False, 31_630_637, 263_696, 499_072),
        ("survey", NYUD, True, 112_656_493, 4_175_936, 7_931_392),
        ("survey", PASCAL, False, 36_613_425, 263_696, 499_072),
        ("survey", PASCAL, True, 132_954_785, 4_175_936, 7_931_392),
        ("survey", {"semseg": 40}, False, 16_671_736, 263_696, 499_072),
        ("survey", {"depth": 1}, False, 16_661_713, 263_696, 499_072),
        ("survey", {"normals": 3}, False, 16_662_227, 263_696, 499_072),
    ],
)
def test_counts(variant, outputs, deep, published, masks, refine):
    network = large(MTAN, outputs, deep=deep, variant=variant)
    assert count(network.parameters()) == published
    assert count(network.masks.parameters()) == masks * len(outputs)
    assert count(network.path.parameters()) == refine
    assert count(network.shared_parameters()) == refine + (23_508_032 if deep else 11_176_512)


def test_counts_on_segnet():
    network = large(MTAN, NYUV2, head="segnet", encoder=SegNet)
    assert count(network.parameters()) == 44_229_073
    assert count(network.shared_parameters()) == 35_163_456
    for masks in network.masks.values():
        assert [count(masks[half].parameters()) for half in ("down", "up")] == [1_835_648, 1_148_928]
    assert count(network.path.down.parameters()) == 6_272_640
    assert count(network.path.up.parameters()) == 3_947_520
    assert count(network.parameters()) - count(network.heads.parameters()) == 44_117_184


def open_masks(network):
    """Makes every mask one."""
    for module in network.masks.modules():
        if isinstance(module, torch.nn.Sequential) and isinstance(module[-1], torch.nn.Sigmoid):
            module[-2].weight.data.zero_()
            module[-2].bias.data.fill_(100.0)


def tiny(block, depths=(2, 2, 3, 2)):
    return ResNet(block, depths, (4, 8, 12, 16), normalize=None)


def on_resnet(block, variant, depths=(2, 2, 3, 2)):
    heads = {task: partial(ConvHead, (16 * block.expansion,), outputs) for task, outputs in (("a", 2), ("b", 3))}
    return MTAN(partial(tiny, block, depths), heads, 0, variant)


def on_segnet(tasks=("a", "b")):
    return MTAN(SegNet, {task: partial(SegNetHead, (64,), 2) for task in tasks}, 0)


@pytest.mark.parametrize("make", [partial(on_resnet, Bottleneck, "survey"), partial(small, "mtan"), on_segnet])
def test_open_masks_make_hard_sharing(make):
    network = make()
    open_masks(network)
    predictions = network(images()).predictions
    feature = network.encoder(images())[-1]
    for task, head in network.heads.items():
        torch.testing.assert_close(predictions[task], head(feature), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (40, 72)])
@pytest.mark.parametrize(
    ("block", "variant", "narrow", "refine"),
    [
        (BasicBlock, "survey", 4, Bottleneck),
        (BasicBlock, "libmtl", 1, BasicBlock),
        (Bottleneck, "survey", 4, Bottleneck),
        (Bottleneck, "libmtl", 4, Bottleneck),
    ],
)
def test_on_a_resnet_by_brute_force(block, variant, narrow, refine, size):
    network = on_resnet(block, variant).eval()
    encoder = network.encoder
    assert all(type(each) is refine for each in network.path.refine)
    x = images(size=size)
    predictions = network(x).predictions
    for task, head in network.heads.items():
        masks = network.masks[task]
        assert [mask[0].out_channels * narrow for mask in masks] == list(encoder.channels)
        x = encoder.maxpool(encoder.act1(encoder.bn1(encoder.conv1(images(size=size)))))
        carried = []
        for stage in range(4):
            layer = getattr(encoder, f"layer{stage + 1}")
            for number in range(len(layer) - 1):
                x = layer[number](x)
            picked = masks[stage](torch.cat([x, *carried], dim=1))
            x = layer[len(layer) - 1](x)
            if stage < 3:
                carried = [network.path.refine[stage](picked * x)]
                # Of the stages that follow, only the second halves the resolution.
                if stage == 0:
                    carried = [functional.max_pool2d(carried[0], 2, ceil_mode=True)]
        torch.testing.assert_close(predictions[task], head(picked * x), rtol=1e-4, atol=1e-5)


def test_on_segnet_by_brute_force():
    # By the statistics of the batch, since features vanish on their way with the first running ones.
    network = on_segnet(("a",)).double()
    encoder, path, masks = network.encoder, network.path, network.masks["a"]
    x = images(size=(64, 32)).double()
    tensors, indices, before_pool, firsts = x, [], [], []
    for stage in range(5):
        first = encoder.encoder_blocks[stage](tensors)
        last = encoder.encoder_convs[stage](first)
        tensors, index = functional.max_pool2d(last, 2, return_indices=True)
        firsts.append(first)
        before_pool.append(last)
        indices.append(index)
    attended = functional.max_pool2d(path.down[0](masks["down"][0](firsts[0]) * before_pool[0]), 2)
    for stage in range(1, 5):
        mask = masks["down"][stage](torch.cat([firsts[stage], attended], dim=1))
        attended = functional.max_pool2d(path.down[stage](mask * before_pool[stage]), 2)
    for stage in (4, 3, 2, 1, 0):
        unpooled = functional.max_unpool2d(tensors, indices[stage], 2)
        tensors = encoder.decoder_convs[stage](encoder.decoder_blocks[stage](unpooled))
        larger = functional.interpolate(attended, scale_factor=2, mode="bilinear", align_corners=True)
        mask = masks["up"][stage](torch.cat([unpooled, path.up[stage](larger)], dim=1))
        attended = mask * tensors
    torch.testing.assert_close(network(x).predictions["a"], network.heads["a"](attended), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [partial(on_resnet, BasicBlock, "survey"), on_segnet])
def test_refinement_is_shared_and_masks_are_not(make):
    network = make()
    found = own_and_shared(network, network(images(size=(64, 64))))
    assert () not in found
    assert declared(network) == found[("a", "b")]
    assert {name.split(".")[0] for name in found[("a", "b")]} == {"encoder", "path"}
    for task in ("a", "b"):
        assert {".".join(name.split(".")[:2]) for name in found[(task,)]} == {f"masks.{task}", f"heads.{task}"}


def test_what_cannot_be_built_is_refused():
    with pytest.raises(IsonomyError, match="UNet has none: use a ResNet, such as resnet18, or segnet"):
        MTAN(UNet, {"seg": partial(ConvHead, (16,), 2)}, 0)
    with pytest.raises(IsonomyError, match="Unknown variant 'serve': did you mean 'survey'"):
        small("mtan", variant="serve")


def test_segnets_masks_start_from_xaviers_distribution():
    network = HPS(SegNet, {"a": partial(SegNetHead, (64,), 2)}, 0)
    attentive = on_segnet(("a",))
    assert torch.equal(network.encoder.encoder_blocks[0][0].weight, attentive.encoder.encoder_blocks[0][0].weight)
    convolution = attentive.masks["a"]["down"][4][0]
    assert not convolution.bias.any()
    assert convolution.weight.std().item() == pytest.approx((2 / (1024 + 512)) ** 0.5, rel=0.01)
