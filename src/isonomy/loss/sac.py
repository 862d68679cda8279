"""Soft actor-critic on the simplex, the learner that chooses IGBv2's weights."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

LogProb = Literal["official", "gaussian"]

HIDDEN = 128
CAPACITY = 10_000
DISCOUNT = 0.99
POLYAK = 0.005
RATE = 3e-4
TEMPERATURE = 0.2


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with ReLUs in between, on the CPU."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after, device="cpu", dtype=torch.float32), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def to_action(logits: Tensor) -> Tensor:
    """Weights of T tasks that sum to T, shape (..., T)."""
    return logits.shape[-1] * torch.softmax(logits, dim=-1)


def log_probability(logits: Tensor, noise: Tensor, log_std: Tensor, kind: LogProb) -> Tensor:
    """Of Gaussian logits u = μ + σ · noise, shape (B,).

    ``"official"`` subtracts the correction for an action squashed by tanh, as the published code does although it
    squashes by a softmax; ``"gaussian"`` does not.
    """
    gaussian = (-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
    if kind == "gaussian":
        return gaussian
    return gaussian - 2 * (math.log(2) - logits - nn.functional.softplus(-2 * logits)).sum(-1)


def soft_target(rewards: Tensor, values: Tensor, temperature: Tensor, log_prob: Tensor) -> Tensor:
    """What the critics learn: y = r + γ (Q − α log π), all of the next state."""
    return rewards + DISCOUNT * (values - temperature * log_prob)


def schedule(size: int) -> tuple[int, int]:
    """How many updates, of how many transitions each, when the replay holds so many: both grow as it fills."""
    fullness = 1 + size / CAPACITY
    return int(50 * fullness / 2), int(256 * fullness / 2)


class Actor(nn.Module):
    """A Gaussian over logits, given the losses."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(mlp(tasks, HIDDEN, HIDDEN), nn.ReLU())
        self.mean, self.log_std = mlp(HIDDEN, tasks), mlp(HIDDEN, tasks)

    def forward(self, states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Logits drawn for states (B, T), the noise in them and log σ, each of shape (B, T)."""
        hidden = self.trunk(states)
        mean, log_std = self.mean(hidden), self.log_std(hidden).clamp(-20, 2)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device="cpu")
        return mean + log_std.exp() * noise, noise, log_std


class Critics(nn.Module):
    """Two estimates of the return of an action in a state."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.both = nn.ModuleList(mlp(2 * tasks, HIDDEN, HIDDEN, 1) for _ in range(2))

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Shape (2, B)."""
        pairs = torch.cat([states, actions], dim=-1)
        return torch.stack([critic(pairs).squeeze(-1) for critic in self.both])


class Replay:
    """The last transitions: state, action, reward and next state in a row; the oldest makes room for the newest."""

    def __init__(self, tasks: int) -> None:
        self.tasks, self.pushed = tasks, 0
        self.rows = torch.zeros(CAPACITY, 3 * tasks + 1, dtype=torch.float32, device="cpu")

    def __len__(self) -> int:
        return min(self.pushed, CAPACITY)

    def push(self, state: Tensor, action: Tensor, reward: Tensor, following: Tensor) -> None:
        """Takes in a transition; the reward has shape (1,), the others (T,)."""
        self.rows[self.pushed % CAPACITY] = torch.cat([state, action, reward, following]).to(self.rows)
        self.pushed += 1

    def sample(self, number: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """States, actions, rewards and next states of so many transitions, drawn with replacement."""
        index = torch.randint(len(self), (number,), generator=generator, device="cpu")
        states, actions, rewards, following = torch.split(
            self.rows[index], [self.tasks, self.tasks, 1, self.tasks], dim=1
        )
        return states, actions, rewards.squeeze(1), following


class SAC:
    """An actor, two critics with slow targets, a learned temperature and a replay, all on the CPU in float32.

    No module, so that a stage that owns one does not take the networks for parameters of its own. Haarnoja et al.,
    "Soft Actor-Critic Algorithms and Applications", 2018.

    Args:
        tasks: T; states and actions have this size.
        seed: Of the networks' first values.
        log_prob: Of the policy, see ``log_probability``.
    """

    def __init__(self, tasks: int, seed: int, log_prob: LogProb) -> None:
        self.tasks, self.log_prob = tasks, log_prob
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.actor, self.critics = Actor(tasks), Critics(tasks)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = torch.tensor(math.log(TEMPERATURE), device="cpu", requires_grad=True)
        self.optimizers: list[Optimizer] = [
            Adam(parameters, lr=RATE)
            for parameters in (self.actor.parameters(), self.critics.parameters(), [self.log_temperature])
        ]
        self.replay = Replay(tasks)

    def act(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """Logits drawn for one state, each of shape (T,)."""
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            logits: Tensor = self.actor(state[None].float(), generator)[0][0]
        return logits

    def learn(self, generator: torch.Generator) -> None:
        """A round of updates, if there is anything to learn from."""
        if len(self.replay):
            updates, number = schedule(len(self.replay))
            with torch.autocast("cpu", enabled=False):
                for _ in range(updates):
                    self.update(*self.replay.sample(number, generator), generator=generator)

    def update(
        self, states: Tensor, actions: Tensor, rewards: Tensor, following: Tensor, *, generator: torch.Generator
    ) -> None:
        """One update of the critics, the actor, the temperature and the targets from B transitions."""
        actor, critics, temperature = self.optimizers
        alpha = self.log_temperature.detach().exp()
        with torch.no_grad():
            chosen, log_prob = self._choose(following, generator)
            wanted = soft_target(rewards, self.targets(following, chosen).amin(0), alpha, log_prob)
        self._step(critics, (self.critics(states, actions) - wanted).square().mean(1).sum())
        chosen, log_prob = self._choose(states, generator)
        self._step(actor, (alpha * log_prob - self.critics(states, chosen).amin(0)).mean())
        # The entropy is to be −T.
        self._step(temperature, -(self.log_temperature * (log_prob.detach() - self.tasks)).mean())
        with torch.no_grad():
            for target, critic in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                target.lerp_(critic, POLYAK)

    def _choose(self, states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        logits, noise, log_std = self.actor(states, generator)
        return to_action(logits), log_probability(logits, noise, log_std, self.log_prob)

    @staticmethod
    def _step(optimizer: Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def state(self) -> dict[str, Any]:
        """All of it; of the replay a copy of the part in use, which is all that a file then holds."""
        return {
            "actor": self.actor.state_dict(),
            "critics": self.critics.state_dict(),
            "targets": self.targets.state_dict(),
            "log_temperature": self.log_temperature.detach(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "replay": self.replay.rows[: len(self.replay)].clone(),
            "pushed": self.replay.pushed,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Takes back what ``state`` gave; copies it, since an optimiser would train on in the caller's tensors."""
        for name in ("actor", "critics", "targets"):
            getattr(self, name).load_state_dict(state[name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(copy.deepcopy(saved))
        with torch.no_grad():
            self.log_temperature.copy_(state["log_temperature"])
        self.replay.rows[: len(state["replay"])] = state["replay"]
        self.replay.pushed = state["pushed"]
