"""Heads: published sizes, shapes, what they do to constant maps."""

import pytest
import torch

from isonomy import errors
from isonomy.bench import backbones
from isonomy.bench.backbones import heads
from isonomy.bench.seeds import drawn
from tests.bench.backbones.nets import built, count, on_meta, sample

RESNET18, RESNET50 = (64, 128, 256, 512), (256, 512, 1024, 2048)
HRNET = (18, 36, 72, 144)
COUNTS = [
    *(
        ("aspp", RESNET18, k, n)
        for k, n in [(1, 4_722_433), (3, 4_722_947), (7, 4_723_975), (13, 4_725_517), (21, 4_727_573), (40, 4_732_456)]
    ),
    *(
        ("aspp", RESNET50, k, n)
        for k, n in [
            (1, 16_125_697),
            (3, 16_126_211),
            (7, 16_127_239),
            (13, 16_128_781),
            (21, 16_130_837),
            (40, 16_135_720),
        ]
    ),
    ("aspp_plus", RESNET50, 13, 26_680_669 - 23_508_032),
    *(("hrnet", HRNET, k, n) for k, n in [(1, 73_981), (3, 74_523), (7, 75_607), (21, 79_401), (40, 84_550)]),
    *(
        ("psp", RESNET50, k, n)
        for k, n in [(1, 23_074_305), (2, 23_074_818), (3, 23_075_331), (13, 23_080_461), (19, 23_083_539)]
    ),
    *(("psp_tail", (4096,), k, n) for k, n in [(1, 18_875_905), (13, 18_882_061), (19, 18_885_139)]),
    *(("vit", (768,) * 4, k, 8_849_920 + 513 * k) for k in (1, 40)),
    *(("segnet", (64,), k, n) for k, n in [(13, 37_773), (1, 36_993), (3, 37_123)]),
    ("linear", RESNET18, 31, 512 * 31 + 31),
]
NYUV2, NYUD, PASCAL = (13, 1, 3), (40, 1, 3, 1), (21, 7, 1, 3, 1)
# Hard parameter sharing: backbone, head, outputs of the tasks, all parameters. Those with ASPP are tested as networks.
TOTALS = [
    ("hrnet18", "hrnet", NYUD, 4_167_755),
    ("hrnet18", "hrnet", PASCAL, 4_238_213),
    ("resnet50", "psp", NYUV2, 92_738_129),
    ("resnet50", "psp", (19, 2, 1), 92_740_694),
    ("resnet50_pyramid", "psp_tail", NYUV2, 84_341_329),
    ("resnet50_pyramid", "psp_tail", (19, 2, 1), 84_343_894),
    ("segnet", "segnet", NYUV2, 25_055_185),
    ("vit_tiny", "vit", NYUD, 10_575_085),
    ("vit_small", "vit", NYUD, 34_394_029),
    ("vit_base", "vit", NYUD, 121_845_037),
    ("resnet18", "linear", (31,) * 3, 11_224_221),
    ("resnet18", "linear", (65,) * 4, 11_309_892),
    ("resnet18", "linear", (1,) * 40, 11_197_032),
    ("resnet18", "linear", (2,) * 40, 11_217_552),
    ("resnet18_pooled", "linear", (31,) * 3, 11_487_901),
    ("resnet18_pooled", "linear", (65,) * 4, 11_573_572),
    # One task: its single-task network.
    ("hrnet18", "hrnet", (40,), 3_945_270),
    ("hrnet18", "hrnet", (1,), 3_934_701),
    ("hrnet18", "hrnet", (3,), 3_935_243),
    ("hrnet18", "hrnet", (21,), 3_940_121),
    ("hrnet18", "hrnet", (7,), 3_936_327),
    ("segnet", "segnet", (13,), 24_981_069),
    ("segnet", "segnet", (1,), 24_980_289),
    ("segnet", "segnet", (3,), 24_980_419),
]


@pytest.mark.parametrize(("name", "channels", "outputs", "expected"), COUNTS)
def test_parameter_counts(name, channels, outputs, expected):
    assert count(on_meta(heads.make, name, channels, outputs)) == expected


@pytest.mark.parametrize(("backbone", "head", "outputs", "expected"), TOTALS)
def test_totals_of_hard_parameter_sharing(backbone, head, outputs, expected):
    encoder = on_meta(backbones.make, backbone, size=(448, 576))
    assert count(encoder) + sum(count(on_meta(heads.make, head, encoder.channels, k)) for k in outputs) == expected


@pytest.mark.parametrize(("channels", "expected"), [(512, 4_131_840), (2048, 15_535_104)])
def test_parameter_counts_of_aspp(channels, expected):
    assert count(on_meta(heads.ASPP, channels)) == expected


@pytest.mark.parametrize("name", sorted(set(heads.HEADS) - {"hrnet", "psp_tail"}))
def test_shapes_and_reach(name):
    encoder = built("resnet_mini")
    with drawn("head"):
        head = heads.make(name, encoder.channels, 5).eval()
    maps = [m.detach() for m in encoder(sample("resnet_mini"))]
    read = [maps[index] for index in head.reads]
    prediction = head(read if len(read) > 1 else read[0])
    assert prediction.shape == ((2, 5) if name == "linear" else (2, 5, *read[0].shape[2:]))
    prediction.square().mean().backward()
    assert [n for n, p in head.named_parameters() if not p.grad.any()] == []


def test_hrnet_s_head_is_a_pointwise_network_of_the_resized_maps():
    with drawn("head"):
        head = heads.make("hrnet", HRNET, 2).eval()
    maps = [torch.rand(2, c, 16 // 2**i, 24 // 2**i) for i, c in enumerate(HRNET)]
    resized = [torch.nn.functional.interpolate(m, (16, 24), mode="bilinear") for m in maps]
    torch.testing.assert_close(head(maps), head.layers(torch.cat(resized, 1)))
    assert head(maps).shape == (2, 2, 16, 24)


def test_aspp_s_branches_reach_as_far_as_their_dilation():
    """A lone pixel answers at distances 0, 12, 24 and 36, and everywhere through the average."""
    aspp = heads.ASPP(4).eval()
    seen = []
    for branch in aspp.branches:
        x = torch.rand(1, 4, 1, 101, requires_grad=True)
        branch[0](x)[0, :, 0, 50].sum().backward()
        seen.append((x.grad[0].abs().sum(dim=(0, 1)).nonzero().flatten() - 50).tolist())
    assert seen == [[0], [-12, 0, 12], [-24, 0, 24], [-36, 0, 36]]
    x = torch.rand(1, 4, 3, 5)
    everywhere = aspp.pool(x)
    torch.testing.assert_close(everywhere, aspp.pool[1](x.mean(dim=(2, 3), keepdim=True)))


def test_the_plus_decoder_reads_the_finest_map():
    head = heads.make("aspp_plus", (8, 16), 1).eval()
    fine, coarse = torch.rand(2, 8, 8, 12), torch.rand(2, 16, 4, 6)
    assert not torch.equal(head([fine, coarse]), head([fine + 1, coarse]))
    assert not torch.equal(head([fine, coarse]), head([fine, coarse + 1]))


def test_a_linear_head_averages_maps():
    head = heads.make("linear", (8,), 3)
    x = torch.rand(2, 8, 4, 6)
    torch.testing.assert_close(head(x), head(x.mean(dim=(2, 3))))


def test_a_head_that_reads_more_maps_than_there_are_is_refused():
    with pytest.raises(errors.IsonomyError, match="The head 'hrnet' reads 4 maps, and the backbone gives 1"):
        heads.make("hrnet", (64,), 3)


def test_an_unknown_head_is_named():
    with pytest.raises(errors.IsonomyError, match="did you mean 'aspp'"):
        heads.make("asp", (8,), 3)
