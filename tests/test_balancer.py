"""Balancer against a brute-force reference: every task's gradient by plain autograd, weighted by hand."""

import copy
import io

import pytest
import torch
from torch import nn

import isonomy
from isonomy import Balancer, IsonomyError
from isonomy.gradient import IMTLG, AvgNorm, MaxNorm, NashMTL
from isonomy.loss import EW, Fixed, Log
from isonomy.smoothing import EMA

TASKS = ("seg", "depth", "normal")


class Model(nn.Module):
    """A trunk, a feature and three heads whose losses live on very different scales."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(5, 2) for task in TASKS})
        self.to(dtype)
        self.x = torch.randn(7, 4).to(dtype)
        self.y = {task: torch.randn(7, 2).to(dtype) for task in TASKS}

    def losses(self, z):
        scales = dict(zip(TASKS, (1.0, 30.0, 0.01), strict=True))
        return {task: scales[task] * ((self.heads[task](z) - self.y[task]) ** 2).mean() for task in TASKS}

    def gradients(self):
        return {name: p.grad for name, p in self.named_parameters()}


def reference_rows(model, loss_weights):
    """Rows of J at the trunk's parameters, for balanced losses, by plain autograd."""
    losses = list(model.losses(model.trunk(model.x)).values())
    return [
        torch.cat([g.flatten() for g in torch.autograd.grad(w * loss, model.trunk.parameters(), retain_graph=True)])
        for w, loss in zip(loss_weights, losses, strict=True)
    ]


def trunk_gradient(model):
    return torch.cat([p.grad.flatten() for p in model.trunk.parameters()])


def shared_for(model, level, z):
    return {"parameters": model.trunk, "features": z, "list": list(model.trunk.parameters()), "none": None}[level]


@pytest.mark.parametrize("level", ["parameters", "features", "list", "none"])
@pytest.mark.parametrize("name", ["imtl_g", "nash_mtl", "pcgrad", "log+avgnorm", "uw+max_norm", "gradnorm"])
def test_shared_and_head_gradients_are_the_weighted_ones(name, level):
    model = Model()
    balancer = isonomy.build(name, TASKS)
    z = model.trunk(model.x)
    losses = model.losses(z)
    loss = balancer(losses, shared=shared_for(model, level, z))
    assert loss.item() == pytest.approx(sum(v.item() for v in losses.values()), rel=1e-12)
    loss.backward()

    report = balancer.report
    rows = reference_rows(model, report.loss_weights)
    expected = sum(w * row for w, row in zip(report.weights, rows, strict=True))
    torch.testing.assert_close(trunk_gradient(model), expected, rtol=1e-10, atol=1e-14)

    weighted = balancer.heads == "weighted" and name != "nash_mtl"
    for task, v, w in zip(TASKS, report.loss_weights, report.weights, strict=True):
        (own,) = torch.autograd.grad(model.losses(model.trunk(model.x))[task], model.heads[task].weight)
        factor = v * w if weighted else v
        if name == "nash_mtl":  # Heads get the weights before the aggregate is clipped to norm 1.
            factor = w * 3**0.5
        torch.testing.assert_close(model.heads[task].weight.grad, factor * own, rtol=1e-9, atol=1e-14)


def test_reported_norms_and_cosines_are_those_of_the_balanced_losses():
    model = Model()
    balancer = isonomy.build("log+imtl_g", TASKS)
    balancer(model.losses(model.trunk(model.x)), shared=model.trunk)
    rows = torch.stack(reference_rows(model, balancer.report.loss_weights))
    units = rows / rows.norm(dim=1, keepdim=True)
    torch.testing.assert_close(balancer.report.norms, rows.norm(dim=1))
    torch.testing.assert_close(balancer.report.cosines, units @ units.T)
    aggregate = balancer.report.weights @ rows
    torch.testing.assert_close(balancer.report.alignment, units @ aggregate / aggregate.norm())
    assert balancer.report.conflicts == sum(float(units[i] @ units[j]) < 0 for i in range(3) for j in range(i + 1, 3))


def test_losses_may_be_a_sequence_or_one_tensor():
    grads = []
    for form in (dict, list, torch.stack):
        model = Model()
        losses = model.losses(model.trunk(model.x))
        given = losses if form is dict else form(list(losses.values()))
        isonomy.build("imtl_g", TASKS)(given, shared=model.trunk).backward()
        grads.append(trunk_gradient(model))
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=0)
    torch.testing.assert_close(grads[0], grads[2])


def test_one_loss_for_two_tasks():
    model = Model()
    loss = model.losses(model.trunk(model.x))["seg"]
    isonomy.build("ew", 2)([loss, loss]).backward()
    torch.testing.assert_close(trunk_gradient(model), reference_rows(model, [2.0, 0, 0])[0])


def test_several_features():
    model = Model()
    extra = nn.Linear(4, 5).double()
    z, s = model.trunk(model.x), extra(model.x)
    losses = model.losses(z + s)
    balancer = isonomy.build("imtl_g", TASKS)
    balancer(losses, shared=[z, s]).backward()
    assert extra.weight.grad.abs().sum() > 0
    # The same gradient flows into both features, so norms are sqrt(2) times those at one of them.
    one = isonomy.build("imtl_g", TASKS)
    z = model.trunk(model.x)
    one(model.losses(z + extra(model.x)), shared=z)
    torch.testing.assert_close(balancer.report.norms, one.report.norms * 2**0.5)


def test_a_skip_connection_past_the_feature_is_named_and_a_list_of_features_cures_it():
    class Skip(Model):
        def both(self):
            early = self.trunk[:2](self.x)
            return self.trunk[2:](early), early

        def losses(self, z, early):
            losses = super().losses(z)
            losses["seg"] = losses["seg"] + early.square().mean()
            return losses

    model = Skip()
    z, early = model.both()
    balancer = isonomy.build("imtl_g", TASKS)
    with pytest.raises(IsonomyError, match="'seg' reaches the trunk past shared="):
        balancer(model.losses(z, early), shared=z)
    balancer(model.losses(z, early), shared=[z, early]).backward()
    z, early = model.both()
    expected = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.trunk.parameters(), retain_graph=True)])
        for loss in model.losses(z, early).values()
    ]
    torch.testing.assert_close(
        trunk_gradient(model), sum(w * g for w, g in zip(balancer.report.weights, expected, strict=True))
    )


def test_tied_weights():
    torch.manual_seed(0)
    shared, head = nn.Linear(3, 3), nn.Linear(3, 3)
    x = torch.randn(4, 3)

    def losses():
        z = shared(x)
        return z, [(z @ shared.weight).square().mean(), head(z).square().mean()]

    z, values = losses()
    balancer = isonomy.build("ew+max_norm", 2)
    balancer(values, shared=z).backward()
    z, values = losses()
    (past,) = torch.autograd.grad((z.detach() @ shared.weight).square().mean(), shared.weight)
    at_z = [torch.autograd.grad(v, z, retain_graph=True)[0] for v in values]
    (through,) = torch.autograd.grad(
        z, shared.weight, sum(w.float() * g for w, g in zip(balancer.report.weights, at_z, strict=True))
    )
    torch.testing.assert_close(shared.weight.grad, past + through)

    shared.zero_grad()
    z, values = losses()
    balancer = isonomy.build("imtl_g", 2)
    balancer(values, shared=shared).backward()
    rows = [torch.autograd.grad(v, shared.weight, retain_graph=True)[0] for v in losses()[1]]
    expected = sum(w.float() * row for w, row in zip(balancer.report.weights, rows, strict=True))
    torch.testing.assert_close(shared.weight.grad, expected)


def test_features_summed_over_the_batch():
    model = Model()
    balancer = isonomy.build("imtl_g", TASKS, feature_reduce="batch_sum")
    z = model.trunk(model.x)
    balancer(model.losses(z), shared=z).backward()
    through = model.trunk(model.x)
    zs = [torch.autograd.grad(loss, through, retain_graph=True)[0] for loss in model.losses(through).values()]
    torch.testing.assert_close(balancer.report.norms, torch.stack([g.sum(0).norm() for g in zs]))
    expected = sum(w * g for w, g in zip(balancer.report.weights, reference_rows(model, [1.0] * 3), strict=True))
    torch.testing.assert_close(trunk_gradient(model), expected)


def test_probe_measures_there_and_applies_everywhere():
    for level in ("parameters", "features"):
        model = Model()
        balancer = isonomy.build("avgnorm", TASKS)
        z = model.trunk(model.x)
        balancer(model.losses(z), shared=shared_for(model, level, z), probe=model.trunk[2]).backward()
        losses = model.losses(model.trunk(model.x))
        rows = torch.stack(
            [
                torch.cat(
                    [g.flatten() for g in torch.autograd.grad(loss, model.trunk[2].parameters(), retain_graph=True)]
                )
                for loss in losses.values()
            ]
        )
        torch.testing.assert_close(balancer.report.norms, rows.norm(dim=1))
        torch.testing.assert_close(balancer.report.weights, rows.sum(0).norm() / rows.norm(dim=1))
        expected = sum(w * r for w, r in zip(balancer.report.weights, reference_rows(model, [1.0] * 3), strict=True))
        torch.testing.assert_close(trunk_gradient(model), expected)
        head = model.heads["depth"].weight
        (own,) = torch.autograd.grad(losses["depth"], head)
        torch.testing.assert_close(head.grad, balancer.report.weights[1] * own)


@pytest.mark.parametrize("level", ["parameters", "features"])
@pytest.mark.parametrize("heads", ["own", "weighted"])
def test_update_every_reuses_the_last_weights(level, heads):
    model = Model()
    balancer = isonomy.build("imtl_g", TASKS, update_every=2, heads=heads)
    z = model.trunk(model.x)
    balancer(model.losses(z), shared=shared_for(model, level, z)).backward()
    first, grads = balancer.report, model.gradients()
    for p in model.parameters():
        p.grad = None
    z = model.trunk(model.x)
    balancer(model.losses(z), shared=shared_for(model, level, z)).backward()
    torch.testing.assert_close(balancer.report.weights, first.weights)
    assert balancer.report.norms is None
    for name, grad in model.gradients().items():
        torch.testing.assert_close(grad, grads[name])
    with torch.no_grad():
        model.trunk[0].weight.mul_(3)
    balancer(model.losses(model.trunk(model.x)), shared=model.trunk)
    assert not torch.equal(balancer.report.weights, first.weights)


def test_reused_weights_without_any_head():
    theta = torch.ones(2, dtype=torch.float64, requires_grad=True)
    balancer = isonomy.build("imtl_g", 2, update_every=2)
    gradients = []
    for _ in range(2):
        loss = balancer([theta[0] * 3, theta[1] * 4], shared=theta)
        gradients.append(torch.autograd.grad(loss, theta)[0])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_missing_tasks_are_balanced_among_the_present():
    model = Model()
    balancer = isonomy.build("log+imtl_g", TASKS, allow_missing=True)
    losses = model.losses(model.trunk(model.x))
    del losses["depth"]
    loss = balancer(losses, shared=model.trunk)
    loss.backward()
    two = isonomy.build("log+imtl_g", ["seg", "normal"])
    fresh = Model()
    z = fresh.losses(fresh.trunk(fresh.x))
    two({"seg": z["seg"], "normal": z["normal"]}, shared=fresh.trunk).backward()
    torch.testing.assert_close(trunk_gradient(model), trunk_gradient(fresh))
    assert balancer.report.weights[1].isnan()
    assert balancer.report.cosines[1].isnan().all()
    assert balancer.report.cosines[0, 2] == two.report.cosines[0, 1]
    assert balancer.report.alignment[1].isnan()
    torch.testing.assert_close(balancer.report.alignment[[0, 2]], two.report.alignment)
    assert model.heads["depth"].weight.grad is None
    with pytest.raises(IsonomyError, match="'depth'"):
        isonomy.build("imtl_g", TASKS)(losses, shared=model.trunk)


def test_missing_tasks_keep_their_average():
    balancer = Balancer(EMA(beta=0.5, decay=0), MaxNorm(), tasks=2, allow_missing=True)
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    one, two = theta @ torch.tensor([2.0, 0.0]).double(), theta @ torch.tensor([0.0, 4.0]).double()
    balancer({"0": one, "1": two}, shared=theta)
    before = balancer.stages[0].average[1].clone()
    balancer({"0": theta @ torch.tensor([2.0, 0.0]).double()}, shared=theta)
    torch.testing.assert_close(balancer.stages[0].average[1], before)
    assert balancer.stages[0].steps.tolist() == [2, 1]


def test_a_task_with_a_zero_gradient_trains_its_head():
    model = Model()
    nn.init.zeros_(model.heads["seg"].weight)  # Nothing flows from a zero head into the trunk.
    balancer = isonomy.build("nash_mtl", TASKS)
    balancer(model.losses(model.trunk(model.x)), shared=model.trunk).backward()
    assert balancer.report.weights[0] == 0
    (own,) = torch.autograd.grad(model.losses(model.trunk(model.x))["seg"], model.heads["seg"].weight)
    torch.testing.assert_close(model.heads["seg"].weight.grad, own)


def test_own_parameters_are_trained_by_the_method_or_by_the_user():
    model = Model()
    own = isonomy.build("uw", TASKS)
    assert not any(p.requires_grad for p in own.parameters())
    own(model.losses(model.trunk(model.x))).backward()
    s = own.stages[0].log_variances
    assert s.grad is None
    assert s.abs().min() > 0  # Adam's first step is as long as its learning rate.
    torch.testing.assert_close(s.abs(), torch.full((3,), 0.025), rtol=1e-4, atol=0)

    users = isonomy.build("uw", TASKS, own_optimizer=False)
    losses = model.losses(model.trunk(model.x))
    (users(losses) * 2).backward()
    expected = 2 * (0.5 - 0.5 * torch.stack(list(losses.values())).detach())
    torch.testing.assert_close(users.stages[0].log_variances.grad, expected.float())


def test_own_parameters_of_a_gradient_balancer_by_the_user():
    model = Model()
    users = isonomy.build("gradnorm", TASKS, own_optimizer=False, alpha=0)
    users(model.losses(model.trunk(model.x)), shared=model.trunk).backward()
    norms = users.report.norms
    expected = torch.sign(norms - norms.mean()) * norms
    torch.testing.assert_close(users.stages[0].scores.grad, expected.float())


def test_gradients_accumulate_and_scale_like_any_loss():
    model = Model()
    for _ in range(2):
        (isonomy.build("imtl_g", TASKS)(model.losses(model.trunk(model.x)), shared=model.trunk) / 4).backward()
    total = trunk_gradient(model)
    fresh = Model()
    isonomy.build("imtl_g", TASKS)(fresh.losses(fresh.trunk(fresh.x)), shared=fresh.trunk).backward()
    torch.testing.assert_close(total, trunk_gradient(fresh) / 2)


@pytest.mark.parametrize("name", ["log+max_norm", "db_mtl", "uw+imtl_g", "uw"])
def test_grad_scaler_changes_nothing_but_the_scale(name):
    grads = []
    for init in (None, 2.0**16):
        scaler = None if init is None else torch.amp.GradScaler("cpu", init_scale=init)
        model = Model(torch.float32)
        balancer = isonomy.build(name, TASKS)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            loss = balancer(model.losses(model.trunk(model.x)), shared=model.trunk, grad_scaler=scaler)
            optimizer.zero_grad()
            if scaler is None:
                loss.backward()
                optimizer.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
        grads.append(torch.cat([p.flatten() for p in model.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["graddrop", "rotograd", "mgda"])
def test_gradients_below_float16_survive_at_a_feature(name):
    grads = []
    for dtype, scale in ((torch.float32, 1.0), (torch.float16, 2.0**16)):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        balancer = isonomy.build(name, 2, **({"features": 3} if name == "rotograd" else {}))
        weight = torch.eye(3, requires_grad=True)
        z = torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 1.0]]).to(dtype) @ weight.to(dtype)
        read = [z.float() @ torch.tensor(row) for row in ([3e-9, 2e-8, 1e-9], [1e-8, 1e-8, 2e-9])]
        scaler.scale(balancer([1 + r.sum() for r in read], shared=z, grad_scaler=scaler)).backward()
        grads.append(weight.grad / scale * 1e8)
    assert grads[0].abs().max() > 1
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-2, atol=1e-2)


BROKEN = [("db_mtl", "loss"), ("db_mtl", "gradient"), ("uw+imtl_g", "loss"), ("uw+imtl_g", "gradient"), ("uw", "loss")]


@pytest.mark.parametrize(("name", "broken"), BROKEN)
def test_grad_scaler_skips_a_step_that_overflows_and_the_state_stays(name, broken):
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    model = Model(torch.float32)
    balancer = isonomy.build(name, TASKS)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    balancer(model.losses(model.trunk(model.x)), shared=model.trunk, grad_scaler=scaler)
    state, before = copy.deepcopy(balancer.state_dict()), copy.deepcopy(model.state_dict())
    losses = model.losses(model.trunk(model.x))
    if broken == "loss":
        losses["depth"] = losses["depth"] * torch.inf
    else:
        # Finite as a loss; its gradient is 0/0.
        losses["depth"] = losses["depth"] + (model.trunk(model.x) * 0).square().sum().sqrt()
    scaler.scale(balancer(losses, shared=model.trunk, grad_scaler=scaler)).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0
    assert isonomy.testing.same_state(state, balancer.state_dict())
    assert isonomy.testing.same_state(before, model.state_dict())


@pytest.mark.parametrize(("name", "broken"), BROKEN)
@pytest.mark.parametrize("level", ["parameters", "features"])
def test_skip_gives_zero_gradients_and_keeps_the_state(name, broken, level):
    model = Model()
    options = {"beta": 0.0} if name == "db_mtl" else {}
    balancer = isonomy.build(name, TASKS, nonfinite="skip", **options)
    z = model.trunk(model.x)
    balancer(model.losses(z), shared=shared_for(model, level, z))
    state = copy.deepcopy(balancer.state_dict())
    z = model.trunk(model.x)
    losses = model.losses(z)
    losses["depth"] = (
        losses["depth"] * torch.nan if broken == "loss" else losses["depth"] + (z * 0).square().sum().sqrt()
    )
    balancer(losses, shared=shared_for(model, level, z)).backward()
    assert all(not p.grad.any() for p in model.parameters())
    assert isonomy.testing.same_state(state, balancer.state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_features_in_half_precision(dtype):
    model = Model(torch.float32)
    balancer = isonomy.build("db_mtl", TASKS, beta=0.0)
    with torch.autocast("cpu", dtype=dtype):
        z = model.trunk(model.x.half().float())
        losses = model.losses(z)
    balancer(losses, shared=z).backward()
    exact = Model(torch.float32)
    z = exact.trunk(exact.x)
    isonomy.build("db_mtl", TASKS, beta=0.0)(exact.losses(z), shared=z).backward()
    one, other = trunk_gradient(model), trunk_gradient(exact)
    assert float(torch.nn.functional.cosine_similarity(one, other, dim=0)) > 0.999
    assert float(one.norm() / other.norm()) == pytest.approx(1, rel=0.02)


def test_a_bfloat16_model():
    model = Model(torch.bfloat16)
    isonomy.build("db_mtl", TASKS)(model.losses(model.trunk(model.x)), shared=model.trunk).backward()
    assert all(p.grad.dtype == torch.bfloat16 and p.grad.isfinite().all() for p in model.parameters())


def test_batch_norm_and_dropout_run_once():
    model = Model(torch.float32)
    norm = nn.BatchNorm1d(5)
    z = norm(model.trunk(model.x))
    isonomy.build("imtl_g", TASKS)(model.losses(z), shared=z).backward()
    assert norm.num_batches_tracked == 1


def test_frozen_layers_stay_without_gradient():
    model = Model()
    model.trunk[0].requires_grad_(False)
    isonomy.build("imtl_g", TASKS)(model.losses(model.trunk(model.x)), shared=model.trunk).backward()
    assert model.trunk[0].weight.grad is None
    assert model.trunk[2].weight.grad.any()


def test_recurrent_trunk():
    torch.manual_seed(0)
    rnn = nn.GRU(3, 4, batch_first=True)
    heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(2))
    out, _ = rnn(torch.randn(5, 6, 3))
    balancer = isonomy.build("imtl_g", 2)
    balancer([h(out[:, -1]).square().mean() for h in heads], shared=out).backward()
    assert all(p.grad is not None for p in rnn.parameters())


def test_activation_checkpointing():
    from torch.utils.checkpoint import checkpoint

    plain, saving = Model(), Model()
    for model, trunk in ((plain, plain.trunk), (saving, lambda x: checkpoint(saving.trunk, x, use_reentrant=False))):
        isonomy.build("imtl_g", TASKS)(model.losses(trunk(model.x)), shared=model.trunk).backward()
    torch.testing.assert_close(trunk_gradient(saving), trunk_gradient(plain))


def test_evaluation_returns_the_plain_sum_on_the_graph():
    model = Model()
    balancer = isonomy.build("db_mtl", TASKS).eval()
    balancer(model.losses(model.trunk(model.x)), shared=model.trunk).backward()
    torch.testing.assert_close(trunk_gradient(model), sum(reference_rows(model, [1.0] * 3)))
    with pytest.raises(IsonomyError, match="no report"):
        _ = balancer.report


def test_state_loads_as_a_part_of_a_larger_module():
    whole = nn.ModuleDict({"model": nn.Linear(2, 2), "balancer": isonomy.build("imtl", 2)})
    other = nn.ModuleDict({"model": nn.Linear(2, 2), "balancer": isonomy.build("imtl", 2)})
    other.load_state_dict(whole.state_dict())
    wrong = nn.ModuleDict({"model": nn.Linear(2, 2), "balancer": isonomy.build("imtl", 3)})
    with pytest.raises(IsonomyError, match="tasks"):
        wrong.load_state_dict(whole.state_dict())
    with pytest.raises(IsonomyError, match="stages"):
        isonomy.build("uw", 2).load_state_dict(isonomy.build("log", 2).state_dict())
    with pytest.raises(IsonomyError, match="own_optimizer"):
        isonomy.build("uw", 2, own_optimizer=False).load_state_dict(isonomy.build("uw", 2).state_dict())


def test_pretrained_weights_load_around_a_balancer():
    whole = nn.ModuleDict({"model": nn.Linear(2, 2), "balancer": isonomy.build("uw", 2)})
    weights = {"model.weight": torch.ones(2, 2), "model.bias": torch.zeros(2)}
    whole.load_state_dict(weights, strict=False)
    assert whole["model"].weight.eq(1).all()
    with pytest.raises(RuntimeError, match="Missing key"):
        whole.load_state_dict(weights)


def test_loading_by_assignment_and_from_a_snapshot_goes_on_bit_for_bit():
    def step(balancer):
        theta = torch.ones(2, requires_grad=True)
        balancer([theta.sum(), theta.square().sum() / 3])

    original = isonomy.build("uw", 2)
    step(original)
    snapshot = original.state_dict()
    frozen = copy.deepcopy(snapshot)
    assigned, copied = isonomy.build("uw", 2), isonomy.build("uw", 2)
    copied.load_state_dict(snapshot)
    step(copied)
    assert isonomy.testing.same_state(snapshot, frozen)  # Training the copy does not train the snapshot.
    assigned.load_state_dict(frozen, assign=True)
    step(assigned)
    step(original)
    torch.testing.assert_close(assigned.stages[0].log_variances, original.stages[0].log_variances, rtol=0, atol=0)
    torch.testing.assert_close(copied.stages[0].log_variances, original.stages[0].log_variances, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:for .* meta parameter")
def test_an_average_is_loaded_to_the_device_of_the_balancer():
    trained = isonomy.build("db_mtl", 2)
    trained.aggregate(torch.eye(2))
    other = isonomy.build("db_mtl", 2).to("meta")
    other.load_state_dict(trained.state_dict())
    assert other.stages[1].average.device.type == "meta"


@pytest.mark.parametrize("name", ["uw", "imtl_l", "gradnorm"])
def test_an_absent_task_keeps_its_own_parameter(name):
    balancer = isonomy.build(name, ["a", "b"], allow_missing=True)
    theta = torch.ones(2, requires_grad=True)

    def losses():
        return {"a": theta.square().sum(), "b": theta.sum() / 3}

    for _ in range(2):
        balancer(losses(), shared=theta)
    (parameter,) = balancer.parameters()
    before = parameter.detach().clone()
    moments = [v.clone() for v in balancer._own.optimizers[0].state[parameter].values()]
    balancer({"a": losses()["a"]}, shared=theta)
    if name != "gradnorm":  # Its weights sum to T, so the present one's cannot move alone.
        assert parameter[0] != before[0]
        assert parameter[1] == before[1]
    after = balancer._own.optimizers[0].state[parameter].values()
    assert all(a[1] == b[1] for a, b in zip(after, moments, strict=True) if a.ndim)


def test_a_task_that_misses_the_first_step_has_no_moments_of_it():
    # The present tasks' loss depends on the absent one's score, through the softmax.
    balancer = isonomy.build("gradnorm", ["a", "b", "c"], allow_missing=True, simplex="softmax")
    theta = torch.ones(2, requires_grad=True)
    balancer({"a": theta.square().sum(), "b": theta.sum() / 3}, shared=theta)
    (parameter,) = balancer.parameters()
    state = balancer._own.optimizers[0].state[parameter]
    assert parameter[0] != 1
    assert parameter[2] == 1
    assert state["exp_avg"][0] != 0
    assert state["exp_avg"][2] == state["exp_avg_sq"][2] == 0


def test_weights_are_measured_anew_for_a_task_that_had_no_part():
    balancer = isonomy.build("nash_mtl", ["a", "b"], update_every=3, allow_missing=True)
    theta = torch.ones(2, dtype=torch.float64, requires_grad=True)
    balancer({"a": 1000 * theta[0]}, shared=theta)
    balancer({"a": 1000 * theta[0], "b": theta[1]}, shared=theta)
    first = balancer.report
    assert first.norms is not None
    assert first.weights[1] == pytest.approx(1000 * float(first.weights[0]))
    balancer({"a": 1000 * theta[0], "b": theta[1]}, shared=theta)
    assert balancer.report.norms is None
    torch.testing.assert_close(balancer.report.weights, first.weights)


def test_an_average_belongs_to_its_parameter():
    one, two = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    heads = [nn.Linear(2, 1) for _ in range(2)]
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    balancer = isonomy.build("db_mtl", 2)
    shared = nn.ModuleList([one, two])

    def losses(used):
        return [head(sum(layer(x) for layer in used)).square().mean() for head in heads]

    balancer(losses([one]), shared=shared)
    assert not balancer.stages[1].average[:, 4:].any()
    balancer(losses([two]), shared=shared).backward()
    assert one.weight.grad is None
    assert balancer.stages[1].average[:, 4:].any()
    with pytest.raises(IsonomyError, match="history by parameter"):
        balancer(losses([one, two]))


def test_hooks_see_the_balanced_gradient_once():
    plain, hooked = Model(), Model()
    for level in ("features", "parameters"):
        grads, seen = [], []
        for model in (plain, hooked):
            model.zero_grad()
            z = model.trunk(model.x)
            if model is hooked:
                handle = model.trunk[2].weight.register_hook(lambda g, s=seen: s.append(g) or 0.5 * g)
                z.register_hook(lambda g, s=seen: s.append(g))
            isonomy.build("imtl_g", TASKS)(model.losses(z), shared=shared_for(model, level, z)).backward()
            grads.append(model.trunk[2].weight.grad.clone())
        handle.remove()
        torch.testing.assert_close(grads[1], grads[0] / 2)
        assert len(seen) == (2 if level == "features" else 4)  # At the parameters each task runs through z.


def test_a_feature_that_retains_its_gradient_is_refused():
    model = Model()
    z = model.trunk(model.x)
    z.retain_grad()
    with pytest.raises(IsonomyError, match="retain_grad"):
        isonomy.build("imtl_g", TASKS)(model.losses(z), shared=z)


def test_complex_parameters():
    torch.manual_seed(0)
    w = torch.randn(3, 3, dtype=torch.complex128, requires_grad=True)
    x = torch.randn(3, 4, dtype=torch.complex128)

    def losses():
        return [((w @ x)[t]).abs().square().mean() for t in range(3)]

    balancer = isonomy.build("max_norm", 3)
    balancer(losses(), shared=w).backward()
    rows = [torch.autograd.grad(loss, w)[0] for loss in losses()]
    torch.testing.assert_close(balancer.report.norms, torch.stack([row.abs().square().sum().sqrt() for row in rows]))
    torch.testing.assert_close(w.grad, sum(a * row for a, row in zip(balancer.report.weights, rows, strict=True)))


def test_sparse_gradients_are_refused_by_name():
    table = nn.Embedding(5, 3, sparse=True)
    z = table(torch.tensor([0, 1]))
    with pytest.raises(IsonomyError, match="sparse"):
        isonomy.build("imtl_g", 2)([z.sum(), z.square().sum()], shared=table)


@pytest.mark.parametrize("level", ["features", "parameters"])
def test_retain_graph_keeps_the_graph_for_terms_besides_the_losses(level):
    model = Model()
    z = model.trunk(model.x)
    losses = model.losses(z)
    loss = isonomy.build("imtl_g", TASKS)(losses, shared=shared_for(model, level, z), retain_graph=True)
    (loss + z.square().mean() + losses["seg"]).backward()
    fresh = Model()
    z = fresh.trunk(fresh.x)
    isonomy.build("imtl_g", TASKS)(fresh.losses(z), shared=shared_for(fresh, level, z)).backward()
    z = fresh.trunk(fresh.x)
    (z.square().mean() + fresh.losses(z)["seg"]).backward()
    torch.testing.assert_close(trunk_gradient(model), trunk_gradient(fresh))


def test_stages_of_a_refused_balancer_can_be_used_again():
    log = Log()
    with pytest.raises(IsonomyError, match="2 entries for 3 tasks"):
        Balancer(log, Fixed([1.0, 2.0]), tasks=3)
    Balancer(log, tasks=3)


@pytest.mark.parametrize("name", [m.name for m in isonomy.methods() if m.stages and m.name != "rotograd"])
def test_the_default_device_does_not_matter(name):
    def steps(balancer):
        theta = torch.ones(3, requires_grad=True, device="cpu")
        for _ in range(3):
            loss = balancer([theta[:2].square().sum(), (theta[1:] - 3).square().sum()], shared=[theta])
            loss.backward()
        return theta.grad

    balancer = isonomy.build(name, 2)
    expected = steps(copy.deepcopy(balancer))
    with torch.device("meta"):
        found = steps(balancer)
    torch.testing.assert_close(found, expected)


def test_own_parameters_of_the_user_take_part_in_a_skipped_step():
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    balancer = isonomy.build("uw", 2, own_optimizer=False)
    theta = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD(balancer.parameters(), 0.1)
    loss = balancer([theta.sum() * torch.inf, theta.sum()], grad_scaler=scaler)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0
    assert not balancer.stages[0].log_variances.any()


def test_a_stage_belongs_to_one_balancer():
    stage = Log()
    Balancer(stage, tasks=2)
    with pytest.raises(IsonomyError, match="another balancer"):
        Balancer(stage, tasks=3)


def test_a_number_of_tasks_of_any_integer_type():
    assert isonomy.build("ew", torch.tensor(3)).tasks == ("0", "1", "2")


def test_a_copy_is_independent():
    balancer = isonomy.build("uw", 2)
    twin = copy.deepcopy(balancer)
    theta = torch.ones(2, requires_grad=True)
    twin([theta.sum(), theta.square().sum()])
    assert not balancer.stages[0].log_variances.any()
    assert twin.stages[0].log_variances.any()


def test_state_follows_the_losses_to_another_device():
    balancer = isonomy.build("imtl", 2)
    theta = torch.ones(2, requires_grad=True)
    balancer([theta.sum(), theta.square().sum()], shared=theta)
    balancer._follow(torch.device("meta"))
    balancer._own.follow()
    tensors = [*balancer.parameters(), *balancer.buffers()]
    tensors += [s["exp_avg"] for optimizer in balancer._own.optimizers for s in optimizer.state.values()]
    assert len(tensors) == 3
    assert {t.device.type for t in tensors} == {"meta"}


def test_state_keeps_its_precision_when_the_model_is_cast():
    whole = nn.ModuleDict({"model": nn.Linear(2, 2), "balancer": isonomy.build("imtl", 2)}).half()
    assert whole["model"].weight.dtype == torch.float16
    balancer = whole["balancer"]
    assert {t.dtype for t in balancer.parameters()} == {torch.float32}
    assert {t.dtype for t in balancer.buffers()} == {torch.float64}


def test_the_state_survives_a_file():
    balancer = isonomy.build("db_mtl", 2)
    balancer.aggregate(torch.eye(2))
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    resumed = isonomy.build("db_mtl", 2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(resumed.aggregate(torch.ones(2, 2)), balancer.aggregate(torch.ones(2, 2)))
    fresh = isonomy.build("db_mtl", 2)
    balancer.load_state_dict(fresh.state_dict())  # Back to before the first step.
    torch.testing.assert_close(balancer.aggregate(torch.eye(2)), fresh.aggregate(torch.eye(2)))


def test_aggregate_keeps_the_dtype_and_equals_the_weights():
    jacobian = torch.tensor([[3.0, 0.0, 1.0], [-1.0, 2.0, 0.0]])
    balancer = isonomy.build("cagrad", 2)
    weights = balancer.weights(jacobian.double() @ jacobian.double().T)
    aggregate = isonomy.build("cagrad", 2).aggregate(jacobian)
    assert aggregate.dtype == torch.float32
    torch.testing.assert_close(aggregate.double(), weights @ jacobian.double())
    assert balancer.report.losses.isnan().all()
    # A history is float32 at least.
    assert isonomy.build("db_mtl", 2).aggregate(jacobian.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("stages", "options", "match"),
    [
        ((), {}, "no stage"),
        ((MaxNorm(), Log()), {}, "cannot follow"),
        ((MaxNorm(), IMTLG()), {}, "cannot follow"),
        ((EMA(),), {}, "cannot follow"),
        ((nn.Linear(1, 1),), {}, "Linear"),
        ((Log(),) * 2, {}, "Log .* twice"),
        ((EW(),), {"heads": "mine"}, "'mine'"),
        ((EW(),), {"nonfinite": "zero"}, "'zero'"),
        ((EW(),), {"feature_reduce": "sum"}, "'batch_sum'"),
        ((EW(),), {"update_every": 0}, "update_every=0"),
        ((EMA(), MaxNorm()), {"update_every": 2}, "every step"),
        ((EW(),), {"tasks": 0}, "no task"),
        ((EW(),), {"tasks": ["a", "b", "a"]}, "'a' twice"),
        ((EW(),), {"tasks": "abc"}, "one string"),
        ((Fixed([1.0]),), {}, "1 entries for 2 tasks"),
    ],
)
def test_construction_refuses(stages, options, match):
    with pytest.raises(IsonomyError, match=match):
        Balancer(*stages, **({"tasks": 2} | options))


def test_a_call_refuses():
    model = Model()
    z = model.trunk(model.x)
    losses = model.losses(z)
    balancer = isonomy.build("imtl_g", TASKS)
    cases = [
        (lambda: balancer(losses, shared=z.detach()), "detached"),
        (lambda: balancer(losses, shared=model.trunk(model.x)), "does not reach"),
        (lambda: balancer(losses, shared="trunk"), "str"),
        (lambda: balancer(losses, shared=3), "int"),
        (lambda: balancer(losses, shared=[]), "no parameter"),
        (lambda: balancer(losses, shared=nn.ReLU()), "no parameter"),
        (lambda: balancer(losses, shared=[z, model.trunk[0].weight]), "mixes"),
        (lambda: balancer(losses, shared=model.heads["seg"]), "'depth' and 'normal'"),
        (lambda: balancer({}, shared=z), "lacks task"),
        (lambda: isonomy.build("ew", 3, allow_missing=True)({}), "empty"),
        (lambda: balancer([losses["seg"]], shared=z), "1 losses for 3 tasks"),
        (lambda: balancer(torch.ones(3, 2), shared=z), "shape"),
        (lambda: balancer([1.0, 2.0, 3.0], shared=z), "float"),
        (lambda: isonomy.build("db_mtl", TASKS)(losses, shared=z), "keeps a history"),
        (lambda: isonomy.build("db_mtl", TASKS)(losses, shared=model.trunk, probe=model.trunk[2]), "probe"),
        (lambda: isonomy.build("log", TASKS)({**losses, "seg": -losses["seg"]}), "'seg' is -"),
        (lambda: isonomy.build("gls", TASKS)({**losses, "seg": 0 * losses["seg"]}), "positive"),
        (lambda: isonomy.build("gradnorm", TASKS)({**losses, "seg": -losses["seg"]}, shared=z), "GradNorm"),
        (lambda: isonomy.build("log", 2).aggregate(torch.eye(2)), "no gradient side"),
        (lambda: isonomy.build("gradnorm", 2).aggregate(torch.eye(2)), "needs the losses"),
        (lambda: isonomy.build("db_mtl", 2).weights(torch.eye(2)), "aggregate"),
        (lambda: isonomy.build("mgda", 2).weights(torch.eye(3)), "shape"),
        (lambda: isonomy.build("mgda", 2).aggregate(torch.eye(3)), "shape"),
        (lambda: isonomy.build("mgda", 2).aggregate(torch.full((2, 2), torch.nan)), "finite"),
    ]
    for call, match in cases:
        with pytest.raises(IsonomyError, match=match):
            call()
    assert all(p.grad is None for p in model.parameters())
    balancer(losses, shared=z).backward()  # The graph is as it was.


def test_no_shared_parameter_at_all():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with pytest.raises(IsonomyError, match="shares no parameter with another task's"):
        isonomy.build("imtl_g", 2)([a.sum(), b.sum()])


def test_the_readme_composition():
    balancer = Balancer(Log(), EMA(beta=0.9), MaxNorm(), tasks=TASKS)
    assert balancer.levels == ("parameters",)
    assert balancer.needs == ("gramian", "jacobian")
    assert Balancer(EW(), tasks=1).levels == ()
    assert Balancer(IMTLG(), tasks=2).levels == ("features", "parameters")
    assert Balancer(EMA(beta=0), AvgNorm(), tasks=2).levels == ("parameters", "features")
    assert Balancer(NashMTL(), tasks=2, heads="own").heads == "own"


class Listener(isonomy.LossBalancer):
    """Learns one number from the losses after the step."""

    uses = ("step_losses", "validation")
    own_lr = 0.1

    def setup(self, tasks):
        self.score = torch.nn.Parameter(torch.zeros(tasks))
        self.heard = []

    def forward(self, losses, active):
        return losses * (1 + self.score.detach()[active])

    def step_end(self, losses, active):
        self.heard.append(losses.tolist())
        return [-losses.to(self.score)]

    def epoch_end(self, metrics, learning_rate):
        self.metrics, self.learning_rate = metrics, learning_rate


def test_step_and_epoch_end_reach_the_stages():
    stage = Listener()
    balancer = Balancer(stage, tasks=["a", "b"])
    assert balancer.needs == ("step_losses", "validation")
    balancer.epoch_end({"b": 0.5}, learning_rate=1e-3)
    assert stage.metrics[1] == 0.5
    assert stage.metrics[0].isnan()
    assert stage.learning_rate == 1e-3
    with pytest.raises(IsonomyError, match="Unknown task 'c'"):
        balancer.epoch_end({"c": 0.5})
    with pytest.raises(IsonomyError, match=r"Listener weighs tasks by their validation metrics: .*'a': 0.7"):
        balancer.epoch_end()


def test_a_stage_learns_from_the_losses_after_the_step():
    stage = Listener()
    balancer = Balancer(stage, tasks=2)
    theta = torch.ones(2, requires_grad=True)
    balancer(theta).backward()  # The balanced losses do not depend on the score: it is not trained here.
    assert theta.grad.tolist() == [1, 1]
    assert not stage.score.any()
    balancer.step_end([torch.tensor(1.0), torch.tensor(2.0)])
    torch.testing.assert_close(stage.score.data, torch.tensor([0.1, 0.1]))  # Adam's first step.
    balancer.step_end([torch.tensor(1.0), torch.tensor(float("nan"))])
    assert stage.heard == [[1.0, 2.0]]
    with pytest.raises(IsonomyError, match="own_optimizer=False: 'Listener' learns from the losses after the step"):
        Balancer(Listener(), tasks=2, own_optimizer=False)
    with pytest.raises(IsonomyError, match="'Listener' compares the losses before a step and after it: put it first"):
        Balancer(Log(), Listener(), tasks=2)
