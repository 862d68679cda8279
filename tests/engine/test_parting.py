"""Where the ways of losses part: the features that a network's heads read, found in the graph."""

import pytest
import torch
from torch import nn

from isonomy import engine
from isonomy.engine.graph import edge_of, parting


def net(heads=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh()), [nn.Linear(6, 1) for _ in range(heads)]


def test_it_is_the_feature_that_the_heads_read():
    trunk, heads = net()
    z = trunk(torch.randn(5, 4))
    losses = [head(z).square().mean() for head in heads]
    assert parting(losses) == [edge_of(z)]
    found, expected = engine.measure_parting(losses), engine.measure(losses, z)
    assert torch.equal(found.norms, expected.norms)
    assert torch.equal(found.cosines, expected.cosines)
    torch.stack(losses).sum().backward()  # the graph is still there


def test_several_features_one_below_another():
    trunk, heads = net()
    low = trunk(torch.randn(5, 4))
    high = low.sin()
    losses = [(head(high) * low[:, :1]).mean() for head in heads]
    found, expected = engine.measure_parting(losses), engine.measure(losses, [high, low])
    torch.testing.assert_close(found.norms, expected.norms)
    torch.testing.assert_close(found.cosines, expected.cosines)


def test_a_loss_that_reads_the_feature_of_fewer_tasks():
    trunk, heads = net()
    z = trunk(torch.randn(5, 4))
    y = z.exp()
    losses = [heads[0](z).mean(), heads[1](y).mean(), heads[2](y).mean()]
    assert set(parting(losses)) == {edge_of(z), edge_of(y)}
    found = engine.measure_parting(losses)
    assert found.cosines[0, 1] == 0
    assert found.norms.min() > 0


def test_penalties_on_all_losses_do_not_count():
    trunk, heads = net()
    z = trunk(torch.randn(5, 4))
    penalty = trunk[0].weight.square().sum()
    losses = [head(z).mean() for head in heads]
    assert parting([loss + penalty for loss in losses]) == [edge_of(z)]


@pytest.mark.parametrize("case", ["own batches", "nothing", "one task"])
def test_where_there_is_no_such_feature(case):
    trunk, heads = net()
    losses = {
        "own batches": lambda: [head(trunk(torch.randn(5, 4))).mean() for head in heads],
        "nothing": lambda: [head(torch.randn(5, 6)).mean() for head in heads],
        "one task": lambda: [heads[0](trunk(torch.randn(5, 4))).mean()],
    }[case]()
    assert parting(losses) == []
    assert engine.measure_parting(losses) is None
