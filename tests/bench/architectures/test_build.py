import pytest
import torch

from isonomy.bench import architectures
from isonomy.bench.architectures import ARCHITECTURES, Design, build, fits, require
from isonomy.bench.backbones import CATALOGUE, make
from isonomy.errors import IsonomyError

TASKS = {"seg": 5, "depth": 1}
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def built(*design, outputs=TASKS, seed=0):
    wanted = Design(*design)
    require(wanted, (32, 32))
    return build(wanted, outputs, (32, 32), seed)


def test_options_of_architecture_and_backbone_are_passed_on():
    def count(*design):
        return sum(parameter.numel() for parameter in built(*design).parameters())

    assert count("mtan:variant=libmtl", "resnet_mini") > count("mtan", "resnet_mini")
    units = built("cross_stitch:granularity=scalar,init=1x1,after=1x2x3", "resnet_mini")
    mixed = [p for name, p in units.named_parameters() if "columns" not in name and "heads" not in name]
    assert [p.numel() for p in mixed] == [4, 4, 4]
    assert all((p == 1).all() for p in mixed)
    coarse = built("hps", "resnet_mini:output_stride=32")(IMAGES)
    assert coarse.feature.shape[-2:] == (1, 1)
    assert built("hps", "resnet_mini")(IMAGES).feature.shape[-2:] == (4, 4)


@pytest.mark.parametrize(
    ("design", "sentence"),
    [
        (("mtan:kind=libmtl", "resnet_mini"), "Unknown option of mtan 'kind'.*variant"),
        (("hps", "resnet_mini:stride=8"), "Unknown option of resnet_mini 'stride'.*output_stride"),
        (("cgc:own_experts=many", "unet"), "Option own_experts of cgc is 'many': write something like 1"),
        (("mmoe", "segnet"), "Architecture 'mmoe' cannot be built on backbone 'segnet': use"),
    ],
)
def test_bad_designs_are_refused_in_one_sentence(design, sentence):
    with pytest.raises(IsonomyError, match=sentence):
        built(*design)


def test_a_network_of_one_task_begins_like_the_one_of_several():
    for name in ("hps", "mtan"):
        both, alone = built(name, "resnet_mini"), built(name, "resnet_mini", outputs={"seg": 5})
        states = both.state_dict(), alone.state_dict()
        assert {key for key in states[1] if key.startswith(("encoder", "heads.seg"))}
        for key, value in states[1].items():
            assert torch.equal(states[0][key], value), key


def test_weights_of_a_file_are_those_of_the_encoder(tmp_path):
    donor = make("resnet_mini", size=(32, 32))
    torch.save(donor.state_dict(), tmp_path / "donor.pth")
    network = built("hps", "resnet_mini", None, str(tmp_path / "donor.pth"))
    for key, value in donor.state_dict().items():
        assert torch.equal(network.encoder.state_dict()[key], value)
    assert network.heads.state_dict().keys() == built("hps", "resnet_mini").heads.state_dict().keys()


def test_a_head_is_the_backbones_own_or_the_chosen_one():
    usual, chosen = built("hps", "resnet18"), built("hps", "resnet18", "aspp_plus")
    assert type(usual.heads["seg"]).__name__ == "ASPPHead"
    assert type(chosen.heads["seg"]).__name__ != "ASPPHead"
    # A true V3+ decoder reads two maps, so the feature is a list.
    assert isinstance(usual(IMAGES).feature, torch.Tensor)
    assert len(chosen(IMAGES).feature) == 2


def test_every_architecture_fits_a_backbone_and_every_backbone_an_architecture():
    networks = [name for name, entry in ARCHITECTURES.items() if entry.network]
    assert all(any(fits(name, backbone) for backbone in CATALOGUE) for name in networks)
    assert all(any(fits(name, backbone) for name in networks) for backbone in CATALOGUE)
    assert {architectures.FEATURES in entry.levels for entry in ARCHITECTURES.values()} == {True, False}
