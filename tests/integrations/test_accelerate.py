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


def train(name, level, accumulate=1, clip=None, epochs=EPOCHS, folder=None):
    """Trains for so many epochs, on from the checkpoint in a folder if there is one."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    net, balancer = reference.Net(), reference.build(name)
    model, optimizer, batches = accelerator.prepare(net, reference.sgd(net.parameters()), reference.loader())
    accelerator.register_for_checkpointing(balancer)
    if folder and any(folder.iterdir()):
        accelerator.load_state(folder)
    for _ in range(epochs):
        for batch in batches:
            with accelerator.accumulate(model):
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
def test_resumes_from_a_checkpoint_bit_for_bit(name, level, tmp_path):
    train(name, level, epochs=1, folder=tmp_path)
    resumed, whole = train(name, level, epochs=1, folder=tmp_path), train(name, level, epochs=2)
    for one, other in zip(resumed, whole, strict=True):
        assert isonomy.testing.same_state(one.state_dict(), other.state_dict())
