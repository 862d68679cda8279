from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st

from isonomy.solvers import kmeans
from tests.fixtures import close, tensor


def cost(values, means) -> float:
    return float((tensor(values) - means).square().sum())


def brute_force(values, groups) -> float:
    """The smallest cost over all ways to put the numbers into groups, intervals or not."""
    best = float("inf")
    for labels in torch.tensor(list(product(range(groups), repeat=len(values)))):
        means = torch.stack([tensor(values)[labels == label].mean() for label in labels])
        best = min(best, cost(values, means))
    return best


numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6)


@given(numbers, st.integers(1, 4))
def test_no_partition_is_better(values, groups):
    means = kmeans(tensor(values), groups)
    assert len(means.unique()) <= groups
    scale = 1 + cost(values, tensor(values).mean())
    assert abs(cost(values, means) - brute_force(values, min(groups, len(values)))) <= 1e-9 * scale


@given(numbers, st.integers(1, 4), st.randoms(use_true_random=False))
def test_order_does_not_matter(values, groups, random):
    order = random.sample(range(len(values)), len(values))
    close(kmeans(tensor(values)[order], groups), kmeans(tensor(values), groups)[order], 1e-12)


def test_known_groups():
    values = [10, 1, 2.5, 12, 3]
    close(kmeans(tensor(values), 1), [5.7] * 5)
    close(kmeans(tensor(values), 2), tensor([33, 6.5, 6.5, 33, 6.5]) / 3)
    close(kmeans(tensor(values), 3), [11, 1, 2.75, 11, 2.75])
    close(kmeans(tensor(values), 4), [10, 1, 2.75, 12, 2.75])
    close(kmeans(tensor(values), 5), values, 0)
    close(kmeans(tensor(values), 9), values, 0)


def test_close_numbers_beside_a_large_one():
    close(kmeans(tensor([1e9, 1.0, 1.001, 5.0]), 3), tensor([1e9, 1.0005, 1.0005, 5.0]), 1e-15)


def test_equal_numbers_stay_together():
    close(kmeans(tensor([2, 7, 2, 2]), 3), [2, 7, 2, 2], 0)
