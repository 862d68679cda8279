"""Random numbers that depend on what they are for and on nothing else.

Every draw of the bench comes from a generator keyed by its purpose, so a method, the number of processes or a resumed
run cannot shift the numbers that another part sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def key(*parts: str | int) -> int:
    """A 63-bit number for a purpose such as ``(seed, "encoder")``, the same on every machine.

    Args:
        parts: The purpose.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def drawn(*parts: str | int) -> Iterator[None]:
    """Makes torch's CPU generator the purpose's own inside the block, and puts it back afterwards.

    Args:
        parts: The purpose, such as ``(seed, "head", "left")``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(*parts))
        yield


def order(count: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch visits its samples: a permutation of ``range(count)``.

    Args:
        count: Number of samples.
        seed: The run's seed.
        epoch: The epoch, from 0. No loader's state is needed to resume.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(key(seed, "order", epoch)))
