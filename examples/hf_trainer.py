"""The Trainer of Hugging Face Transformers: compute_loss returns the balanced loss, a callback does the rest."""

from tempfile import TemporaryDirectory

import torch
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss
from transformers import Trainer, TrainingArguments

import isonomy
from isonomy.integrations.transformers import BalancerCallback


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.heads = nn.ModuleDict({"kind": nn.Linear(32, 4), "size": nn.Linear(32, 1)})

    def forward(self, x):
        z = self.encoder(x)
        return z, self.heads["kind"](z), self.heads["size"](z)


class BalancedTrainer(Trainer):
    # Means over batches: the Trainer is to divide by gradient_accumulation_steps, whatever the model's forward takes.
    loss_is_scaled_for_ga = False

    def __init__(self, balancer, **options):
        super().__init__(**options)
        self.balancer = balancer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        z, kind, size = outputs = model(inputs["x"])
        losses = {"kind": cross_entropy(kind, inputs["kind"]), "size": 1000 * l1_loss(size, inputs["size"])}
        loss = self.balancer(losses, shared=z, grad_scaler=self.accelerator.scaler)
        return (loss, outputs) if return_outputs else loss


def train(folder, epochs, resume=False):
    torch.manual_seed(0)
    x = torch.randn(512, 16)
    kind, size = (x @ torch.randn(16, 4)).argmax(1), x[:, :1].square()
    balancer = isonomy.build("imtl", ["kind", "size"])
    arguments = TrainingArguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=32,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        logging_strategy="epoch",
        save_strategy="epoch",
        lr_scheduler_type="constant",
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,  # with several processes, where shared= is a feature
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    trainer = BalancedTrainer(
        balancer,
        model=Model(),
        args=arguments,
        train_dataset=[{"x": x[i], "kind": kind[i], "size": size[i]} for i in range(512)],
        callbacks=[BalancerCallback(balancer)],
    )
    trainer.train(resume_from_checkpoint=resume)
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    print(f"step {balancer.steps}: kind {last['balancer/loss/kind']:.3f}, size {last['balancer/loss/size']:.1f}")


def main():
    with TemporaryDirectory() as folder:
        train(folder, epochs=1)
        train(folder, epochs=20, resume=True)


if __name__ == "__main__":
    main()
