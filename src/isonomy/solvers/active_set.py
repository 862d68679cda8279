"""An active set in plain floats: for a few unknowns a tensor operation costs more than what it does."""

from __future__ import annotations

from collections.abc import Iterable
from operator import add, mul

# Relative to max|q|: below it a dual gradient counts as 0.
TOLERANCE = 1e-12
# Makes every block regular, so that a step along a ray is long but finite.
_RIDGE = 1e-14
# No guess brings in a unit column of which less than this, squared, lies outside the span of those before it.
_INDEPENDENT = 1e-10


class Factor:
    """Cholesky factor of the block H[support, support], which grows and shrinks a coordinate at a time.

    Attributes:
        support: Coordinates, in the order in which they came.
    """

    def __init__(self, H: list[list[float]]) -> None:
        self.H = H
        self.support: list[int] = []
        self._rows: list[list[float]] = []  # of the factor, without its diagonal
        self._inverse: list[float] = []  # 1 / its diagonal

    def add(self, coordinate: int, least: float = 0.0) -> None:
        """Takes a coordinate in, unless less than ``least`` of its column lies outside the span of the support."""
        column = self.H[coordinate]
        row: list[float] = []
        for i, other, inverse in zip(self.support, self._rows, self._inverse, strict=True):
            row.append((column[i] - sum(map(mul, row, other))) * inverse)
        pivot = max(column[coordinate] - sum(map(mul, row, row)), 0.0) + _RIDGE * column[coordinate]
        if pivot > least * column[coordinate]:
            self.support.append(coordinate)
            self._rows.append(row)
            self._inverse.append(pivot**-0.5)

    def keep(self, kept: list[bool]) -> None:
        """Drops the positions of the support that are not kept; the factor up to the first of them stays."""
        first = kept.index(False)
        later = [i for i, stays in zip(self.support[first:], kept[first:], strict=True) if stays]
        del self.support[first:], self._rows[first:], self._inverse[first:]
        for coordinate in later:
            self.add(coordinate)

    def solve(self, b: list[float]) -> list[float]:
        """H[support, support]⁻¹ b[support], in the order of the support."""
        x = self._solve([b[i] for i in self.support])
        # A step of refinement takes the ridge's error out again where the block is regular by itself.
        rows = [[self.H[i][j] for j in self.support] for i in self.support]
        error = self._solve([b[i] - sum(map(mul, row, x)) for i, row in zip(self.support, rows, strict=True)])
        return list(map(add, x, error))

    def _solve(self, b: list[float]) -> list[float]:
        x: list[float] = []
        for right, row, inverse in zip(b, self._rows, self._inverse, strict=True):
            x.append((right - sum(map(mul, row, x))) * inverse)
        for k in range(len(x) - 1, -1, -1):
            x[k] = last = x[k] * self._inverse[k]
            row = self._rows[k]
            for j in range(k):
                x[j] -= row[j] * last
        return x


def active_set(H: list[list[float]], q: list[float], start: Iterable[int] | None = None) -> list[float]:
    """Minimises ½ zᵀHz + qᵀz over z ≥ 0 by the active set of Lawson and Hanson.

    "Solving Least Squares Problems", 1974, chapter 23, on the matrix of the normal equations. A coordinate enters
    the support only with a strictly positive dual gradient, so the support stays independent and a singular H does no
    harm.

    Args:
        H: Positive semi-definite, diagonal about 1.
        q: Linear term.
        start: A guess of the support; by default all coordinates that lower the objective at 0.

    Returns:
        z, one number a coordinate; far out on a ray of descent where the program is unbounded.
    """
    size = len(q)
    b = [-x for x in q]
    tolerance = TOLERANCE * max(map(abs, q))
    if start is None:
        start = [i for i in range(size) if b[i] > tolerance]
        if not start:
            return [0.0] * size
    factor = Factor(H)
    for coordinate in start:
        factor.add(coordinate, _INDEPENDENT)
    s = factor.solve(b)
    while not all(x > 0 for x in s):
        factor.keep([x > 0 for x in s])
        s = factor.solve(b)
    z = [0.0] * size
    banned: set[int] = set()
    # Every pass lowers the objective or bans a coordinate; the bound is never met in practice.
    for _ in range(30 * size + 30):  # pragma: no branch
        z = [0.0] * size
        for i, x in zip(factor.support, s, strict=True):
            z[i] = x
        gradient = [bi - sum(map(mul, row, z)) for bi, row in zip(b, H, strict=True)]
        candidates = [i for i in range(size) if gradient[i] > tolerance and i not in banned and z[i] == 0]
        if not candidates:
            break
        entering = max(candidates, key=gradient.__getitem__)
        factor.add(entering)
        s = factor.solve(b)
        while not all(x > 0 for x in s):
            # Go as far as z stays non-negative and drop what stops it; by name, since rounding may leave it above 0.
            steps = [z[i] / max(z[i] - x, 1e-300) if x <= 0 else 2.0 for i, x in zip(factor.support, s, strict=True)]
            step = min(steps)
            for i, x, limit in zip(factor.support, s, steps, strict=True):
                z[i] = max(0.0, z[i] + step * (x - z[i])) if limit > step else 0.0
            factor.keep([z[i] > 0 for i in factor.support])
            s = factor.solve(b)
        if entering in factor.support:
            banned.clear()
        else:
            banned.add(entering)
    return z
