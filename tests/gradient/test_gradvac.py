import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import isonomy
from isonomy.gradient.gradvac import vaccinate
from isonomy.gramian import Gramian
from tests.fixtures import A, B, E, M, aggregate, close, jacobians, random_jacobian, tensor


def inoculated(J, rho, orders):
    """The paper's algorithm on the gradients themselves: the aggregate and the cosines that were met."""
    total, met = torch.zeros_like(J[0]), rho.clone()
    for i, others in enumerate(orders):
        p = J[i].clone()
        for j in others:
            phi = p @ J[j] / (p.norm() * J[j].norm())
            t, met[i, j] = rho[i, j], phi
            if phi < t:
                p = (
                    p
                    + p.norm()
                    * (t * (1 - phi**2) ** 0.5 - phi * (1 - t**2) ** 0.5)
                    / (J[j].norm() * (1 - t**2) ** 0.5)
                    * J[j]
                )
        total += p
    return total, met


def vaccinated(J, rho, orders):
    stack = Gramian.of((J @ J.T)[None])
    w, met = vaccinate(stack, rho[None], torch.tensor(orders))
    return J.T @ w[0], met[0]


def stage_of(balancer):
    return balancer.stages[0]


def started(J, rho, **options):
    balancer = isonomy.build("gradvac", tasks=len(J), order="ascending", **options)
    stage_of(balancer).rho = torch.full((1, len(J), len(J)), rho, dtype=torch.float64)
    J = tensor(J)
    return balancer, balancer.weights(J @ J.T), stage_of(balancer).rho[0]


@given(jacobians(2, 6, regular=True), st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_form_on_cosines_is_the_papers_algorithm(J, seed, random):
    J = J / J.norm(dim=1).max()
    rho = 0.9 * random_jacobian(len(J), len(J), seed).tanh()
    others = [[j for j in range(len(J)) if j != i] for i in range(len(J))]
    orders = [random.sample(row, len(row)) for row in others]
    (d, met), (expected, expected_met) = vaccinated(J, rho, orders), inoculated(J, rho, orders)
    close((d - expected) / expected.norm(), torch.zeros_like(d), 1e-8)
    close(met, expected_met, 1e-8)


@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_every_order_of_few_tasks(tasks):
    J, rho = random_jacobian(tasks, 6, tasks), 0.8 * random_jacobian(tasks, tasks, 9).tanh()
    choices = [list(itertools.permutations([j for j in range(tasks) if j != i])) for i in range(tasks)]
    for orders in itertools.product(*choices):
        d, met = vaccinated(J, rho, orders)
        expected, expected_met = inoculated(J, rho, orders)
        close(d, expected, 1e-10)
        close(met, expected_met, 1e-12)


@pytest.mark.parametrize(("J", "w"), [(A, [1, 1]), (B, [2.675831, 1.793815]), (E, [2.640340, 4.445931, 2.556385])])
def test_known_weights_from_a_target_of_one_half(J, w):
    close(started(J, 0.5)[1], w)


def test_known_aggregate():
    close(started(B, 0.5)[1] @ tensor(B), [0.059564, 4.469646, 4.469646])


def test_known_averages():
    close(started(B, 0.5)[2], [[0.5, -0.170596], [-0.170596, 0.5]])
    close(
        started(E, 0.5)[2],
        [[0.5, 0.120901, -0.080476], [0.120901, 0.5, -0.129049], [0.179289, -0.149960, 0.5]],
    )
    _, w, rho = started(E, 0.0)
    close(w, [1.4, 2.733333, 1.653333])
    met = [[0, -0.129099, -0.170783], [-0.129099, 0, -0.396863], [-0.070711, -0.387298, 0]]
    close(rho, met)


def test_known_averages_are_a_share_of_the_cosines():
    half, all_of_it = started(E, 0.0, beta=0.5)[2], started(E, 0.0, beta=1.0)[2]
    close(all_of_it, 2 * half, 1e-12)
    cosine = float(tensor(E)[0] @ tensor(E)[1] / 15**0.5)
    assert float(all_of_it[0, 1]) == pytest.approx(cosine, abs=1e-12)


@given(jacobians(2, 2, regular=True), st.floats(-0.99, 0.99))
def test_two_gradients_get_the_target_cosine(J, target):
    J = J / J.norm(dim=1).max()
    cosine = float(J[0] @ J[1] / (J[0].norm() * J[1].norm()))
    targets = torch.full((1, 2, 2), target, dtype=torch.float64)
    (w,), _ = vaccinate(Gramian.of((J @ J.T)[None]), targets, torch.tensor([[1], [0]]))
    if cosine < target:
        p = J[0] + (w[1] - 1) * J[1]
        assert float(p @ J[1] / (p.norm() * J[1].norm())) == pytest.approx(target, abs=1e-6)
    else:
        close(w, [1, 1], 1e-12)


@pytest.mark.parametrize("tasks", [1, 2, 3, 7])
def test_without_memory_it_is_pcgrad(tasks):
    vac, pc = (
        isonomy.build(name, tasks=tasks, seed=3, **o) for name, o in (("gradvac", {"beta": 0.0}), ("pcgrad", {}))
    )
    for seed in range(10):
        J = random_jacobian(tasks, tasks + 1, seed, spread=2.0)
        close(vac.aggregate(J), pc.aggregate(J), 1e-9)


def test_averages_follow_the_cosines():
    # Without a conflict and above the target, nothing is changed and rho tends to the cosine.
    balancer = isonomy.build("gradvac", tasks=2, beta=0.25)
    G = tensor([[1, 1], [1, 2]])
    for step in range(1, 20):
        close(balancer.weights(G), [1, 1], 1e-12)
        close(stage_of(balancer).rho[0, 0, 1], (1 - 0.75**step) / 2**0.5, 1e-12)
    # A conflict after that is answered by more than a projection.
    expected, _ = inoculated(tensor(B), stage_of(balancer).rho[0], [[1], [0]])
    close(balancer.aggregate(tensor(B)), expected, 1e-9)
    assert float(expected.norm()) > 1.2 * float(aggregate("pcgrad", B).norm())


def test_only_tasks_that_are_there_are_remembered():
    balancer = isonomy.build("gradvac", tasks=["a", "b", "c"], allow_missing=True)
    J = tensor(E)
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    balancer({"a": 1 + J[0] @ theta, "c": 1 + J[2] @ theta}, shared=[theta]).backward()
    rho = stage_of(balancer).rho[0]
    close(rho[0, 2], -1 / 50**0.5 / 2, 1e-12)
    assert not rho[1].any()
    assert not rho[:, 1].any()
    assert not rho.diagonal().any()


def split_step(balancer, J, sizes):
    parts = [torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    balancer([1 + row @ torch.cat(parts) for row in J], shared=parts).backward()
    return [part.grad for part in parts]


def test_tensors_are_groups_of_their_own():
    split = isonomy.build("gradvac", tasks=3, groups="tensor", beta=0.3, seed=5)
    alone = [isonomy.build("gradvac", tasks=3, beta=0.3, seed=5) for _ in range(2)]
    for seed in range(8):
        J = random_jacobian(3, 7, seed)
        found = split_step(split, J, (4, 3))
        for balancer, part, gradient in zip(alone, J.split((4, 3), 1), found, strict=True):
            close(gradient, balancer.aggregate(part), 1e-12)
    close(stage_of(split).rho, torch.cat([stage_of(balancer).rho for balancer in alone]), 1e-12)


def test_a_task_that_misses_a_tensor_is_not_compared_there():
    J = random_jacobian(3, 7, 0)
    J[1, :4] = 0
    balancer = isonomy.build("gradvac", tasks=3, groups="tensor")
    two = isonomy.build("gradvac", tasks=2)
    first, _ = split_step(balancer, J, (4, 3))
    close(first, two.aggregate(J[[0, 2], :4]), 1e-12)
    rho = stage_of(balancer).rho
    assert not rho[0, 1].any()
    assert not rho[0, :, 1].any()
    close(rho[0, 0, 2], stage_of(two).rho[0, 0, 1], 1e-12)
    assert rho[1, 0, 1] != 0


def test_a_gradient_that_vanishes_on_the_way_has_no_cosine():
    # g_1 is projected to 0 by the first task it meets.
    _, w, rho = started([[1, 0], [-2, 0], [0.3, 1]], 0.0)
    assert w.isfinite().all()
    close(rho[0], [0, -0.5, 0], 1e-12)


def test_gradients_of_any_length():
    for scale in (1e-5, 1e-12, 1e9):
        close(aggregate("gradvac", scale * tensor(B)) / scale, aggregate("gradvac", B), 1e-9)


def test_more_tensors_than_before():
    balancer = isonomy.build("gradvac", tasks=2, groups="tensor")
    split_step(balancer, random_jacobian(2, 4, 0), (3, 1))
    before = stage_of(balancer).rho.clone()
    with pytest.raises(isonomy.IsonomyError, match="3 shared tensors now and there were 2 before"):
        split_step(balancer, random_jacobian(2, 4, 0), (2, 1, 1))
    assert torch.equal(stage_of(balancer).rho, before)


def test_tensors_are_parameters():
    m = M()
    feature = 2 * m.theta
    with pytest.raises(isonomy.IsonomyError, match="shared=module"):
        isonomy.build("gradvac", tasks=2, groups="tensor")([feature.sum(), feature.prod()], shared=feature)
    assert isonomy.build("gradvac", tasks=2).levels == ("parameters", "features")


def test_heads_get_their_own_gradients():
    m = M()
    m.step(isonomy.build("gradvac", tasks=3))
    close(m.theta.grad, [2 + 0.5 + 2, -0.5])
    close(m.heads, [2, -2, 6])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"beta": -0.1}, "beta=-0.1"),
        ({"beta": 1.1}, "beta=1.1"),
        ({"groups": "layer"}, "groups of gradvac"),
        ({"order": "mean"}, "order of gradvac"),
    ],
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        isonomy.build("gradvac", tasks=2, **options)
