"""Two lines that say what is wrong: plain summing, and the second loss in a unit a thousand times smaller."""

import tempfile

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
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=0.01)

    for method in ("ew", "imtl"):  # "ew" is plain summing
        balancer = isonomy.build(method, ["kind", "size"])
        monitor = isonomy.Monitor(balancer, every=5, folder=tempfile.mkdtemp())
        for _ in range(20):
            for batch in torch.randperm(512).split(64):
                z = encoder(x[batch])
                losses = {
                    "kind": cross_entropy(heads["kind"](z), kind[batch]),
                    "size": 1000 * l1_loss(heads["size"](z), size[batch]),
                }
                loss = balancer(losses, shared=z)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        print(f"{method}:", *monitor.findings() or ["nothing is wrong"], sep="\n  ")
        print(monitor.save())


if __name__ == "__main__":
    main()
