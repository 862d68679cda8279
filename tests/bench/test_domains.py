from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

from isonomy.bench.architectures.output import Output
from isonomy.bench.data.domains import Domains, Split, cut, domain_task


class Numbers(Domains):
    """Ten images ``0..9`` in one domain, four in another; remembers what is read."""

    name = "numbers"
    batch_size = 2
    sizes = {"many": 10, "few": 4}  # noqa: RUF012

    def __init__(self):
        self.tasks = tuple(map(domain_task, self.sizes))
        self.read = []

    def count(self, domain, split):
        return self.sizes[domain]

    def loaded(self, domain, split, chunks, device):
        for chunk in chunks:
            self.read.append((domain, split, chunk.tolist()))
            yield Split(chunk[:, None].float(), chunk % 2)


class Known(nn.Module):
    """Says that odd numbers are odd in one domain and even in the other, and has a penalty a call."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.ones(()))

    def forward(self, images, tasks):
        (task,) = tasks
        odd = (images[:, 0] % 2) * (1 if task == "many" else -1)
        return Output(None, {task: torch.stack([-odd, odd], 1) * self.anchor}, penalty=self.anchor * 3)


def seen(stream, domain):
    return [batch[domain].images[:, 0].tolist() for batch in stream]


def test_a_domain_that_nobody_trains_on_is_not_read():
    problem = Numbers()
    for batch in problem.batches(0, 0, "cpu"):
        problem.losses(Known(), batch, ["few"])
        problem.losses(Known(), batch, ["few"])
    assert [domain for domain, *_ in problem.read] == ["few"] * 5


def test_a_domain_has_the_same_batches_whoever_else_is_read_and_whenever():
    problem = Numbers()
    alone, both = seen(problem.batches(0, 0, "cpu"), "few"), list(problem.batches(0, 0, "cpu"))
    assert seen(both, "many") != seen(both, "few")
    assert seen(both, "few") == alone
    late = list(problem.batches(0, 0, "cpu"))
    assert [late[i]["few"].images[:, 0].tolist() for i in (3, 1, 2, 3, 0, 4)] == [alone[i] for i in (3, 1, 2, 3, 0, 4)]


def test_the_large_domain_is_seen_once_and_the_small_one_begins_again():
    problem = Numbers()
    batches = list(problem.batches(0, 0, "cpu"))
    assert len(batches) == 5
    assert sorted(chain.from_iterable(seen(batches, "many"))) == list(range(10))
    few = seen(batches, "few")
    assert sorted(few[0] + few[1]) == sorted(few[2] + few[3]) == [0, 1, 2, 3]
    assert len(batches[0]) == 2
    assert list(batches[0]) == ["many", "few"]


def test_penalties_of_all_domains_add_up():
    problem = Numbers()
    batch = next(problem.batches(0, 0, "cpu"))
    losses, feature, penalty = problem.losses(Known(), batch, ["many", "few"])
    assert feature is None
    assert penalty == 6
    assert losses["few"] > losses["many"]


def test_every_image_is_judged_once():
    problem = Numbers()
    assert problem.evaluate(Known(), ["many", "few"], "test") == {
        "many": {"accuracy": 100.0},
        "few": {"accuracy": 50.0},
    }
    assert [(domain, split, len(chunk)) for domain, split, chunk in problem.read] == [
        ("many", "test", 10),
        ("few", "test", 4),
    ]


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, (0, 0, 0)), (4, (2, 0, 2)), (7, (4, 1, 2)), (10, (6, 2, 2)), (99, (59, 19, 21))]
)
def test_shares_are_rounded_down_and_what_is_left_is_for_testing(count, sizes):
    parts = cut(np.arange(count), 5)
    assert tuple(map(len, parts)) == sizes
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert all((one == other).all() for one, other in zip(parts, cut(np.arange(count), 5), strict=True))
