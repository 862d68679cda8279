"""A probe measures what autograd says, and leaves no trace."""

import pytest
import torch
from torch import nn

from isonomy import IsonomyError
from isonomy.diagnostics import probe
from isonomy.diagnostics.probe import last_shared_layer
from tests.diagnostics.nets import TASKS, Net


def brute(losses, parameters):
    rows = [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses]
    J = torch.stack(
        [
            torch.cat(
                [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, row, strict=True)]
            )
            for row in rows
        ]
    )
    return J.norm(dim=1), J @ J.T / J.norm(dim=1) / J.norm(dim=1)[:, None], J


@pytest.mark.parametrize("shared", ["none", "module", "feature", "parameters"])
def test_it_measures_what_autograd_says(shared):
    net = Net()
    losses, z = net.losses((1.0, 30.0, 0.1))
    at = {"none": None, "module": net.trunk, "feature": z, "parameters": [*net.trunk[0].parameters()]}[shared]
    report = probe(net, losses, at)
    place = {"none": [*net.trunk.parameters()], "module": [*net.trunk.parameters()], "feature": [z], "parameters": at}
    norms, cosines, J = brute(losses.values(), place[shared])
    torch.testing.assert_close(report.norms, norms)
    torch.testing.assert_close(report.cosines, cosines)
    torch.testing.assert_close(report.alignment, J @ J.sum(0) / norms / J.sum(0).norm())
    assert report.tasks == TASKS
    assert report.losses.tolist() == [loss.item() for loss in losses.values()]
    torch.stack([*losses.values()]).sum().backward()  # the graph is still there


def test_a_function_of_the_model_leaves_no_trace():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()

    def losses(model):
        out = model(torch.randn(8, 4))
        return [out[:, 0].square().mean(), out[:, 1].mean()]

    report = probe(model, losses)
    assert report.tasks == ("0", "1")
    assert report.norms.min() > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    with torch.no_grad():  # as in an evaluation
        again = probe(model, losses)
    assert torch.equal(again.norms, report.norms)


def test_hooks_of_parameters_hear_nothing():
    net, heard = Net(), []
    net.trunk[0].weight.register_hook(heard.append)
    probe(net, net.losses()[0])
    assert not heard


def test_what_cannot_be_measured_is_named():
    net = Net()
    losses, _ = net.losses()
    with pytest.raises(
        IsonomyError, match="No parameter of model= is reached by two of the losses of 'a', 'b' and 'c'"
    ):
        probe(nn.Linear(1, 1), losses)
    with pytest.raises(IsonomyError, match="task 'b' does not reach shared="):
        probe(net, losses | {"b": net.heads["b"].weight.sum()}, net.trunk)
    with pytest.raises(IsonomyError, match="task 'a' needs no gradient"):
        probe(net, losses | {"a": losses["a"].detach()})
    with pytest.raises(IsonomyError, match="has shape"):
        probe(net, losses | {"a": torch.ones(2, requires_grad=True)})


def sums(z):
    return [z.sum(), z.square().sum()]


@pytest.mark.parametrize(
    ("layers", "last"),
    [
        ([nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)], ["2.weight", "2.bias"]),
        (
            [nn.Linear(4, 4), nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU()],
            ["1.weight", "2.weight", "2.bias"],
        ),
        ([nn.Linear(4, 3), nn.LayerNorm(3)], ["0.weight", "0.bias", "1.weight", "1.bias"]),
        ([nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3)], ["1.weight", "1.bias"]),
        ([nn.LayerNorm(4)], ["0.weight", "0.bias"]),
    ],
)
def test_the_last_shared_layer(layers, last):
    model = nn.Sequential(*layers)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = last_shared_layer(sums(model(torch.randn(5, 4))))
    assert sorted(names[tensor] for tensor in found) == sorted(last)


def test_layers_that_not_all_tasks_reach_are_not_shared():
    trunk, middle = nn.Linear(4, 4), nn.Linear(4, 4)
    z = trunk(torch.randn(5, 4))
    y = middle(z)
    losses = [z.sum(), y.sum(), y.square().sum()]
    assert set(last_shared_layer(losses)) == set(trunk.parameters())
    assert set(last_shared_layer(losses[1:])) == set(middle.parameters())
    assert last_shared_layer([z.sum(), torch.ones(1, requires_grad=True).sum()]) == []
