"""The step of a cell's training: its model, optimisers, balancer and procedure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

import isonomy
from isonomy.bench import data, procedures, processes, records
from isonomy.bench.architectures import FEATURES, LAST_LAYER
from isonomy.bench.aside import Aside
from isonomy.bench.cell import Cell
from isonomy.bench.precise import Precise
from isonomy.bench.seeds import drawn, key

Feature = Tensor | list[Tensor] | None
Look = Callable[[dict[str, Tensor], Feature], None]


class Trainer:
    """A cell's model, optimisers, balancer and procedure, and the step they make together.

    Args:
        cell: What to train.
        problem: Its data set.
    """

    def __init__(self, cell: Cell, problem: data.Problem) -> None:
        self.cell, self.problem, self.recipe = cell, problem, cell.recipe
        # Of each epoch that is over, whether it was the best so far.
        self.improved: list[bool] = []
        self.fabric = processes.fabric(cell)
        self.network = problem.network(cell.design, cell.tasks, cell.seed)
        self.balancer = self._balancer().to(self.fabric.device)
        for stage in self.balancer.stages:
            if hasattr(stage, "rotate"):
                assert hasattr(self.network, "between")  # as networks with a feature have
                self.network.between = stage.rotate
        optimizers = self._model_optimizers()
        # In evaluation without Fabric's wrapper, which would wait for other processes.
        self.judged = Precise(self.network, cell.config["precision"], cell.config["device"])
        self.model, *self.optimizers = self.fabric.setup(self.judged, *optimizers)
        self.scaler = self.judged.scaler()
        self.aside = Aside(self.network)
        self.rates: list[Callable[[int], float]] = [self.rate] * len(optimizers)
        self.procedure = procedures.make(self)
        self.hears_losses = "step_losses" in self.balancer.needs

    def _balancer(self) -> isonomy.Balancer:
        config = self.cell.config
        options = dict(config["options"])
        # What a method has to know of the network is found by looking.
        if isonomy.catalogue.find(config["balancer"]).options.get("features") is inspect.Parameter.empty:
            options["features"] = self.feature_shape()[1]
        with drawn(self.cell.seed, "balancer"):
            return isonomy.build(config["balancer"], tasks=self.cell.tasks, **options)

    def _model_optimizers(self) -> list[torch.optim.Optimizer]:
        """The recipe's; plain SGD for what is shared where the method's aggregate is an optimiser's update already."""
        rate = self.recipe.learning_rate
        make = torch.optim.AdamW if self.recipe.optimizer == "adamw" else torch.optim.Adam
        adam = partial(make, lr=rate, weight_decay=self.recipe.weight_decay)
        if not any(getattr(stage, "is_update", False) for stage in self.balancer.stages):
            return [adam(self.network.parameters())]
        shared = self.shared_parameters()
        known = {id(parameter) for parameter in shared}
        own = [parameter for parameter in self.network.parameters() if id(parameter) not in known]
        sgd = torch.optim.SGD(shared, lr=rate, weight_decay=self.recipe.weight_decay)
        return [sgd, adam(own)] if own else [sgd]

    @property
    def weights(self) -> Tensor:
        """What the losses are multiplied by when the balancer is ``fixed``, shape (T,), float64; to be written to."""
        weights = self.balancer.stages[0].weights
        assert isinstance(weights, Tensor)
        return weights

    def add(self, optimizer: torch.optim.Optimizer, rate: Callable[[int], float]) -> None:
        """An optimiser of a procedure's own parameters, which steps along with the model's.

        Args:
            optimizer: Not Fabric's yet.
            rate: Its learning rate in an epoch, from 0.
        """
        self.optimizers.append(self.fabric.setup_optimizers(optimizer))
        self.rates.append(rate)

    def rate(self, epoch: int) -> float:
        """The model's learning rate in an epoch, from 0, after all epochs before."""
        return self.recipe.rate(epoch, self.improved)

    def shared(self, feature: Feature) -> Tensor | list[Tensor] | list[nn.Parameter]:
        """What this cell's method balances the gradients of."""
        if self.cell.config["level"] == FEATURES and feature is not None:
            return feature
        return self.shared_parameters()

    def last_layer(self) -> list[nn.Parameter]:
        """The last shared layer's parameters; all shared ones where the network has no layers."""
        last = getattr(self.network, "last_layer", self.shared_parameters)
        return list(last())

    def shared_parameters(self) -> list[nn.Parameter]:
        """The shared parameters."""
        return list(self.network.shared_parameters())  # type: ignore[operator]

    def feature_shape(self) -> tuple[int, ...]:
        """Of the shared feature of a batch, found by one forward pass."""
        batch = next(iter(self.problem.batches(self.cell.seed, 0, next(self.network.parameters()).device)))
        training = self.network.training
        with torch.no_grad():
            feature = self.problem.losses(self.network.eval(), batch, self.cell.tasks).feature
        self.network.train(training)
        assert isinstance(feature, Tensor)  # as the plan lets such methods see networks with one feature only
        return tuple(feature.shape)

    def losses_at(self, parameters: Mapping[str, Tensor], batch: Any) -> Tensor:
        """The losses at other parameters, without a trace in the step that is being made.

        Args:
            parameters: By name; those that are left out are the network's own.
            batch: Of the data set.

        Returns:
            Shape (T,), float64, differentiable in the parameters.
        """
        with self.aside.model(parameters) as model, self.judged.context():
            losses = self.losses(model, batch).losses
        return torch.stack([loss.double() for loss in losses.values()])

    def losses(self, model: Callable[..., Any], batch: Any) -> data.Losses:
        """What the network's output on a batch comes to, in the sweep's units.

        Args:
            model: The network, or its forward at other parameters.
            batch: Of the data set.
        """
        found = self.problem.losses(model, batch, self.cell.tasks)
        scales = self.cell.config["scales"]
        scaled = {task: scale * loss for scale, (task, loss) in zip(scales, found.losses.items(), strict=True)}
        return found._replace(losses=scaled) if any(scale != 1 for scale in scales) else found

    def named_parameters(self) -> dict[str, Tensor]:
        """The model's parameters, by the names that ``losses_at`` takes."""
        return dict(self.network.named_parameters())

    def stream(self, purpose: str, epoch: int, split: str = "train") -> Iterator[Any]:
        """Batches without end, in an order of their own.

        Args:
            purpose: What they are for; another purpose is another order.
            epoch: From 0; another epoch is another order.
            split: ``"train"`` or ``"val"``.
        """
        for turn in count():
            yield from self.problem.batches(key(self.cell.seed, purpose, turn), epoch, self.fabric.device, split)

    def begin(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        """Begins an epoch.

        Args:
            epoch: From 0.

        Returns:
            For each step its batches: one of the training set's, and further independent ones for methods that want
            several.
        """
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate(epoch)
        self.procedure.begin(epoch)
        if hasattr(self.network, "begin"):
            self.network.begin(epoch, self.recipe.epochs)  # type: ignore[operator]
        own = self.problem.batches(self.cell.seed, epoch, self.fabric.device)
        further = [self.stream(f"batch {i}", epoch) for i in range(1, self.balancer.batches)]
        return zip(own, *further, strict=False)  # the further ones have no end

    def step(self, batches: Sequence[Any], look: Look | None = None) -> Tensor:
        """One training step.

        Args:
            batches: As ``begin`` gives them.
            look: Called with the first batch's losses and shared feature before the balancer is.

        Returns:
            The first batch's losses, shape (T,).
        """
        self.aside = Aside(self.network)
        self.procedure.before_step(batches[0])
        found = [self.losses(self.model, batch) for batch in batches]
        losses, feature, penalty = found[0]
        if look is not None:
            look(losses, feature)
        extra = self.procedure.extra(batches[0], feature)
        further = [term for term in (extra, penalty) if term is not None]
        every = [each.losses for each in found]
        loss = self.balancer(
            every if len(every) > 1 else losses,
            shared=self.shared(feature),
            probe=self.last_layer() if self.cell.config["level"] == LAST_LAYER else None,
            retain_graph=bool(further),
            grad_scaler=self.scaler,
        )
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        total = sum(further, loss)
        self.fabric.backward(total if self.scaler is None else self.scaler.scale(total))
        self._update()
        if self.hears_losses:
            with torch.no_grad():
                self.balancer.step_end(torch.stack([self.losses_at({}, batch) for batch in batches]).mean(0))
        return torch.stack([value.detach() for value in losses.values()])

    def _update(self) -> None:
        """Steps all optimisers, under one scale of the losses where there is one."""
        if self.scaler is None:
            self._clip()
            for optimizer in self.optimizers:
                optimizer.step()
            return
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer.optimizer)
        self._clip()
        for optimizer in self.optimizers:
            self.scaler.step(optimizer.optimizer)
        self.scaler.update()

    def _clip(self) -> None:
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)

    def evaluate(self, split: str, thorough: bool = True) -> dict[str, dict[str, float]]:
        """Every metric of every task of the cell on a split; see ``Problem``."""
        self.judged.eval()
        processes.share_buffers(self.network)
        found = self.problem.evaluate(self.judged, self.cell.tasks, split, thorough)
        # What follows from the metrics has to be the same everywhere, to the last bit.
        return self.fabric.broadcast(found)

    @property
    def up(self) -> dict[str, dict[str, bool]]:
        """For each metric of the cell's tasks, whether larger is better."""
        tasks = data.select(self.problem, self.cell.tasks)
        return {task.name: {metric.name: metric.up for metric in task.metrics} for task in tasks}

    def scores(self, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """What a method that follows validation hears of metrics: a score in [0, 1] of every task that has one."""
        tasks = data.select(self.problem, self.cell.tasks)
        return {task.name: task.score(metrics[task.name]) for task in tasks if task.score is not None}

    def state(self, epoch: int) -> records.Json:
        """A checkpoint after so many epochs."""
        return {
            "epoch": epoch,
            "model": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "balancer": self.balancer.state_dict(),
            "procedure": self.procedure.state(),
            "precision": {} if self.scaler is None else self.scaler.state_dict(),
        }

    def restore(self, state: records.Json) -> None:
        """Goes on from a checkpoint."""
        self.network.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.balancer.load_state_dict(state["balancer"])
        self.procedure.load(state["procedure"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["precision"])
