"""Exact k-means of numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def kmeans(values: Tensor, groups: int) -> Tensor:
    """Replaces every number by the mean of its group, with the smallest sum of squared differences.

    On a line the groups of an optimum are intervals, so dynamic programming over the sorted numbers finds it.

    Args:
        values: Shape (T,), finite.
        groups: How many groups; as many as numbers or more leave the numbers as they are.

    Returns:
        The means, shape (T,), on the device of ``values``.
    """
    if groups >= len(values):
        return values
    ordered, order = values.cpu().sort()
    means, spreads = _intervals(ordered.tolist())
    size = len(means)
    # Cost and last group's start of the best partition of the numbers up to each one, for 1, 2, ... groups.
    best = [(spreads[0][end], 0) for end in range(size)]
    starts = [[0] * size]
    for count in range(1, groups):
        best = [
            min(
                ((best[start - 1][0] + spreads[start][end], start) for start in range(count, end + 1)), default=(0.0, 0)
            )
            for end in range(size)
        ]
        starts.append([start for _, start in best])
    found, end = torch.empty_like(ordered), size - 1
    for chosen in reversed(starts):
        start = chosen[end]
        found[order[start : end + 1]] = means[start][end]
        end = start - 1
    return found.to(values.device)


def _intervals(numbers: list[float]) -> tuple[list[list[float]], list[list[float]]]:
    """Mean, and sum of squared differences from it, of all numbers from one position to another."""
    size = len(numbers)
    means, spreads = ([[0.0] * size for _ in numbers] for _ in range(2))
    for start in range(size):
        mean = spread = 0.0
        for end in range(start, size):
            # Welford's update: differences of sums of squares would lose close numbers beside large ones.
            change = numbers[end] - mean
            mean += change / (end - start + 1)
            spread += change * (numbers[end] - mean)
            means[start][end], spreads[start][end] = mean, spread
    return means, spreads
