"""Accelerate trains as a plain loop does, and saves the balancer that is registered with it."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

import isonomy
from tests.integrations import reference
from tests.integrations.reference import CASES, CLIP, EPOCHS


def reset():
    """Accelerate keeps its settings in the process, and what comes next has others."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture(autouse=True)
def _fresh_state():
    yield
    reset()


def train(name, level, accumulate=1, clip=None, epochs=EPOCHS, folder=None, scaler=None, dtype=torch.float64):
    """Trains for so many epochs, on from the checkpoint in a folder if there is one."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    accelerator.scaler = scaler  # Accelerate makes one of its own for float16, on accelerators alone
    net, balancer = reference.Net().to(dtype), reference.build(name)
    model, optimizer, batches = accelerator.prepare(net, reference.sgd(net.parameters()), reference.loader(dtype=dtype))
    accelerator.register_for_checkpointing(balancer)
    if folder and any(folder.iterdir()):
        accelerator.load_state(folder)
    for _ in range(epochs):
        for batch in batches:
            with accelerator.accumulate(model):
                with torch.autocast("cpu", torch.float16, enabled=scaler is not None):
                    out = model(batch["x"])
                at = reference.shared(net, out, level)
                loss = balancer(reference.losses(out, batch["y"]), shared=at, grad_scaler=accelerator.scaler)
                accelerator.backward(loss)
                if clip and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
    if folder:
        accelerator.save_state(folder)
    return net, balancer


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip": CLIP}], ids=str)
@pytest.mark.parametrize(("name", "level"), CASES)
def test_equals_the_plain_loop(name, level, options):
    net, _ = train(name, level, **options)
    assert torch.equal(reference.vector(net), reference.train(name, level, **options))


@pytest.mark.parametrize(("name", "level"), CASES)
def test_float16_with_a_scaler_equals_float32_but_for_rounding(name, level):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    half = train(name, level, dtype=torch.float32, scaler=scaler)
    single = train(name, level, dtype=torch.float32)
    found = [reference.vector(net) for net, _ in (half, single)]
    torch.testing.assert_close(*found, rtol=0.02, atol=0.002)
    assert not torch.equal(*found)
    assert half[1].steps == single[1].steps == 12  # no step was skipped


@pytest.mark.parametrize(("name", "level"), CASES)
def test_resumes_from_a_checkpoint_bit_for_bit(name, level, tmp_path):
    train(name, level, epochs=1, folder=tmp_path)
    resumed, whole = train(name, level, epochs=1, folder=tmp_path), train(name, level, epochs=2)
    for one, other in zip(resumed, whole, strict=True):
        assert isonomy.testing.same_state(one.state_dict(), other.state_dict())
