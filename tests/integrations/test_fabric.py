"""Lightning Fabric trains as a plain loop does, and saves the balancer with the model."""

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn

import isonomy
from tests.integrations import reference
from tests.integrations.reference import CASES, CLIP, EPOCHS


class Model(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.net, self.balancer = reference.Net(), reference.build(name)

    def forward(self, x):
        return self.net(x)


def train(name, level, accumulate=1, clip=None, epochs=EPOCHS, folder=None, fabric=None):
    """Trains for so many epochs, on from the checkpoint in a folder if there is one."""
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    inner = Model(name)
    model, optimizer = fabric.setup(inner, reference.sgd(inner.net.parameters()))
    if folder and (folder / "last.ckpt").exists():
        fabric.load(folder / "last.ckpt", {"model": model, "optimizer": optimizer})
    batches = fabric.setup_dataloaders(reference.loader())
    for _ in range(epochs):
        for k, batch in enumerate(batches):
            done = (k + 1) % accumulate == 0
            with fabric.no_backward_sync(model, enabled=not done):
                out = model(batch["x"])
                scaler = getattr(fabric.strategy.precision, "scaler", None)
                at = reference.shared(inner.net, out, level)
                loss = inner.balancer(reference.losses(out, batch["y"]), shared=at, grad_scaler=scaler)
                fabric.backward(loss / accumulate)
            if done:
                if clip:
                    fabric.clip_gradients(model, optimizer, max_norm=clip)
                optimizer.step()
                optimizer.zero_grad()
    if folder:
        fabric.save(folder / "last.ckpt", {"model": model, "optimizer": optimizer})
    return inner


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip": CLIP}], ids=str)
@pytest.mark.parametrize(("name", "level"), CASES)
def test_equals_the_plain_loop(name, level, options):
    trained = train(name, level, **options)
    assert torch.equal(reference.vector(trained.net), reference.train(name, level, **options))


@pytest.mark.parametrize(("name", "level"), CASES)
def test_resumes_from_a_checkpoint_bit_for_bit(name, level, tmp_path):
    train(name, level, epochs=1, folder=tmp_path)
    resumed = train(name, level, epochs=1, folder=tmp_path)
    assert isonomy.testing.same_state(resumed.state_dict(), train(name, level, epochs=2).state_dict())
