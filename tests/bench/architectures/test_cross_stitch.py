import pytest
import torch

from isonomy.bench.architectures.cross_stitch import CrossStitch
from isonomy.bench.backbones.heads import ConvHead
from isonomy.bench.backbones.segnet import SegNet
from isonomy.errors import IsonomyError
from tests.bench.architectures.networks import LIBMTL, NYUD, NYUV2, PASCAL, count, images, large, small


@pytest.mark.parametrize(
    ("outputs", "deep", "published"),
    [
        (NYUD, False, 63_621_677),
        (NYUD, True, 158_606_893),
        (PASCAL, False, 79_525_921),
        (PASCAL, True, 198_271_841),
    ],
)
def test_counts(outputs, deep, published):
    assert count(large(CrossStitch, outputs, deep=deep).parameters()) == published


@pytest.mark.parametrize(("deep", "published"), [(False, 47_700_469), (True, 118_904_821)])
def test_counts_of_libmtls_form(deep, published):
    # LibMTL makes a fourth unit of 3 x 3 weights that nothing reads.
    assert count(large(CrossStitch, NYUV2, deep=deep, **LIBMTL).parameters()) == published - 9


def test_first_weights():
    units = small("cross_stitch").units
    expected = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])
    assert [unit.shape[2] for unit in units.values()] == [8, 16, 32, 64]
    for unit in units.values():
        assert torch.equal(unit, expected[..., None].expand_as(unit))
    libmtl = small("cross_stitch libmtl").units
    assert list(libmtl) == ["1", "2", "3"]
    assert all(torch.equal(unit, torch.ones(3, 3)) for unit in libmtl.values())


@pytest.mark.parametrize("granularity", ["scalar", "channel"])
def test_identity_units_make_separate_networks(granularity):
    network = small("cross_stitch", granularity=granularity, init=(1.0, 0.0))
    predictions = network(images()).predictions
    for task, head in network.heads.items():
        alone = head(network.columns.backbones[task](images())[-1])
        torch.testing.assert_close(predictions[task], alone)


@pytest.mark.parametrize("kind", ["cross_stitch", "cross_stitch libmtl"])
def test_brute_force(kind):
    network = small(kind, 2).eval()
    generator = torch.Generator().manual_seed(0)
    for unit in network.units.values():
        unit.data = torch.randn(unit.shape, generator=generator)
    backbones = list(network.columns.backbones.values())
    x = [backbone.maxpool(backbone.act1(backbone.bn1(backbone.conv1(images())))) for backbone in backbones]
    for stage in ("1", "2", "3", "4"):
        x = [getattr(backbone, f"layer{stage}")(each) for backbone, each in zip(backbones, x, strict=True)]
        if stage in network.units:
            unit = network.units[stage]
            stacked = torch.stack(x)
            x = torch.einsum("tjc,jbchw->tbchw" if unit.ndim == 3 else "tj,jbchw->tbchw", unit, stacked)
    predictions = network(images()).predictions
    for position, (task, head) in enumerate(network.heads.items()):
        torch.testing.assert_close(predictions[task], head(x[position]), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(IsonomyError, match="Unknown granularity 'chanel': did you mean 'channel'"):
        small("cross_stitch", granularity="chanel")
    for after in ((), (0, 1), (5,)):
        with pytest.raises(IsonomyError, match="stages from 1 to 4"):
            small("cross_stitch", after=after)
    with pytest.raises(IsonomyError, match="SegNet has none: use a ResNet"):
        CrossStitch(SegNet, {"seg": lambda: ConvHead((64,), 3)}, 0)
