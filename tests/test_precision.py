"""Half precision against a float64 reference: autocast, ``GradScaler``, tiny and huge losses, models and their state.

Errors are relative to the norm of the reference's gradient, of the trunk and of the heads by themselves.
"""

import copy
import io

import pytest
import torch
from torch import nn

import isonomy
from isonomy.testing import same_state
from tests.sequential import CASES, LEVELS, METHODS, READING, Net, Reference, build, step

# Both have to hold several roundings in a row: float16 has 11 bits, bfloat16 8.
TOLERANCE = {torch.float16: 5e-3, torch.bfloat16: 4e-2}
# A coordinate whose sign is nearly undecided may pass in one precision and drop out in the other.
GRADDROP = 0.15


def half_step(balancer, net, level, dtype, scaler=None):
    """A step under autocast: the balanced loss, which the scaler has not scaled yet."""
    with torch.autocast("cpu", dtype=dtype):
        features = net.features()
        losses = net.losses(features)
    assert features[0].dtype == dtype
    return balancer(losses, shared=features if level == "features" else net.trunk, grad_scaler=scaler)


def errors(net, plain, scale=1.0):
    """Of the trunk's gradient and the heads', relative to their norms."""
    found = []
    for part in ("trunk", "heads"):
        got, wanted = (
            torch.cat([p.grad.flatten().double() for p in getattr(model, part).parameters()]) for model in (net, plain)
        )
        found.append(float((got / scale - wanted).norm() / wanted.norm()))
    return found


def reference(name, level, size):
    plain = Net(size=size)
    Reference(name, level).backward(plain)
    return plain


def tolerance(name, dtype):
    return GRADDROP if name == "graddrop" else TOLERANCE[dtype]


@pytest.mark.parametrize(("level", "name"), CASES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_autocast(dtype, level, name):
    net = Net(dtype=torch.float32)
    half_step(build(name, level), net, level, dtype).backward()
    assert all(p.grad.dtype == torch.float32 for p in net.parameters())
    assert max(errors(net, reference(name, level, 1.0))) < tolerance(name, dtype)


@pytest.mark.parametrize(("level", "name"), CASES)
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_float64_and_float32_hold_every_size(size, level, name):
    plain = reference(name, level, size)
    for dtype, bound in ((torch.float64, 1e-7), (torch.float32, GRADDROP if name == "graddrop" else 1e-4)):
        net = Net(size=size, dtype=dtype)
        step(build(name, level), net, level).backward()
        assert max(errors(net, plain)) < bound


@pytest.mark.parametrize(("level", "name"), CASES)
def test_bfloat16_holds_every_size(level, name):
    for size in (1e-6, 1e6):
        net = Net(size=size, dtype=torch.float32)
        half_step(build(name, level), net, level, torch.bfloat16).backward()
        assert max(errors(net, reference(name, level, size))) < tolerance(name, torch.bfloat16)


@pytest.mark.parametrize(("level", "name"), CASES)
def test_losses_of_1e_6_need_a_scaler_in_float16(level, name):
    plain = reference(name, level, 1e-6)
    net = Net(size=1e-6, dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer = torch.optim.SGD(net.parameters(), 1e6)
    before = [p.detach().clone() for p in net.parameters()]
    scaler.scale(half_step(build(name, level), net, level, torch.float16, scaler)).backward()
    scaler.unscale_(optimizer)
    assert max(errors(net, plain)) < tolerance(name, torch.float16)
    total = float(nn.utils.clip_grad_norm_(net.parameters(), 1e-8))
    assert total > 1e-8
    scaler.step(optimizer)
    moved = torch.cat([(p.detach() - q).flatten().double() for p, q in zip(net.parameters(), before, strict=True)])
    assert float(moved.norm()) == pytest.approx(1e-2 * total / (total + 1e-6), rel=1e-3)  # clip_grad_norm_'s own 1e-6

    if name not in READING:  # The logarithm lifts the one; the other's tolerance is wide.
        net = Net(size=1e-6, dtype=torch.float32)
        half_step(build(name, level), net, level, torch.float16).backward()
        assert max(errors(net, plain)) > 3 * tolerance(name, torch.float16)


# All methods that take gradients, and one that learns from the losses, too.
@pytest.mark.parametrize(("level", "name"), [(level, name.replace("uw", "uw+imtl_g")) for level, name in CASES])
def test_losses_of_1e6_are_skipped_until_the_scale_fits(level, name):
    net = Net(size=1e6, dtype=torch.float32)
    balancer = build(name, level)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    state, before = copy.deepcopy(balancer.state_dict()), copy.deepcopy(net.state_dict())
    skipped = 0
    for _ in range(60):
        scale = scaler.get_scale()
        optimizer.zero_grad()
        scaler.scale(half_step(balancer, net, level, torch.float16, scaler)).backward()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() == scale:
            break
        skipped += 1
        assert scaler.get_scale() == scale / 2
        assert same_state(state, balancer.state_dict())
        assert same_state(before, net.state_dict())
    assert 1 < skipped < 59
    assert balancer.steps == 1
    assert not same_state(before, net.state_dict())
    if name in METHODS:
        assert max(errors(net, reference(name, level, 1e6))) < tolerance(name, torch.float16)


class Apart(Net):
    """Losses that are further apart than the numbers that float16 holds."""

    def losses(self, features):
        return [size * loss for size, loss in zip((1e-6, 1.0, 1e6), super().losses(features), strict=True)]


@pytest.mark.parametrize("level", LEVELS[:2])
def test_a_loss_balancer_in_front_brings_far_losses_into_one_scale(level):
    net, plain = Apart(dtype=torch.float32), Apart()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(half_step(build("db_mtl", level), net, level, torch.float16, scaler)).backward()
    Reference("db_mtl", level).backward(plain)
    assert max(errors(net, plain, scale=2.0**10)) < TOLERANCE[torch.float16]


def test_a_loss_balancer_hears_of_losses_not_of_overflows():
    # It takes no gradients, so that it cannot know that the scaler will skip; what it has learned from is right.
    net = Net(size=1e6, dtype=torch.float32)
    balancer, other = build("uw", "features"), build("uw", "features")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    optimizer = torch.optim.SGD(net.parameters(), 1e-12)
    before = copy.deepcopy(net.state_dict())
    for _ in range(3):
        scaler.scale(half_step(balancer, net, "features", torch.float16, scaler)).backward()
        scaler.step(optimizer)
        scaler.update()
        other(balancer.report.losses.clone().requires_grad_())
    assert scaler.get_scale() == 2.0**21
    assert same_state(before, net.state_dict())
    assert same_state(other.state_dict(), balancer.state_dict())


def test_an_overflow_below_the_feature_is_for_the_scaler_alone():
    def deep():
        trunk = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
        with torch.no_grad():
            trunk[0].weight /= 60000
            trunk[1].weight *= 60000
        return trunk

    net = Net(deep, dtype=torch.float32)
    balancer = build("imtl_g", "features")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**11)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    before = copy.deepcopy(net.state_dict())
    scaler.scale(half_step(balancer, net, "features", torch.float16, scaler)).backward()
    assert net.trunk[2].weight.grad.isfinite().all()
    assert not net.trunk[0].weight.grad.isfinite().all()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**10
    assert same_state(before, net.state_dict())
    assert balancer.steps == 1
    assert balancer.report.norms.isfinite().all()


# Nash-MTL's weights are near 1 / norm, so that passes under them are of size 1, whatever the losses are.
@pytest.mark.parametrize(("name", "size", "scale"), [("imtl_g", 1e-6, 2.0**16), ("nash_mtl", 1e-2, 2.0**10)])
@pytest.mark.parametrize("level", LEVELS)
def test_weights_are_reused_in_float16(level, name, size, scale):
    net = Net(size=size, dtype=torch.float32)
    balancer = build(name, level, update_every=2)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    for measured in (True, False):
        net.zero_grad()
        scaler.scale(half_step(balancer, net, level, torch.float16, scaler)).backward()
        assert (balancer.report.norms is not None) == measured
        assert max(errors(net, reference(name, level, size), scale=scale)) < TOLERANCE[torch.float16]


def test_micro_batches_under_a_scaler_add_up():
    net, plain = Net(size=1e-6, dtype=torch.float32), Net(size=1e-6)
    balancer, expected = build("nash_mtl", "features"), Reference("nash_mtl", "features")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    for shift in (0.0, 0.5):
        for model in (net, plain):
            model.x += shift
        scaler.scale(half_step(balancer, net, "features", torch.float16, scaler) / 2).backward()
        expected.backward(plain)
    assert max(errors(net, plain, scale=2.0**16 / 2)) < TOLERANCE[torch.float16]


def test_a_scaler_that_is_off_or_not_shown_changes_nothing():
    found = []
    for shown in (None, torch.amp.GradScaler("cpu", enabled=False)):
        net = Net(dtype=torch.float32)
        half_step(build("imtl_g", "features"), net, "features", torch.float16, shown).backward()
        found.append(net)
    assert all(p.grad.equal(q.grad) for p, q in zip(*(net.parameters() for net in found), strict=True))
    # 65536, where a GradScaler starts, is more than float16 holds; the gradients times it are not.
    net = Net(size=1e-2, dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(half_step(build("imtl_g", "features"), net, "features", torch.float16)).backward()
    assert scaler.get_scale() == 2.0**16
    assert max(errors(net, reference("imtl_g", "features", 1e-2), scale=2.0**16)) < 4 * TOLERANCE[torch.float16]


@pytest.mark.parametrize(("level", "name"), CASES)
def test_a_model_in_bfloat16(level, name):
    net = Net(dtype=torch.bfloat16)
    step(build(name, level), net, level).backward()
    assert all(p.grad.dtype == torch.bfloat16 for p in net.parameters())
    assert max(errors(net, reference(name, level, 1.0))) < tolerance(name, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_the_state_keeps_its_precision_in_a_half_precision_model_and_resumes_bit_for_bit(name, dtype):
    def fresh():
        whole = Net(dtype=torch.float32)
        whole.balancer = build(name, "parameters")
        return whole.to(dtype)

    def train(whole):
        optimizer = torch.optim.SGD([*whole.trunk.parameters(), *whole.heads.parameters()], 0.01)
        for _ in range(2):
            optimizer.zero_grad()
            step(whole.balancer, whole, "parameters").backward()
            optimizer.step()

    whole = fresh()
    train(whole)
    kept = [t for t in (*whole.balancer.parameters(), *whole.balancer.buffers()) if t.is_floating_point()]
    assert kept
    assert all(t.dtype.itemsize >= 4 for t in kept)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed = fresh()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert same_state(whole.state_dict(), resumed.state_dict())
    for model in (whole, resumed):
        train(model)
    assert same_state(whole.state_dict(), resumed.state_dict())
    assert isonomy.testing.same_state(whole.balancer.state_dict(), resumed.balancer.state_dict())
