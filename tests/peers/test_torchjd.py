"""TorchJD 0.18: the same aggregate where it is exact or nearly so, and each difference that is known.

Its solvers are approximate, so every comparison has its own tolerance: what TorchJD's method promises on gradients
whose norms are near 1, far above what either side's rounding costs. A test that carries a row of docs/differences.md
pins what TorchJD does there; should a later release repair it, the test fails and the row goes.
"""

import pytest
import torch

import isonomy
from isonomy.gradient.graddrop import drop
from tests.fixtures import (
    DEPENDENT,
    FAR_NORMS,
    OPPOSED_AND_ORTHOGONAL,
    UNEQUALLY_OPPOSED,
    B,
    E,
    F,
    aggregate,
    close,
    parallel,
    random_jacobian,
    tensor,
)

jd = pytest.importorskip("torchjd.aggregation")
linalg = pytest.importorskip("torchjd.linalg")
scalarization = pytest.importorskip("torchjd.scalarization")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

STEPS = 8
ZERO = torch.zeros(3, dtype=torch.float64)


def gradients(tasks, first=0):
    """Gradients of norms near 1, with conflicts, for so many steps."""
    for seed in range(first, first + STEPS):
        J = random_jacobian(tasks, tasks + 2, seed)
        yield J / J.norm(dim=1, keepdim=True) * torch.linspace(0.7, 1.3, tasks, dtype=torch.float64)[:, None]


def exact():
    """TorchJD's projector without its ridge."""
    return linalg.QuadprogProjector(norm_eps=1e-12, reg_eps=1e-12)


@pytest.fixture
def ascending(monkeypatch):
    """TorchJD's random orders, made ascending."""
    monkeypatch.setattr(torch, "randperm", torch.arange)


# Name, options, TorchJD's, tolerance relative to the largest entry: closed forms to rounding in a pseudo-inverse,
# iterative solvers to their stopping rule, the dual cone to its solver (ours is exact).
CLOSED, SOLVED = 1e-8, 1e-4
AGREE = [
    ("aligned_mtl", {}, lambda tasks: jd.AlignedMTL(), CLOSED),
    ("aligned_mtl", {"scale": "rmse"}, lambda tasks: jd.AlignedMTL(scale_mode="rmse"), CLOSED),
    ("aligned_mtl", {"scale": "median"}, lambda tasks: jd.AlignedMTL(scale_mode="median"), CLOSED),
    ("config", {}, lambda tasks: jd.ConFIG(), CLOSED),
    ("cagrad", {"rescale": 0}, lambda tasks: jd.CAGrad(c=0.5), 1e-3),
    ("cagrad", {"rescale": 0, "c": 1.0}, lambda tasks: jd.CAGrad(c=1.0), 1e-3),
    ("fairgrad", {"max_norm": None}, lambda tasks: jd.FairGrad(alpha=2.0), SOLVED),
    ("fairgrad", {"alpha": 0.5, "max_norm": None}, lambda tasks: jd.FairGrad(alpha=0.5), SOLVED),
    ("upgrad", {}, lambda tasks: jd.UPGrad(projector=exact()), CLOSED),
    ("dualproj", {}, lambda tasks: jd.DualProj(projector=exact()), CLOSED),
]


@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize(("name", "options", "peer", "tolerance"), AGREE, ids=[f"{row[0]}-{row[1]}" for row in AGREE])
def test_same_aggregate(name, options, peer, tolerance, tasks):
    for J in gradients(tasks):
        close(aggregate(name, J, **options), peer(tasks)(J), tolerance)


def solved(aggregate, J):
    """Whether an aggregate Jᵀw of gradients of full rank solves G w = 1/w."""
    weights = torch.linalg.lstsq(J.T, aggregate[:, None]).solution[:, 0]
    return bool((weights * (J @ aggregate) - 1).abs().max() < 1e-3)


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_nash_mtl_is_the_same_where_torchjd_solves_its_equation(tasks):
    agreements = 0
    for J in gradients(tasks):
        theirs, ours = jd.NashMTL(n_tasks=tasks, max_norm=100.0)(J), aggregate("nash_mtl", J, max_norm=None)
        assert solved(ours, J)
        if solved(theirs, J):
            close(ours, theirs, 1e-6)
            close(aggregate("nash_mtl", J), jd.NashMTL(n_tasks=tasks)(J), 1e-6)
            agreements += 1
    assert agreements >= STEPS - 1


@pytest.mark.peers("nash_mtl.1")
def test_nash_mtl_gives_up_on_some_conflicts():
    *_, J = gradients(2)
    assert not solved(jd.NashMTL(n_tasks=2, max_norm=100.0)(J), J)
    assert solved(aggregate("nash_mtl", J, max_norm=None), J)


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_imtl_g_is_the_same_where_weights_sum_to_a_positive_number(tasks):
    for J in gradients(tasks):
        weights = torch.linalg.solve(J @ J.T, J.norm(dim=1))
        # Elsewhere ours is divided by the sum of the absolute values, which turns theirs around.
        factor = 1 if weights.sum() > 0 else weights.sum() / weights.abs().sum()
        close(aggregate("imtl_g", J), factor * jd.IMTLG()(J), CLOSED)


def test_mgda_of_two_tasks_is_the_same():
    for J in gradients(2):
        close(aggregate("mgda", J), jd.MGDA()(J), 1e-9)  # One exact line search is all of it.


@pytest.mark.parametrize("tasks", [3, 5])
def test_mgda_comes_near_with_many_steps(tasks):
    for J in gradients(tasks):
        patient = jd.MGDA(epsilon=1e-12, max_iters=1000)(J)
        close(aggregate("mgda", J), patient, 1e-2)  # Frank-Wolfe's error falls as one over the steps.
        assert aggregate("mgda", J).norm() <= patient.norm() + 1e-12


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_pcgrad_in_one_order_is_the_same(ascending, tasks):
    for J in gradients(tasks):
        close(aggregate("pcgrad", J, order="ascending"), jd.PCGrad()(J), 1e-12)


def test_pcgrad_is_the_same_in_expectation():
    J = tensor(E)
    torch.manual_seed(0)
    draws = torch.stack([jd.PCGrad()(J) for _ in range(4000)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - aggregate("pcgrad", J, order="mean")).abs() <= 4 * error + 1e-12).all()
    assert error.max() > 1e-4  # The order matters here.


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_gradvac_in_one_order_is_the_same_step_after_step(ascending, tasks):
    ours, theirs = isonomy.build("gradvac", tasks, order="ascending"), jd.GradVac(beta=0.5)
    for J in gradients(tasks):
        close(ours.aggregate(J), theirs(J), 1e-6)  # Its ε of 1e-8 in products of norms, over eight steps.


@pytest.mark.parametrize("leak", [0.0, 0.25])
def test_graddrop_with_the_same_draw_is_the_same(leak):
    leaks = torch.full((4,), leak, dtype=torch.float64)
    for J in gradients(4):
        torch.manual_seed(3)
        draw = torch.rand(J.shape[1], dtype=J.dtype)
        torch.manual_seed(3)
        close(drop(J, J, draw, leaks), jd.GradDrop(leak=leaks)(J), 1e-12)


def test_modo_is_the_same_step_after_step():
    ours, theirs = isonomy.build("modo", 3, gamma=0.1, rho=0.1), jd.MoDoWeighting(gamma=0.1, rho=0.1)
    for first, second in zip(gradients(3), gradients(3, 100), strict=True):
        expected = theirs(first @ second.T) @ (first + second) / 2
        close(step([first, second], ours), expected, 1e-10)


def test_sdmgrad_is_the_same_step_after_step():
    ours, theirs = isonomy.build("sdmgrad", 3), jd.SDMGradWeighting()
    for J in zip(gradients(3), gradients(3, 100), gradients(3, 200), strict=True):
        close(step(J, ours), theirs(J[0] @ J[1].T) @ J[2], 1e-6)  # Its 1e-8 in the scale, enlarged by the rate of 10.


def step(batches, balancer):
    """The aggregate of a step with so many batches of gradients."""
    theta = torch.zeros(batches[0].shape[1], dtype=torch.float64, requires_grad=True)
    balancer([[1 + row @ theta for row in J] for J in batches], shared=theta).backward()
    return theta.grad


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_cr_mogm_is_the_same_step_after_step(momentum):
    ours = isonomy.build("cr_mogm", 3, weighting=isonomy.gradient.UPGrad(), momentum=momentum)
    theirs = jd.CRMOGMWeighting(jd.UPGradWeighting(projector=exact()), alpha=momentum)
    for J in gradients(3):
        close(ours.aggregate(J), theirs(J @ J.T) @ J, CLOSED)


def test_excess_mtl_is_the_same_after_a_warm_up():
    # With one warm-up step both take the first excess risk as baseline and move from the second step on.
    ours = isonomy.build("excess_mtl", 3, beta=1.0, warmup_steps=1, total="one")
    theirs = jd.ExcessMTL(robust_step_size=1.0, n_warmup_steps=1)
    for J in gradients(3):
        close(ours.aggregate(J), theirs(J), 1e-5)  # Its 1e-7 in the quotient, in an exponent, over eight steps.


# Losses

LOSSES = [(2.0, 0.5, 2.0), (0.1, 3.0, 20.0)]


def effective(balancer, losses):
    """∂S/∂ℓ and the gradients of the learned parameters."""
    values = [loss.clone().requires_grad_() for loss in tensor(losses).unbind()]
    balancer(values).backward()
    return torch.stack([value.grad for value in values])


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize(
    ("name", "options", "peer"),
    [
        ("ew", {}, scalarization.Sum),
        ("uw", {}, lambda: scalarization.UW(3)),
        ("imtl_l", {}, lambda: scalarization.IMTLL(3)),
        ("gls", {}, scalarization.GeometricMean),
        ("stch", {"form": "paper", "mu": 0.5}, lambda: scalarization.STCH(mu=0.5)),
        ("famo", {}, lambda: scalarization.FAMO(3)),
    ],
)
def test_same_weights_and_learned_parameters(name, options, peer, losses):
    learns = {} if name == "famo" else {"own_optimizer": False}  # FAMO's are not trained by the loss.
    ours, theirs = isonomy.build(name, 3, **options, **learns), peer().double()
    values = tensor(losses).requires_grad_()
    theirs(values).backward()
    close(effective(ours, losses), values.grad, 1e-12)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        if other.grad is not None:
            close(mine.grad, other.grad, 1e-6)  # Isonomy's are float32.


def test_dwa_is_the_same_over_epochs():
    ours, theirs = isonomy.build("dwa", 3), scalarization.DWA()
    for epoch in range(4):
        for batch in range(3):
            losses = tensor([2.0 / (1 + epoch), 1.0 - 0.1 * epoch, 0.5 + 0.1 * batch])
            values = losses.clone().requires_grad_()
            theirs(values).backward()
            close(effective(ours, losses), values.grad, 1e-12)
        ours.epoch_end()
        theirs.step()
    assert effective(ours, losses).std() > 0.05


def test_famo_learns_the_same_from_what_a_step_brought():
    ours, theirs = isonomy.build("famo", 3), scalarization.FAMO(3).double()
    for before, after in [((2.0, 0.5, 2.0), (1.5, 0.5, 1.9)), ((1.5, 0.5, 1.9), (1.4, 0.45, 1.7))] * 3:
        values = tensor(before).requires_grad_()
        theirs(values).backward()
        close(effective(ours, before), values.grad, 1e-5)  # Isonomy's logits are float32.
        ours.step_end(list(tensor(after)))
        theirs.update(tensor(after))


# Differences


@pytest.mark.peers("general.3")
def test_a_zero_gradient_stops_mgda_and_cagrad_there():
    J = tensor([[0, 0, 0], [6, 1, 1]])
    close(jd.MGDA()(J), ZERO)
    close(aggregate("mgda", J), J[1])
    close(jd.CAGrad(c=0.5)(J), ZERO)
    assert aggregate("cagrad", J).norm() > 1


@pytest.mark.peers("general.4")
def test_nan_passes_through_some_aggregators():
    J = tensor([[float("nan"), 1.0], [1.0, 0.0]])
    assert not jd.MGDA()(J).isfinite().all()
    with pytest.raises(isonomy.IsonomyError, match="finite"):
        aggregate("mgda", J)


@pytest.mark.peers("mgda.1")
def test_mgda_stops_far_from_the_shortest_vector():
    for seed in range(4):
        J = random_jacobian(40, 120, seed, rank=20, spread=1.0) + 0.1 * random_jacobian(40, 120, seed + 1)
        assert jd.MGDA()(J).norm() ** 2 > 2 * aggregate("mgda", J).norm() ** 2


@pytest.mark.peers("cagrad.2")
def test_cagrad_returns_zero_for_small_gradients():
    close(jd.CAGrad(c=0.5)(1e-3 * tensor(B)), ZERO, 1e-12)
    close(1e3 * aggregate("cagrad", 1e-3 * tensor(B), rescale=0), jd.CAGrad(c=0.5)(tensor(B)), 1e-4)


@pytest.mark.peers("cagrad.4")
def test_cagrad_returns_zero_where_the_mean_is_a_valid_step():
    close(jd.CAGrad(c=0.5)(tensor(OPPOSED_AND_ORTHOGONAL)), ZERO[:2], 1e-12)
    close(aggregate("cagrad", OPPOSED_AND_ORTHOGONAL, rescale=0), [0, 1 / 3])


@pytest.mark.peers("imtl_g.1")
def test_imtl_g_ascends_where_the_weights_sum_to_less_than_0():
    assert (tensor(F) @ jd.IMTLG()(tensor(F)) < -0.5).all()
    assert (tensor(F) @ aggregate("imtl_g", F) > 0.05).all()


@pytest.mark.peers("imtl_g.2")
def test_imtl_g_loses_the_direction_when_norms_differ_by_1e8():
    J = tensor(FAR_NORMS)
    assert parallel(jd.IMTLG()(J), J[1]) == pytest.approx(1)
    assert J[0] @ jd.IMTLG()(J) < 0
    close(aggregate("imtl_g", J), (0.12948, 1.68825, 1.68825), 1e-5)


@pytest.mark.peers("imtl_g.3")
def test_imtl_g_of_opposed_gradients_is_long():
    close(jd.IMTLG()(tensor(UNEQUALLY_OPPOSED)), (5, 10, 10))
    close(aggregate("imtl_g", UNEQUALLY_OPPOSED), ZERO)


@pytest.mark.peers("imtl_g.4")
def test_imtl_g_of_dependent_gradients_is_normalised_otherwise():
    close(jd.IMTLG()(tensor(DEPENDENT)), (0.75, 0.75))
    close(aggregate("imtl_g", DEPENDENT), (2 / 3, 2 / 3))


@pytest.mark.peers("nash_mtl.2")
def test_nash_mtl_returns_its_start_for_small_gradients():
    J = 1e-5 * tensor(B)
    close(1e5 * jd.NashMTL(n_tasks=2)(J), tensor(B).sum(0), 1e-6)  # Weights 1.
    close(aggregate("nash_mtl", J), aggregate("nash_mtl", B), 1e-9)


@pytest.mark.peers("nash_mtl.3")
def test_nash_mtl_of_opposed_gradients_is_long():
    close(jd.NashMTL(n_tasks=2)(tensor(UNEQUALLY_OPPOSED)), (1 / 3, 2 / 3, 2 / 3), 1e-5)
    close(aggregate("nash_mtl", UNEQUALLY_OPPOSED), ZERO, 1e-5)


@pytest.mark.peers("nash_mtl.4")
def test_nash_mtl_of_one_task_raises():
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever CVXPY raises
        jd.NashMTL(n_tasks=1)(tensor([[3, 4]]))
    close(aggregate("nash_mtl", [[3, 4]]), (0.6, 0.8))


@pytest.mark.peers("fairgrad.2")
def test_fairgrad_is_wrong_for_small_gradients():
    J = 1e-5 * tensor(B)
    theirs, ours = jd.FairGrad(alpha=2.0)(J), aggregate("fairgrad", J, max_norm=None)
    assert theirs.norm() < 1
    close(ours, (1.4516, 36.7065, 36.7065), 1e-5)
    assert (J @ ours > 0).all()


@pytest.mark.peers("aligned_mtl.4")
def test_aligned_mtl_drops_a_short_gradient():
    J = tensor(FAR_NORMS)
    close(jd.AlignedMTL()(J), J[1] / 2)
    # σ is the smallest singular value: the short gradient, for angles that are not small.
    assert 1 < aggregate("aligned_mtl", J).norm() < tensor(B)[0].norm()


@pytest.mark.peers("aligned_mtl.1")
def test_aligned_mtl_with_ones_is_t_times_as_long():
    close(aggregate("aligned_mtl", E, preference=[1.0] * 3), 3 * jd.AlignedMTL()(tensor(E)), CLOSED)


@pytest.mark.peers("gradvac.4")
def test_gradvac_turns_at_small_gradients():
    ours, theirs = isonomy.build("gradvac", 2), jd.GradVac()
    for _ in range(3):
        small, expected = 1e5 * theirs(1e-5 * tensor(B)), ours.aggregate(1e-5 * tensor(B))
    assert parallel(small, expected) < 0.99


@pytest.mark.peers("upgrad.1")
@pytest.mark.peers("dualproj.1")
@pytest.mark.parametrize(("peer", "name"), [(jd.UPGrad, "upgrad"), (jd.DualProj, "dualproj")])
def test_the_ridge_shows_in_the_fourth_digit(peer, name):
    difference = (peer()(tensor(B)) - aggregate(name, B)).abs().max()
    assert 1e-4 < difference < 1e-3


@pytest.mark.peers("upgrad.2")
@pytest.mark.peers("dualproj.2")
@pytest.mark.parametrize(("peer", "name"), [(jd.UPGrad, "upgrad"), (jd.DualProj, "dualproj")])
def test_small_gradients_are_not_projected(peer, name):
    J = 1e-3 * tensor(B)
    close(1e3 * peer()(J), tensor(B).mean(0), 1e-9)
    assert (J @ peer()(J)).min() < -1e-7  # A loss rises,
    assert (J @ aggregate(name, J)).min() >= -1e-15  # and here none does.


@pytest.mark.peers("upgrad.3")
def test_upgrad_conflicts_when_norms_differ():
    worst, ours = [], []
    for seed in range(20):
        J = random_jacobian(3, 5, seed, spread=2.0)
        unit_rows = J / J.norm(dim=1, keepdim=True)
        for results, d in ((worst, jd.UPGrad()(J)), (ours, aggregate("upgrad", J))):
            results.append(float((unit_rows @ d).min() / d.norm()))
    assert min(worst) < -1e-3
    assert min(ours) > -1e-9


@pytest.mark.peers("excess_mtl.3")
def test_excess_mtl_moves_on_its_first_call():
    J = next(gradients(3))
    first = torch.linalg.lstsq(J.T, jd.ExcessMTL()(J)).solution
    assert first.std() > 0.1
    ours = isonomy.build("excess_mtl", 3)
    ours.aggregate(J)
    close(ours.report.weights, torch.ones(3))


@pytest.mark.peers("stch.1")
def test_stch_by_default_normalises_by_the_nadir():
    losses = tensor(LOSSES[1])
    ours, theirs = isonomy.build("stch", 3, nadir_epoch=0), scalarization.STCH(mu=1.0)
    effective(ours, losses)
    ours.epoch_end()
    values = losses.clone().requires_grad_()
    theirs(values).backward()
    close(effective(ours, losses) * losses, torch.ones(3), 1e-6)  # At the nadir itself it is the log-loss.
    assert values.grad[2] > 0.3 > 3 * values.grad[0]  # There the largest loss counts most.
