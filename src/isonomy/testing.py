"""check_balancer: the contract that every balancer keeps, Isonomy's and yours."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isonomy.balancer import Balancer
from isonomy.errors import IsonomyError

Factory = Callable[[Sequence[str]], Balancer]

TASKS = (1, 2, 3, 9, 40)


def jacobians(tasks: int, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Task gradients that have broken balancers before.

    Args:
        tasks: T.
        seed: Of the random numbers.

    Yields:
        A name and J, shape (T, P), float64: full rank, norms from 1e-10 to 1e15, one or all rows zero, opposed,
        duplicate and rank-deficient rows.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    full = draw(tasks, tasks + 5)
    yield "full rank", full
    yield "tiny", full * 1e-10
    yield "huge", full * 1e15
    yield "norms from 1e-10 to 1e15", full * torch.logspace(-10, 15, tasks, dtype=torch.float64)[:, None]
    yield "one zero", torch.cat([torch.zeros_like(full[:1]), full[1:]])
    yield "all zero", torch.zeros_like(full)
    yield "opposed", full[:1] * torch.tensor([(-1.0) ** t for t in range(tasks)], dtype=torch.float64)[:, None]
    yield "duplicate", full[:1].expand(tasks, -1).clone()
    yield "rank deficient", draw(tasks, (tasks + 1) // 2) @ draw((tasks + 1) // 2, tasks + 5)


@dataclass
class Outcome:
    """What a step gave: its value and the gradients of the shared vector (P,) and of one number a head (T,)."""

    value: Tensor
    shared: Tensor
    heads: Tensor


def _shared(balancer: Balancer, theta: Tensor) -> Tensor:
    """What the balancer takes its gradients at: θ itself, or a feature of P samples of one number each."""
    return theta if "parameters" in balancer.levels or not balancer.levels else (theta * 1)[:, None]


def take_step(balancer: Balancer, jacobian: Tensor, losses: Tensor | None = None) -> Outcome:
    """A step on linear losses: ℓ_t = J_t·θ + ψ_t + c_t with θ = 0 and ψ = 0, whose task gradients are J.

    For a balancer that works at features alone, θ is a feature of shape (P, 1).

    Args:
        balancer: Over T tasks.
        jacobian: J, shape (T, P).
        losses: c, shape (T,); 1, 2, ... by default.
    """
    tasks, size = jacobian.shape
    constants = torch.arange(1, tasks + 1).to(jacobian) if losses is None else losses
    theta = torch.zeros(size, dtype=jacobian.dtype, requires_grad=True)
    heads = torch.zeros(tasks, dtype=jacobian.dtype, requires_grad=True)
    at = _shared(balancer, theta)
    values = {name: jacobian[t] @ at.flatten() + heads[t] + constants[t] for t, name in enumerate(balancer.tasks)}
    loss = balancer(values, shared=at)
    loss.backward()
    shared = torch.zeros_like(theta) if theta.grad is None else theta.grad
    return Outcome(loss.detach(), shared, torch.zeros_like(heads) if heads.grad is None else heads.grad)


def check_balancer(factory: Factory) -> None:
    """Checks that a balancer keeps the contract of ``isonomy.Balancer``.

    Numbers of tasks (1, 2, 3, 9, 40) and gradients that break naive code, the order of the tasks, dtypes, state that
    resumes bit for bit, non-finite input that leaves the state as it was, evaluation mode, and errors.

    Args:
        factory: Makes a new balancer for the given task names, as ``lambda tasks: isonomy.build("uw", tasks)``.

    Raises:
        AssertionError: The contract is broken; the message says where.
    """
    for tasks in TASKS:
        _check_gradients(factory, tasks)
    _check_order(factory)
    _check_dtypes(factory)
    _check_state(factory)
    _check_nonfinite(factory)
    _check_evaluation(factory)
    _check_errors(factory)


def _names(tasks: int) -> list[str]:
    return [f"task{t}" for t in range(tasks)]


def _require(condition: bool | Tensor, message: str) -> None:
    if not condition:
        raise AssertionError(f"check_balancer: {message}")


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = max(float(a.abs().max()), float(b.abs().max()), 1e-300)
    return float((a - b).abs().max()) <= tolerance * scale


def _check_gradients(factory: Factory, tasks: int) -> None:
    for name, jacobian in jacobians(tasks):
        where = f"{tasks} tasks, gradients {name}"
        balancer = factory(_names(tasks))
        balancer.train()
        outcome = take_step(balancer, jacobian)
        report = balancer.report
        _require(outcome.value == tasks * (tasks + 1) / 2, f"{where}: the value is not the sum of the losses.")
        _require(outcome.shared.isfinite().all(), f"{where}: the shared gradient is not finite.")
        _require(outcome.heads.isfinite().all(), f"{where}: a head's gradient is not finite.")
        if name == "all zero":
            _require(not outcome.shared.any(), f"{where}: the shared gradient is not zero.")
        _require(report.loss_weights.isfinite().all(), f"{where}: a loss weight is not finite.")
        weights = report.loss_weights
        if balancer.heads == "own":
            _require(_close(outcome.heads, weights, 1e-9), f"{where}: heads do not get the balanced losses' gradients.")
        if report.weights is not None:
            _require(report.weights.isfinite().all(), f"{where}: a weight is not finite.")
            weights = weights * report.weights
        if "jacobian" not in balancer.needs:
            wanted = weights @ jacobian
            tolerance = 1e-9 * float((weights[:, None] * jacobian).abs().max().clamp_min(1e-300))
            _require(
                bool(((outcome.shared - wanted).abs() <= tolerance).all()),
                f"{where}: the shared gradient is not the sum of the task gradients under the reported weights.",
            )


def _check_order(factory: Factory) -> None:
    tasks = 3
    if not all(stage.symmetric for stage in factory(_names(tasks)).modules() if hasattr(stage, "symmetric")):
        return
    jacobian = next(jacobians(tasks))[1]
    constants = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    order = torch.tensor([2, 0, 1])
    one, other = factory(_names(tasks)), factory(_names(tasks))
    for _ in range(3):
        first = take_step(one, jacobian, constants)
        second = take_step(other, jacobian[order], constants[order])
    _require(_close(first.shared, second.shared, 1e-6), "permuting the tasks changes the shared gradient.")
    _require(
        _close(first.heads[order], second.heads, 1e-6), "permuting the tasks does not permute the heads' gradients."
    )


def _check_dtypes(factory: Factory) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        outcome = take_step(factory(_names(2)), torch.tensor([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]], dtype=dtype))
        _require(
            outcome.shared.dtype == dtype, f"the shared gradient of a {dtype} parameter is {outcome.shared.dtype}."
        )
        _require(outcome.shared.isfinite().all() & outcome.shared.any(), f"{dtype}: the shared gradient is unusable.")


def _check_state(factory: Factory) -> None:
    steps = [next(jacobians(3, seed))[1] for seed in range(6)]
    constants = [torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64) / (1 + k) for k in range(6)]
    original = factory(_names(3))
    for jacobian, losses in zip(steps[:3], constants[:3], strict=True):
        take_step(original, jacobian, losses)
    original.epoch_end(dict.fromkeys(original.tasks, 0.5))
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    resumed = factory(_names(3))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for jacobian, losses in zip(steps[3:], constants[3:], strict=True):
        one, other = take_step(original, jacobian, losses), take_step(resumed, jacobian, losses)
        _require(
            torch.equal(one.shared, other.shared) and torch.equal(one.heads, other.heads),
            "a balancer that was saved and loaded does not go on bit for bit.",
        )
    try:
        factory(["another", "name", "each"]).load_state_dict(original.state_dict())
    except IsonomyError:
        return
    _require(False, "the state of other tasks is loaded without an error.")


def same_state(one: Any, other: Any) -> bool:
    """Whether two states, of nested mappings, sequences, tensors and numbers, are equal bit for bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one.nan_to_num(nan=-1e300), other.nan_to_num(nan=-1e300))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_state, one, other))
    return bool(one == other)


def _snapshot(balancer: Balancer) -> Any:
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _check_nonfinite(factory: Factory) -> None:
    jacobian = next(jacobians(2))[1]
    for bad in (torch.nan, torch.inf):
        balancer = factory(_names(2))
        take_step(balancer, jacobian)
        before = _snapshot(balancer)
        cases = [(jacobian, torch.tensor([1.0, bad], dtype=torch.float64))]
        if "gramian" in balancer.needs:
            broken = jacobian.clone()
            broken[1, 0] = bad
            cases.append((broken, torch.ones(2, dtype=torch.float64)))
        for gradients, losses in cases:
            message = ""
            try:
                _step_with_broken_gradient(balancer, gradients, losses)
            except IsonomyError as error:
                message = str(error)
            _require("task1" in message, f"a task that is {bad} raises no error that names it.")
            _require(same_state(before, _snapshot(balancer)), f"a task that is {bad} changes the balancer's state.")


class _Linear(torch.autograd.Function):
    """g·θ with the value taken at finite entries only, so that a gradient can be broken while its loss is fine."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return gradient.nan_to_num(0, 0, 0) @ theta

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return incoming * gradient, None


def _step_with_broken_gradient(balancer: Balancer, jacobian: Tensor, constants: Tensor) -> None:
    theta = torch.zeros(jacobian.shape[1], dtype=jacobian.dtype, requires_grad=True)
    linear: Callable[[Tensor, Tensor], Tensor] = _Linear.apply
    at = _shared(balancer, theta)
    values = [linear(at.flatten(), row) + c for row, c in zip(jacobian, constants, strict=True)]
    balancer(values, shared=at).backward()
    _require(theta.grad is None, "a step that should have raised an error reached backward.")


def _check_evaluation(factory: Factory) -> None:
    balancer = factory(_names(2))
    before = _snapshot(balancer)
    balancer.eval()
    theta = torch.ones(3, dtype=torch.float64, requires_grad=True)
    losses = [theta.sum(), 2 * theta.sum()]
    value = balancer(losses, shared=theta)
    balancer.train()
    with torch.no_grad():
        frozen = balancer([theta.sum(), 2 * theta.sum()])
    _require(bool(value == 9) and bool(frozen == 9), "in evaluation mode the value is not the sum of the losses.")
    _require(same_state(before, _snapshot(balancer)), "evaluation changes the state.")


def _check_errors(factory: Factory) -> None:
    balancer = factory(_names(2))
    theta = torch.ones(3, dtype=torch.float64, requires_grad=True)
    at = _shared(balancer, theta)

    def losses() -> list[Tensor]:
        return [at.sum(), 2 * at.sum()]

    before = _snapshot(balancer)
    wrong: dict[str, tuple[Callable[[], Any], str]] = {
        "an unknown task": (lambda: balancer({"task0": losses()[0], "tsak1": losses()[1]}, shared=at), "task1"),
        "a missing task": (lambda: balancer({"task0": losses()[0]}, shared=at), "task1"),
        "a detached loss": (lambda: balancer([losses()[0], losses()[1].detach()], shared=at), "task1"),
        "a loss that is no scalar": (lambda: balancer([losses()[0], theta * 1], shared=at), "task1"),
        "an integer loss": (lambda: balancer([losses()[0], torch.tensor(1)], shared=at), "task1"),
    }
    if "gramian" in balancer.needs:
        other = torch.ones(3, dtype=torch.float64, requires_grad=True)
        wrong["a loss that misses shared="] = (lambda: balancer([losses()[0], other.sum()], shared=at), "task1")
    for what, (call, name) in wrong.items():
        message = ""
        try:
            call()
        except IsonomyError as error:
            message = str(error)
        _require(name in message, f"{what} raises no IsonomyError that names {name!r}; it said {message!r}.")
    _require(same_state(before, _snapshot(balancer)), "an error changes the state.")

    for again in (False, True):
        loss = balancer(losses(), shared=at)
        message = ""
        try:
            torch.autograd.grad(loss, theta, create_graph=again, retain_graph=True)
            loss.backward()
        except IsonomyError as error:
            message = str(error)
        _require(message != "", f"{'create_graph=True' if again else 'a second backward'} raises no IsonomyError.")
