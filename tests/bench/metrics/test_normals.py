import numpy as np
import pytest
import torch

from isonomy.bench.metrics import Normals
from isonomy.errors import IsonomyError


def judged(prediction, target):
    metric = Normals()
    metric.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return {name: float(value) for name, value in metric.compute().items()}


def tilted(*degrees):
    """One row of vectors that are tilted from the z axis, shape (1, 3, 1, N)."""
    angle = np.deg2rad(degrees)
    return np.stack([np.sin(angle), 0 * angle, np.cos(angle)])[None, :, None, :]


def test_by_hand():
    values = judged(3 * tilted(5, 20, 25, 170), tilted(0, 0, 0, 0))
    assert values["mean"] == values["mErr"] == pytest.approx(55)
    assert values["median"] == pytest.approx(22.5, abs=0.005)
    assert (values["11.25"], values["22.5"], values["30"]) == (25, 50, 75)
    assert values["cosine"] == pytest.approx(np.cos(np.deg2rad([5, 20, 25, 170])).mean())
    assert judged(tilted(1, 2, 40), tilted(0, 0, 0))["median"] == pytest.approx(2, abs=0.005)


def test_perfect_and_opposite_and_no_direction():
    truth = torch.nn.functional.normalize(torch.randn(2, 3, 4, 5), dim=1)
    perfect = judged(7 * truth, truth)
    assert perfect["mean"] < 1e-5
    assert perfect["median"] == 0.005  # the middle of the first bin
    assert perfect["11.25"] == perfect["30"] == 100
    opposite = judged(-truth, truth)
    assert opposite["mean"] == pytest.approx(180, abs=1e-4)
    assert opposite["median"] == pytest.approx(180, abs=0.006)
    assert opposite["cosine"] == pytest.approx(-1)
    assert judged(0 * truth, truth)["mean"] == pytest.approx(90)


@pytest.mark.parametrize("seed", range(3))
def test_against_the_arc_cosine_of_every_pixel(seed):
    random = np.random.default_rng(seed)
    truth = random.normal(size=(4, 3, 7, 6))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    truth *= random.random((4, 1, 7, 6)) < 0.8
    guess = truth + random.normal(size=truth.shape) * 0.4
    angles, cosines = [], []
    for image in range(4):
        for row in range(7):
            for column in range(6):
                g, p = truth[image, :, row, column], guess[image, :, row, column]
                if g.any():
                    cosines.append(np.dot(g, p) / np.linalg.norm(p))
                    angles.append(np.degrees(np.arccos(np.clip(cosines[-1], -1, 1))))
    values = judged(guess, truth)
    assert values["mean"] == pytest.approx(np.mean(angles), rel=1e-9)
    assert values["median"] == pytest.approx(np.median(angles), abs=0.005)
    assert values["cosine"] == pytest.approx(np.mean(cosines), rel=1e-9)
    for limit in (11.25, 22.5, 30):
        assert values[f"{limit:g}"] == pytest.approx(100 * np.mean(np.array(angles) < limit))


def test_labels_that_are_no_directions_are_refused():
    truth = torch.nn.functional.normalize(torch.randn(2, 3, 4, 5), dim=1)
    for bad in (255.0, torch.nan):
        spoilt = truth.clone()
        spoilt[0, :, 0, 0] = bad
        with pytest.raises(IsonomyError, match="Normals: a true normal is far from unit length"):
            judged(truth, spoilt)
