"""Every backbone of the catalogue keeps the same contract, and has the published size."""

import copy
import subprocess
import sys

import pytest
import torch

from isonomy import errors
from isonomy.bench import _compat, backbones
from isonomy.bench.backbones import heads
from tests.bench.backbones.nets import built, count, differing, on_meta, sample, size_for

# All there are; the transformers are made narrow.
QUICK = list(backbones.CATALOGUE)
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet18_pooled": 11_440_192,
    "resnet50": 23_508_032,
    "resnet50_pyramid": 23_508_032 + 4_198_400,
    "segnet": 24_943_296,
    "hrnet18": 3_860_720,
    "mpnn": 616_960,
    "unet": 62_832,
}
LAST = {
    "resnet18": 2_359_296,
    "resnet18_pooled": 512 * 512 + 512,
    "resnet50": 1_048_576,
    "resnet50_pyramid": 4 * 2048 * 512,
    "segnet": 64 * 64 * 9 + 3 * 64,
    "mpnn": 8_256,
    "vit_base": 2_360_064,
    "unet": 2_304,
    "resnet_mini": 36_864,
}
# Without SAM's neck, of 1 x 1 and 3 x 3 convolutions and two normalisations with 256 channels.
NECK = 768 * 256 + 256 * 256 * 9 + 4 * 256
TRANSFORMERS = {
    ("vit_tiny", (224, 224)): 5_524_416,
    ("vit_tiny", (448, 576)): 5_680_320,
    ("vit_tiny", (512, 512)): 5_683_392,
    ("vit_small", (224, 224)): 21_665_664,
    ("vit_small", (448, 576)): 21_977_472,
    ("vit_small", (512, 512)): 21_983_616,
    ("vit_base", (448, 576)): 86_422_272,
    ("vit_large", (448, 576)): 304_133_120,
    ("vit_base_in1k", (384, 384)): 86_090_496,
    ("vit_base_in1k", (448, 576)): 86_422_272,
    ("vit_base_in1k", (512, 512)): 86_434_560,
    ("vit_base_in21k", (224, 224)): 85_798_656,
    ("vit_base_in21k", (448, 576)): 86_422_272,
    ("vit_base_in22k", (384, 384)): 86_090_496,
    ("vit_base_in22k", (448, 576)): 86_422_272,
    ("vit_base_in22k", (512, 512)): 86_434_560,
    ("vit_base_clip", (384, 384)): 86_091_264,
    ("vit_base_clip", (448, 576)): 86_423_040,
    ("vit_base_sam", (1024, 1024)): 89_670_912 - NECK,
    ("vit_base_sam", (448, 576)): 87_266_560 - NECK,
    ("vit_base_dino", (224, 224)): 85_798_656,
    ("vit_base_dino", (448, 576)): 86_422_272,
    ("vit_base_dinov2", (518, 518)): 86_582_016,
    ("vit_base_dinov2", (448, 574)): 86_538_240,
}


def test_importing_the_catalogue_imports_no_extra():
    code = "import sys, isonomy.bench.backbones; print({'timm', 'torchvision', 'safetensors'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_parameter_counts(name, expected):
    assert count(on_meta(backbones.make, name, size=(64, 96))) == expected


@pytest.mark.parametrize(("model", "expected"), TRANSFORMERS.items(), ids=str)
def test_parameter_counts_of_transformers(model, expected):
    name, size = model
    assert count(on_meta(backbones.make, name, size=size)) == expected


@pytest.mark.parametrize(("name", "expected"), LAST.items())
def test_last_layer(name, expected):
    network = on_meta(backbones.make, name, size=(64, 96))
    last = network.last_layer()
    own = {id(parameter) for parameter in network.parameters()}
    assert sum(parameter.numel() for parameter in last) == expected
    assert all(id(parameter) in own for parameter in last)


@pytest.mark.parametrize("name", QUICK)
def test_maps_have_the_declared_channels_and_strides(name, narrow):
    network = built(name).eval()
    maps = network(sample(name))
    assert isinstance(maps, list)
    assert [m.shape[1] for m in maps] == list(network.channels)
    sides = [m.shape[2:] for m in maps if m.ndim == 4]
    assert sides == [tuple(side // stride for side in size_for(name)) for stride in network.strides]
    assert all(m.dtype == torch.float32 and m.isfinite().all() for m in maps)


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("vit_base", (448, 576), (28, 36)),
        ("vit_base_dinov2", (448, 574), (32, 41)),
        ("vit_base_dinov2", (518, 518), (37, 37)),
    ],
)
def test_grids_of_published_sizes(name, size, grid):
    with torch.device("meta"):
        maps = backbones.make(name, size=size)(torch.empty(1, 3, *size))
    assert [tuple(m.shape) for m in maps] == [(1, 768, *grid)] * 4


@pytest.mark.parametrize("name", QUICK)
def test_every_parameter_is_reached_through_the_default_head(name, narrow):
    # In evaluation mode, where a bias in front of a batch normalisation is not taken off again.
    network = built(name).eval()
    head = heads.make(backbones.CATALOGUE[name].head, network.channels, 3).eval()
    maps = network(sample(name))
    read = [maps[index] for index in head.reads]
    head(read if len(head.reads) > 1 else read[0]).square().mean().backward()
    named = [*network.named_parameters(), *head.named_parameters(prefix="head")]
    assert [n for n, p in named if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", ["resnet18", "resnet_mini", "unet", "segnet", "hrnet18", "mpnn", "vit_base_sam"])
def test_the_initial_weights_depend_on_the_seed_alone(name, narrow):
    first, again, other = (built(name, seed).state_dict() for seed in (0, 0, 1))
    assert differing(first, again) == []
    assert differing(first, other)


@pytest.mark.parametrize("name", ["resnet_mini", "unet", "hrnet18", "mpnn", "vit_tiny"])
def test_a_copy_with_other_weights_is_another_network(name, narrow):
    network, other = built(name, 0).eval(), built(name, 1).eval()
    x, twin = sample(name), copy.deepcopy(network)
    expected = [m.detach() for m in other(x)]
    called = torch.func.functional_call(network, dict(other.state_dict()), (x,))
    twin.load_state_dict(other.state_dict())
    for got in (called, twin(x)):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert not torch.equal(network(x)[-1], expected[-1])


def test_a_backbone_fits_its_entry():
    for name, entry in backbones.CATALOGUE.items():
        network = on_meta(backbones.make, name, size=size_for(name))
        assert entry.staged == hasattr(network, "stages") == hasattr(network, "stem")
        assert entry.head in heads.HEADS
        assert entry.dense == bool(network.strides)
        assert all(entry.multiple % stride == 0 for stride in network.strides)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet19", {}, "did you mean 'resnet18'"),
        ("resnet18", {"size": None}, "size is missing"),
        ("hrnet18", {"size": (64, 80)}, "multiples of 32"),
        ("vit_base_dinov2", {"size": (64, 64)}, "multiples of 14"),
        ("resnet18", {"size": (0, 64)}, "multiples of 8"),
        ("resnet18", {"output_strides": 8}, "did you mean 'output_stride'"),
        ("unet", {"normalize": "imagenet"}, "normalize"),
        ("resnet18", {"output_stride": 4}, "8, 16 or 32"),
        ("resnet18", {"normalize": "imagnet"}, "did you mean 'imagenet'"),
        ("hrnet18", {"fusion": "linear"}, "did you mean 'bilinear'"),
        ("resnet18_pooled", {"hidden": -1}, "hidden=-1 is the width of a layer"),
    ],
)
def test_what_cannot_be_made_is_refused(name, options, words):
    with pytest.raises(errors.IsonomyError, match=words):
        backbones.make(name, **{"size": (64, 64), **options})


def test_a_missing_timm_is_named(monkeypatch):
    monkeypatch.setattr(_compat.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.IsonomyError, match=r"timm.*isonomy\[bench\]"):
        backbones.make("hrnet18", size=(64, 64))
