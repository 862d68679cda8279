import numpy as np
import pytest
import torch
from sklearn.metrics import fbeta_score

from isonomy.bench.metrics import Saliency
from isonomy.errors import IsonomyError


def judged(probability, target, **options):
    metric = Saliency(**options)
    probability = torch.as_tensor(probability, dtype=torch.float64)
    metric.update(probability.logit()[:, None], torch.as_tensor(target))
    return float(metric.compute()["maxF"])


def draw(seed):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, (4, 6, 7))
    score = np.clip(0.25 * truth + random.random(truth.shape) * 0.7, 0.01, 0.99)
    truth[random.random(truth.shape) < 0.15] = 255
    return score, truth


def brute(score, truth, sigmoid_again=False):
    score, truth = score[truth != 255], truth[truth != 255]
    if sigmoid_again:
        score = 1 / (1 + np.exp(-score))
    found = []
    for i in range(1, 20):
        positive = score >= i * 0.05
        precision = (positive & (truth == 1)).sum() / max(positive.sum(), 1)
        recall = (positive & (truth == 1)).sum() / max((truth == 1).sum(), 1)
        found.append(1.3 * precision * recall / (0.3 * precision + recall) if precision * recall else 0.0)
    return 100 * max(found)


@pytest.mark.parametrize("seed", range(3))
def test_against_a_loop_over_thresholds_and_scikit_learn(seed):
    score, truth = draw(seed)
    value = judged(score, truth)
    assert value == pytest.approx(brute(score, truth), rel=1e-12)
    valid = truth != 255
    peer = [fbeta_score(truth[valid], score[valid] >= t, beta=0.3**0.5) for t in np.arange(1, 20) / 20]
    assert value == pytest.approx(100 * max(peer))


def test_invpts_second_sigmoid_leaves_five_thresholds():
    score, truth = draw(7)
    value = judged(score, truth, compat="invpt")
    assert value == pytest.approx(brute(score, truth, sigmoid_again=True), rel=1e-12)
    assert value != pytest.approx(judged(score, truth))
    # 0.55, 0.60, 0.65 and 0.70 act as these probabilities, and up to 0.50 all is positive.
    points = [0, *(np.log(t / (1 - t)) for t in (0.55, 0.6, 0.65, 0.7))]
    np.testing.assert_allclose(points[1:], [0.201, 0.405, 0.619, 0.847], atol=5e-4)
    valid = truth != 255
    peer = [fbeta_score(truth[valid], score[valid] >= t, beta=0.3**0.5) for t in points]
    assert value == pytest.approx(100 * max(peer))


def test_two_logits_are_a_softmax():
    score, truth = draw(1)
    logits = torch.randn(4, 2, 6, 7, dtype=torch.float64)
    logits[:, 1] = logits[:, 0] + torch.as_tensor(score).logit()
    metric = Saliency()
    metric.update(logits, torch.as_tensor(truth))
    assert float(metric.compute()["maxF"]) == pytest.approx(judged(score, truth), rel=1e-12)


def test_counts_are_of_the_set_and_a_threshold_is_reached_at_equality():
    truth = np.array([[[1, 1, 0, 0]], [[1, 0, 0, 0]]])
    score = np.array([[[0.99, 0.99, 0.4, 0.4]], [[0.4, 0.4, 0.4, 0.01]]])
    # Above 0.4 two hits of two: P = 1, R = 2/3. Below: P = 3/7, R = 1.
    assert judged(score, truth) == pytest.approx(100 * 1.3 * (2 / 3) / (0.3 + 2 / 3))
    assert judged(np.full((1, 1, 2), 0.5), np.array([[[1, 1]]])) == 100
    metric = Saliency()
    metric.update(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, dtype=torch.long))  # probability 0.5
    assert metric.hits.tolist() == [1] * 10 + [0] * 9


def test_extremes():
    truth = np.array([[[1, 0], [255, 1]]])
    assert judged(np.where(truth == 1, 0.99, 0.001), truth) == 100
    assert judged(np.where(truth == 1, 0.001, 0.001), truth) == 0
    assert judged(np.full(truth.shape, 0.99), np.zeros_like(truth)) == 0


def test_what_is_no_mask_is_refused():
    with pytest.raises(IsonomyError, match="Saliency: the target may hold the values 0, 1, 255 alone"):
        judged(np.full((1, 2, 2), 0.5), np.full((1, 2, 2), 2))
    with pytest.raises(IsonomyError, match="did you mean 'invpt'"):
        Saliency(compat="inv_pt")
