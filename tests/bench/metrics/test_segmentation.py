import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score

from isonomy.bench.metrics import Segmentation
from isonomy.errors import IsonomyError


def judged(prediction, target, classes, **options):
    """Metrics of predicted classes rather than logits."""
    metric = Segmentation(classes, **options)
    prediction, target = torch.as_tensor(prediction), torch.as_tensor(target)
    metric.update(torch.nn.functional.one_hot(prediction, classes).movedim(-1, 1).float(), target)
    return metric.compute(), metric


def draw(seed, classes=6, ignored=(-1, 255)):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, (5, 8, 9))
    truth[random.random(truth.shape) < 0.2] = ignored[0]
    truth[random.random(truth.shape) < 0.1] = ignored[1]
    return random.integers(0, classes, truth.shape), truth


def test_by_hand():
    # M = [[1, 1], [0, 2]]: IoU 1/2 and 2/3, three of four right.
    values, _ = judged([[[0, 1], [1, 1]]], [[[0, 0], [1, 1]]], 2)
    assert values["mIoU"] == pytest.approx(100 * 7 / 12)
    assert values["PAcc"] == 75


@pytest.mark.parametrize("seed", range(3))
def test_against_sets_of_pixels_and_scikit_learn_and_torchmetrics(seed):
    from torchmetrics.classification import MulticlassJaccardIndex

    prediction, truth = draw(seed)
    values, metric = judged(prediction, truth, 6)
    valid = (truth >= 0) & (truth < 6)
    ious = []
    for c in range(6):
        mine, theirs = set(np.flatnonzero((prediction == c) & valid)), set(np.flatnonzero((truth == c) & valid))
        ious.append(len(mine & theirs) / len(mine | theirs))
    assert values["mIoU"] == pytest.approx(100 * np.mean(ious), rel=1e-12)
    assert values["mIoU"] == pytest.approx(100 * jaccard_score(truth[valid], prediction[valid], average="macro"))
    assert values["PAcc"] == pytest.approx(100 * accuracy_score(truth[valid], prediction[valid]), rel=1e-12)
    theirs = MulticlassJaccardIndex(6)(torch.from_numpy(prediction[valid]), torch.from_numpy(truth[valid]))
    assert values["mIoU"] == pytest.approx(100 * float(theirs), rel=1e-6)
    assert metric.absent_classes == 0


def test_an_absent_class_is_skipped_or_nan_or_zero():
    prediction, truth = [[[0, 1], [1, 1]]], [[[0, 0], [1, 1]]]  # class 2 is nowhere
    values, metric = judged(prediction, truth, 3)
    assert values["mIoU"] == pytest.approx(100 * 7 / 12)
    assert metric.absent_classes == 1
    assert judged(prediction, truth, 3, absent="zero")[0]["mIoU"] == pytest.approx(100 * 7 / 18)
    assert judged(prediction, truth, 3, absent="nan")[0]["mIoU"].isnan()
    # Predicted where there is no label, it is still absent; predicted wrongly, it counts 0 in every mode.
    assert judged([[[0, 2], [1, 1]]], [[[0, 255], [1, 1]]], 3)[0]["mIoU"] == 100
    for absent in ("skip", "nan", "zero"):
        values, metric = judged([[[0, 2], [1, 1]]], [[[0, 0], [1, 1]]], 3, absent=absent)
        assert values["mIoU"] == pytest.approx(100 * (1 / 2 + 1 + 0) / 3)
        assert metric.absent_classes == 0


def test_the_set_is_one_matrix_and_not_a_mean_over_images():
    prediction, truth = [[[0, 0, 0, 1]], [[1, 1, 1, 0]]], [[[0, 0, 0, 0]], [[1, 0, 0, 0]]]
    # M = [[4, 3], [0, 1]] for the set: 4/7 and 1/4. Image by image 3/4 and 0, then 1/3 and 1/3.
    assert judged(prediction, truth, 2)[0]["mIoU"] == pytest.approx(50 * (4 / 7 + 1 / 4))
    legacy = (3 / 4 + 0) / 2, (1 / 3 + 1 / 3) / 2
    assert judged(prediction, truth, 2, legacy_mtan=True)[0]["mIoU"] == pytest.approx(50 * sum(legacy))


def test_legacy_mtan_against_a_loop():
    prediction, truth = draw(4)
    truth[0] = 1
    prediction[0] = 1
    images = []
    for p, t in zip(prediction, truth, strict=True):
        ious = [((p == c) & (t == c)).sum() / u for c in range(6) if (u := ((p == c) | (t == c)).sum())]
        images.append(np.mean(ious))
    assert judged(prediction, truth, 6, legacy_mtan=True)[0]["mIoU"] == pytest.approx(100 * np.mean(images), rel=1e-12)


def test_a_perfect_prediction_has_100():
    _, truth = draw(5)
    values, _ = judged(np.clip(truth, 0, 5), truth, 6)
    assert values == {"mIoU": 100, "PAcc": 100}


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(IsonomyError, match="did you mean 'skip'"):
        Segmentation(3, absent="skipped")
    with pytest.raises(IsonomyError, match="legacy_mtan"):
        Segmentation(3, absent="zero", legacy_mtan=True)
    with pytest.raises(IsonomyError, match="two classes"):
        Segmentation(1)
