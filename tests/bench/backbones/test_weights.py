"""Weights from local files: what fits is loaded to the last tensor, and anything else is refused."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from isonomy.bench import backbones
from isonomy.bench._compat import repair_torchvision
from isonomy.bench.backbones.weights import load
from isonomy.errors import IsonomyError
from tests.bench.backbones.nets import built, differing, sample, shaken, timm


@pytest.fixture(scope="module")
def resnet():
    repair_torchvision()
    from torchvision.models import resnet18

    return shaken(resnet18())


@pytest.fixture(scope="module")
def resnet_maps(resnet):
    """torchvision's network up to its average, stage by stage."""
    x = sample("resnet18")
    z = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))
    maps = []
    for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        z = stage(z)
        maps.append(z.detach())
    return maps


LAYOUTS = {
    "plain": lambda state: state,
    "wrapped": lambda state: {"state_dict": state, "epoch": 90},
    "model": lambda state: {"model": state},
    "parallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "both": lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
    "old": lambda state: {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_torchvision_s_file_makes_torchvision_s_maps(layout, resnet, resnet_maps, tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(LAYOUTS[layout](resnet.state_dict()), path)
    network = backbones.make("resnet18", size=(64, 96), weights=path, output_stride=32, normalize=None).eval()
    for got, expected in zip(network(sample("resnet18")), resnet_maps, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(("name", "whole"), [("resnet18_pooled", "resnet18"), ("resnet50_pyramid", "resnet50")])
def test_a_file_fits_what_is_below_a_top(name, whole, tmp_path):
    path = tmp_path / "below.pth"
    donor = built(whole, seed=1).state_dict()
    torch.save(donor | {"fc.weight": torch.zeros(3, 2)}, path)
    network, fresh = built(name, weights=path), built(name)
    assert differing(donor, network.backbone.state_dict()) == []
    changed = differing(fresh.state_dict(), network.state_dict())
    assert changed
    assert all(each.startswith("backbone.") for each in changed)


def test_safetensors_and_the_count(resnet, tmp_path, caplog):
    path = tmp_path / "resnet18.safetensors"
    save_file(resnet.state_dict(), path)
    with caplog.at_level(logging.INFO, logger="isonomy"):
        network = backbones.make("resnet18", size=(64, 96), weights=path)
    assert differing(resnet.state_dict(), network.state_dict()) == []
    # All but the two of the classifier.
    assert f"loaded {len(resnet.state_dict()) - 2} tensors" in caplog.text


@pytest.mark.parametrize("name", ["resnet_mini", "unet", "mpnn"])
def test_a_network_s_own_state_dict(name, tmp_path):
    path = tmp_path / "own.pt"
    network = built(name, seed=1)
    torch.save(network.state_dict(), path)
    assert differing(network.state_dict(), built(name, weights=str(path)).state_dict()) == []
    assert load(built(name), path) == len(network.state_dict())


def test_hrnet_s_file_with_its_classifier(tmp_path):
    path = tmp_path / "hrnet.pth"
    theirs = shaken(timm.create_model("hrnet_w18_small_v2"))
    torch.save(theirs.state_dict(), path)
    network = built("hrnet18", weights=path, normalize=None, fusion="nearest").eval()
    x = sample("hrnet18")
    stem = theirs.act2(theirs.bn2(theirs.conv2(theirs.act1(theirs.bn1(theirs.conv1(x))))))
    for got, expected in zip(network(x), theirs.stages(stem), strict=True):
        assert torch.equal(got, expected)


def test_a_transformer_s_positions_are_resized(tmp_path):
    path = tmp_path / "vit.safetensors"
    theirs = timm.create_model("vit_tiny_patch16_224")
    with torch.no_grad():
        # Positions that say in which column they are, which resizing keeps.
        columns = torch.arange(14.0).repeat(14) / 13
        theirs.pos_embed[0, 1:] = columns[:, None]
    save_file(theirs.state_dict(), path)
    network = built("vit_tiny", weights=path, normalize=None).eval()
    body = network.body
    assert torch.equal(body.blocks[7].attn.qkv.weight, theirs.blocks[7].attn.qkv.weight)
    assert torch.equal(body.pos_embed[0, 0], theirs.pos_embed[0, 0])
    grid = body.pos_embed[0, 1:].view(4, 6, -1)
    torch.testing.assert_close(grid, grid[:1, :, :1].expand_as(grid))
    assert (grid[0, 1:, 0] > grid[0, :-1, 0]).all()
    # At its own size nothing is resized, and the maps are those of the network that was saved.
    same = backbones.make("vit_tiny", size=(224, 224), weights=path, normalize=None).eval()
    x = torch.rand(1, 3, 224, 224)
    tokens = theirs.eval().forward_features(x)[0, 1:]
    torch.testing.assert_close(same(x)[-1][0].flatten(1).T, tokens)


def test_dinov2_s_own_layout(narrow, tmp_path):
    path = tmp_path / "dinov2.pth"
    source = built("vit_base_dinov2", seed=1).body.state_dict()
    state = {name: tensor for name, tensor in source.items() if name not in ("reg_token", "cls_token", "pos_embed")}
    # There positions include one of the class token, which timm has already added.
    state |= {
        "mask_token": torch.zeros(1, 48),
        "register_tokens": source["reg_token"],
        "cls_token": torch.full((1, 1, 48), 2.0),
        "pos_embed": torch.cat([torch.full((1, 1, 48), 3.0), source["pos_embed"]], dim=1),
    }
    torch.save(state, path)
    loaded = built("vit_base_dinov2", weights=path).body.state_dict()
    assert differing(source, loaded) == ["cls_token"]
    assert (loaded["cls_token"] == 5).all()


def test_sam_s_own_layout_at_another_size(narrow, tmp_path):
    path = tmp_path / "sam.pth"
    large = backbones.make("vit_base_sam", size=(128, 160))
    with torch.no_grad():
        large.body.pos_embed.copy_(torch.linspace(0, 1, 10)[:, None].expand(1, 8, 10, 48))
        relative = large.body.blocks[2].attn.rel_pos_w
        relative.copy_(torch.linspace(-1, 1, len(relative))[:, None].expand_as(relative))
    state = {
        f"image_encoder.{name.replace('mlp.fc', 'mlp.lin')}": tensor for name, tensor in large.body.state_dict().items()
    }
    state |= {
        "image_encoder.neck.0.weight": torch.zeros(256, 48, 1, 1),
        "mask_decoder.iou_token.weight": torch.zeros(3),
    }
    torch.save(state, path)
    network = built("vit_base_sam", weights=path)
    body, source = network.body, large.body.state_dict()
    resized = {"pos_embed", "blocks.2.attn.rel_pos_h", "blocks.2.attn.rel_pos_w"}
    same = {name: tensor for name, tensor in body.state_dict().items() if name not in resized}
    assert differing(source, same) == []
    assert body.pos_embed.shape == (1, 4, 6, 48)
    assert (body.pos_embed[0, :, 1:] > body.pos_embed[0, :, :-1]).all()
    slope = body.blocks[2].attn.rel_pos_w
    assert len(slope) == 11
    torch.testing.assert_close(slope, -slope.flip(0))
    assert (slope[1:] > slope[:-1]).all()
    assert network(sample("vit_base_sam"))[-1].isfinite().all()


def damaged(path, state):
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-4096])


def a_text(path, state):
    path.write_text("<html>404</html>")


class Anything:
    pass


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (damaged, "cannot be read.*damaged"),
        (a_text, "damaged or holds more than tensors"),
        (lambda path, state: torch.save({"state_dict": state, "code": Anything()}, path), "more than tensors"),
        (lambda path, state: torch.save([1, 2], path), "no state dict"),
        (lambda path, state: torch.save({}, path), "no state dict"),
        (lambda path, state: None, "there is no file"),
        (
            lambda path, state: torch.save({**state, "extra.weight": state["bn1.bias"]}, path),
            "unexpectedly 'extra.weight'",
        ),
        (lambda path, state: torch.save({k: v for k, v in state.items() if k != "bn1.bias"}, path), "lacks 'bn1.bias'"),
        (lambda path, state: torch.save({**state, "bn1.bias": torch.zeros(3)}, path), r"bn1.bias \(3,\) for \(8,\)"),
    ],
    ids=["truncated", "text", "code", "list", "empty", "absent", "unexpected", "missing", "shape"],
)
def test_a_wrong_file_is_named_and_changes_nothing(write, words, tmp_path):
    path = tmp_path / "weights.pth"
    network = built("resnet_mini")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    write(path, built("resnet_mini", seed=1).state_dict())
    with pytest.raises(IsonomyError, match=words) as caught:
        load(network, path)
    assert str(path) in str(caught.value)
    assert differing(before, network.state_dict()) == []


def test_a_truncated_safetensors_file_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(built("resnet_mini").state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(IsonomyError, match=r"weights\.safetensors cannot be read"):
        load(built("resnet_mini"), path)


@pytest.mark.parametrize(
    ("name", "written"),
    [("resnet50", "resnet18"), ("vit_tiny", "resnet18"), ("vit_base_dinov2", "vit_tiny"), ("vit_base_sam", "vit_tiny")],
)
def test_the_file_of_another_network_is_refused(name, written, narrow, tmp_path):
    path = tmp_path / "other.pth"
    source = built(written)
    torch.save(getattr(source, "body", source).state_dict(), path)
    with pytest.raises(IsonomyError, match=r"other\.pth") as caught:
        built(name, weights=path)
    assert "Pass the file of the network that you ask for" in str(caught.value)
