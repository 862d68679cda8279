import io

import pytest
import torch
from torch import nn

import isonomy
from isonomy.gradient import RotoGrad
from isonomy.gradient.rotograd import exponential, misalignment, turn
from tests.fixtures import close, gramian_of, random_jacobian, rotation, tensor

FIRST = [[3.0, 4.0], [0.0, 1.0]]


def built(tasks=2, features=2, **options):
    stage = RotoGrad(features, **options)
    return stage, isonomy.Balancer(stage, tasks=tasks)


def pull(balancer, gradients, shape=(1, 2)):
    """The gradient of a feature whose tasks have these gradients at it."""
    leaf = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    z = leaf * 1
    balancer([1 + (tensor(g).view(shape) * z).sum() for g in gradients], shared=z).backward()
    return leaf.grad.flatten()


def tilt(stage, seed=0, size=0.5):
    """Gives a stage rotations that are not the identity."""
    with torch.no_grad():
        for generator, s in zip(stage.generators, range(100), strict=False):
            generator.copy_(size * random_jacobian(stage.features, stage.features, seed + s))
    return exponential(stage.generators.detach()).double()


def test_known_values():
    _, balancer = built()
    close(pull(balancer, FIRST), [1.8, 5.4])
    close(balancer.report.weights, [0.6, 3])
    close(pull(balancer, [[6.0, 8.0], [0.0, 1.0]]), [4.2, 12.6])


def test_known_misalignment():
    rows, identity = tensor(FIRST).view(2, 1, 2), torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    close(misalignment(identity, rows, gramian_of(FIRST)), [6.410716, 3.402143])
    # ‖v‖² of v = (0.874643, 2.623928), from a rotation that takes it off a gradient of 0 length.
    v = tensor([0.874643, 2.623928])
    turned = misalignment(torch.stack([rotation(2, 0), rotation(2, 1)]), rows, gramian_of(FIRST))
    close(turned, [(v - tensor(g)).square().sum() for g in FIRST], 1e-5)


def test_the_mean_is_over_samples_and_positions():
    rows = random_jacobian(2, 24, 0).view(2, 4, 2, 3)
    R = torch.stack([rotation(2, seed) for seed in (1, 2)])
    gramian = gramian_of(rows.reshape(2, -1))
    mean = rows.mean(0)
    for t, error in enumerate(misalignment(R, rows, gramian)):
        v = sum(row * mean.norm() / row.norm() / 2 for row in rows)
        found = [(R[t] @ (v - rows[t])[b, :, x]).square().sum() for b in range(4) for x in range(3)]
        close(error, torch.stack(found).mean(), 1e-12)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 2, 3)])
def test_rotations_turn_dimension_1(shape):
    stage, _ = built(3, 4)
    z = random_jacobian(1, 120, 0)[0][: torch.Size(shape).numel()].view(shape)
    for r in stage.rotate(z):
        close(r, z, 1e-6)
    R = tilt(stage)
    for r, matrix in zip(stage.rotate(z), R, strict=True):
        assert r.shape == z.shape
        close(r.norm(dim=1), z.norm(dim=1), 1e-5)
        close(r.movedim(1, -1), z.movedim(1, -1) @ matrix.T, 1e-5)
        close(turn(matrix.T, r), z, 1e-5)


def losses_of(stage, z, targets):
    return [(r - target).square().mean() for r, target in zip(stage.rotate(z), targets, strict=True)]


def test_the_backbone_gets_gradients_of_one_norm_through_the_rotations():
    stage, balancer = built(3, 4)
    R = tilt(stage)
    leaf = random_jacobian(6, 4, 1).requires_grad_()
    targets = [random_jacobian(6, 4, seed) for seed in (2, 3, 4)]
    z = leaf * 1
    balancer(losses_of(stage, z, targets), shared=z).backward()
    # ∂ℓ_t/∂z is R_tᵀ ∂ℓ_t/∂r_t.
    g = [(2 * (leaf.detach() @ M.T - y) / 24) @ M for M, y in zip(R, targets, strict=True)]
    norms = torch.stack([row.norm() for row in g])
    close(leaf.grad, norms.mean() * sum(row / row.norm() for row in g), 1e-5)
    close(balancer.report.weights * norms, norms.mean().expand(3), 1e-5)


def test_rotations_learn_by_the_derivative_of_their_misalignment():
    stage, balancer = built(2, 3, own_lr=0.0)
    stage.double()
    R = tilt(stage)
    leaf = random_jacobian(5, 3, 1).requires_grad_()
    targets = [random_jacobian(5, 3, seed) for seed in (2, 3)]
    found = {}
    stage.register_forward_hook(lambda _, args, __: found.update(m=args[0]))
    z = leaf * 1
    balancer(losses_of(stage, z, targets), shared=z)
    (gradient,) = stage.own_gradients(found["m"])
    g = [(2 * (leaf.detach() @ M.T - y) / 15) @ M for M, y in zip(R, targets, strict=True)]
    v = sum(row * (g[0] + g[1]).norm() / 2 / row.norm() / 2 for row in g)

    def total(generators):
        turned = exponential(generators)
        return sum((v @ M.T - row @ fixed.T).square().sum(1).mean() for M, fixed, row in zip(turned, R, g, strict=True))

    A, h = stage.generators.detach(), 1e-5
    numeric = torch.zeros_like(A)
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(3)).tolist():
        shift = torch.zeros_like(A)
        shift[tuple(index)] = h
        numeric[tuple(index)] = (total(A + shift) - total(A - shift)) / (2 * h)
    close(gradient / numeric.abs().max(), numeric / numeric.abs().max(), 1e-5)
    close(gradient, -gradient.mT, 1e-9)
    assert float(gradient.abs().max()) > 0


def train(stage, balancer, steps):
    """The misalignment and the cosine of two tasks at each step.

    Their gradients at the rotated features are the same up to a rotation, so that rotations can align them.
    """
    seen, path = [], []
    hook = stage.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    c = random_jacobian(8, 4, 2).float()
    Q = rotation(4, 3).float()
    Q[0] *= Q.det()
    for _ in range(steps):
        z = torch.ones(8, 4, requires_grad=True) * 1
        r = stage.rotate(z)
        balancer([1 + (r[0] * c).sum(), 1 + (r[1] * (c @ Q)).sum()], shared=z).backward()
        rows = [row[0] for row in seen[-1].jacobian.rows]
        errors = misalignment(exponential(stage.generators), rows, seen[-1].gramian)
        path.append((float(errors.sum()), float(seen[-1].gramian.cosines[0, 1])))
    hook.remove()
    return path


def test_training_aligns_the_tasks_and_keeps_rotations_orthogonal():
    stage, balancer = built(2, 4, own_lr=0.01)
    path = train(stage, balancer, 400)
    assert path[0][1] < 0.5
    assert path[-1][1] > 0.99
    assert path[-1][0] < 0.02 * path[0][0]
    R = exponential(stage.generators.detach())
    close(R @ R.mT, torch.eye(4).expand(2, 4, 4), 1e-5)
    close(torch.linalg.det(R), [1, 1], 1e-5)


def test_norms_are_compared_with_those_of_the_first_step_and_of_the_end_of_burn_in():
    stage, balancer = built(burn_in=2)
    pull(balancer, FIRST)
    pull(balancer, [[6.0, 8.0], [0.0, 1.0]])
    close(stage.first, [5, 1])
    # Step 2, counted from 0, starts anew, and all norms count the same again.
    close(pull(balancer, [[6.0, 8.0], [0.0, 1.0]]), [0.6 * 5.5, 0.8 * 5.5 + 5.5])
    close(stage.first, [10, 1])
    close(pull(balancer, FIRST), [0.6 * 7 / 3, 0.8 * 7 / 3 + 7 / 3])
    close(stage.first, [10, 1])


def test_without_scaling_it_only_rotates():
    stage, balancer = built(scale=False, own_lr=0.1)
    close(pull(balancer, FIRST), [3, 5])
    assert stage.generators.any()


def test_an_absent_task_keeps_its_norm():
    stage = RotoGrad(2)
    balancer = isonomy.Balancer(stage, tasks=2, allow_missing=True)
    z = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True) * 1
    balancer({"1": 1 + (tensor([0, 2]) * z).sum()}, shared=z).backward()
    assert stage.first.tolist() == [0, 2]
    assert stage.steps.tolist() == [0, 1]
    pull(balancer, FIRST)
    assert stage.first.tolist() == [5, 2]


def test_heads_get_their_own_gradients_and_rotations_none_of_the_losses():
    stage, balancer = built(2, 3)
    heads = [nn.Linear(3, 1) for _ in range(2)]
    leaf = random_jacobian(4, 3, 0).float().requires_grad_()
    z = leaf * 1
    losses = [10 * head(r).mean() for head, r in zip(heads, stage.rotate(z), strict=True)]
    pairs = zip(losses, heads, strict=True)
    expected = [torch.autograd.grad(loss, head.weight, retain_graph=True)[0] for loss, head in pairs]
    balancer(losses, shared=z).backward()
    for head, gradient in zip(heads, expected, strict=True):
        close(head.weight.grad, gradient)
    assert stage.generators.grad is None


def test_the_users_optimiser_may_train_the_rotations():
    stage = RotoGrad(2)
    balancer = isonomy.Balancer(stage, tasks=2, own_optimizer=False)
    pull(balancer, FIRST)
    assert stage.generators.grad.abs().max() > 0
    assert not stage.generators.any()


def test_resumes_bit_for_bit():
    one, balancer = built(2, 4, own_lr=0.01, burn_in=6)
    train(one, balancer, 5)
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    other, resumed = built(2, 4, own_lr=0.01, burn_in=6)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert train(one, balancer, 4) == train(other, resumed, 4)
    assert torch.equal(one.generators, other.generators)
    assert torch.equal(one.first, other.first)


def test_what_cannot_be_rotated():
    stage, balancer = built(2, 3)
    assert balancer.levels == ("features",)
    with pytest.raises(isonomy.IsonomyError, match=r"shape \(5, 2\), and dimension 1 has to be features=3"):
        stage.rotate(torch.ones(5, 2))
    with pytest.raises(isonomy.IsonomyError, match=r"shape \(3,\)"):
        pull(balancer, [[1.0] * 3] * 2, (3,))
    leaf = torch.ones(2, 3, requires_grad=True)
    z, other = leaf * 1, leaf * 2
    with pytest.raises(isonomy.IsonomyError, match="one feature: pass it alone"):
        balancer([(z + other).sum(), (z * other).sum()], shared=[z, other])
    with pytest.raises(isonomy.IsonomyError, match="pass shared=feature"):
        balancer([leaf.sum(), leaf.prod()], shared=leaf)
    with pytest.raises(isonomy.IsonomyError, match=r"pass the stage to isonomy\.Balancer first"):
        RotoGrad(3).rotate(torch.ones(5, 3))
    assert not stage.steps.any()


@pytest.mark.parametrize(
    ("options", "match"), [({"features": 0}, "features=0"), ({"features": 2, "burn_in": -1}, "burn_in=-1")]
)
def test_unusable_options(options, match):
    with pytest.raises(isonomy.IsonomyError, match=match):
        RotoGrad(**options)


def test_needs_a_size():
    with pytest.raises(isonomy.IsonomyError, match="rotograd needs the option features="):
        isonomy.build("rotograd", 2)
