"""Hybrids: DB-MTL, IMTL, and the logarithm before any gradient balancer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.gradient import MaxNorm
from isonomy.smoothing import EMA
from tests.fixtures import M, close, tensor


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"beta": 0.0}, [(3.414213, -0.585786)]),
        ({"beta": 0.0, "alpha": "min"}, [(1.707107, -0.292893)]),
        ({"beta": 0.0, "alpha": "mean"}, [(2.511845, -0.430964)]),
        ({"beta": 0.0, "alpha": "median"}, [(2.414214, -0.414214)]),
        ({"beta": 0.9, "decay": 0.0}, [(0.341421, -0.058579), (0.648701, -0.111299), (0.925252, -0.158748)]),
        ({"beta": 0.9}, [(0.341421, -0.058579), (1.458701, -0.250273), (2.398099, -0.411449)]),
    ],
)
def test_db_mtl_known_steps(options, steps):
    balancer = isonomy.build("db_mtl", tasks=3, **options)
    for expected in steps:
        m = M()
        m.step(balancer)
        close(m.theta.grad, expected)
        close(m.heads, [1, -4, 3])


def test_db_mtl_every_task_contributes_the_same_norm():
    balancer = isonomy.build("db_mtl", tasks=3)
    for _ in range(3):
        M().step(balancer)
        lengths = balancer.report.weights * balancer.report.norms
        close(lengths, torch.full((3,), float(balancer.report.norms.max())), 1e-7)


def test_db_mtl_scales_of_losses_change_nothing():
    seen = []
    for scales in ((1, 1, 1), (1e3, 0.5, 20)):
        balancer = isonomy.build("db_mtl", tasks=3)
        for _ in range(3):
            m = M(scales=scales)
            m.step(balancer)
        seen.append(torch.cat([m.theta.grad, m.heads]))
    close(seen[1], seen[0])


def test_db_mtl_aggregate_remembers():
    J = tensor([[1, 0], [0, -2], [1, 1]])
    balancer = isonomy.Balancer(EMA(0.9, 0.0), MaxNorm(), tasks=3)
    for expected in [(0.341421, -0.058579), (0.648701, -0.111299), (0.925252, -0.158748)]:
        close(balancer.aggregate(J), expected)


def test_db_mtl_one_task_and_a_zero_gradient():
    balancer = isonomy.Balancer(EMA(0.0), MaxNorm(), tasks=1)
    close(balancer.aggregate(tensor([[3, 4]])), [3, 4])
    close(isonomy.Balancer(EMA(0.0), MaxNorm(), tasks=2).aggregate(tensor([[0, 0], [3, 4]])), [3, 4])
    close(isonomy.Balancer(EMA(0.0), MaxNorm(), tasks=2).aggregate(tensor([[0, 0], [0, 0]])), [0, 0])


def imtl_step(s, shared: str):
    balancer = isonomy.build("imtl", tasks=3, own_optimizer=False)
    (own,) = balancer.parameters()
    own.data = torch.tensor(s)
    z = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64, requires_grad=True)
    feature = z * 1
    psi = [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(3)]
    rows = tensor([[2, 0, 0], [0, -1, 0], [2, 2, 1]])
    # Each loss is 1 with gradient rows[t] in z and rows[t]·z in its head.
    losses = [p * (row @ feature) - (row @ feature).detach() + 1 for p, row in zip(psi, rows, strict=True)]
    balancer(losses, shared=feature if shared == "feature" else [z]).backward()
    return balancer, z.grad, torch.stack([p.grad for p in psi]), own.grad, rows


@pytest.mark.parametrize("shared", ["feature", "parameters"])
@pytest.mark.parametrize(
    ("s", "alpha", "gradient"),
    [
        ([0.0, 0.0, 0.0], [-0.333333, 0.933333, 0.4], [0.133333, -0.133333, 0.4]),
        ([-0.1, 0.05, -0.1], [-0.383144, 0.923371, 0.459773], [0.138673, -0.138673, 0.416020]),
    ],
)
def test_imtl_known_step(s, alpha, gradient, shared):
    balancer, d, heads, own, rows = imtl_step(s, shared)
    close(balancer.report.weights, alpha)
    close(d, gradient)
    close(rows @ d / rows.norm(dim=1), torch.full((3,), float(d[0])))
    close(heads, tensor(s).exp() * (rows @ tensor([1, 2, -1])))
    close(own, tensor(s).exp() - 1)


def test_imtl_learned_scales_do_not_turn_the_shared_gradient():
    directions = [imtl_step(s, "parameters")[1] for s in ([0.0, 0.0, 0.0], [1.0, -2.0, 0.5])]
    close(directions[0] / directions[0].norm(), directions[1] / directions[1].norm())


def test_imtl_the_loss_side_is_trained_by_its_own_rule():
    balancer = isonomy.build("imtl", tasks=3, own_lr=0.1)
    (s,) = balancer.parameters()
    M().step(balancer)
    close(s, [-0.1, 0.1, -0.1])


scales = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3)


@given(scales, st.sampled_from(["mgda", "mgda_free", "pcgrad", "cagrad", "imtl_g", "nash_mtl", "avgnorm", "max_norm"]))
def test_scales_of_losses_change_no_gradient_in_any_hybrid(k, name):
    seen = []
    for factors in ((1, 1, 1), k):
        m = M(scales=factors)
        m.step(isonomy.build(f"log+{name}", tasks=3, **({} if name == "max_norm" else {"eps": 0.0})))
        seen.append(torch.cat([m.theta.grad, m.heads]))
    close(seen[1], seen[0], 1e-5)


@pytest.mark.parametrize(
    ("name", "options"), [("mgda", {}), ("pcgrad", {"order": "ascending"}), ("cagrad", {"c": 0.4}), ("imtl_g", {})]
)
def test_a_hybrid_balances_the_gradients_of_the_logarithms(name, options):
    m = M()
    m.step(isonomy.build(f"log+{name}", tasks=3, eps=0.0, **options))
    close(m.theta.grad, isonomy.build(name, tasks=3, **options).aggregate(tensor([[1, 0], [0, -2], [1, 1]])), 1e-12)
