"""Small problems in exact arithmetic: rational numbers, and every support tried."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import torch
from torch import Tensor

Matrix = list[list[Fraction]]


def rational(values: Tensor) -> list:
    """The same numbers, exactly."""
    return [Fraction(x) for x in values.tolist()] if values.ndim == 1 else [rational(row) for row in values]


def integers(tasks: int, columns: int, seed: int) -> Tensor:
    """A T x P matrix of small integers without a zero row."""
    generator = random.Random(seed)
    rows: list[list[int]] = []
    while len(rows) < tasks:
        row = [generator.randint(-4, 4) for _ in range(columns)]
        if any(row):
            rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def product(A: Matrix, x: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in A]


def solve(A: Matrix, b: list[Fraction]) -> list[Fraction] | None:
    """A⁻¹ b by elimination; None for a singular A."""
    rows = [[*row, x] for row, x in zip(A, b, strict=True)]
    for i in range(len(rows)):
        pivot = next((k for k in range(i, len(rows)) if rows[k][i]), None)
        if pivot is None:
            return None
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for k in range(len(rows)):
            if k != i:
                rows[k] = [x - rows[k][i] * y for x, y in zip(rows[k], rows[i], strict=True)]
    return [row[-1] for row in rows]


def nnqp(H: Matrix, q: list[Fraction]) -> list[Fraction]:
    """A solution z ≥ 0, Hz + q ≥ 0, zᵀ(Hz + q) = 0 with an independent support, which exists where any exists."""
    size = len(q)
    for count in range(size + 1):
        for support in itertools.combinations(range(size), count):
            block = [[H[i][j] for j in support] for i in support]
            s = solve(block, [-q[i] for i in support])
            if s is None or min(s, default=0) < 0:
                continue
            z = [Fraction(0)] * size
            for i, x in zip(support, s, strict=True):
                z[i] = x
            if all(x + y >= 0 for x, y in zip(product(H, z), q, strict=True)):
                return z
    raise AssertionError("the program has no solution")
