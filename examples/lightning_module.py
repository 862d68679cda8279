"""Lightning: automatic optimisation on two processes, the report in the log, and training that resumes."""

from tempfile import TemporaryDirectory

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss
from torch.utils.data import DataLoader, TensorDataset

import isonomy
from isonomy.integrations.lightning import BalancerCallback


class TwoTasks(LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.heads = nn.ModuleDict({"kind": nn.Linear(32, 4), "size": nn.Linear(32, 1)})
        # An attribute of the module: its state is in every checkpoint.
        self.balancer = isonomy.build("imtl", ["kind", "size"])

    def training_step(self, batch, _):
        x, kind, size = batch
        z = self.encoder(x)
        losses = {
            "kind": cross_entropy(self.heads["kind"](z), kind),
            "size": 1000 * l1_loss(self.heads["size"](z), size),
        }
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)  # there is one with precision="16-mixed"
        return self.balancer(losses, shared=z, grad_scaler=scaler)

    def configure_optimizers(self):
        return torch.optim.Adam([*self.encoder.parameters(), *self.heads.parameters()], lr=0.01)


def train(folder, epochs, checkpoint=None):
    seed_everything(0, verbose=False)
    x = torch.randn(512, 16)
    data = TensorDataset(x, (x @ torch.randn(16, 4)).argmax(1), x[:, :1].square())
    module = TwoTasks()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=epochs,
        gradient_clip_val=1.0,
        log_every_n_steps=8,
        default_root_dir=folder,
        callbacks=[BalancerCallback(module.balancer)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=32), ckpt_path=checkpoint)
    if trainer.is_global_zero:
        kind, size = (trainer.callback_metrics[f"balancer/loss/{task}"] for task in ("kind", "size"))
        print(f"step {module.balancer.steps}: kind {kind:.3f}, size {size:.1f}, {trainer.world_size} processes")
    return trainer.checkpoint_callback.best_model_path


def main():
    with TemporaryDirectory() as folder:
        checkpoint = train(folder, epochs=1)
        train(folder, epochs=20, checkpoint=checkpoint)


if __name__ == "__main__":
    main()
