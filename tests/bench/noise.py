"""A dense data set that costs nothing: random images and labels of two to five tasks."""

from dataclasses import dataclass
from pathlib import Path

import torch

from isonomy.bench import plan
from isonomy.bench.backbones import CATALOGUE
from isonomy.bench.data.dense import Dense
from isonomy.bench.data.rooms.problem import PROFILES
from isonomy.bench.recipe import Recipe
from isonomy.bench.seeds import key
from isonomy.bench.trainer import Trainer


@dataclass
class Noise(Dense):
    name: str = "noise"
    summary: str = "random images and labels"
    version: int = 1
    profile: str = "nyud4"
    size: tuple = (32, 32)
    images: int = 5
    batch_size: int = 2
    flip: bool = True
    recipe: Recipe = Recipe(epochs=1, learning_rate=1e-3, schedule="linear")
    levels: tuple = ("features", "parameters", "last_layer")
    architectures: tuple = (
        *("hps", "cross_stitch", "mtan", "mmoe", "cgc", "ple", "dselect_k", "ltb", "pad_net", "mti_net", "invpt"),
    )
    backbones: tuple = tuple(name for name, entry in CATALOGUE.items() if entry.dense)

    @property
    def tasks(self):
        return PROFILES[self.profile]

    def count(self, split):
        return self.images

    def read(self, split, chosen):
        """Sample i depends on the split and i alone, as for real data."""
        samples = [self.sample(split, int(i)) for i in chosen]
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def sample(self, split, i):
        draws = torch.Generator().manual_seed(key("noise", split, i))
        height, width = self.size
        found = {"image": torch.rand(3, height, width, generator=draws)}
        for task in self.tasks:
            if task.name == "normal":
                normal = torch.randn(3, height, width, generator=draws)
                found["normal"] = normal / normal.norm(dim=0)
            elif task.name == "depth":
                found["depth"] = 1 + torch.rand(1, height, width, generator=draws)
            else:
                found[task.name] = torch.randint(max(task.outputs, 2), (height, width), generator=draws)
        return found


def load(name):
    return Noise()


def trainer(found, method, level=None, **flags):
    """A trainer of a method on the data set, outside of any folder."""
    wanted = {"data": "noise", "seeds": 1, "methods": [method], "level": level, **flags}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    cells = plan.cells(plan.resolve(wanted, Path("nowhere"), False, lambda name: found), lambda name: found)
    return Trainer(next(each for each in cells if each.method == method), found)
