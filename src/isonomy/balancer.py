"""Balancer: one training step, read top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isonomy import checks, distributed, engine, reading
from isonomy.doubts import Doubts, NonFinite
from isonomy.errors import IsonomyError
from isonomy.gramian import Gramian
from isonomy.own import OwnOptimizers
from isonomy.report import StepReport
from isonomy.side import GradientSide, Weighed
from isonomy.stages import FeatureReduce, GradientBalancer, Heads, Jacobian, Level, LossBalancer, Smoothing, Stage
from isonomy.step import Step, balance_losses
from isonomy.taken import Memory, Taken

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
            at the losses only. Looking waits for a GPU once a step; ``"ignore"`` looks at no number, so that the loss
            methods, IMTL-G, AvgNorm, MaxNorm and DB-MTL never wait, and NaN goes on or fails later.
        allow_missing: Whether a batch may lack some tasks' losses; the others are balanced among themselves.
        update_every: Task gradients are measured, and checked, at every so many-th step; weights are reused in between.
        feature_reduce: A feature's gradient is measured over the whole batch as one vector, ``"flatten"`` as in the
            papers, or as the sum over samples (the first dimension), ``"batch_sum"`` as in LibMTL.
        own_optimizer: Whether the method trains its own parameters, by an Adam of its own, or the user's optimiser
            does, through ``balancer.parameters()``.
        memory: What is held while gradients are taken at the parameters: ``"full"``, every task's, T x P numbers; or
            ``"lean"``, only what it takes to pause all tasks at the same place, for methods that need no more than the
            gramian. The gradients are the same. Lean costs one more pass through the trunk, and saves the forming of
            every task's weight gradients where layers are wider than the batch; ``"auto"`` takes what is faster.

    Raises:
        IsonomyError: The stages are in another order or do not go together, or an argument is out of range.
    """

    held: Tensor

    def __init__(
        self,
        *stages: Stage,
        tasks: int | Sequence[str],
        heads: Heads | None = None,
        nonfinite: NonFinite = "raise",
        allow_missing: bool = False,
        update_every: int = 1,
        feature_reduce: FeatureReduce = "flatten",
        own_optimizer: bool = True,
        memory: Memory = "auto",
    ) -> None:
        super().__init__()
        self.tasks = checks.task_names(tasks)
        checks.require_stages(stages)
        checks.require_options(stages, heads, nonfinite, update_every, feature_reduce, own_optimizer, memory)
        for stage in stages:
            stage.setup(len(self.tasks))
        for stage in stages:  # once all of them fit, so that those of a refused balancer can be used again
            stage.taken = True
        self.stages, self._stages = nn.ModuleList(stages), stages
        self._loss = [stage for stage in stages if isinstance(stage, LossBalancer)]
        self._side: GradientSide | None = None
        if isinstance(last := stages[-1], GradientBalancer):
            smoothings = [stage for stage in stages if isinstance(stage, Smoothing)]
            self._side = GradientSide(last, smoothings, heads or last.heads, memory, feature_reduce)
        self.heads = self._side.heads if self._side else heads or "own"
        self.nonfinite, self.allow_missing, self.own_optimizer = nonfinite, allow_missing, own_optimizer
        self.update_every = update_every
        # The weights of the last measured step, at the shared parameters and at the heads; NaN for who had no part.
        self.register_buffer("held", torch.full((2, len(self.tasks)), torch.nan, dtype=torch.float64))
        self.steps = 0
        # How many epochs are over, and what the last one told, for all processes to compare at the next step.
        self._told: tuple[int, list[float] | None, float | None] = (0, None, None)
        self._everyone = torch.arange(len(self.tasks))
        # Frozen parameters are not waited for by DistributedDataParallel and not touched by the user's optimiser.
        self.requires_grad_(not own_optimizer)
        self._own = OwnOptimizers(stages if own_optimizer else (), len(self.tasks))
        self._report: StepReport | None = None

    @property
    def levels(self) -> tuple[Level, ...]:
        """Where the method can take gradients, its paper's choice first; empty for a method that takes none."""
        return self._side.levels if self._side else ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The ``"gramian"`` or ``"jacobian"`` of the task gradients, and the calls that the user has to make.

        These are ``"step_losses"``: ``step_end(losses)``, ``"epoch_end"`` and ``"validation"``: ``epoch_end(metrics)``.
        """
        taken = {"gramian": self._side is not None, "jacobian": any(map(checks.reads_gradients, self._stages))}
        return (*filter(taken.get, taken), *sorted({use for stage in self._stages for use in stage.uses}))

    @property
    def batches(self) -> int:
        """How many independent batches a step may bring; 1 for nearly every method."""
        return self._side.balancer.batches if self._side and not self._side.smoothings else 1

    @property
    def report(self) -> StepReport:
        """The last step's losses, weights, norms and cosines.

        Raises:
            IsonomyError: There was no step yet.
        """
        if self._report is None:
            raise IsonomyError("There is no report before the first step: call the balancer on a batch's losses first.")
        return self._report

    @torch._compile._disable_dynamo  # Walks graphs, which cannot be traced: a compiler pauses here.
    def forward(
        self,
        losses: Losses | Sequence[Losses],
        shared: Shared = None,
        *,
        probe: Shared = None,
        grad_scaler: Any = None,
        retain_graph: bool = False,
    ) -> Tensor:
        """One step.

        Args:
            losses: Scalars by task name, in task order, or as one tensor of shape (T,); a list of such mappings or
                sequences for methods that take several independent batches a step (``balancer.batches``).
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
        learns, graph, at = self.training and torch.is_grad_enabled(), None, None
        scaled = grad_scaler is not None and grad_scaler.is_enabled()
        scale = float(grad_scaler.get_scale()) if scaled else 1.0
        with distributed.together(learns) as alike:
            positions, batches = reading.read_batches(losses, self.tasks, self.allow_missing, self.batches)
            names = [self.tasks[position] for position in positions]
            flat = [loss for batch in batches for loss in batch]
            if learns:
                checks.require_graph(flat, names * len(batches))
                checks.require_everywhere(names, self.tasks, distributed.world_size())
            if learns and self._side is not None:
                at = None if probe is None else engine.as_tensors("probe", probe)
                graph = self._trace(flat, names * len(batches), shared, at, retain_graph)
            alike += [self.steps, self._told, len(flat), scaled, scale, graph and graph.alike]
        wide = [loss.float() if loss.dtype.itemsize < 4 else loss for loss in flat]
        if not learns:
            return torch.stack(wide).sum() / len(batches)
        heard = torch.stack([loss.detach() for loss in wide]).view(len(batches), -1).mean(0)
        total = heard.sum()
        self._follow(total.device)
        values = distributed.mean(heard.to(torch.float64, copy=True))
        doubts = Doubts(names, "skip" if scaled else self.nonfinite)
        if not doubts.finite("loss", values.isfinite()):
            return engine.hand_over(total, self._nothing(flat, scaled), scale)
        step = balance_losses(self._loss, flat, values, self._positions(positions), doubts)
        side = self._side
        if side is None or graph is None:
            if not doubts.settle():
                return engine.hand_over(total, self._nothing(flat, scaled), scale)
            self._commit(step)
            gradients = engine.accumulated(zip(flat, step.seeds(1.0), strict=True))
            return engine.hand_over(total, gradients | step.own_gradients(1.0))

        step.scale, step.scaled = scale, scaled
        doubts.domain(values, side.balancer.domain, type(side.balancer).__name__)
        if self.steps % self.update_every and not self.held[:, step.active].isnan().any():
            found = Weighed(self.held[0, step.active], self.held[1, step.active], side.heads)
            measured = side.reuse(step, graph, found)
        else:
            measured = side.measure(step, graph, at)
        if measured is None:
            return engine.hand_over(total, self._nothing(flat, scaled), scale)
        self._commit(step, measured.weighed, measured.gramian)
        return engine.hand_over(total, measured.gradients | step.own_gradients(scale), scale)

    def _trace(
        self, losses: list[Tensor], names: list[str], shared: Shared, probe: list[Tensor] | None, retain: bool
    ) -> engine.Graph:
        """What the losses reach, if the method can balance there."""
        graph = engine.trace(losses, None if shared is None else engine.as_tensors("shared", shared), retain)
        checks.require_unsharded(graph)
        checks.require_reach(None if shared is None else "shared", graph, names)
        checks.require_graph_fits(graph, names)
        checks.require_level(graph.level, self.levels, self._stages, probe is not None, shared is not None)
        checks.require_reach("probe", graph if probe is None else engine.trace(losses, probe), names)
        return graph

    def _nothing(self, losses: list[Tensor], scaled: bool) -> dict[Tensor, Tensor]:
        """The gradients of a step that is skipped: zero, or what tells a ``GradScaler`` to skip it."""
        return engine.leaf_gradients(losses, torch.nan if scaled else 0.0, self.parameters())

    def _positions(self, positions: list[int]) -> Tensor:
        """The positions as a tensor; that of all tasks is there already, so that no step waits for its transfer."""
        return self._everyone if len(positions) == len(self.tasks) else torch.tensor(positions, device=self.held.device)

    def _commit(self, step: Step, found: Weighed | None = None, gram: Gramian | None = None) -> None:
        """Remembers a finite step: states, the methods' own parameters, the report."""
        for stage, seen in zip(self._loss, step.inputs, strict=False):
            stage.update(seen, step.active)
        if self.own_optimizer:
            self._own.step(step.own, step.active)
            step.own.clear()
        if gram is not None and found is not None:
            held = torch.stack([found.weights, found.head_weights])
            self.held.fill_(torch.nan).index_copy_(1, step.active, held)
        self.steps += 1
        weights = None if found is None else found.reported
        self._report = StepReport.of(self.tasks, step.active, step.values, step.loss_weights, weights, gram)

    def _follow(self, device: torch.device) -> None:
        if self.held.device != device:
            self.to(device)
        if self._everyone.device != device:
            self._everyone = self._everyone.to(device)

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
        side = checks.gradient_side(self._side)
        if side.balancer.jacobian or any("features" not in smoothing.levels() for smoothing in side.smoothings):
            raise IsonomyError("The method reads the task gradients themselves: use .aggregate(jacobian).")
        self._follow(gramian.device)
        return self._weigh_alone(side, Gramian.of(gramian)).weights

    def aggregate(self, jacobian: Tensor) -> Tensor:
        """The aggregate of task gradients of your own, with smoothing; counts as a step.

        Args:
            jacobian: One task gradient a row, shape (T, P).

        Returns:
            Jᵀw, or what else the method makes of J, shape (P,), in the dtype of the jacobian.

        Raises:
            IsonomyError: The method needs more than the gradients, or J has the wrong shape or is not finite.
        """
        checks.require_matrix("jacobian", jacobian, len(self.tasks), square=False)
        side = checks.gradient_side(self._side)
        checks.require_level("parameters", self.levels, self._stages, probed=False, named=True)
        self._follow(jacobian.device)
        rows = [[row] for row in jacobian.detach().unbind()]
        for smoothing in side.smoothings:
            rows = smoothing(rows, self._everyone)
        taken = Taken([*map(list, rows)], [], [jacobian])
        whole = Jacobian([rows], [torch.zeros_like(rows[0][0])], "parameters") if side.balancer.jacobian else None
        return self._weigh_alone(side, Gramian.of(taken.gramian), whole).combine(taken, 1.0, [jacobian])[0]

    def _weigh_alone(self, side: GradientSide, gram: Gramian, jacobian: Jacobian | None = None) -> Weighed:
        ones = torch.ones_like(gram.norms)
        step = Step([], Doubts(self.tasks, "ignore"), self._everyone, None, ones, {}, [])
        found = side.weigh(gram, step, jacobian)
        self._commit(step, found, gram)
        return found

    def step_end(self, losses: Losses) -> None:
        """Tells methods whose ``needs`` hold ``"step_losses"`` the same batch's losses after the optimiser's step.

        Args:
            losses: As for a call, without gradients; not heard where they are not finite.
        """
        with distributed.together():
            positions, values = reading.read_losses(losses, self.tasks, self.allow_missing)
            checks.require_everywhere(positions, self.tasks, distributed.world_size())
        with torch.inference_mode(False), torch.no_grad():  # a step could not write to state made in inference mode
            heard = distributed.mean(torch.stack([value.detach().double() for value in values]))
            self._follow(heard.device)
            active = torch.tensor(positions, device=heard.device)
            for stage in self._stages if heard.isfinite().all() else ():
                self._own.step(dict(zip(stage.parameters(), stage.step_end(heard, active), strict=False)), active)

    def epoch_end(self, metrics: Mapping[str, float] | None = None, learning_rate: float | None = None) -> None:
        """Tells methods whose ``needs`` hold ``"epoch_end"`` or ``"validation"`` that an epoch is over.

        Args:
            metrics: Validation metrics by task, for methods whose ``needs`` hold ``"validation"``.
            learning_rate: The optimiser's in the next epoch, for methods that follow it (``igb_v2``, ``dsg``).

        Raises:
            IsonomyError: A task is unknown, a method needs metrics and there are none, or it cannot use what it gets.
        """
        with torch.inference_mode(False), torch.no_grad():
            read = reading.read_metrics(metrics, self.tasks, self._stages, self.held.device)
            for stage in self._stages:
                stage.epoch_end(read, learning_rate)
        self._told = (self._told[0] + 1, None if read is None else read.tolist(), learning_rate)

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
