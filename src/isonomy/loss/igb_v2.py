"""IGBv2, improvable gap balancing by reinforcement learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from isonomy.errors import IsonomyError, unknown
from isonomy.loss.epochs import EpochReference, require_epochs, require_rate
from isonomy.loss.sac import SAC, LogProb, to_action
from isonomy.stages import LossBalancer, step_generator

# The agent learns at every so many-th step.
EVERY = 50


class IGBv2(LossBalancer):
    """Lets an agent choose v in S = Σ v_t log(ℓ_t + 1e-8), for the reward ρ min_t Δℓ_t / base_t.

    The agent is a soft actor-critic on the CPU. It sees the losses of a batch and chooses v, Σ v = T; Δℓ is by how much
    losses fall to the next batch, base the mean losses of the epoch ``base_epoch``, and ρ the first learning rate that
    ``epoch_end`` heard over the current one, which makes up for a decay. Until ``policy_epoch`` v is random, so that
    shorter runs are log-losses with random weights. Call ``balancer.epoch_end(learning_rate=...)`` after every epoch.
    A task that a batch lacks keeps its last loss in the agent's eyes. Dai, Fei and Lu, "Improvable Gap Balancing for
    Multi-Task Learning", UAI 2023, with the constants of the authors' code.

    Use it for long runs, of tens of epochs and thousands of steps, and compare it with ``igb_v1`` and ``rlw``: it adds
    some milliseconds a step and much variance.

    Args:
        base_epoch: The epoch, counted from 0, whose mean losses are the base; the agent watches from the next one on.
        learn_epoch: The first epoch in which the agent learns.
        policy_epoch: The first epoch in which it chooses the weights.
        log_prob: ``"official"``, with the correction for tanh that the authors' code makes although its actions are a
            softmax, or ``"gaussian"`` without it.
        seed: Of the agent's networks and of all that is drawn.

    Raises:
        IsonomyError: An epoch is none or they are out of order, ``log_prob`` is unknown, a task's losses are all 0 in
            the epoch of the base, or a learning rate is no number of 0 or more.
    """

    uses = ("epoch_end",)
    domain = "nonnegative"
    symmetric = False
    steps: Tensor
    last: Tensor
    rates: Tensor

    def __init__(
        self,
        base_epoch: int = 1,
        learn_epoch: int = 3,
        policy_epoch: int = 5,
        log_prob: LogProb = "official",
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_epochs("igb_v2", base_epoch=base_epoch, learn_epoch=learn_epoch, policy_epoch=policy_epoch)
        if not base_epoch < learn_epoch <= policy_epoch:
            raise IsonomyError(
                f"igb_v2: learn_epoch={learn_epoch} must come after base_epoch={base_epoch}, and "
                f"policy_epoch={policy_epoch} no earlier than it: the agent learns from rewards, which need the base."
            )
        if log_prob not in ("official", "gaussian"):
            raise unknown("log_prob of igb_v2", log_prob, ("official", "gaussian"))
        self.base_epoch, self.learn_epoch, self.policy_epoch = base_epoch, learn_epoch, policy_epoch
        self.log_prob: LogProb = log_prob
        self.seed = seed

    def setup(self, tasks: int) -> None:  # noqa: D102
        self.agent = SAC(tasks, self.seed, self.log_prob)
        self.reference = EpochReference(tasks, self.base_epoch)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # What the agent saw last, and what it did: losses and weights of all tasks, NaN until there were any.
        self.register_buffer("last", torch.full((2, tasks), torch.nan, dtype=torch.float64))
        # The first and the current learning rate, as far as they are known.
        self.register_buffer("rates", torch.full((2,), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, active: Tensor) -> Tensor:  # noqa: D102
        logits = self._logits(self._state(losses, active), step_generator(self.seed, self.steps))
        return to_action(logits.to(losses)[active]) * torch.log(losses + 1e-8)

    def update(self, losses: Tensor, active: Tensor) -> None:  # noqa: D102
        generator = step_generator(self.seed, self.steps)
        state = self._state(losses, active)
        logits = self._logits(state, generator)
        before, action = self.last.cpu()
        reward = self.reward(before, state, active.cpu())
        # In the agent's precision, as what overflows there would stay in its networks.
        if bool(torch.cat([before, action, state, reward]).float().isfinite().all()):
            self.agent.replay.push(before, action, reward, state)
        self.last = torch.stack([state, to_action(logits.double())]).to(self.last.device)
        self.reference.means.add(losses, active)
        self.steps += 1
        if int(self.reference.epochs) >= self.learn_epoch and int(self.steps) % EVERY == 0:
            self.agent.learn(generator)

    def epoch_end(self, metrics: Tensor | None, learning_rate: float | None) -> None:  # noqa: D102
        require_rate("igb_v2", learning_rate)
        self.reference.epoch_end("igb_v2")
        # A rate of 0, as before a warm-up, is no unit to compare with.
        if learning_rate:
            if self.rates[0].isnan():
                self.rates[0] = learning_rate
            self.rates[1] = learning_rate

    def reward(self, before: Tensor, now: Tensor, active: Tensor) -> Tensor:
        """ρ min_t (ℓ_t − ℓ'_t) / base_t over the tasks of the later batch, shape (1,); NaN until all is known.

        Args:
            before: Losses of all tasks as of the earlier batch, shape (T,).
            now: As of the later one.
            active: Positions of the later batch's tasks.
        """
        first, current = self.rates.cpu().nan_to_num(nan=1.0)
        gains = (before - now) / self.reference.values.cpu()
        reward: Tensor = first / current * gains[active].amin(0, keepdim=True)
        return reward

    def _state(self, losses: Tensor, active: Tensor) -> Tensor:
        """The last known losses of all tasks, shape (T,), on the CPU."""
        known: Tensor = self.last[0].index_put((active,), losses.detach())
        return known.cpu()

    def _logits(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """Logits of all tasks' weights, shape (T,): the agent's, or random ones while it is to explore."""
        if int(self.reference.epochs) >= self.policy_epoch and bool(state.float().isfinite().all()):
            return self.agent.act(state, generator)
        return torch.randn(state.shape, generator=generator, dtype=torch.float64, device="cpu")

    def get_extra_state(self) -> dict[str, Any]:
        """The agent."""
        return self.agent.state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes back what ``get_extra_state`` gave."""
        self.agent.load(state)
