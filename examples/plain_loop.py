"""A training loop of your own: two tasks, one encoder, and a loss in a unit a thousand times smaller."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss

import isonomy


def main():
    torch.manual_seed(0)
    x = torch.randn(512, 16)
    kind, size = (x @ torch.randn(16, 4)).argmax(1), 1000 * x[:, :1]

    encoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
    heads = nn.ModuleDict({"kind": nn.Linear(32, 4), "size": nn.Linear(32, 1)})
    balancer = isonomy.build("imtl", ["kind", "size"])
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=0.01)

    first = None
    for _epoch in range(20):
        for batch in torch.randperm(512).split(64):
            z = encoder(x[batch])
            losses = {
                "kind": cross_entropy(heads["kind"](z), kind[batch]),
                "size": l1_loss(heads["size"](z), size[batch]),
            }
            # At the feature, for one backward pass through the encoder; shared=encoder is exact at its parameters.
            loss = balancer(losses, shared=z)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        first = first or balancer.report

    for t, task in enumerate(balancer.tasks):
        print(f"{task}: loss {first.losses[t]:.3f} -> {balancer.report.losses[t]:.3f}")
    for name, value in balancer.report.as_dict().items():
        print(f"{name} = {value:.4g}")


if __name__ == "__main__":
    main()
