"""Every architecture on every backbone that makes sense takes a step with a loss and with a gradient method."""

import gc

import pytest
import torch

from isonomy.bench import architectures
from isonomy.bench.backbones import CATALOGUE
from tests.bench.noise import Noise, trainer

METHODS = ("uw", "imtl_g")
NAMES = list(Noise.architectures)
PAIRS = [(name, each) for name in NAMES for each in Noise.backbones if architectures.fits(name, each)]
QUICK = {"unet", "resnet_mini", "hrnet18", "vit_tiny"}
# The decoder that is made for large images, narrower; its full width is in the slow part.
NARROW = {"invpt": "invpt:width=64"}


@pytest.fixture(autouse=True)
def _freed():
    """A trainer and its procedure hold each other; the large ones must not wait for a chance to be collected."""
    yield
    gc.collect()


def problem(architecture, backbone):
    multiple = architectures.ARCHITECTURES[architecture].factor * CATALOGUE[backbone].multiple
    side = -(-32 // multiple) * multiple
    # Three images: of two, the signs of an L1 loss on a map of one pixel can cancel.
    return Noise(size=(side, side), images=3, batch_size=3)


def step(one):
    before = {name: value.detach().clone() for name, value in one.network.named_parameters()}
    losses = one.step(next(one.begin(0)))
    assert losses.isfinite().all()
    after = dict(one.network.named_parameters())
    return {name for name, value in before.items() if not torch.equal(value, after[name])}, set(before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [pytest.param(*pair, marks=[] if pair[1] in QUICK else pytest.mark.slow, id="-".join(pair)) for pair in PAIRS],
)
def test_a_step_moves_every_parameter(architecture, backbone, method):
    design = NARROW.get(architecture, architecture) if backbone in QUICK else architecture
    one = trainer(problem(architecture, backbone), method, architecture=design, backbone=backbone)
    moved, every = step(one)
    if architecture == "ltb":
        # A branch that nobody takes in this step has no gradient.
        assert {name for name in every if name.startswith("heads")} <= moved
    else:
        assert every - moved == set()


@pytest.mark.parametrize("architecture", NAMES)
def test_every_level_that_makes_sense_takes_a_step(architecture):
    for level in architectures.ARCHITECTURES[architecture].levels:
        quick = ("resnet_mini", "hrnet18", "vit_tiny")
        backbone = next(name for name in quick if architectures.fits(architecture, name))
        design = NARROW.get(architecture, architecture)
        one = trainer(problem(architecture, backbone), "avgnorm", level, architecture=design, backbone=backbone)
        assert one.cell.config["level"] == level
        step(one)
        assert one.balancer.report.norms.isfinite().all()


def test_the_last_layers_level_is_a_probe():
    """Its norms are those of the last layer's gradients, and its weights are applied everywhere."""
    found = problem("mtan", "resnet_mini")
    flags = {"architecture": "mtan", "backbone": "resnet_mini"}
    one, other = (trainer(found, method, level, **flags) for method, level in (("avgnorm", "last_layer"), ("ew", None)))
    other.network.load_state_dict(one.network.state_dict())
    batch = next(other.begin(0))
    step(one)
    output = found.losses(other.network.train(), batch[0], one.cell.tasks)
    last = other.last_layer()
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, last, retain_graph=True)]).double()
        for loss in output.losses.values()
    ]
    norms = torch.stack([row.norm() for row in rows])
    torch.testing.assert_close(one.balancer.report.norms.double(), norms, rtol=1e-5, atol=0)
    weights = one.balancer.report.weights.double()
    torch.testing.assert_close(weights, torch.stack(rows).sum(0).norm() / norms, rtol=1e-4, atol=0)
    total = sum(w * loss for w, loss in zip(weights.tolist(), output.losses.values(), strict=True))
    for (name, mine), theirs in zip(
        one.network.named_parameters(), torch.autograd.grad(total, list(other.network.parameters())), strict=True
    ):
        torch.testing.assert_close(mine.grad, theirs, rtol=1e-3, atol=1e-6, msg=name)
