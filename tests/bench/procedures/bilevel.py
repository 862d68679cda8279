"""The model of ``tests.fixtures.M`` as a function of its parameters; a batch is its three targets."""

import torch

from tests.fixtures import tensor

TRAIN, OUTER = tensor([-1, 3, 1]), tensor([0, 2, 2])
FEATURES = tensor([[1, 0], [0, 1], [1, 1]])


def parameters():
    return {"theta": tensor([1, 2]), "psi": tensor([1, 1, 1])}


def losses(at, targets):
    return 0.5 * (at["psi"] * (FEATURES @ at["theta"]) - targets) ** 2


def flat(at):
    return torch.cat([at["theta"], at["psi"]])
