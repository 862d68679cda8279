"""LibMTL 1.1.5, the newest on the package index, on a tiny network: where it agrees, and each difference that is known.

The package does not import beside today's torchvision, so its weighting methods are loaded without the rest of it. It
computes in float32, which is what most tolerances are for.
"""

import importlib
import importlib.util
import random
import sys
import types

import pytest
import torch
from torch import nn

import isonomy
from tests.fixtures import B, E, F, aggregate, close, parallel, random_jacobian, tensor

spec = importlib.util.find_spec("LibMTL")
if spec is None:
    # An optional peer: importorskip cannot be asked, since the package itself does not import.
    pytest.skip("LibMTL is not installed: `make test-peers` installs it", allow_module_level=True)
package = sys.modules.setdefault("LibMTL", types.ModuleType("LibMTL"))
package.__path__ = list(spec.submodule_search_locations)
weighting = importlib.import_module("LibMTL.weighting")

pytestmark = pytest.mark.peers

FLOAT32 = 1e-5


class Network(nn.Module):
    """Three tasks on one shared layer, with losses of different kind."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Linear(4, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 2) for _ in range(3))
        self.x, self.y = torch.randn(16, 4), torch.randn(3, 16, 2)

    def losses(self, z):
        differences = [head(feature) - y for head, feature, y in zip(self.heads, z, self.y, strict=True)]
        return [differences[0].square().mean(), differences[1].abs().mean(), 3 * differences[2].square().mean()]

    def grads(self):
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters()]


def method_of(name, tasks, parameters, **attributes):
    """LibMTL's method, as its trainer sets it up."""

    class Method(getattr(weighting, name)):
        def get_share_params(self):
            return parameters

        def zero_grad_share_params(self):
            for parameter in parameters:
                parameter.grad.zero_()

    method = Method()
    method.task_num, method.task_name, method.device = tasks, list(range(tasks)), torch.device("cpu")
    method.rep_grad, method.epoch = False, 0
    vars(method).update(attributes)
    method.init_param()
    return method


def peer(name, network, features=False, epoch=0, train_loss_buffer=None, **options):
    """A step of LibMTL's method; returns the network's gradients and the method."""
    parameters = list(network.trunk.parameters())
    method = method_of(name, 3, parameters, epoch=epoch, train_loss_buffer=train_loss_buffer)
    network.zero_grad()
    z = network.trunk(network.x).tanh()
    leaves = [z] * 3
    if features:
        leaves = [z.detach().clone().requires_grad_() for _ in range(3)]
        method.rep_grad, method.rep, method.rep_tasks = True, z, dict(enumerate(leaves))
    method.backward(torch.stack(network.losses(leaves)), **options)
    return network.grads(), method


def step(balancer, network, features=False):
    """The same step with Isonomy; returns the network's gradients."""
    network.zero_grad()
    z = network.trunk(network.x).tanh()
    shared = (z if features else network.trunk) if balancer.levels else None
    balancer(network.losses([z] * 3), shared=shared).backward()
    return network.grads()


def same(ours, theirs, tolerance=FLOAT32):
    for one, other in zip(ours, theirs, strict=True):
        close(one, other, tolerance)


def flat(gradients):
    """The shared layer's gradient as one vector."""
    return torch.cat([gradient.flatten() for gradient in gradients[:2]]).double()


def jacobian(network):
    z = network.trunk(network.x).tanh()
    return torch.stack(
        [
            flat(torch.autograd.grad(loss, network.trunk.parameters(), retain_graph=True))
            for loss in network.losses([z] * 3)
        ]
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "options", "libmtl", "theirs"),
    [
        ("ew", {}, "EW", {}),
        ("gls", {}, "GLS", {}),
        ("uw", {"init": -0.5, "own_optimizer": False}, "UW", {}),
        ("dwa", {}, "DWA", {"T": 2.0}),
        ("imtl", {"own_optimizer": False}, "IMTL", {}),
        ("mgda", {"combine": "normalized", "heads": "own"}, "MGDA", {"mgda_gn": "none"}),
        ("cagrad", {}, "CAGrad", {"calpha": 0.5, "rescale": 1}),
    ],
)
def test_same_gradients_everywhere(name, options, libmtl, theirs, seed):
    network = Network(seed)
    expected, method = peer(libmtl, network, **theirs)
    balancer = isonomy.build(name, 3, **options)
    # CAGrad's solver stops at an absolute 1e-6, MGDA's at a change of 1e-5.
    same(step(balancer, network), expected, 5e-3 if name in ("cagrad", "mgda") else FLOAT32)
    for ours, other in zip(balancer.parameters(), method.parameters(), strict=True):
        close(ours.grad, other.grad, FLOAT32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("normalizer", ["l2", "loss", "loss+"])
def test_mgda_with_a_normaliser_combines_normalised_gradients_there(normalizer, seed):
    network = Network(seed)
    expected, _ = peer("MGDA", network, mgda_gn=normalizer)
    balancer = isonomy.build("mgda", 3, normalize=normalizer, combine="normalized", heads="own")
    same(step(balancer, network), expected, 5e-3)


def test_dwa_follows_the_epochs():
    network = Network()
    means = torch.tensor([[2.0, 1.0], [1.0, 0.9], [0.5, 0.5]])
    expected, _ = peer("DWA", network, epoch=2, train_loss_buffer=means, T=2.0)
    balancer = isonomy.build("dwa", 3)
    for epoch in means.T:
        balancer([loss.requires_grad_() for loss in epoch.clone()])
        balancer.epoch_end()
    same(step(balancer, network), expected)


def test_gradnorm_with_its_options():
    network = Network()
    z = network.trunk(network.x).tanh()
    first = torch.stack(network.losses([z] * 3)).detach() * torch.tensor([2.0, 1.0, 1.5])
    expected, method = peer("GradNorm", network, epoch=1, train_loss_buffer=first[:, None], alpha=1.5)
    balancer = isonomy.build("gradnorm", 3, simplex="softmax", baseline="epoch", heads="own", own_optimizer=False)
    probe = torch.zeros(3, requires_grad=True)
    balancer(list(probe * torch.arange(1.0, 4.0) + first), shared=[probe])
    balancer.epoch_end()
    balancer.zero_grad()
    same(step(balancer, network), expected)
    close(next(balancer.parameters()).grad, method.loss_scale.grad, FLOAT32)


def test_pcgrad_in_one_order(monkeypatch):
    monkeypatch.setattr(random, "shuffle", lambda items: None)
    network = Network()
    expected, _ = peer("PCGrad", network)
    same(step(isonomy.build("pcgrad", 3, order="ascending"), network), expected)


def test_features_are_summed_over_the_batch_there():
    network = Network()
    expected, _ = peer("IMTL", network, features=True)
    summed = isonomy.build("imtl", 3, own_optimizer=False, feature_reduce="batch_sum")
    close(flat(step(summed, network, features=True)), flat(expected), FLOAT32)


def test_graddrop_with_the_same_draw(monkeypatch):
    network = Network()
    uniform = torch.rand(5)
    monkeypatch.setattr(torch, "rand_like", uniform.to)
    expected, _ = peer("GradDrop", network, features=True, leak=0.25)
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: uniform.double().view(5))
    balancer = isonomy.build("graddrop", 3, leak=0.25)
    same(step(balancer, network, features=True), expected)


# Differences


@pytest.mark.peers("general.1")
def test_a_feature_gradient_over_the_batch_is_another():
    network = Network()
    expected, _ = peer("IMTL", network, features=True)
    flattened = isonomy.build("imtl", 3, own_optimizer=False)
    assert parallel(flat(step(flattened, network, features=True)), flat(expected)) < 0.999


@pytest.mark.peers("gls.1")
def test_gls_overflows():
    method = weighting.GLS()
    method.task_num = 40
    losses = torch.full((40,), 10.0, requires_grad=True)
    method.backward(losses)
    assert not losses.grad.isfinite().all()
    values = [torch.tensor(10.0, requires_grad=True) for _ in range(40)]
    isonomy.build("gls", 40)(values).backward()
    close(torch.stack([value.grad for value in values]), torch.full((40,), 1 / 40), 1e-6)


@pytest.mark.peers("gls.2")
def test_gls_reports_weights_that_it_does_not_use():
    method = weighting.GLS()
    method.task_num = 3
    losses = torch.tensor([2.0, 0.5, 2.0], requires_grad=True)
    close(torch.as_tensor(method.backward(losses)), (1 / 3, 1 / 12, 1 / 3))
    close(losses.grad, (0.209987, 0.839947, 0.209987))
    balancer = isonomy.build("gls", 3)
    balancer([torch.tensor(loss, requires_grad=True) for loss in (2.0, 0.5, 2.0)])
    close(balancer.report.loss_weights, losses.grad)


@pytest.mark.peers("rlw.2")
def test_rlw_evens_out_a_dirichlet_sample():
    method = weighting.RLW()
    method.task_num, method.device = 3, torch.device("cpu")
    torch.manual_seed(0)
    draws = torch.stack(
        [torch.as_tensor(method.backward(torch.ones(3, requires_grad=True), dist="Dirichlet")) for _ in range(500)]
    )
    assert draws.var(0).max() < 0.01
    balancer = isonomy.build("rlw", 3, family="dirichlet")
    ours = []
    for _ in range(500):
        balancer([torch.tensor(1.0, requires_grad=True) for _ in range(3)])
        ours.append(balancer.report.loss_weights)
    assert torch.stack(ours).var(0).min() > 0.04  # (T − 1) / (T² (T + 1)) = 1/18.


def shared_of(name, J, **options):
    """The shared gradient of LibMTL's method for task gradients of one's own."""
    J = tensor(J).float()
    theta = nn.Parameter(torch.zeros(J.shape[1]))
    method_of(name, len(J), [theta]).backward(1 + J @ theta, **options)
    return theta.grad


@pytest.mark.peers("mgda.1")
def test_mgda_of_many_tasks_ends_far_from_the_shortest_vector():
    J = random_jacobian(40, 120, 0, rank=20) + 0.1 * random_jacobian(40, 120, 1)
    theirs = shared_of("MGDA", J, mgda_gn="none").double()
    assert theirs.norm() ** 2 > 2 * aggregate("mgda", J).norm() ** 2


@pytest.mark.peers("mgda.2")
def test_mgda_of_two_tasks_is_clipped():
    J = [[1.0, 0.0], [2.0, 1.0]]
    close(shared_of("MGDA", J, mgda_gn="none"), (1.001, 0.001), 1e-6)
    close(aggregate("mgda", J), (1, 0), 1e-12)


@pytest.mark.peers("mgda.3")
def test_mgda_raises_for_large_gradients():
    J = 1e5 * tensor(B)
    with pytest.raises(UnboundLocalError):
        shared_of("MGDA", J, mgda_gn="none")
    close(aggregate("mgda", J), 1e5 * aggregate("mgda", B))


@pytest.mark.peers("mgda.4")
def test_mgda_combines_normalised_gradients():
    J = tensor([[1, 0], [1, 1]])
    close(shared_of("MGDA", J, mgda_gn="l2"), (0.853553, 0.353553))
    close(aggregate("mgda", J, normalize="l2"), (1, 0.5))


@pytest.mark.peers("mgda.6")
def test_heads_are_not_weighted():
    network = Network()
    theirs, own = peer("MGDA", network, mgda_gn="none")[0][2:], peer("EW", network)[0][2:]
    same(theirs, own)
    weighted = step(isonomy.build("mgda", 3), network)[2:]
    assert any(not torch.allclose(one, other, rtol=0.1) for one, other in zip(weighted, own, strict=True))


@pytest.mark.peers("cagrad.2")
@pytest.mark.peers("cagrad.3")
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_cagrad_returns_the_mean_for_small_and_large_gradients(scale):
    expected = aggregate("cagrad", E)
    theirs = shared_of("CAGrad", scale * tensor(E), calpha=0.5, rescale=1).double() / scale
    assert (theirs - expected).norm() > 0.1 * expected.norm()
    close(aggregate("cagrad", scale * tensor(E)) / scale, expected, 1e-9)


@pytest.mark.peers("cagrad.7")
def test_cagrad_takes_three_tasks():
    with pytest.raises(ValueError, match="reshape"):
        shared_of("CAGrad", B, calpha=0.5, rescale=1)


@pytest.mark.peers("imtl_g.1")
def test_imtl_ascends_where_the_weights_sum_to_less_than_0():
    assert (tensor(F) @ shared_of("IMTL", F).double() < -0.5).all()
    assert (tensor(F) @ aggregate("imtl_g", F) > 0.05).all()


@pytest.mark.peers("general.3")
def test_imtl_is_nan_without_a_gradient():
    J = [[0, 0, 0], [6, 1, 1], [1, 2, 3]]
    assert shared_of("IMTL", J).isnan().all()
    assert aggregate("imtl_g", J).isfinite().all()


@pytest.mark.peers("pcgrad.2")
def test_pcgrad_projects_against_itself(monkeypatch):
    order = [1, 2, 0]  # For the first task; then the same for the others.
    monkeypatch.setattr(random, "shuffle", lambda items: items.__setitem__(slice(None), order))
    J = tensor([[2, 2, -1], [-3, -3, 2], [-3, -1, -3]])
    close(shared_of("PCGrad", J), against(J, order, itself=True), 1e-5)
    assert (against(J, order, itself=True) - against(J, order, itself=False)).norm() > 0.01


def against(J, order, itself):
    """PCGrad as its paper says, task by task."""
    total = torch.zeros(J.shape[1], dtype=J.dtype)
    for i, gradient in enumerate(J):
        p = gradient.clone()
        for j in order:
            if (itself or j != i) and p @ J[j] < 0:
                p = p - (p @ J[j]) / (J[j] @ J[j]) * J[j]
        total += p
    return total


@pytest.mark.peers("gradvac.1")
def test_gradvac_moves_targets_only_down():
    aligned = tensor([[1.0, 0.0], [1.0, 1.0]])
    theta = nn.Parameter(torch.zeros(2))
    method = method_of("GradVac", 2, [theta])
    method.backward(1 + aligned.float() @ theta, beta=0.5)
    assert not method.rho_T.any()
    ours = isonomy.build("gradvac", 2)
    ours.aggregate(aligned)
    assert float(ours.stages[0].rho[0, 0, 1]) == pytest.approx(0.5 * 2**-0.5)


@pytest.mark.peers("gradnorm.2")
def test_gradnorm_trains_its_first_epoch_with_equal_weights():
    network = Network()
    same(peer("GradNorm", network, epoch=0, alpha=1.5)[0], peer("EW", network)[0])


@pytest.mark.peers("uw.2")
def test_uw_starts_at_another_value():
    network = Network()
    _, method = peer("UW", network)
    close(method.loss_scale.detach(), [-0.5] * 3)
    close(next(isonomy.build("uw", 3).parameters()).detach(), [0.0] * 3)


@pytest.mark.peers("ew.1")
def test_ew_is_a_sum_whatever_its_documentation_says():
    network = Network()
    _, method = peer("EW", network)
    assert "1 / T" in type(method).__mro__[1].__doc__
    same(step(isonomy.build("ew", 3), network), peer("EW", network)[0])
