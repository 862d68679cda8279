"""What the tests of the backbones share."""

import torch
from torch import nn

from isonomy.bench import _compat, backbones
from isonomy.bench.seeds import drawn

timm = _compat.import_timm()
VITS = [name for name in backbones.CATALOGUE if name.startswith("vit")]


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def on_meta(make, *args, **options):
    with torch.device("meta"):
        return make(*args, **options)


def size_for(name):
    return (56, 84) if name.endswith("dinov2") else (64, 96)


def built(name, seed=0, **options):
    with drawn(seed, "encoder"):
        return backbones.make(name, size=size_for(name), **options)


def sample(name, batch=2):
    with drawn("input"):
        if name != "mpnn":
            return torch.rand(batch, 3, *size_for(name))
        x, edges, mask = torch.randn(batch, 7, 11), torch.rand(batch, 7, 7, 5), torch.arange(7) < 5
        return backbones.Molecules(x, edges, mask.expand(batch, 7))


def shaken(network):
    """The same network with batch statistics and affine maps that are not those of a fresh one."""
    with drawn("shaken"), torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return network.eval()


def differing(before, after):
    return [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
