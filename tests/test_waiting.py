"""On a device that computes on its own, every number that is read waits for it. Tensors on ``meta`` hold no numbers at
all: reading one is an error there."""

import pytest
import torch
from torch import nn

import isonomy
from isonomy.doubts import Doubts
from isonomy.errors import IsonomyError

LOSS = ["ew", "gls", "uw", "dwa", "imtl_l", "log", "igb_v1", "famo", "stch", "dsg"]
GRADIENT = ["imtl_g", "avgnorm", "max_norm", "imtl", "log+avgnorm"]
CASES = [
    *((name, "features") for name in LOSS + GRADIENT),
    *((name, "parameters") for name in [*GRADIENT, "db_mtl"]),
]


def two_steps(balancer, level):
    with torch.device("meta"):
        trunk, heads = nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.ModuleList(nn.Linear(6, 1) for _ in range(3))
        x = torch.ones(2, 4)
    for _ in range(2):
        z = trunk(x)
        losses = [head(z).square().mean() for head in heads]
        balancer(losses, shared=z if level == "features" else trunk).backward()
    assert all(p.grad.is_meta for p in [*trunk.parameters(), *heads.parameters()])


@pytest.mark.parametrize(("name", "level"), CASES)
def test_closed_forms_read_nothing(name, level):
    two_steps(isonomy.build(name, 3, nonfinite="ignore"), level)


@pytest.mark.parametrize("name", ["nash_mtl", "pcgrad"])
def test_what_reads_is_seen(name):
    with pytest.raises(RuntimeError, match="meta"):
        two_steps(isonomy.build(name, 3, nonfinite="ignore"), "features")


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
@pytest.mark.parametrize(("name", "level"), CASES)
def test_what_has_to_hold_is_read_once_a_step(name, level, nonfinite, monkeypatch):
    reads = []

    def settle(doubts):
        reads.append(len(doubts._open))
        doubts._open.clear()
        return True

    monkeypatch.setattr(Doubts, "settle", settle)
    two_steps(isonomy.build(name, 3, nonfinite=nonfinite), level)
    assert len(reads) == 2
    assert all(reads)


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_what_has_to_hold_is_read_where_weights_are_reused(nonfinite, monkeypatch):
    """As on a GPU, where doubts stay open until the step settles them."""
    monkeypatch.setattr(Doubts, "_doubt", lambda doubts, *doubt: doubts._open.append(doubt) or True)
    theta = torch.ones(2, requires_grad=True)
    balancer = isonomy.build("imtl_l+imtl_g", 2, update_every=2, nonfinite=nonfinite)
    balancer([theta[0] * 3, theta[1] * 4], shared=[theta]).backward()
    before = {name: value.clone() for name, value in balancer.state_dict().items() if isinstance(value, torch.Tensor)}
    theta.grad = None
    losses = [theta[0] * 3, theta[1] * torch.nan]
    if nonfinite == "raise":
        with pytest.raises(IsonomyError, match="loss of task '1' is not finite"):
            balancer(losses, shared=[theta])
        assert theta.grad is None
    else:
        balancer(losses, shared=[theta]).backward()
        assert theta.grad.tolist() == [0, 0]
    assert balancer.steps == 1
    assert all(torch.equal(value, balancer.state_dict()[name]) for name, value in before.items())


def test_ignored_numbers_go_through():
    theta = torch.ones(2, requires_grad=True)
    losses = [theta.sum(), torch.nan * theta.sum()]
    isonomy.build("max_norm", 2, nonfinite="ignore")(losses, shared=[theta]).backward()
    assert theta.grad.isnan().all()


@pytest.mark.parametrize(
    "name", ["imtl_g", "avgnorm", "max_norm", "max_norm(min)", "max_norm(mean)", "max_norm(median)"]
)
def test_a_gradient_of_zero_counts_as_no_task(name):
    name, _, option = name.removesuffix(")").partition("(")
    options = {"alpha": option} if option else {}
    J = torch.tensor([[1.0, 2, 0], [0, 0, 0], [0, 3, -1]], dtype=torch.float64)
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    found = []
    for rows in (J, J[[0, 2]]):
        theta.grad = None
        isonomy.build(name, len(rows), **options)([row @ theta + 1 for row in rows], shared=[theta]).backward()
        found.append(theta.grad)
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)
    balancer = isonomy.build(name, 2, **options)
    theta.grad = None
    balancer([0 * theta.sum() + 1, 0 * theta.sum() + 2], shared=[theta]).backward()
    assert theta.grad.tolist() == [0, 0, 0]
