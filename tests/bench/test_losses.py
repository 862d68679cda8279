import math
from functools import partial

import pytest
import torch
from torch.nn import functional

from isonomy import IsonomyError
from isonomy.bench import losses

SIZE = (4, 6)


def logits(channels, size=SIZE, batch=2):
    return torch.randn(batch, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(channels))


def classes(count, ignore):
    generator = torch.Generator().manual_seed(count)
    label = torch.randint(count, (2, *SIZE), generator=generator)
    return torch.where(torch.rand(2, *SIZE, generator=generator) < 0.3, ignore, label)


def normals():
    """Unit normals with holes where they are 0."""
    target = functional.normalize(logits(3) + logits(4)[:, :3], dim=1)
    holes = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(9)) < 0.3
    return target.masked_fill(holes[:, None], 0)


def depths():
    target = logits(1).abs() + 0.5
    return target.masked_fill(torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(8)) < 0.3, 0)


def pixels():
    return [(b, i, j) for b in range(2) for i in range(SIZE[0]) for j in range(SIZE[1])]


def softmax(row):
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def by_hand_cross_entropy(prediction, label):
    terms = [
        -math.log(softmax(prediction[b, :, i, j].tolist())[label[b, i, j]])
        for b, i, j in pixels()
        if label[b, i, j] != -1
    ]
    return sum(terms) / len(terms)


def by_hand_l1(prediction, target):
    terms = [abs(prediction[b, 0, i, j] - target[b, 0, i, j]).item() for b, i, j in pixels() if target[b, 0, i, j] != 0]
    return sum(terms) / len(terms)


def directions(prediction, target):
    for b, i, j in pixels():
        p, g = prediction[b, :, i, j].tolist(), target[b, :, i, j].tolist()
        if any(g):
            yield [value / math.hypot(*p) for value in p], g


def by_hand_cosine(prediction, target):
    terms = [1 - sum(map(math.prod, zip(p, g, strict=True))) for p, g in directions(prediction, target)]
    return sum(terms) / len(terms)


def by_hand_l1_normals(prediction, target):
    terms = [sum(abs(a - b) for a, b in zip(p, g, strict=True)) for p, g in directions(prediction, target)]
    return sum(terms) / len(terms)


def by_hand_saliency(prediction, label):
    judged = [at for at in pixels() if label[at] != 255]
    positives = sum(label[at] == 1 for at in judged).item()
    total = 0.0
    for b, i, j in judged:
        row = prediction[b, :, i, j].tolist()
        found = softmax(row if len(row) == 2 else [0.0, *row])
        if label[b, i, j] == 1:
            total -= (len(judged) - positives) / len(judged) * math.log(found[1])
        else:
            total -= positives / len(judged) * math.log(found[0])
    return total / len(judged)


def by_hand_edges(prediction, label):
    judged = [at for at in pixels() if label[at] != 255]
    total = 0.0
    for b, i, j in judged:
        on = 1 / (1 + math.exp(-prediction[b, 0, i, j].item()))
        total -= 0.95 * math.log(on) if label[b, i, j] == 1 else 0.05 * math.log(1 - on)
    return total / len(judged)


# Name: the loss, its prediction's channels, its labels, labels of which no pixel is valid, the loop.
CASES = {
    "cross_entropy": (losses.cross_entropy, 5, classes(5, -1), torch.full((2, *SIZE), -1), by_hand_cross_entropy),
    "l1": (losses.l1, 1, depths(), torch.zeros(2, 1, *SIZE, dtype=torch.float64), by_hand_l1),
    "cosine_normals": (losses.cosine_normals, 3, normals(), torch.zeros_like(normals()), by_hand_cosine),
    "l1_normals": (losses.l1_normals, 3, normals(), torch.zeros_like(normals()), by_hand_l1_normals),
    "saliency, two logits": (losses.saliency, 2, classes(2, 255), torch.full((2, *SIZE), 255), by_hand_saliency),
    "saliency, one logit": (losses.saliency, 1, classes(2, 255), torch.full((2, *SIZE), 255), by_hand_saliency),
    "edges": (losses.edges, 1, classes(2, 255), torch.full((2, *SIZE), 255), by_hand_edges),
}
each = pytest.mark.parametrize(("loss", "channels", "label", "nothing", "by_hand"), CASES.values(), ids=CASES.keys())


@each
def test_a_loss_is_what_a_loop_over_pixels_gives(loss, channels, label, nothing, by_hand):
    prediction = logits(channels)
    assert loss(prediction, label).item() == pytest.approx(by_hand(prediction, label), rel=1e-12)


@each
def test_gradients_are_those_of_finite_differences(loss, channels, label, nothing, by_hand):
    assert torch.autograd.gradcheck(lambda p: loss(p, label), logits(channels).requires_grad_())
    # At another resolution, through resizing.
    assert torch.autograd.gradcheck(lambda p: loss(p, label), logits(channels, (2, 3)).requires_grad_())


@each
def test_without_a_valid_pixel_loss_and_gradient_are_zero(loss, channels, label, nothing, by_hand):
    prediction = logits(channels).requires_grad_()
    value = loss(prediction, nothing)
    value.backward()
    assert value == 0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


@each
def test_a_coarse_prediction_is_judged_at_the_labels_resolution(loss, channels, label, nothing, by_hand):
    coarse = logits(channels, (2, 3))
    fine = functional.interpolate(coarse, SIZE, mode="bilinear", align_corners=False)
    assert loss(coarse, label).item() == pytest.approx(by_hand(fine, label), rel=1e-12)


@each
def test_half_precision_is_judged_in_float32(loss, channels, label, nothing, by_hand):
    prediction = logits(channels).half()
    target = label.float() if label.is_floating_point() else label
    value = loss(prediction, target)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(by_hand(prediction.double(), label), rel=1e-5)


@each
def test_what_a_pixel_without_a_label_predicts_does_not_matter(loss, channels, label, nothing, by_hand):
    prediction = logits(channels).requires_grad_()
    loss(prediction, label).backward()
    unlabelled = label == nothing if label.dim() == 3 else (label == 0).all(1)
    assert unlabelled.any()
    assert (prediction.grad.movedim(1, -1)[unlabelled] == 0).all()
    assert (prediction.grad.movedim(1, -1)[~unlabelled] != 0).any()


@pytest.mark.parametrize(
    ("loss", "target"), [(losses.l1, depths()), (losses.cosine_normals, normals()), (losses.l1_normals, normals())]
)
def test_a_mask_decides_and_what_it_hides_may_be_anything(loss, target):
    valid = (target != 0).any(1)
    prediction = logits(target.shape[1]).requires_grad_()
    hidden = target.masked_fill(~valid[:, None], torch.nan)
    expected = loss(prediction, target)
    found = loss(prediction, hidden, valid)
    assert torch.equal(found, expected)
    (gradient,) = torch.autograd.grad(found, prediction)
    assert torch.equal(gradient, torch.autograd.grad(expected, prediction)[0])
    # A target of 0 counts where the mask says so.
    everywhere = torch.ones_like(valid)
    assert losses.l1(logits(1), torch.zeros(2, 1, *SIZE), everywhere).item() == pytest.approx(logits(1).abs().mean())


def test_l1_of_several_channels_is_their_mean():
    prediction, target = logits(2), logits(4)[:, :2]
    expected = (prediction - target).abs().mean().item()
    assert losses.l1(prediction, target).item() == pytest.approx(expected)


def test_normals_per_element_are_a_third_of_those_per_pixel():
    target = normals()
    per_pixel, per_element = (losses.l1_normals(logits(3), target, per=per) for per in ("pixels", "elements"))
    assert per_element.item() == pytest.approx(per_pixel.item() / 3, rel=1e-12)
    assert losses.l1_normals(logits(3), target) == per_pixel


@pytest.mark.parametrize("loss", [losses.cosine_normals, losses.l1_normals])
def test_the_length_of_a_predicted_normal_does_not_matter(loss):
    prediction, target = logits(3), normals()
    for factor in (1e-30, 7, 1e30):
        assert loss(factor * prediction, target).item() == pytest.approx(loss(prediction, target).item(), rel=1e-12)
    nothing = torch.zeros(2, 3, *SIZE, requires_grad=True)
    loss(nothing, target.float()).backward()
    assert torch.equal(nothing.grad, torch.zeros_like(nothing))
    assert losses.cosine_normals(nothing, target.float()).item() == pytest.approx(1)


def test_one_saliency_logit_is_two_of_which_the_first_is_zero():
    label, one = classes(2, 255), logits(1)
    two = torch.cat([torch.zeros_like(one), one], dim=1)
    assert losses.saliency(one, label).item() == pytest.approx(losses.saliency(two, label).item(), rel=1e-12)


@pytest.mark.parametrize("channels", [1, 2])
def test_saliency_of_one_class_alone_costs_nothing(channels):
    for only in (0, 1):
        assert losses.saliency(logits(channels), torch.full((2, *SIZE), only)) == 0


def test_always_answering_no_edge_is_no_way_out():
    """With 5 % of edges both classes weigh the same, so the trivial answers cost the same, too."""
    label = torch.zeros(1, 4, 10, dtype=torch.long)
    label[0, 0, :2] = 1
    never, always = (losses.edges(torch.full((1, 1, 4, 10), value), label) for value in (-20.0, 20.0))
    assert never.item() == pytest.approx(always.item(), rel=1e-6)


def test_labels_of_any_integer_type_will_do():
    label = classes(5, -1)
    expected = losses.cross_entropy(logits(5), label)
    assert torch.equal(losses.cross_entropy(logits(5), label.to(torch.int8)), expected)
    marks = classes(2, 255)
    for loss, channels in ((losses.saliency, 2), (losses.edges, 1)):
        assert torch.equal(loss(logits(channels), marks.to(torch.uint8)), loss(logits(channels), marks))


def test_resizing_by_hand():
    row = torch.tensor([[[[0.0, 4.0]]]])
    assert losses.resized(row, (1, 4)).flatten().tolist() == [0, 1, 3, 4]
    assert losses.resized(row, (1, 5), align_corners=True).flatten().tolist() == [0, 1, 2, 3, 4]
    assert losses.resized(row, (1, 2)) is row
    assert losses.resized(row.half(), (1, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (partial(losses.cross_entropy, logits(5), depths()[:, 0]), "label has dtype torch.float64: pass integers"),
        (partial(losses.cross_entropy, logits(5), classes(5, -1)[:, None]), r"label has shape \(2, 1, 4, 6\)"),
        (partial(losses.cross_entropy, logits(5)[0], classes(5, -1)), r"prediction .* has to be \(2, K, h, w\)"),
        (partial(losses.cross_entropy, logits(5, batch=3), classes(5, -1)), "as there are 2 labels"),
        (partial(losses.saliency, logits(3), classes(2, 255)), r"prediction .* has to be \(2, 1 or 2, h, w\)"),
        (partial(losses.edges, logits(2), classes(2, 255)), r"prediction .* has to be \(2, 1, h, w\)"),
        (partial(losses.l1, logits(1), depths()[:, 0]), r"target .* has to be \(B, C, H, W\)"),
        (partial(losses.l1, logits(3), depths()), r"prediction .* has to be \(2, 1, h, w\)"),
        (partial(losses.l1, logits(1), depths(), depths()[:, 0]), "valid has dtype torch.float64: pass booleans"),
        (partial(losses.l1, logits(1), depths(), depths() > 0), r"valid .* has to be \(2, 4, 6\)"),
        (partial(losses.cosine_normals, logits(1), depths()), "target has 1 channels: it has to have 3"),
        (partial(losses.l1_normals, logits(3), normals(), per="pixel"), "did you mean 'pixels'"),
    ],
)
def test_what_does_not_go_together_is_refused(call, wanted):
    with pytest.raises(IsonomyError, match=wanted):
        call()
