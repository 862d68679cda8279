import pytest
import torch

from isonomy.bench import runner
from isonomy.bench.cell import single
from isonomy.bench.procedures.url import adaptor, distance
from isonomy.errors import IsonomyError
from tests.bench.tiny import cell, load, trainer
from tests.fixtures import close, tensor


@pytest.mark.parametrize(
    ("a", "f", "expected"),
    [([3, 4], [2, 0], 0.8), ([3, 4], [6, 8], 0.0), ([3, 4], [-6, -8], 4.0), ([0, 0], [2, 0], 1.0)],
)
def test_the_papers_distance(a, f, expected):
    close(distance(tensor([a]), tensor([f])), expected)


def test_the_distance_is_a_mean_over_samples_and_positions_and_blind_to_length():
    generator = torch.Generator().manual_seed(0)
    a, f = (torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    each = [distance(a[i, :, j, k][None], f[i, :, j, k][None]) for i in range(2) for j in range(3) for k in range(4)]
    close(distance(a, f), torch.stack(each).mean(), 1e-12)
    close(distance(100 * a, f / 7), distance(a, f), 1e-12)
    assert 0 <= distance(a, f) <= 4


def test_the_teacher_gets_no_gradient_and_the_adaptor_does():
    layer = adaptor(3, 2)
    z, f = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    distance(layer(z), f).backward()
    assert f.grad is None
    assert z.grad.norm() > 0
    assert layer.weight.grad.norm() > 0


def test_an_adaptor_keeps_the_shape_of_its_feature():
    for feature in (torch.randn(2, 6), torch.randn(2, 6, 3, 4)):
        layer = adaptor(6, feature.ndim)
        assert layer(feature).shape == feature.shape
        assert layer.bias is None


def test_the_extra_loss_reaches_the_encoder_and_the_adaptors_and_falls():
    one = trainer("url", epochs=20)
    batch = next(one.begin(0))
    adaptors = one.procedure.adaptors
    before = {name: value.clone() for name, value in adaptors.state_dict().items()}
    feature = one.problem.losses(one.model, batch[0], one.cell.tasks)[1].detach()
    # Teachers that are not trained yet start from the student's weights, so their features are its own.
    expected = sum(float(distance(adaptors[task](feature), feature).detach()) for task in "abc")
    first = float(one.procedure.extra(batch[0], feature).detach())
    assert first == pytest.approx(expected)
    for teacher in one.procedure.teachers.values():
        assert not teacher.training
        assert not any(p.requires_grad for p in teacher.parameters())
    distilled, plain = trainer("url", epochs=20), trainer("ew", epochs=20)
    for each in (distilled, plain):
        each.step(next(each.begin(0)))
    assert not torch.equal(distilled.network.encoder[0].weight, plain.network.encoder[0].weight)
    assert torch.equal(distilled.network.heads["a"].weight, plain.network.heads["a"].weight)
    for _ in range(100):
        one.step(batch)
    feature = one.problem.losses(one.model, batch[0], one.cell.tasks)[1]
    assert float(one.procedure.extra(batch[0], feature).detach()) < 0.5 * first
    assert all(not torch.equal(before[name], value) for name, value in adaptors.state_dict().items())


def test_the_adaptors_rate_falls_as_a_cosine():
    one = trainer("url", epochs=4)
    rates = []
    for epoch in range(4):
        one.begin(epoch)
        rates.append(one.optimizers[1].param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2, 8.535534e-3, 5e-3, 1.464466e-3])
    assert one.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-2 / 4)


def test_teachers_are_the_finished_single_task_runs_of_the_same_seed(tmp_path):
    one = cell("url", tmp_path, epochs=1)
    with pytest.raises(IsonomyError, match="url/0 learns from single_task-a/0, which has not finished"):
        runner.run_cell(one, tmp_path, load)
    for task in "abc":
        runner.run_cell(cell(single(task), tmp_path, epochs=1), tmp_path, load)
    ready = trainer("url", epochs=1)
    ready.procedure.prepare(tmp_path)
    for task in "abc":
        state = torch.load(tmp_path / single(task) / "0" / "checkpoint.pt", weights_only=True)["model"]
        taught = ready.procedure.teachers[task].state_dict()
        assert all(torch.equal(taught[name], value) for name, value in state.items())
    runner.run_cell(one, tmp_path, load)
