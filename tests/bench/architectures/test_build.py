import pytest
import torch

from isonomy.bench import architectures
from isonomy.bench.architectures import ARCHITECTURES, Design, build, fits, require
from isonomy.bench.backbones import CATALOGUE, make
from isonomy.errors import IsonomyError
from tests.bench.architectures.networks import NYUV2, OFFICE, count

TASKS = {"seg": 5, "depth": 1}
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def built(*design, outputs=TASKS, seed=0):
    wanted = Design(*design)
    require(wanted, (32, 32))
    return build(wanted, outputs, (32, 32), seed)


def test_options_of_architecture_and_backbone_are_passed_on():
    variants = [built(name, "resnet_mini") for name in ("mtan:variant=libmtl", "mtan")]
    assert count(variants[0].parameters()) > count(variants[1].parameters())
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
        (("cross_stitch:after=4x5", "resnet18"), r"after=\(4, 5\) must name stages from 1 to 4"),
        (("dselect_k:k=5", "unet"), "k=5 is more than there are experts, 4"),
        (("hps", "resnet18:output_stride=4"), "output_stride has to be 8, 16 or 32, not 4"),
        (("hps", "unet", "hrnet"), "The head 'hrnet' reads 4 maps, and the backbone gives 1"),
        (("mmoe", "segnet"), "Architecture 'mmoe' cannot be built on backbone 'segnet': use"),
    ],
)
def test_bad_designs_are_refused_in_one_sentence(design, sentence):
    with pytest.raises(IsonomyError, match=sentence):
        require(Design(*design), (32, 32))


@pytest.mark.parametrize(
    ("design", "outputs", "published"),
    [
        (("hps", "resnet50", "psp"), NYUV2, 92_738_129),
        (("hps", "resnet50_pyramid"), NYUV2, 84_341_329),
        (("hps", "resnet18_pooled"), OFFICE, 11_487_901),
        (("hps", "resnet18:output_stride=32", "linear"), OFFICE, 11_224_221),
        (("mmoe:gate_input=image", "resnet18_pooled"), OFFICE, 47_614_825),
        (("cgc:gate_input=image", "resnet18_pooled"), OFFICE, 46_711_651),
        (("dselect_k:gate_input=image", "resnet18_pooled"), OFFICE, 48_517_999),
        (("ple:variant=libmtl,gate_input=image", "resnet18:output_stride=32", "linear"), OFFICE, 48_968_571),
    ],
)
def test_published_networks_are_reached_by_name(design, outputs, published):
    with torch.device("meta"):
        assert count(build(Design(*design), outputs, (224, 224), 0).parameters()) == published


def test_what_a_decoder_shares_is_an_option():
    alone = built("pad_net:shared=backbone,width=8", "hrnet18")
    assert count(alone.shared_parameters()) == 3_860_720
    assert count(built("pad_net:width=8", "hrnet18").shared_parameters()) > 3_860_720


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


@pytest.mark.parametrize(("name", "backbone"), [("hps", "resnet_mini"), ("ple", "resnet_mini"), ("hps", "hrnet18")])
def test_planning_and_building_leave_the_random_numbers_alone(name, backbone):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    built(name, backbone)
    assert torch.equal(torch.rand(3), expected)
