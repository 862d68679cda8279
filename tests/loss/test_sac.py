import io
import math

import pytest
import torch

from isonomy.loss import sac
from isonomy.loss.sac import SAC, Replay, log_probability, schedule, soft_target, to_action
from isonomy.testing import same_state
from tests.fixtures import close, tensor

U = tensor([0, math.log(2), 0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def agent_with(reward, number: int = 600, tasks: int = 3, seed: int = 0, log_prob="official"):
    """An agent that has watched random weights in random states, and their rewards."""
    random = generator(7)
    agent = SAC(tasks, seed, log_prob)
    for _ in range(number):
        state, following = torch.rand(2, tasks, generator=random)
        action = to_action(torch.randn(tasks, generator=random))
        agent.replay.push(state, action, reward(state, action)[None], following)
    return agent


def earned(agent, reward) -> float:
    """The mean reward of the agent's own weights in new states."""
    random = generator(5)
    states = torch.rand(400, 3, generator=random)
    actions = torch.stack([to_action(agent.act(state, random)) for state in states])
    return float(torch.stack([reward(s, a) for s, a in zip(states, actions, strict=True)]).mean())


def test_numbers_of_parameters():
    agent = SAC(3, 0, "official")
    assert sum(p.numel() for p in agent.actor.parameters()) == 17_798
    assert sum(p.numel() for p in agent.critics.parameters()) == 35_074


def test_actions_lie_on_the_simplex():
    close(to_action(U), [0.75, 1.5, 0.75])
    actions = to_action(torch.randn(5, 4, generator=generator()))
    close(actions.sum(1), torch.full((5,), 4.0))
    assert (actions > 0).all()


@pytest.mark.parametrize(("kind", "value"), [("gaussian", -2.997042), ("official", -2.550755)])
def test_known_log_probabilities(kind, value):
    close(log_probability(U[None], U[None], torch.zeros(1, 3), kind), [value])


def test_log_probability_is_that_of_the_normal_distribution():
    noise, mean, log_std = torch.randn(3, 6, 4, generator=generator(), dtype=torch.float64) / 2
    logits = mean + log_std.exp() * noise
    normal = torch.distributions.Normal(mean, log_std.exp()).log_prob(logits).sum(-1)
    close(log_probability(logits, noise, log_std, "gaussian"), normal, 1e-9)
    # The correction is the logarithm of the derivative of tanh.
    squashed = normal - torch.log(1 - logits.tanh() ** 2).sum(-1)
    close(log_probability(logits, noise, log_std, "official"), squashed, 1e-9)


def test_known_target():
    close(soft_target(tensor([0.05]), tensor([1.2]), tensor(0.2), tensor([-1.5])), [1.535])


@pytest.mark.parametrize(("size", "expected"), [(0, (25, 128)), (2500, (31, 160)), (10_000, (50, 256))])
def test_known_schedule(size, expected):
    assert schedule(size) == expected


def test_a_round_follows_the_schedule(monkeypatch):
    rounds = []
    monkeypatch.setattr(SAC, "update", lambda self, states, *rest, generator: rounds.append(len(states)))
    agent = SAC(2, 0, "official")
    agent.learn(generator())
    assert rounds == []
    agent = agent_with(lambda state, action: action[0], number=2500, tasks=2)
    agent.learn(generator())
    assert rounds == [160] * 31


def test_temperature_and_rates():
    agent = SAC(3, 0, "official")
    close(agent.log_temperature.exp(), 0.2)
    assert [o.param_groups[0]["lr"] for o in agent.optimizers] == [3e-4] * 3


def test_the_actor_clamps_its_deviation():
    agent = SAC(2, 0, "official")
    for bias, expected in ((50.0, 2.0), (-50.0, -20.0)):
        torch.nn.init.constant_(agent.actor.log_std[0].bias, bias)
        close(agent.actor(torch.rand(4, 2), generator())[2], torch.full((4, 2), expected))


def test_one_update_against_its_formulas():
    agent = agent_with(lambda state, action: action[0], number=32)
    states, actions, rewards, following = agent.replay.sample(8, generator(1))
    twin = agent_with(lambda state, action: action[0], number=32)
    random = generator(2)

    # Written out with both critics apart, and plain Adam steps from zero moments: lr times the sign of the gradient.
    with torch.no_grad():
        u, noise, log_std = twin.actor(following, random)
        log_prob = log_probability(u, noise, log_std, "official")
        pair = torch.cat([following, to_action(u)], 1)
        lowest = torch.minimum(*(critic(pair).squeeze(1) for critic in twin.targets.both))
        wanted = rewards + 0.99 * (lowest - 0.2 * log_prob)
    losses = [
        ((critic(torch.cat([states, actions], 1)).squeeze(1) - wanted) ** 2).mean() for critic in twin.critics.both
    ]
    gradients = torch.autograd.grad(sum(losses), list(twin.critics.parameters()))

    before = [p.detach().clone() for p in agent.critics.parameters()]
    agent.update(states, actions, rewards, following, generator=generator(2))
    for p, old, g in zip(agent.critics.parameters(), before, gradients, strict=True):
        clear = g.abs() > 1e-4 * g.abs().max()
        torch.testing.assert_close((p - old)[clear], (-3e-4 * g.sign())[clear], rtol=1e-2, atol=1e-6)
    for target, old, new in zip(agent.targets.parameters(), before, agent.critics.parameters(), strict=True):
        torch.testing.assert_close(target, 0.995 * old + 0.005 * new, rtol=1e-5, atol=1e-7)

    u, noise, log_std = twin.actor(states, random)
    log_prob = log_probability(u, noise, log_std, "official")
    values = agent.critics(states, to_action(u)).amin(0)
    gradients = torch.autograd.grad((0.2 * log_prob - values).mean(), list(twin.actor.parameters()))
    for p, old, g in zip(agent.actor.parameters(), twin.actor.parameters(), gradients, strict=True):
        clear = g.abs() > 1e-3 * g.abs().max()
        torch.testing.assert_close((p - old)[clear], (-3e-4 * g.sign())[clear], rtol=1e-2, atol=1e-6)
    # The temperature rises while the policy's entropy, −log π, is below −T.
    rises = log_prob.mean() > 3
    assert (agent.log_temperature > math.log(0.2)) == rises


@pytest.mark.parametrize("task", [0, 2])
@pytest.mark.parametrize("kind", ["official", "gaussian"])
def test_the_policy_learns_what_is_paid(task, kind):
    def reward(state, action):
        return action[task]

    agent = agent_with(reward, log_prob=kind)
    assert earned(agent, reward) < 1.3
    for round_ in range(8):
        agent.learn(generator(round_))
    assert earned(agent, reward) > 1.8


def test_the_policy_learns_to_look_at_the_state(monkeypatch):
    # A few seconds' worth of updates: larger ones, for the reward alone, since what follows does not depend on weights.
    monkeypatch.setattr(sac, "DISCOUNT", 0.0)
    monkeypatch.setattr(sac, "RATE", 3e-3)

    def reward(state, action):
        return 3 * (action @ state)

    agent = agent_with(reward, number=2000)
    # The best that does not look: every state is alike on average.
    blind = 3 * 3 * 0.5
    assert earned(agent, reward) < 1.05 * blind
    for round_ in range(12):
        agent.learn(generator(round_))
    assert earned(agent, reward) > 1.15 * blind


def test_the_replay_is_a_ring_drawn_with_equal_chances(monkeypatch):
    monkeypatch.setattr(sac, "CAPACITY", 4)
    replay = Replay(2)
    for k in range(6):
        replay.push(tensor([k, k]), tensor([1, 1]), tensor([10 * k]), tensor([k + 1, k + 1]))
        assert len(replay) == min(k + 1, 4)
    states, actions, rewards, following = replay.sample(400, generator())
    assert (states.shape, actions.shape, rewards.shape, following.shape) == ((400, 2), (400, 2), (400,), (400, 2))
    close(following - states, torch.ones(400, 2))
    close(rewards, 10 * states[:, 0].double())
    values, counts = rewards.unique(return_counts=True)
    assert values.tolist() == [20, 30, 40, 50]
    assert counts.min() > 60


def test_seeds_decide_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    one, same, other = SAC(3, 1, "official"), SAC(3, 1, "official"), SAC(3, 2, "official")
    assert torch.equal(torch.get_rng_state(), before)
    assert same_state(one.state(), same.state())
    assert not same_state(one.state(), other.state())


def saved(agent):
    file = io.BytesIO()
    torch.save(agent.state(), file)
    size = file.tell()
    file.seek(0)
    return torch.load(file, weights_only=True), size


def test_the_whole_agent_is_saved_and_goes_on_bit_for_bit():
    def reward(state, action):
        return action[0]

    agent = agent_with(reward, number=50)
    agent.learn(generator(1))
    state, _ = saved(agent)
    resumed = SAC(3, 9, "official")
    resumed.load(state)
    assert same_state(agent.state(), resumed.state())
    for a in (agent, resumed):
        a.replay.push(torch.ones(3), torch.ones(3), torch.ones(1), torch.ones(3))
        a.learn(generator(2))
    assert same_state(agent.state(), resumed.state())


def test_only_the_part_of_the_replay_in_use_is_saved():
    few, many = (saved(agent_with(lambda state, action: action[0], number=number)) for number in (50, 1050))
    assert few[0]["replay"].shape == (50, 10)
    # Ten numbers of four bytes a transition.
    assert 40_000 <= many[1] - few[1] < 50_000


def test_training_in_loaded_state_leaves_it_alone():
    agent = agent_with(lambda state, action: action[0], number=50)
    agent.learn(generator(1))
    state, _ = saved(agent)
    reference, _ = saved(agent)
    resumed = SAC(3, 9, "official")
    resumed.load(state)
    resumed.learn(generator(2))
    assert same_state(state, reference)


def test_autocast_does_not_reach_the_agent():
    plain, cast = (agent_with(lambda state, action: action[0], number=20) for _ in range(2))
    plain.learn(generator(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast.learn(generator(1))
        logits = cast.act(torch.rand(3, generator=generator(2)), generator(3))
    assert same_state(plain.state(), cast.state())
    assert torch.equal(plain.act(torch.rand(3, generator=generator(2)), generator(3)), logits)
