"""What every framework has to reproduce: a network, its losses, and a plain loop that trains it."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import isonomy

# A method with state of its own at each level: learned scales with their Adam, and a history of task gradients.
CASES = [("imtl", "features"), ("db_mtl", "parameters")]
SAMPLES, BATCH, EPOCHS = 48, 8, 2
CLIP = 0.1


class Data(Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.x, self.y = (torch.randn(SAMPLES, n, generator=generator, dtype=torch.float64) for n in (4, 2))

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return {"x": self.x[index], "y": self.y[index]}


class Net(nn.Module):
    """Two tasks, the second in a unit ten times smaller."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.heads = nn.ModuleDict({"a": nn.Linear(6, 1), "b": nn.Linear(6, 1)})
        self.double()

    def forward(self, x):
        z = self.encoder(x)
        return {"z": z, **{task: head(z)[:, 0] for task, head in self.heads.items()}}


def losses(out, y):
    return {task: 10.0**t * (out[task] - y[:, t]).square().mean() for t, task in enumerate(("a", "b"))}


def build(name):
    balancer = isonomy.build(name, ["a", "b"])
    balancer.stages.double()  # learned scales in float32 would round differently on two processes
    return balancer


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.01, momentum=0.9)


def shared(net, out, level):
    return out["z"] if level == "features" else net.encoder


def loader(batch=BATCH, dtype=torch.float64, sampler=None):
    data = [{key: value.to(dtype) for key, value in sample.items()} for sample in Data()]
    return DataLoader(data, batch, sampler=sampler and sampler(data, shuffle=False))


def same_batches():
    """A loader that no framework can lose its place in."""
    return DataLoader(Subset(Data(), [*range(BATCH)] * (SAMPLES // BATCH)), BATCH)


def vector(net):
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def train(name, level, batch=BATCH, accumulate=1, clip=None, epochs=EPOCHS):
    """The parameters after training by hand."""
    net, balancer = Net(), build(name)
    optimizer = sgd(net.parameters())
    for _ in range(epochs):
        for k, sample in enumerate(loader(batch)):
            out = net(sample["x"])
            loss = balancer(losses(out, sample["y"]), shared=shared(net, out, level))
            (loss / accumulate).backward()
            if (k + 1) % accumulate == 0:
                if clip:
                    assert nn.utils.clip_grad_norm_(net.parameters(), clip) > clip
                optimizer.step()
                optimizer.zero_grad()
    return vector(net)
