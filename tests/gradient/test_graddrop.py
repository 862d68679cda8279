import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.gradient import GradDrop
from isonomy.gradient.graddrop import drop
from isonomy.stages import step_generator
from tests.fixtures import OPPOSED, B, E, M, close, jacobians, linear, random_jacobian, tensor


def elementwise(J, U, leak=0.0):
    J = tensor(J)
    return drop(J, J, tensor(U), torch.full((len(J),), leak, dtype=torch.float64))


def by_hand(J, U, leak):
    """The layer of the paper, number by number."""
    d = torch.zeros_like(J[0])
    for p, column in enumerate(J.T):
        purity = 0.5 * (1 + column.sum() / column.abs().sum()) if column.any() else 0.5
        for g, passes in zip(column, leak, strict=True):
            kept = (purity > U[p] and g > 0) or (purity < U[p] and g < 0)
            d[p] += (passes + (1 - passes) * kept) * g
    return d


@pytest.mark.parametrize(
    ("J", "U", "leak", "d"),
    [
        (B, (0.3, 0.6, 0.9), 0.0, (6, 2, 2)),
        (B, (0.7, 0.6, 0.9), 0.0, (-4, 2, 2)),
        (B, (0.3, 0.6, 0.9), 0.25, (5, 2, 2)),
        (E, (0.3, 0.6, 0.9), 0.0, (3, -3, 1)),
    ],
)
def test_known_aggregates(J, U, leak, d):
    close(elementwise(J, U, leak), d)


@given(jacobians(1, 5), st.integers(0, 10_000))
def test_elementwise_by_hand(J, seed):
    J = torch.where(random_jacobian(*J.shape, seed) > 1, 0.0, J / J.abs().max())
    U = torch.rand(J.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    leak = torch.rand(len(J), generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    close(drop(J, J, U, leak), by_hand(J, U, leak), 1e-12)


def test_known_aggregates_per_sample():
    z = tensor([[1], [-1]])
    rows = tensor([[[2], [1]], [[-1], [3]]])
    signed = (rows * z.sign()).sum(1)
    close(signed, [[1], [-4]])
    close(drop(rows, signed, tensor([0.5]), tensor([0, 0])), [[-1], [3]])
    close(drop(rows, signed, tensor([0.1]), tensor([0, 0])), [[2], [1]])
    close(drop(rows, signed, tensor([0.1]), tensor([0, 0.5])), [[1.5], [2.5]])


@given(jacobians(1, 5, regular=True))
def test_the_expectation_is_the_sum(J):
    J = J / J.abs().max()
    # Over a grid of U, in which each purity is hit to 1e-4.
    U = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    every = torch.stack([elementwise(column[:, None].expand(-1, 5000), U).mean() for column in J.T])
    close(every, J.sum(0), 1e-3)


def test_nothing_passes_where_u_is_the_purity():
    close(elementwise([[1.0, 3.0], [-1.0, -1.0]], [0.5, 0.75]), [0, 0], 0)


def test_agreeing_signs_pass_and_zeros_stay_zero():
    J = tensor([[1, -2, 0], [3, -4, 0]])
    for u in (1e-9, 0.5, 1 - 1e-9):
        close(elementwise(J, [u] * 3), [4, -6, 0], 1e-15)


def test_opposed_gradients_win_or_lose_at_each_number_by_themselves():
    J = 100 * [tensor(OPPOSED)]
    d = isonomy.build("graddrop", 2).aggregate(torch.cat(J, 1))
    assert (d.abs() == torch.cat(J, 1)[0].abs()).all()
    assert 100 < int((d > 0).sum()) < 200


def test_leak_1_is_the_sum():
    close(isonomy.build("graddrop", 3, leak=1.0).aggregate(tensor(E)), tensor(E).sum(0), 1e-12)


def feature(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 2, 3), (6,)])
def test_a_feature_has_one_mask_for_all_samples(shape):
    leaf = feature(shape)
    gradients = torch.stack([feature(shape, seed=t).detach() for t in (1, 2, 3)])
    balancer = isonomy.build("graddrop", 3, seed=5, leak=[0.0, 0.5, 0.0])
    for step in range(2):
        leaf.grad = None
        z = leaf * 1
        balancer([(g * z).sum() for g in gradients], shared=z).backward()
        S = torch.stack([(z.detach().sign() * g).sum(0) for g in gradients])
        U = torch.rand(shape[1:], generator=step_generator(5, torch.tensor(step)), dtype=torch.float64)
        flat, samples = S.reshape(3, -1), gradients.reshape(3, 6, -1)
        purity = 0.5 * (1 + flat.sum(0) / flat.abs().sum(0))
        keep = torch.where(purity > U.reshape(-1), flat > 0, flat < 0).double()
        factors = tensor([0.0, 0.5, 0.0])[:, None] * (1 - keep) + keep
        close(leaf.grad.reshape(6, -1), (factors[:, None] * samples).sum(0), 1e-12)


def test_several_features_have_masks_of_their_own():
    leaves = [feature((5, 40), seed=0), feature((5, 40), seed=1)]
    z = [leaf * 1 for leaf in leaves]
    g = feature((5, 40), seed=2).detach()
    isonomy.build("graddrop", 2)([sum((g * f).sum() for f in z), -sum((g * f).sum() for f in z)], shared=z).backward()
    signs = [(leaf.grad * g).sum(0).sign() for leaf in leaves]
    for sign, leaf in zip(signs, leaves, strict=True):
        close(leaf.grad, sign * g, 1e-12)
    assert not torch.equal(*signs)


def test_at_the_parameters_masks_are_elementwise():
    m = M()
    m.step(balancer := isonomy.build("graddrop", tasks=3, seed=3))
    U = torch.rand(2, generator=step_generator(3, torch.tensor(0)), dtype=torch.float64)
    close(m.theta.grad, elementwise([[2, 0], [0, -1], [2, 2]], U), 1e-12)
    close(m.heads, [2, -2, 6])
    assert balancer.report.weights is None
    assert balancer.levels == ("features", "parameters")


def test_seeds_and_steps_decide_the_masks():
    J = random_jacobian(3, 30, 0)
    runs = []
    for seed in (1, 1, 2):
        balancer = isonomy.build("graddrop", 3, seed=seed)
        runs.append(torch.stack([balancer.aggregate(J) for _ in range(5)]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert len(runs[0].unique(dim=0)) == 5


def test_a_leak_of_each_task_makes_their_order_matter():
    assert isonomy.build("graddrop", 2, leak=[0.5, 0.5]).stages[0].symmetric
    assert not isonomy.build("graddrop", 2, leak=[0.5, 0.0]).stages[0].symmetric
    d = isonomy.build("graddrop", 2, leak=[1.0, 0.0]).aggregate(tensor([[1] * 50, [-1] * 50]))
    assert set(d.tolist()) == {0.0, 1.0}


def test_leaks_follow_their_tasks_when_one_is_missing():
    theta, _, losses = linear([[1.0], [1.0], [-1.0]])
    balancer = isonomy.build("graddrop", 3, leak=[0.0, 1.0, 1.0], allow_missing=True)
    balancer({"1": losses[1], "2": losses[2]}, shared=[theta]).backward()
    assert theta.grad == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(dtype):
    leaf = feature((4, 3), dtype)
    z = leaf * 1
    isonomy.build("graddrop", 2)([z.sum(), 2 * z.sum()], shared=z).backward()
    close(leaf.grad, torch.full((4, 3), 3.0))


@pytest.mark.parametrize(
    ("leak", "match"),
    [(1.5, "holds 1.5"), ([0.0, -0.1], "holds -0.1"), (float("nan"), "holds nan"), ([0.1], "1 entries for 2 tasks")],
)
def test_unusable_leaks(leak, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        isonomy.Balancer(GradDrop(leak=leak), tasks=2)
