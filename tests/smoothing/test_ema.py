import pytest
import torch

import isonomy
from isonomy.smoothing import EMA
from tests.fixtures import close, random_jacobian, tensor


def smooth(stage, J, active=None):
    J = tensor(J)
    active = torch.arange(len(J)) if active is None else torch.tensor(active)
    rows = stage([[row] for row in J], active)
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows]).clone()


def built(tasks=2, **options):
    stage = EMA(**options)
    stage.setup(tasks)
    return stage


def test_by_hand():
    stage = built(beta=0.9, decay=0.5)
    close(smooth(stage, [[1, 0], [0, 10]]), [[0.1, 0], [0, 1]], 1e-12)
    b = 0.9 / 2**0.5
    close(smooth(stage, [[3, 0], [0, 0]]), [[0.1 * b + 3 * (1 - b), 0], [0, b]], 1e-12)
    c = 0.9 / 3**0.5
    expected = c * (0.1 * b + 3 * (1 - b)) + 5 * (1 - c)
    close(smooth(stage, [[5, 0], [0, 0]])[0], [expected, 0], 1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_a_constant_gradient_is_approached_geometrically(beta):
    J = random_jacobian(2, 3, 0)
    stage = built(beta=beta, decay=0.0)
    for k in range(1, 8):
        close(smooth(stage, J), (1 - beta**k) * J, 1e-12)


def test_each_task_counts_the_steps_it_took_part_in():
    stage = built(beta=0.5, decay=1.0)
    close(smooth(stage, [[2, 0]], [1]), [[1, 0]], 1e-12)
    close(smooth(stage, [[4, 0], [4, 0]]), [[2, 0], [3.25, 0]], 1e-12)
    close(smooth(stage, [[0, 0]], [0]), [[0.5, 0]], 1e-12)
    assert stage.steps.tolist() == [2, 2]


def test_tensors_keep_their_shapes_and_the_average_is_float32_at_least():
    stage = built(tasks=1, beta=0.5)
    row = [torch.ones(2, 3, dtype=torch.bfloat16), torch.ones((), dtype=torch.bfloat16)]
    (out,) = stage([row], torch.tensor([0]))
    assert [tuple(part.shape) for part in out] == [(2, 3), ()]
    assert stage.average.dtype == torch.float32
    assert stage.average.shape == (1, 7)


def test_beta_0_averages_nothing_and_works_at_features():
    stage = built(beta=0.0)
    rows = [[torch.ones(2)], [torch.zeros(2)]]
    assert stage(rows, torch.arange(2)) is rows
    assert stage.average is None
    assert set(isonomy.build("db_mtl", tasks=2, beta=0.0).levels) == {"parameters", "features"}
    assert isonomy.build("db_mtl", tasks=2).levels == ("parameters",)


def test_a_changed_number_of_parameters_is_refused():
    stage = built()
    smooth(stage, [[1, 0], [0, 1]])
    with pytest.raises(isonomy.IsonomyError, match="3 numbers now and 2 before"):
        smooth(stage, [[1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("options", [{"beta": 1.0}, {"beta": -0.1}, {"beta": float("nan")}, {"decay": -1.0}])
def test_options_out_of_range(options):
    with pytest.raises(isonomy.IsonomyError, match=next(iter(options))):
        EMA(**options)
