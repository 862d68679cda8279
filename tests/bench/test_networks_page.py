"""The numbers of docs/networks.md are those of the code."""

import re
from pathlib import Path

import pytest
import torch

from isonomy.bench.architectures import ARCHITECTURES, Design, build
from isonomy.bench.backbones import CATALOGUE, make
from isonomy.bench.backbones.heads import HEADS
from isonomy.bench.backbones.vit import MODELS
from tests.bench.architectures.networks import NYUD, NYUV2, OFFICE, count

TEXT = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
DATA = {"NYUv2": (NYUV2, (288, 384)), "NYUD": (NYUD, (448, 576)), "Office-31": (OFFICE, (224, 224))}


def section(title):
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title):
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines]


def number(text):
    return int(text.replace(",", ""))


BACKBONES = {name: cells for name, *cells in rows("Backbones")}


def test_every_name_and_option_is_there():
    assert set(BACKBONES) == set(CATALOGUE)
    named = {name for name, *_ in rows("Architectures")}
    assert named == {name for name, entry in ARCHITECTURES.items() if entry.network}
    heads = section("Backbones").partition("**Heads**")[2]
    assert all(f"`{name}`" in heads for name in HEADS)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones(name):
    parameters, maps, multiple, head, file = BACKBONES[name]
    entry = CATALOGUE[name]
    with torch.device("meta"):
        network = make(name, size=(448, 574) if multiple == "14" else (448, 576))
    assert count(network.parameters()) == number(parameters)
    assert head == entry.head
    assert multiple == ("–" if name == "mpnn" else str(entry.multiple))
    numbers = [int(each) for each in re.findall(r"\d+", maps)]
    assert {numbers[0], max(network.channels)} <= set(network.channels) & set(numbers)
    if name in MODELS:
        assert MODELS[name] in file


@pytest.mark.parametrize("row", rows("Parameters"), ids=" ".join)
def test_parameters(row):
    architecture, backbone, head, data, *numbers = row
    design = Design(architecture, backbone, None if head == "usual" else head)
    outputs, size = DATA[data]
    first = next(iter(outputs))
    with torch.device("meta"):
        network, alone = build(design, outputs, size, 0), build(design, {first: outputs[first]}, size, 0)
    found = [count(each) for each in (network.parameters(), network.shared_parameters(), alone.parameters())]
    assert found == [number(each) for each in numbers]


@pytest.mark.parametrize("text", re.findall(r"`([a-z_0-9]+:[^`]+)`", TEXT))
def test_options_in_the_text_can_be_set(text):
    design = Design("hps", text) if text.partition(":")[0] in CATALOGUE else Design(text, "resnet_mini")
    with torch.device("meta"):
        build(design, {"one": 1, "other": 2}, (64, 64), 0)
