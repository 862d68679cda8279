import math

import pytest
import torch

import isonomy
from isonomy.smoothing import EMA, Tracking
from tests.fixtures import close, random_jacobian, tensor


def track(stage, J, active=None):
    J = tensor(J)
    active = torch.arange(len(J)) if active is None else torch.tensor(active)
    return torch.stack([torch.cat(row) for row in stage([[row] for row in J], active)]).clone()


def built(tasks=2, kind=Tracking, **options):
    stage = kind(**options)
    stage.setup(tasks)
    return stage


def test_by_hand():
    stage = built(beta=0.5, beta_decay=1.0)
    close(track(stage, [[4, 0], [0, 8]]), [[2, 0], [0, 4]], 1e-12)
    close(track(stage, [[0, 0], [4, 8]]), [[1.5, 0], [1, 5]], 1e-12)


@pytest.mark.parametrize(("beta", "decay"), [(0.5, 0.5), (1.0, 0.5), (0.05, 0.0)])
def test_a_constant_gradient_is_approached_by_the_product_of_what_is_left(beta, decay):
    J = random_jacobian(2, 3, 0)
    stage = built(beta=beta, beta_decay=decay)
    for k in range(1, 8):
        left = math.prod(1 - beta / j**decay for j in range(1, k + 1))
        close(track(stage, J), (1 - left) * J, 1e-12)


def test_beta_1_follows_at_once():
    stage = built(beta=1.0, beta_decay=0.0)
    for seed in range(3):
        J = random_jacobian(2, 3, seed)
        close(track(stage, J), J, 1e-15)


def test_without_decay_it_is_an_exponential_average():
    tracking, average = built(beta=0.3, beta_decay=0.0), built(kind=EMA, beta=0.7, decay=0.0)
    for seed in range(5):
        J = random_jacobian(2, 3, seed)
        close(track(tracking, J), track(average, J), 1e-12)


def test_each_task_counts_the_steps_it_took_part_in():
    stage = built(beta=0.5, beta_decay=1.0)
    close(track(stage, [[2, 0]], [1]), [[1, 0]], 1e-12)
    close(track(stage, [[4, 0], [5, 0]]), [[2, 0], [2, 0]], 1e-12)
    assert stage.steps.tolist() == [1, 2]


@pytest.mark.parametrize(
    "options", [{"beta": 0.0}, {"beta": 1.1}, {"beta": math.nan}, {"beta_decay": -0.1}, {"beta_decay": math.nan}]
)
def test_options_out_of_range(options):
    with pytest.raises(isonomy.IsonomyError, match=f"moco: {next(iter(options))}="):
        Tracking(**options)
