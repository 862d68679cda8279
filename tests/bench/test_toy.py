import pytest
import torch

from isonomy.bench import data
from isonomy.bench.architectures import Design
from isonomy.bench.data.toy import STARTS, landscape, pareto


def at(a, b, scale=1.0):
    return landscape(torch.tensor([a, b], dtype=torch.float64), scale)


def test_published_values():
    assert at(-8.5, 7.5).tolist() == pytest.approx([6.552, 7.901], abs=5e-4)
    assert at(9.0, 9.0).tolist() == pytest.approx([7.944, 6.691], abs=5e-4)
    assert at(0.0, 0.0).tolist() == [0.0, 0.0]


def test_the_losses_mirror_each_other_at_scale_one():
    points = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6
    mirrored = points * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(landscape(points, 1.0)[:, 0], landscape(mirrored, 1.0)[:, 1])


def test_only_the_first_loss_is_scaled():
    assert (at(1.0, -3.0, 0.1) / at(1.0, -3.0)).tolist() == pytest.approx([0.1, 1.0])


@pytest.mark.parametrize(("weight", "a", "losses"), [(0.1, -5.6, (-4.12, -19.79)), (0.3, -2.8, (-10.39, -18.23)),
                                                     (0.5, 0.0, (-15.09, -15.09))])  # fmt: skip
def test_minimisers_of_weighted_sums_lie_on_the_pareto_set(weight, a, losses):
    points = pareto()
    values = landscape(points, 1.0)
    best = (weight * values[:, 0] + (1 - weight) * values[:, 1]).argmin()
    assert float(points[best, 0]) == pytest.approx(a, abs=0.051)
    assert values[best].tolist() == pytest.approx(losses, abs=0.06)


def test_the_pareto_set_is_where_the_gradients_oppose_each_other():
    points = pareto(29)[1:-1].requires_grad_()
    first, second = (torch.autograd.grad(landscape(points, 1.0)[:, i].sum(), points)[0] for i in (0, 1))
    cosines = torch.nn.functional.cosine_similarity(first, second)
    torch.testing.assert_close(cosines, torch.full_like(cosines, -1.0), atol=1e-6, rtol=0)
    assert -8.36 < points[14, 1] < -8.35
    assert -8.44 < points[0, 1] < -8.42


@pytest.mark.parametrize("seed", range(6))
def test_a_seed_is_a_start(seed):
    problem = data.load("toy")
    model = problem.network(Design("point"), ["L1", "L2"], seed)
    assert tuple(model().tolist()) == pytest.approx(STARTS[seed % 5])
    assert problem.evaluate(model, ["L1", "L2"], "test") == {"L1": {"descent": 0.0}, "L2": {"descent": 0.0}}


def test_descent_is_how_far_a_loss_fell():
    problem = data.load("toy")
    model = problem.network(Design("point"), ["L1", "L2"], 1)
    model.position.data = torch.tensor([0.0, -8.355])
    values = problem.evaluate(model, ["L2"], "val")
    assert values == {"L2": {"descent": pytest.approx(15.09, abs=0.02)}}
    assert problem.trace(model) == pytest.approx([0.0, -8.355, -1.509, -15.09], abs=0.02)
