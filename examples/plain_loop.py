"""A training loop of your own: two tasks, one encoder, and the second loss in a unit a thousand times smaller."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss

import isonomy


def main():
    torch.manual_seed(0)
    x = torch.randn(512, 16)
    kind, size = (x @ torch.randn(16, 4)).argmax(1), x[:, :1].square()

    encoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
    heads = nn.ModuleDict({"kind": nn.Linear(32, 4), "size": nn.Linear(32, 1)})
    balancer = isonomy.build("imtl", ["kind", "size"])
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=0.01)

    for epoch in range(20):
        for batch in torch.randperm(512).split(64):
            z = encoder(x[batch])
            losses = {
                "kind": cross_entropy(heads["kind"](z), kind[batch]),
                "size": 1000 * l1_loss(heads["size"](z), size[batch]),
            }
            # At the feature, for one backward pass through the encoder; shared=encoder is exact at its parameters.
            loss = balancer(losses, shared=z)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch in (0, 19):
            print(f"step {balancer.steps}: kind {losses['kind']:.3f}, size {losses['size']:.1f}")

    # Who dominates, who conflicts, and what was done about it.
    for name, value in balancer.report.as_dict().items():
        print(f"{name} = {value:.4g}")


if __name__ == "__main__":
    main()
