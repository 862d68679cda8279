"""Balancer: one training step, read top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isonomy import checks, distributed, engine
from isonomy.errors import IsonomyError, listing
from isonomy.gramian import Gramian, combine, finite, gramian
from isonomy.own import OwnOptimizers
from isonomy.report import StepReport
from isonomy.stages import LEVELS, FeatureReduce, GradientBalancer, Heads, Level, LossBalancer, Smoothing, Stage
from isonomy.step import Step, balance_losses, observe, weigh

Losses = Mapping[str, Tensor] | Sequence[Tensor] | Tensor
Shared = Tensor | nn.Module | Iterable[Tensor] | None


class Balancer(nn.Module):
    """Balances the tasks of a training step: losses in, one scalar out, ``backward()`` as always.

    The scalar's value is the sum of the losses. Its gradient in the shared parameters is Σ w_t ∇ℓ'_t, ℓ' being the
    balanced losses and w the gradient balancer's weights; in the heads, which are all other leaves a loss reaches, it
    is ∇ℓ'_t or, for methods whose paper weights the whole loss, w_t ∇ℓ'_t.

    In evaluation mode and under ``no_grad`` the balancer returns the plain sum and remembers nothing.

    Args:
        stages: Loss balancers, then smoothings, then at most one gradient balancer, in this order.
        tasks: How many tasks there are, or their names.
        heads: ``"own"`` or ``"weighted"`` gradients for the heads; None for what the method's paper says. A task whose
            shared gradient is zero trains its head by its own gradient in either case.
        nonfinite: What a loss, or a task's gradient at the shared part, that is not finite does: ``"raise"`` an error
            that names the task, or ``"skip"`` the step (all gradients zero). Methods that take no task gradients look
            at the losses only.
        allow_missing: Whether a batch may lack some tasks' losses; the others are balanced among themselves.
        update_every: Task gradients are measured, and checked, at every so many-th step; weights are reused in between.
        feature_reduce: A feature's gradient is measured over the whole batch as one vector, ``"flatten"`` as in the
            papers, or as the sum over samples (the first dimension), ``"batch_sum"`` as in LibMTL.
        own_optimizer: Whether the method trains its own parameters, by an Adam of its own, or the user's optimiser
            does, through ``balancer.parameters()``.

    Raises:
        IsonomyError: The stages are in another order or do not go together, or an argument is out of range.
    """

    held: Tensor

    def __init__(
        self,
        *stages: Stage,
        tasks: int | Sequence[str],
        heads: Heads | None = None,
        nonfinite: Literal["raise", "skip"] = "raise",
        allow_missing: bool = False,
        update_every: int = 1,
        feature_reduce: FeatureReduce = "flatten",
        own_optimizer: bool = True,
    ) -> None:
        super().__init__()
        self.tasks = checks.task_names(tasks)
        checks.require_stages(stages, heads, nonfinite, update_every, feature_reduce)
        for stage in stages:
            stage.setup(len(self.tasks))
            stage.taken = True
        self.stages = nn.ModuleList(stages)
        self._stages = stages
        self._loss = [stage for stage in stages if isinstance(stage, LossBalancer)]
        self._smoothing = [stage for stage in stages if isinstance(stage, Smoothing)]
        self._gradient = next((stage for stage in stages if isinstance(stage, GradientBalancer)), None)
        self.heads = heads or (self._gradient.heads if self._gradient else "own")
        self.nonfinite, self.allow_missing, self.own_optimizer = nonfinite, allow_missing, own_optimizer
        self.update_every, self.feature_reduce = update_every, feature_reduce
        # The weights of the last measured step, at the shared parameters and at the heads; NaN for who had no part.
        self.register_buffer("held", torch.full((2, len(self.tasks)), torch.nan, dtype=torch.float64))
        self.steps = 0
        # Frozen parameters are not waited for by DistributedDataParallel and not touched by the user's optimiser.
        self.requires_grad_(not own_optimizer)
        self._own = OwnOptimizers(stages if own_optimizer else (), len(self.tasks))
        self._report: StepReport | None = None

    @property
    def levels(self) -> tuple[Level, ...]:
        """Where the method can take gradients, its paper's choice first; empty for a method that takes none."""
        if self._gradient is None:
            return ()
        first = self._gradient.level
        possible = [level for level in LEVELS if all(level in stage.levels() for stage in self._smoothing)]
        return tuple(sorted(possible, key=lambda level: level != first))

    @property
    def needs(self) -> tuple[str, ...]:
        """What the method needs besides losses: ``"gramian"``, ``"jacobian"``, ``"step_losses"``, ``"epoch_end"``."""
        needs = ["gramian"] * (self._gradient is not None) + ["jacobian"] * bool(self._smoothing)
        return (*needs, *sorted({use for stage in self._stages for use in stage.uses}))

    @property
    def report(self) -> StepReport:
        """The last step's losses, weights, norms and cosines.

        Raises:
            IsonomyError: There was no step yet.
        """
        if self._report is None:
            raise IsonomyError("There is no report before the first step: call the balancer on a batch's losses first.")
        return self._report

    def forward(
        self,
        losses: Losses,
        shared: Shared = None,
        *,
        probe: Shared = None,
        grad_scaler: Any = None,
        retain_graph: bool = False,
    ) -> Tensor:
        """One step.

        Args:
            losses: Scalars by task name, in task order, or as one tensor of shape (T,).
            shared: The shared feature or features, for balancing there with a single backward pass through the trunk; a
                module or parameters, for balancing exactly there; None for the parameters that two or more losses
                reach. Methods that take no task gradients ignore it.
            probe: Parameters or a module at which the gramian is measured instead, such as the last shared layer; the
                weights are applied at ``shared`` all the same.
            grad_scaler: The ``torch.amp.GradScaler`` that will scale the returned loss, so that task gradients in
                float16 are scaled as well.
            retain_graph: Whether the losses' graphs stay for terms besides them that depend on the same activations.

        Returns:
            A 0-d tensor: the sum of the losses, whose ``backward()`` gives the balanced gradients.

        Raises:
            IsonomyError: A loss or argument is unusable, or a loss or gradient not finite; no gradient and no state has
                changed then (the graphs are used up when a gradient is not finite).
        """
        positions, losses = checks.read_losses(losses, self.tasks, self.allow_missing)
        total = torch.stack([loss.float() if loss.dtype.itemsize < 4 else loss for loss in losses]).sum()
        if not (self.training and torch.is_grad_enabled()):
            return total
        names = [self.tasks[position] for position in positions]
        checks.require_graph(losses, names)
        checks.require_everywhere(names, self.tasks, distributed.world_size())
        self._follow(total.device)
        scaled = grad_scaler is not None and grad_scaler.is_enabled()
        scale = float(grad_scaler.get_scale()) if scaled else 1.0
        values = distributed.mean(torch.stack([loss.detach().double() for loss in losses]))
        if not self._finite("loss", values.isfinite(), names, scaled):
            return engine.hand_over(
                total, engine.leaf_gradients(losses, torch.nan if scaled else 0.0, self.parameters()), scale
            )
        active = torch.tensor(positions, device=total.device)
        step = balance_losses(self._loss, losses, values, active, names)
        if self._gradient is None:
            gradients = engine.accumulated(zip(losses, step.seeds(1.0), strict=True))
            self._commit(step)
            return engine.hand_over(total, gradients | step.own_gradients(1.0))

        step.scale, step.scaled = scale, scaled
        checks.require_domain(values, names, self._gradient.domain, type(self._gradient).__name__)
        graph = engine.trace(losses, None if shared is None else engine.as_tensors("shared", shared), retain_graph)
        checks.require_reach("shared" if shared is not None else None, graph.reached, names)
        checks.require_graph_fits(graph, names)
        checks.require_level(graph.level, self.levels, self._smoothing, probe is not None, shared is not None)
        if self.steps % self.update_every and not self.held[:, active].isnan().any():
            weights, head_weights = self.held[:, active]
            gradients = self._weighted(step, graph, weights, head_weights)
            self._commit(step, weights, head_weights)
        else:
            at = None if probe is None else engine.as_tensors("probe", probe)
            checks.require_reach("probe", graph.reached if at is None else engine.trace(losses, at).reached, names)
            gradients = self._measure(self._gradient, step, graph, at)
        return engine.hand_over(total, gradients | step.own_gradients(scale), scale)

    def _measure(
        self, balancer: GradientBalancer, step: Step, graph: engine.Graph, probe: list[Tensor] | None
    ) -> dict[Tensor, Tensor]:
        """Takes every task's gradient, weighs them, remembers, and returns the balanced gradients times the scale."""
        level = graph.level if probe is None else engine.level_of(probe)
        if probe is None:
            rows, heads = engine.task_gradients(step.losses, step.seeds(1.0), graph)
        else:
            rows, heads = engine.rows_at(step.losses, step.seeds(1.0), probe), []
        if level == "parameters":
            rows = distributed.mean_rows(rows)
        if self._smoothing:
            rows = [[part / step.scale for part in row] for row in rows] if step.scale != 1 else rows
            fine = finite(rows)
        else:
            gram = observe(rows, level, step.scale, self.feature_reduce)
            fine = gram.norms.isfinite()
        if self._finite("gradient", fine, step.names, step.scaled):
            for smoothing in self._smoothing:
                rows = smoothing(rows, step.active)
            if self._smoothing:
                gram = observe(rows, level, 1.0, self.feature_reduce)
            weights, head_weights = weigh(balancer, gram, step)
            self._commit(step, weights, head_weights, gram)
        else:
            step.own.clear()
            return engine.leaf_gradients(step.losses, torch.nan if step.scaled else 0.0, self.parameters())
        if probe is not None:
            return self._weighted(step, graph, weights, head_weights)
        shared = combine(rows, weights * step.scale if self._smoothing else weights)
        if self.heads == "weighted":
            heads = [
                {leaf: gradient * weight.to(gradient) for leaf, gradient in head.items()}
                for weight, head in zip(head_weights, heads, strict=True)
            ]
        own = [pair for head in heads for pair in head.items()]
        met = [pair for pair, used in zip(zip(graph.shared, shared, strict=True), graph.used, strict=True) if used]
        return engine.accumulated([*met, *own])

    def _weighted(self, step: Step, graph: engine.Graph, weights: Tensor, head_weights: Tensor) -> dict[Tensor, Tensor]:
        """The balanced gradients under weights that are known: no task's gradient is taken apart."""
        leaves = list(dict.fromkeys(leaf for head in graph.heads for leaf in head))
        factors = head_weights if self.heads == "weighted" else torch.ones_like(head_weights)
        with engine.blocked(graph):
            heads = engine.pull(step.losses, step.seeds(factors), leaves, retain=True)
            keep = graph.retain or (graph.entangled and graph.level == "features")
            shared = engine.pull(step.losses, step.seeds(weights), graph.shared, retain=keep)
        return engine.accumulated([*zip(graph.shared, shared, strict=True), *zip(leaves, heads, strict=True)])

    def _commit(
        self, step: Step, weights: Tensor | None = None, head_weights: Tensor | None = None, gram: Gramian | None = None
    ) -> None:
        """Remembers a finite step: states, the methods' own parameters, the report."""
        for stage, seen in zip(self._loss, step.inputs, strict=False):
            stage.update(seen, step.active)
        if self.own_optimizer:
            self._own.step(step.own, step.active)
            step.own.clear()
        if gram is not None and weights is not None and head_weights is not None:
            self.held.fill_(torch.nan)
            self.held[:, step.active] = torch.stack([weights, head_weights])
        self.steps += 1
        self._report = StepReport.of(self.tasks, step.active, step.values, step.loss_weights, weights, gram)

    def _finite(self, what: str, fine: Tensor, names: Sequence[str], scaled: bool) -> bool:
        """Whether all losses or gradients are finite; raises when that is what the user asked for."""
        unusable = [name for name, ok in zip(names, fine.tolist(), strict=True) if not ok]
        if unusable and self.nonfinite == "raise" and not scaled:
            raise IsonomyError(
                f"The {what} of task {listing(unusable)} is not finite: find out why, or build the balancer with "
                "nonfinite='skip' to leave such steps out."
            )
        return not unusable

    def _follow(self, device: torch.device) -> None:
        if self.held.device != device:
            self.to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Balancer:
        # Follows the model to its device; the state keeps its precision, whatever the model is cast to.
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call]
        return self

    def weights(self, gramian: Tensor) -> Tensor:
        """The gradient balancer's weights for a gramian of your own; counts as a step.

        Args:
            gramian: G = J Jᵀ of the task gradients, shape (T, T).

        Returns:
            w, shape (T,), float64: the aggregate is Jᵀw.

        Raises:
            IsonomyError: The method needs more than the gramian, or G has the wrong shape or is not finite.
        """
        checks.require_matrix("gramian", gramian, len(self.tasks), square=True)
        if any("features" not in smoothing.levels() for smoothing in self._smoothing):
            raise IsonomyError("The method averages the task gradients themselves: use .aggregate(jacobian).")
        balancer = checks.gradient_side(self._gradient)
        self._follow(gramian.device)
        return self._weigh_alone(balancer, Gramian.of(gramian))

    def aggregate(self, jacobian: Tensor) -> Tensor:
        """The aggregate of task gradients of your own, with smoothing; counts as a step.

        Args:
            jacobian: One task gradient a row, shape (T, P).

        Returns:
            Jᵀw, shape (P,), in the dtype of the jacobian.

        Raises:
            IsonomyError: The method needs more than the gradients, or J has the wrong shape or is not finite.
        """
        checks.require_matrix("jacobian", jacobian, len(self.tasks), square=False)
        balancer = checks.gradient_side(self._gradient)
        self._follow(jacobian.device)
        rows = [[row] for row in jacobian.detach().unbind()]
        for smoothing in self._smoothing:
            rows = smoothing(rows, torch.arange(len(rows), device=jacobian.device))
        return combine(rows, self._weigh_alone(balancer, Gramian.of(gramian(rows))))[0]

    def _weigh_alone(self, balancer: GradientBalancer, gram: Gramian) -> Tensor:
        ones = torch.ones_like(gram.norms)
        step = Step([], list(self.tasks), torch.arange(len(ones), device=ones.device), None, ones, {}, [])
        weights, head_weights = weigh(balancer, gram, step)
        self._commit(step, weights, head_weights, gram)
        return weights

    def step_end(self, losses: Losses) -> None:
        """Tells methods whose ``needs`` hold ``"step_losses"`` the same batch's losses after the optimiser's step.

        Args:
            losses: As for a call; no gradients are needed.
        """
        positions, values = checks.read_losses(losses, self.tasks, self.allow_missing)
        heard = distributed.mean(torch.stack([value.detach().double() for value in values]))
        for stage in self._stages:
            stage.step_end(heard, torch.tensor(positions, device=heard.device))

    def epoch_end(self, metrics: Mapping[str, float] | None = None) -> None:
        """Tells methods whose ``needs`` hold ``"epoch_end"`` that an epoch is over.

        Args:
            metrics: Validation metrics by task, for methods whose ``needs`` hold ``"validation"``.
        """
        for stage in self._stages:
            stage.epoch_end(metrics)

    def get_extra_state(self) -> dict[str, Any]:
        """What is not a tensor of the stages: the tasks, the steps and the own optimisers."""
        return {
            "tasks": list(self.tasks),
            "stages": [type(stage).__name__ for stage in self._stages],
            "steps": self.steps,
            "optimizers": self._own.state(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what ``get_extra_state`` gave."""
        self.steps = state["steps"]
        self._own.load(state["optimizers"])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + "_extra_state" in state_dict:
            checks.require_state(state_dict[prefix + "_extra_state"], self.get_extra_state())
        super()._load_from_state_dict(state_dict, prefix, *args)
