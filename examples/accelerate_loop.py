"""Hugging Face Accelerate: your own loop on any devices, with gradient accumulation, clipping and a checkpoint."""

from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss
from torch.utils.data import DataLoader, TensorDataset

import isonomy


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.heads = nn.ModuleDict({"kind": nn.Linear(32, 4), "size": nn.Linear(32, 1)})

    def forward(self, x):
        z = self.encoder(x)
        return z, self.heads["kind"](z), self.heads["size"](z)


def train(folder, epochs, resume=False):
    torch.manual_seed(0)
    x = torch.randn(512, 16)
    data = TensorDataset(x, (x @ torch.randn(16, 4)).argmax(1), x[:, :1].square())
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, balancer = Model(), isonomy.build("imtl", ["kind", "size"])
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.Adam(model.parameters(), lr=0.01), DataLoader(data, batch_size=32, shuffle=True)
    )
    # Beside the model, not in it: Accelerate saves models as safetensors, which hold tensors alone.
    accelerator.register_for_checkpointing(balancer)
    if resume:
        accelerator.load_state(folder)

    for _epoch in range(epochs):
        for x, kind, size in loader:
            with accelerator.accumulate(model):
                z, found_kind, found_size = model(x)
                losses = {"kind": cross_entropy(found_kind, kind), "size": 1000 * l1_loss(found_size, size)}
                loss = balancer(losses, shared=z, grad_scaler=accelerator.scaler)
                accelerator.backward(loss)  # takes the mean over the accumulated batches
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    accelerator.save_state(folder)
    accelerator.print(f"step {balancer.steps}: kind {losses['kind']:.3f}, size {losses['size']:.1f}")


def main():
    with TemporaryDirectory() as folder:
        train(folder, epochs=1)
        train(folder, epochs=19, resume=True)


if __name__ == "__main__":
    main()
