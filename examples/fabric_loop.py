"""Lightning Fabric: your own loop on any devices, with gradient accumulation, clipping and a checkpoint."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning.fabric import Fabric
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss
from torch.utils.data import DataLoader, TensorDataset

import isonomy


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.heads = nn.ModuleDict({"kind": nn.Linear(32, 4), "size": nn.Linear(32, 1)})
        # An attribute of the model: its state is saved with the model's.
        self.balancer = isonomy.build("imtl", ["kind", "size"])

    def forward(self, x):
        z = self.encoder(x)
        return z, self.heads["kind"](z), self.heads["size"](z)


def train(file, epochs):
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.seed_everything(0, verbose=False)
    x = torch.randn(512, 16)
    data = TensorDataset(x, (x @ torch.randn(16, 4)).argmax(1), x[:, :1].square())
    loader = fabric.setup_dataloaders(DataLoader(data, batch_size=32, shuffle=True))
    inner = Model()
    model, optimizer = fabric.setup(inner, torch.optim.Adam(inner.parameters(), lr=0.01))
    if file.exists():
        fabric.load(file, {"model": model, "optimizer": optimizer})
    scaler = getattr(fabric.strategy.precision, "scaler", None)  # there is one with precision="16-mixed"

    for _epoch in range(epochs):
        for batch, (x, kind, size) in enumerate(loader):
            with fabric.no_backward_sync(model, enabled=batch % 2 == 0):
                z, found_kind, found_size = model(x)
                losses = {"kind": cross_entropy(found_kind, kind), "size": 1000 * l1_loss(found_size, size)}
                loss = inner.balancer(losses, shared=z, grad_scaler=scaler)
                fabric.backward(loss / 2)  # Fabric leaves the mean over accumulated batches to you
            if batch % 2:
                fabric.clip_gradients(model, optimizer, max_norm=1.0)
                optimizer.step()
                optimizer.zero_grad()
    fabric.save(file, {"model": model, "optimizer": optimizer})
    fabric.print(f"step {inner.balancer.steps}: kind {losses['kind']:.3f}, size {losses['size']:.1f}")


def main():
    with TemporaryDirectory() as folder:
        train(Path(folder) / "last.ckpt", epochs=1)
        train(Path(folder) / "last.ckpt", epochs=19)


if __name__ == "__main__":
    main()
