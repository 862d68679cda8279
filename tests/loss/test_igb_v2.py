import io

import pytest
import torch

import isonomy
from isonomy.loss import IGBv2, igb_v2
from isonomy.testing import same_state
from tests.fixtures import M, close, linear, set_up, tensor, value_of

LOSSES = [2, 0.5, 2]
ALL = torch.arange(3)
EARLY = {"base_epoch": 0, "learn_epoch": 1, "policy_epoch": 1}


def with_base(base=(4, 1, 2), **options):
    stage = set_up(IGBv2(**EARLY, **options), len(base))
    stage.update(tensor(base), torch.arange(len(base)))
    stage.epoch_end(None, None)
    return stage


def weights(stage, losses=LOSSES):
    """v, the weights of the logarithms."""
    return value_of(stage, losses)[1] * (tensor(losses) + 1e-8)


def test_known_reward():
    stage = with_base()
    close(stage.reward(tensor([2.2, 0.6, 2.3]), tensor(LOSSES), ALL), [0.05])
    close(stage.reward(tensor([2.2, 0.6, 2.3]), tensor(LOSSES), torch.tensor([1, 2])), [0.10])
    # The learning rate was 0.2 when it was first heard of, and is 0.1 now.
    stage.epoch_end(None, 0.2)
    close(stage.reward(tensor([2.2, 0.6, 2.3]), tensor(LOSSES), ALL), [0.05])
    stage.epoch_end(None, 0.0)
    stage.epoch_end(None, 0.1)
    close(stage.reward(tensor([2.2, 0.6, 2.3]), tensor(LOSSES), ALL), [0.10])


def test_there_is_no_reward_before_the_base():
    assert set_up(IGBv2()).reward(tensor([2.2, 0.6, 2.3]), tensor(LOSSES), ALL).isnan().all()


def test_weights_are_a_softmax_of_random_numbers_at_first():
    balancer = isonomy.build("igb_v2", tasks=3)
    seen = []
    for _ in range(3):
        m = M()
        m.step(balancer)
        w = balancer.report.loss_weights
        close((w * tensor(LOSSES)).sum(), 3, 1e-7)
        close(m.theta.grad, w @ tensor([[2, 0], [0, -1], [2, 2]]))
        close(m.heads, w * tensor([2, -2, 6]))
        seen.append(w)
    assert (seen[0] - seen[1]).abs().max() > 1e-2
    assert (seen[1] - seen[2]).abs().max() > 1e-2


def test_random_weights_have_the_moments_of_rlw():
    stage = set_up(IGBv2())
    drawn = []
    for _ in range(2000):
        drawn.append(weights(stage))
        stage.steps += 1
    drawn = torch.stack(drawn) / 3
    close(drawn.mean(0), [1 / 3] * 3, 4 * (0.0494 / 2000) ** 0.5)
    close(drawn.var(0).mean(), 0.0494, 5e-3)


def test_the_policy_sees_the_losses_and_is_the_same_when_asked_again():
    stage = with_base()
    w = weights(stage)
    close(w.sum(), 3, 1e-6)
    close(weights(stage), w, 0)
    # The noise is that of the step: only the state makes the difference.
    other = weights(stage, [0.1, 5, 1])
    assert (other - w).abs().max() > 1e-3
    random = set_up(IGBv2())
    random.steps += 1
    close(weights(random), weights(random, [0.1, 5, 1]), 1e-6)


def test_stages_of_a_run_by_epochs(monkeypatch):
    stage = set_up(IGBv2())
    learned, acted = [], []
    monkeypatch.setattr(igb_v2, "EVERY", 2)
    monkeypatch.setattr(stage.agent, "learn", lambda generator: learned.append((epoch, int(stage.steps))))
    act = stage.agent.act
    monkeypatch.setattr(stage.agent, "act", lambda *given: acted.append(epoch) or act(*given))
    pushed = []
    for epoch in range(7):
        for batch in range(5):
            weights(stage, tensor(LOSSES) / (1 + epoch + batch))
            stage.update(tensor(LOSSES) / (1 + epoch + batch), ALL)
        pushed.append(stage.agent.replay.pushed)
        stage.epoch_end(None, None)
    # The base is that of epoch 1, so epoch 2 brings the first transitions; the agent learns from epoch 3 on, at every
    # second step of all, and acts from epoch 5 on.
    assert pushed == [0, 0, 5, 10, 15, 20, 25]
    assert learned == [(3, 16), (3, 18), (3, 20), (4, 22), (4, 24), (5, 26), (5, 28), (5, 30), (6, 32), (6, 34)]
    assert set(acted) == {5, 6}


def test_it_learns_at_every_fiftieth_step(monkeypatch):
    learned = []
    stage = with_base()
    monkeypatch.setattr(stage.agent, "learn", lambda generator: learned.append(int(stage.steps)))
    for _ in range(120):
        stage.update(tensor(LOSSES), ALL)
    assert learned == [50, 100]


def test_transitions_hold_what_was_seen_done_and_earned():
    stage = with_base()
    stage.epoch_end(None, 0.2)
    stage.epoch_end(None, 0.1)
    first, second = tensor([2.2, 0.6, 2.3]), tensor(LOSSES)
    stage.update(first, ALL)
    done = weights(stage, second)
    before = stage.last[1].clone()
    stage.update(second, ALL)
    row = stage.agent.replay.rows[1]
    close(row, torch.cat([first, before, tensor([0.10]), second]), 1e-6)
    close(stage.last, torch.stack([second, done]), 1e-6)
    # The transition before it was from the base's batch.
    close(stage.agent.replay.rows[0][[0, 1, 2, 7, 8, 9]], [4, 1, 2, 2.2, 0.6, 2.3], 1e-6)
    assert stage.agent.replay.pushed == 2


def test_missing_tasks_keep_their_last_loss():
    stage = with_base()
    stage.update(tensor([2, 0.5, 1]), ALL)
    stage.update(tensor([1, 0.5]), torch.tensor([0, 2]))
    row = stage.agent.replay.rows[1]
    close(row[-3:], [1, 0.5, 0.5], 0)
    # Of 1/4 and 0.5/2, the smaller; task 1 was not there to improve.
    close(row[6], 0.25)
    losses = tensor([1, 0.5]).requires_grad_()
    (w,) = torch.autograd.grad(stage(losses, torch.tensor([0, 2])).sum(), losses)
    close((w * losses).sum(), 2, 1e-6)


def test_a_task_that_was_never_seen_leaves_the_weights_random():
    stage = set_up(IGBv2(**EARLY))
    present = torch.tensor([0, 2])
    for _ in range(3):
        assert stage(tensor([1, 1]), present).isfinite().all()
        stage.update(tensor([1, 1]), present)
        stage.epoch_end(None, None)
    assert stage.agent.replay.pushed == 0
    stage.update(tensor([1, 1, 1]), ALL)
    assert stage.agent.replay.pushed == 0


def test_losses_beyond_single_precision_never_reach_the_agent():
    stage = with_base()
    for losses in ([1e300, 1, 1], [1, 1, 1], [1, 1, 1]):
        assert value_of(stage, losses)[1].isfinite().all()
        stage.update(tensor(losses), ALL)
    assert stage.agent.replay.pushed == 1
    assert stage.agent.replay.rows.isfinite().all()


def play(balancer, steps, begin=0):
    found = []
    for step in range(begin, begin + steps):
        theta, _, losses = linear(torch.eye(3), [2 / (1 + step), 0.5 + 0.1 * (step % 3), 2 - 0.05 * step])
        balancer(losses, shared=[theta]).backward()
        found.append(balancer.report.loss_weights)
        if step % 4 == 3:
            balancer.epoch_end(learning_rate=0.1 / (1 + step))
    return torch.stack(found)


def test_a_resumed_run_goes_on_bit_for_bit(monkeypatch):
    monkeypatch.setattr(igb_v2, "EVERY", 3)

    def build():
        return isonomy.build("igb_v2", tasks=3, **EARLY)

    balancer = build()
    play(balancer, 10)
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    resumed = build()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(play(balancer, 8, 10), play(resumed, 8, 10))
    assert same_state(balancer.state_dict(), resumed.state_dict())


def test_seeds_decide():
    one, same, other = (play(isonomy.build("igb_v2", tasks=3, seed=seed), 4) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_agent_is_none_of_the_stages_parameters():
    balancer = isonomy.build("igb_v2", tasks=3)
    assert list(balancer.parameters()) == []
    assert balancer.needs == ("epoch_end",)


def test_learning_in_a_run_changes_the_policy(monkeypatch):
    stages = [with_base(), with_base()]
    monkeypatch.setattr(igb_v2, "EVERY", 4)
    monkeypatch.setattr(stages[1].agent, "learn", lambda generator: None)
    for step in range(8):
        for stage in stages:
            stage.update(tensor(LOSSES) / (1 + step), ALL)
    assert (weights(stages[0]) - weights(stages[1])).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"base_epoch": -1}, "base_epoch=-1"),
        ({"base_epoch": 3}, "learn_epoch=3 must come after base_epoch=3"),
        ({"learn_epoch": 6}, "policy_epoch=5 no earlier"),
        ({"log_prob": "gauss"}, "did you mean 'gaussian'"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        isonomy.build("igb_v2", tasks=2, **options)


def test_a_base_of_zero():
    balancer = isonomy.build("igb_v2", tasks=1, **EARLY)
    balancer([torch.zeros((), requires_grad=True)])
    with pytest.raises(isonomy.IsonomyError, match="igb_v2: the losses of task number 0"):
        balancer.epoch_end()
