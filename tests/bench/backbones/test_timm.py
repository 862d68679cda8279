"""timm's networks behind our names."""

import pytest
import torch

from isonomy.bench import backbones
from isonomy.bench.backbones.inputs import IMAGENET
from tests.bench.backbones.nets import VITS, built, sample, shaken, size_for, timm

HALF = ((0.5,) * 3, (0.5,) * 3)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
STATISTICS = {
    **dict.fromkeys(VITS, HALF),
    "vit_base_clip": CLIP,
    **dict.fromkeys(["vit_base_sam", "vit_base_dino", "vit_base_dinov2"], IMAGENET),
}


def test_hrnet_with_nearest_fusion_is_timm_s():
    ours = shaken(built("hrnet18", normalize=None, fusion="nearest"))
    theirs = timm.create_model("hrnet_w18_small_v2", features_only=True, feature_location="").eval()
    theirs.load_state_dict(ours.body.state_dict())
    x = sample("hrnet18")
    for got, expected in zip(ours(x), theirs(x)[1:], strict=True):
        assert torch.equal(got, expected)


def test_hrnet_fuses_bilinearly_by_default():
    ours, nearest = shaken(built("hrnet18")), shaken(built("hrnet18", fusion="nearest"))
    x = sample("hrnet18")
    assert not torch.allclose(ours(x)[0], nearest(x)[0])
    fused = [m for m in ours.modules() if isinstance(m, torch.nn.Upsample)]
    assert fused
    y = torch.rand(1, 2, 3, 4)
    assert torch.equal(fused[0](y), torch.nn.functional.interpolate(y, scale_factor=2, mode="bilinear"))


@pytest.mark.parametrize(("name", "expected"), STATISTICS.items())
def test_a_transformer_normalises_as_its_checkpoint_does(name, expected, narrow):
    own, imagenet = (built(name, normalize=which).normalize for which in ("checkpoint", "imagenet"))
    for module, (mean, std) in ((own, expected), (imagenet, IMAGENET)):
        torch.testing.assert_close(module.mean.flatten(), torch.tensor(mean))
        torch.testing.assert_close(module.std.flatten(), torch.tensor(std))


@pytest.mark.parametrize("name", [name for name in VITS if name != "vit_base_sam"])
def test_a_transformer_s_maps_are_its_patches(name, narrow):
    """The last map is what the network without a head gives, the class and register tokens left out."""
    network = built(name, normalize=None).eval()
    x = sample(name)
    maps = network(x)
    tokens = network.body.forward_features(x)
    patch = network.strides[-1]
    rows, columns = (side // patch for side in size_for(name))
    first = tokens.shape[1] - rows * columns
    assert first == {"vit_base_dinov2": 5}.get(name, 1)
    for row, column in [(0, 0), (1, 2), (rows - 1, columns - 1)]:
        torch.testing.assert_close(maps[-1][:, :, row, column], tokens[:, first + row * columns + column])
    caught = []
    hooks = [block.register_forward_hook(lambda *a: caught.append(a[2])) for block in network.body.blocks]
    network(x)
    assert len(caught) == len(hooks) == 4
    for map_, after in zip(maps[:3], caught, strict=False):
        torch.testing.assert_close(map_.flatten(2).mT, after[:, first:])


def test_sam_s_maps_come_from_before_its_neck(narrow):
    network = built("vit_base_sam", normalize=None).eval()
    maps = network(sample("vit_base_sam"))
    caught = []
    network.body.blocks[-1].register_forward_hook(lambda *a: caught.append(a[2]))
    network(sample("vit_base_sam"))
    torch.testing.assert_close(maps[-1], caught[0].permute(0, 3, 1, 2))


@pytest.mark.parametrize(("name", "indices"), [("vit_tiny", [2, 5, 8, 11]), ("vit_large", [5, 11, 17, 23])])
def test_a_quarter_of_the_blocks_before_each_map(name, indices):
    with torch.device("meta"):
        assert backbones.make(name, size=(64, 96)).indices == indices
