"""What the callbacks of all frameworks do: the report as numbers, and the tasks' metrics among what was logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isonomy.balancer import Balancer
from isonomy.errors import IsonomyError, listing, unknown


def read_report(balancer: Balancer, prefix: str) -> dict[str, float]:
    """The report of the last step as numbers; none while every step was skipped, as a ``GradScaler`` may begin."""
    return {} if balancer._report is None else balancer.report.as_dict(prefix)


def require_training(balancer: Balancer) -> None:
    """Raises an error for a balancer in evaluation mode when training begins, which would go on by the plain sum."""
    if not balancer.training:
        raise IsonomyError(
            "The balancer is in evaluation mode, in which it returns the plain sum, and training begins: "
            "call .train() on it, or on the module that holds it."
        )


def require_metrics(balancer: Balancer, metrics: Mapping[str, str] | None) -> dict[str, str]:
    """A user's names of the tasks' metrics, once they fit the balancer.

    Args:
        balancer: Which is to hear them.
        metrics: By task, the name under which its metric is logged.

    Raises:
        IsonomyError: A task is unknown, or the method needs metrics and there are none.
    """
    names = dict(metrics or {})
    for task in names:
        if task not in balancer.tasks:
            raise unknown("task", task, balancer.tasks)
    if not names and "validation" in balancer.needs:
        raise IsonomyError(
            "metrics= is missing, and the method weighs tasks by their validation metrics: pass the names under which "
            f"they are logged, as in metrics={{{balancer.tasks[0]!r}: 'val_{balancer.tasks[0]}'}}."
        )
    return names


def read_metrics(names: Mapping[str, str], logged: Mapping[str, Any]) -> dict[str, float]:
    """The tasks' metrics.

    Args:
        names: By task, the name under which its metric is logged.
        logged: The latest value of everything that is.

    Raises:
        IsonomyError: A metric was not logged.
    """
    for task, name in names.items():
        if name not in logged:
            raise IsonomyError(
                f"metrics= takes task {task!r} from {name!r}, which no validation has logged yet: log it there, "
                f"validate in the first epoch, or choose from what is logged, {listing(logged)}."
            )
    return {task: float(logged[name]) for task, name in names.items()}
