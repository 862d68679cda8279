"""Times and residuals of Isonomy's solvers and of other people's, on the same matrices in one run.

``python benchmarks/solvers.py`` prints a table and writes benchmarks/solvers.csv and benchmarks/solvers.md. It needs
``pip install -c constraints.txt -e '.[peers]'``; a peer that is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import itertools
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import threadpoolctl
import torch
from torch import Tensor

from isonomy import solvers
from isonomy.gramian import Gramian

FOLDER = Path(__file__).parent
TASKS = {2: 10, 3: 10, 10: 8, 40: 4, 100: 3}  # and how many matrices
FAMILIES = ("conf", "align")
REPEATS, SLOW, TOO_SLOW = 5, 0.3, 5.0  # seconds from which one repetition, one matrix are enough
RADIUS, ALPHA = 0.5, 2.0
COLUMNS = (
    "problem",
    "family",
    "tasks",
    "solver",
    "matrices",
    "ms",
    "ratio",
    "residual_median",
    "residual_max",
    "failures",
)
READING = """Isonomy: milliseconds; the others: how many times as long on the same matrices. Processor time of one
thread, medians, from the gramian to the weights. Then the residual: median (largest)."""


@dataclass(frozen=True)
class Problem:
    """The gradients of one step, as each side keeps them before it solves anything, float64.

    Attributes:
        J: The task gradients, shape (T, P).
        G: Their inner products, shape (T, T), which the peers get.
        gramian: The same as norms and cosines, which Isonomy measures for every method.
        tasks: T.
    """

    J: Tensor
    G: Tensor
    gramian: Gramian
    tasks: int


def make(family: str, tasks: int, seed: int) -> Problem:
    """Gradients with norms log-normal around 1: many conflicts (``conf``) or a common component (``align``)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    columns, rank = 2 * tasks + 10, math.ceil(tasks / 2)
    if family == "conf":
        J = normal(tasks, rank) @ normal(rank, columns) / rank**0.5 + 0.3 * normal(tasks, columns)
    else:
        J = normal(tasks, columns) + normal(1, columns)
    J = J * normal(tasks, 1).exp()
    return Problem(J, J @ J.T, Gramian.of(J @ J.T), tasks)


# Residuals: of weights (T,), for DualProj and UPGrad of the aggregate's weights.


def min_norm_residual(problem: Problem, w: Tensor) -> float:
    """How far ‖Jᵀw‖² can be from the smallest, relative to the smallest."""
    w = w / w.sum()
    best = solvers.min_norm(problem.gramian)
    return float((w @ problem.G @ w - (problem.G @ w).min()) / (best @ problem.G @ best))


def cagrad_residual(problem: Problem, w: Tensor) -> float:
    """What the worst task lacks to the best possible, and how far d is outside the ball, relative to ‖g₀‖ max ‖g‖."""
    G, u = problem.G, torch.full((problem.tasks,), 1 / problem.tasks, dtype=torch.float64)
    size = (u @ G @ u).sqrt()
    v = solvers.cagrad(problem.gramian, problem.tasks, RADIUS)
    v = v / v.sum()
    bound = v @ G @ u + RADIUS * size * (v @ G @ v).sqrt()
    outside = (((w - u) @ G @ (w - u)).clamp_min(0).sqrt() - RADIUS * size).clamp_min(0)
    return float((bound - (G @ w).min()) / size + outside) / float(G.diagonal().max().sqrt())


def cone_residual(problem: Problem, u: Tensor, v: Tensor) -> float:
    """Violation of v ≥ u, J d ≥ 0 and (v − u)ᵀJ d = 0 in units of the gradients' lengths and of ‖Jᵀu‖."""
    gramian = problem.gramian
    size = gramian.combined_norm(u)
    gains = gramian.cosines @ (gramian.norms * v) / size
    added = gramian.norms * (v - u) / size
    return float(torch.cat([-gains, -added, (gains * added).abs()]).max())


def dualproj_residual(problem: Problem, w: Tensor) -> float:
    return cone_residual(problem, torch.full_like(w, 1 / problem.tasks), w)


def upgrad_residual(problem: Problem, w: Tensor) -> float:
    """Distance of the aggregate from the certified one, relative; for the certified one the residual of its rows."""
    u = torch.eye(problem.tasks, dtype=torch.float64) / problem.tasks
    v = solvers.dual_cone(problem.gramian, u)
    certified = max(cone_residual(problem, *rows) for rows in zip(u, v, strict=True))
    distance = problem.gramian.combined_norm(w - v.sum(0)) / problem.gramian.combined_norm(v.sum(0))
    return max(certified, float(distance))


def fair_residual(alpha: float) -> Callable[[Problem, Tensor], float]:
    return lambda problem, w: float(((problem.G @ w) * w ** (1 / alpha) - 1).abs().max())


# Ours.

Solver = Callable[[Problem], Tensor]


def mean_of(problem: Problem) -> Tensor:
    return torch.full((1, problem.tasks), 1 / problem.tasks, dtype=torch.float64)


OURS: dict[str, Solver] = {
    "min-norm": lambda p: solvers.min_norm(p.gramian),
    "CAGrad": lambda p: 1 / p.tasks + solvers.cagrad(p.gramian, p.tasks, RADIUS),
    "UPGrad": lambda p: solvers.dual_cone(p.gramian, torch.eye(p.tasks, dtype=torch.float64) / p.tasks).sum(0),
    "DualProj": lambda p: solvers.dual_cone(p.gramian, mean_of(p))[0],
    "Nash": lambda p: solvers.fair(p.gramian, 1.0),
    "FairGrad": lambda p: solvers.fair(p.gramian, ALPHA),
}
RESIDUALS: dict[str, Callable[[Problem, Tensor], float]] = {
    "min-norm": min_norm_residual,
    "CAGrad": cagrad_residual,
    "UPGrad": upgrad_residual,
    "DualProj": dualproj_residual,
    "Nash": fair_residual(1.0),
    "FairGrad": fair_residual(ALPHA),
}

# Peers: a function a package, which fails with ImportError where the package is missing. Each is called as its users
# do, with its default tolerances, on float64.

Peers = dict[str, dict[str, Solver]]


def torchjd_peers() -> Peers:
    """TorchJD's own solvers, on G; of Nash-MTL on J, unclipped, its problem built beforehand and started afresh."""
    aggregation = importlib.import_module("torchjd.aggregation")
    nash: dict[int, object] = {}

    def nash_mtl(problem: Problem) -> Tensor:
        if problem.tasks not in nash:
            nash[problem.tasks] = aggregation.NashMTL(n_tasks=problem.tasks, max_norm=0.0).weighting
        weighting = nash[problem.tasks]
        weighting.prvs_alpha = torch.ones(problem.tasks).numpy()
        return weighting(problem.J)

    def on_gramian(weighting: Callable[[Tensor], Tensor]) -> Solver:
        return lambda problem: weighting(problem.G)

    return {
        "min-norm": {"TorchJD": on_gramian(aggregation.MGDAWeighting())},
        "CAGrad": {"TorchJD": on_gramian(aggregation.CAGradWeighting(c=RADIUS))},
        "UPGrad": {"TorchJD": on_gramian(aggregation.UPGradWeighting())},
        "DualProj": {"TorchJD": on_gramian(aggregation.DualProjWeighting())},
        "Nash": {"TorchJD": nash_mtl},
        "FairGrad": {"TorchJD": on_gramian(aggregation.FairGradWeighting(alpha=ALPHA))},
    }


def scipy_peers() -> Peers:
    """Non-negative least squares, SLSQP as in CAGrad's official code, least squares as in FairGrad's."""
    np = importlib.import_module("numpy")
    optimize = importlib.import_module("scipy.optimize")

    def slsqp(objective: Callable, tasks: int) -> Tensor:
        found = optimize.minimize(
            objective,
            np.full(tasks, 1 / tasks),
            bounds=[(0, 1)] * tasks,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
        )
        return torch.from_numpy(found.x)

    def shortest(problem: Problem) -> Tensor:
        G = problem.G.numpy()
        return slsqp(lambda w: w @ G @ w, problem.tasks)

    def shortest_by_nnls(problem: Problem) -> Tensor:
        tasks = problem.tasks
        L = np.linalg.cholesky(problem.G.numpy())
        rows = np.vstack([L.T, np.ones((1, tasks))])
        z, _ = optimize.nnls(rows, np.eye(tasks + 1)[tasks])
        return torch.from_numpy(z / z.sum())

    def cagrad(problem: Problem) -> Tensor:
        G = problem.G.numpy()
        mean = G.mean(1)
        kappa = RADIUS * mean.mean() ** 0.5
        w = slsqp(lambda x: x @ mean + kappa * (x @ G @ x + 1e-8) ** 0.5, problem.tasks)
        return 1 / problem.tasks + kappa * w / (w @ problem.G @ w).sqrt()

    def project(problem: Problem, u: Tensor) -> Tensor:
        L = np.linalg.cholesky(problem.G.numpy())
        return u + torch.stack([torch.from_numpy(optimize.nnls(L.T, -L.T @ row)[0]) for row in u.numpy()])

    def fair(alpha: float) -> Solver:
        def solve(problem: Problem) -> Tensor:
            G, start = problem.G.numpy(), np.full(problem.tasks, 1 / problem.tasks)
            found = optimize.least_squares(lambda w: G @ w - w ** (-1 / alpha), start, bounds=(0, np.inf))
            return torch.from_numpy(found.x)

        return solve

    return {
        "min-norm": {"SciPy SLSQP": shortest, "SciPy nnls": shortest_by_nnls},
        "CAGrad": {"SciPy SLSQP": cagrad},
        "UPGrad": {"SciPy nnls": lambda p: project(p, torch.eye(p.tasks, dtype=torch.float64) / p.tasks).sum(0)},
        "DualProj": {"SciPy nnls": lambda p: project(p, mean_of(p))[0]},
        "Nash": {"SciPy least_squares": fair(1.0)},
        "FairGrad": {"SciPy least_squares": fair(ALPHA)},
    }


def cvxpy_peers() -> Peers:
    """The convex problems as they stand, by the interior-point methods that handle them."""
    cp = importlib.import_module("cvxpy")
    solvers_by_name = {name: name for name in ("CLARABEL", "ECOS") if name in cp.installed_solvers()}

    def root(problem: Problem):
        # A square root of G, so that wᵀGw is a sum of squares to the modeller.
        return torch.linalg.cholesky(problem.G).numpy()

    def solve(objective, variable, constraints, name: str) -> Tensor:
        cp.Problem(cp.Minimize(objective), constraints).solve(solver=name)
        return torch.from_numpy(variable.value)

    def shortest(problem: Problem, name: str) -> Tensor:
        w = cp.Variable(problem.tasks)
        return solve(cp.sum_squares(root(problem).T @ w), w, [w >= 0, cp.sum(w) == 1], name)

    def cagrad(problem: Problem, name: str) -> Tensor:
        w, mean = cp.Variable(problem.tasks), problem.G.mean(1)
        kappa = RADIUS * float(mean.mean()) ** 0.5
        objective = mean.numpy() @ w + kappa * cp.norm(root(problem).T @ w)
        found = solve(objective, w, [w >= 0, cp.sum(w) == 1], name)
        return 1 / problem.tasks + kappa * found / (found @ problem.G @ found).sqrt()

    def project(problem: Problem, u: Tensor, name: str) -> Tensor:
        v = cp.Variable(problem.tasks)
        return solve(cp.sum_squares(root(problem).T @ v), v, [v >= u.numpy()], name)

    def upgrad(problem: Problem, name: str) -> Tensor:
        rows = torch.eye(problem.tasks, dtype=torch.float64) / problem.tasks
        return torch.stack([project(problem, row, name) for row in rows]).sum(0)

    def nash(problem: Problem, name: str) -> Tensor:
        w = cp.Variable(problem.tasks)
        return solve(0.5 * cp.sum_squares(root(problem).T @ w) - cp.sum(cp.log(w)), w, [], name)

    def fair(problem: Problem, name: str) -> Tensor:
        w = cp.Variable(problem.tasks)
        return solve(0.5 * cp.sum_squares(root(problem).T @ w) - 2 * cp.sum(cp.sqrt(w)), w, [], name)

    def each(function: Callable[[Problem, str], Tensor]) -> dict[str, Solver]:
        return {
            f"CVXPY {name.capitalize()}": lambda problem, name=name: function(problem, name) for name in solvers_by_name
        }

    return {
        "min-norm": each(shortest),
        "CAGrad": each(cagrad),
        "UPGrad": each(upgrad),
        "DualProj": each(lambda p, name: project(p, mean_of(p)[0], name)),
        "Nash": each(nash),
        "FairGrad": each(fair),
    }


def quadprog_peers() -> Peers:
    """The dual method of Goldfarb and Idnani, by qpsolvers, without a ridge."""
    np = importlib.import_module("numpy")
    importlib.import_module("quadprog")
    qp = importlib.import_module("qpsolvers").solve_qp

    def shortest(problem: Problem) -> Tensor:
        tasks = problem.tasks
        return torch.from_numpy(
            qp(
                problem.G.numpy(),
                np.zeros(tasks),
                A=np.ones((1, tasks)),
                b=np.ones(1),
                lb=np.zeros(tasks),
                solver="quadprog",
            )
        )

    def project(problem: Problem, u: Tensor) -> Tensor:
        G, zeros = problem.G.numpy(), np.zeros(problem.tasks)
        return torch.stack([torch.from_numpy(qp(G, zeros, lb=row, solver="quadprog")) for row in u.numpy()])

    return {
        "min-norm": {"quadprog": shortest},
        "UPGrad": {"quadprog": lambda p: project(p, torch.eye(p.tasks, dtype=torch.float64) / p.tasks).sum(0)},
        "DualProj": {"quadprog": lambda p: project(p, mean_of(p))[0]},
    }


PEERS = {"torchjd": torchjd_peers, "scipy": scipy_peers, "cvxpy": cvxpy_peers, "qpsolvers": quadprog_peers}


def load() -> tuple[dict[str, dict[str, Solver]], list[str]]:
    """All solvers of each problem, ours first, and the packages that are missing."""
    found = {name: {"Isonomy": solver} for name, solver in OURS.items()}
    missing = []
    for package, peers in PEERS.items():
        try:
            loaded = peers()
        except ImportError as error:
            missing.append(f"{package} ({error})")
            continue
        for name, solver in loaded.items():
            found[name].update(solver)
    return found, missing


@dataclass
class Line:
    """A line of the table: one solver on one kind of matrices.

    Attributes:
        times: Seconds of processor time, the median of the repetitions on each matrix.
        residuals: On each matrix; infinite where the solver raised or returned nothing.
    """

    problem: str
    family: str
    tasks: int
    solver: str
    times: list[float]
    residuals: list[float]

    @property
    def time(self) -> float:
        """The median over the matrices."""
        return median(self.times)

    @property
    def failures(self) -> int:
        """On how many matrices the solver raised or returned nothing finite."""
        return sum(not math.isfinite(residual) for residual in self.residuals)


def compare(problem: str, family: str, tasks: int, functions: dict[str, Solver]) -> list[Line]:
    """All solvers on the same matrices, in turn, so that a busy machine slows all of them alike."""
    lines = {name: Line(problem, family, tasks, name, [], []) for name in functions}
    slow: set[str] = set()
    for seed in range(TASKS[tasks]):
        matrix = make(family, tasks, seed)
        seconds: dict[str, list[float]] = {name: [] for name in functions if name not in slow}
        for repetition in range(REPEATS + 1):
            for name, function in functions.items():
                if name in slow or (repetition and seconds[name][0] > SLOW):
                    continue
                if repetition:  # the solver before this one has filled the caches with its own
                    run(function, matrix)
                weights, taken = run(function, matrix)
                seconds[name].append(taken)
                if repetition == 0:
                    residual = math.inf if weights is None else RESIDUALS[problem](matrix, weights.double())
                    lines[name].residuals.append(max(0.0, residual) if math.isfinite(residual) else math.inf)
        for name, taken in seconds.items():
            # The first repetition is for the residual, unless it is the only one.
            lines[name].times.append(median(taken[1:] or taken))
            if taken[0] > TOO_SLOW:
                slow.add(name)
    return list(lines.values())


def run(function: Solver, matrix: Problem) -> tuple[Tensor | None, float]:
    """The weights, None where the solver raises, and the seconds of processor time, which other jobs hardly change."""
    weights = None
    start = time.process_time()
    with contextlib.suppress(Exception):  # whatever it is, it is a failure of this solver on this matrix
        weights = function(matrix)
    return weights, time.process_time() - start


def write_csv(lines: list[Line], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for line, ratio in zip(lines, ratios(lines), strict=True):
            residuals = [f"{r:.1e}" for r in (median(line.residuals), max(line.residuals))]
            figures = [len(line.times), f"{1e3 * line.time:.4g}", f"{ratio:.3g}", *residuals, line.failures]
            writer.writerow([line.problem, line.family, line.tasks, line.solver, *figures])


def ratios(lines: list[Line]) -> list[float]:
    """Time of each line relative to ours on the same matrices."""
    ours = {(line.problem, line.family, line.tasks): line.time for line in lines if line.solver == "Isonomy"}
    return [line.time / ours[line.problem, line.family, line.tasks] for line in lines]


def markdown(lines: list[Line]) -> str:
    """A table a problem and family: solvers down, numbers of tasks across."""
    cells = {(x.problem, x.family, x.solver, x.tasks): (x, r) for x, r in zip(lines, ratios(lines), strict=True)}
    parts = []
    for (problem, family), group in itertools.groupby(lines, lambda line: (line.problem, line.family)):
        members = list(group)
        tasks = sorted({line.tasks for line in members})
        parts += [f"\n**{problem}, {family}**\n", "| solver | " + " | ".join(f"T = {t}" for t in tasks) + " |"]
        parts.append("|---" * (len(tasks) + 1) + "|")
        for name in dict.fromkeys(line.solver for line in members):
            row = []
            for t in tasks:
                line, ratio = cells[problem, family, name, t]
                pace = f"{1e3 * line.time:.3g} ms" if name == "Isonomy" else f"× {ratio:.3g}"
                figures = f"{pace}; {median(line.residuals):.0e} ({max(line.residuals):.0e})"
                row.append(figures + (f", {line.failures} failed" if line.failures else ""))
            parts.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for solvers.csv and solvers.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)
    warnings.simplefilter("ignore")
    functions, missing = load()
    lines = [
        line
        for name, solvers_of_it in functions.items()
        for family in FAMILIES
        for tasks in arguments.tasks
        for line in compare(name, family, tasks, solvers_of_it)
    ]
    text = f"{READING}\n\nNot installed and left out: {', '.join(missing) or 'nothing'}.\n" + markdown(lines)
    print(text)
    write_csv(lines, arguments.out / "solvers.csv")
    (arguments.out / "solvers.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
