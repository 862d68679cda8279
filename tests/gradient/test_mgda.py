import pytest
import torch
from hypothesis import given

import isonomy
from tests.fixtures import A, B, E, F, M, aggregate, close, jacobians, linear, tensor, weights


@pytest.mark.parametrize(
    ("J", "w", "d"),
    [
        (A, [1, 0], [1, 0]),
        (B, [0.6, 0.4], [0, 1, 1]),
        (E, [0.217391, 0.521739, 0.260870], [0.173913, -0.043478, 0.521739]),
        (F, [0, 0.833333, 0.166667], [-0.833333, -0.166667, -0.333333]),
    ],
)
def test_known_weights(J, w, d):
    close(weights("mgda", J), w)
    close(aggregate("mgda", J), d)


@pytest.mark.parametrize(("J", "gain"), [(B, 2), (E, 0.304348)])
def test_every_task_gains_alike_in_the_interior(J, gain):
    close(tensor(J) @ aggregate("mgda", J), [gain] * len(J))


@given(jacobians())
def test_no_task_gains_less_than_the_squared_norm(J):
    J = J / J.norm(dim=1).max()
    d = aggregate("mgda", J)
    assert float((J @ d).min()) >= float(d @ d) - 1e-12


@pytest.mark.parametrize(
    ("normalize", "J", "losses", "w"),
    [
        ("none", E, [2, 0.5, 1], [0.217391, 0.521739, 0.260870]),
        ("l2", E, [2, 0.5, 1], [0.218657, 0.398050, 0.383293]),
        ("loss", B, [2, 0.5], [0.867830, 0.132170]),
        ("loss+", E, [2, 0.5, 1], [0.493298, 0.169075, 0.337627]),
    ],
)
def test_normalisers_weigh_the_gradients_as_they_are(normalize, J, losses, w):
    theta, heads, losses = linear(J, losses)
    balancer = isonomy.build("mgda", tasks=len(J), normalize=normalize)
    balancer(losses, shared=[theta]).backward()
    close(balancer.report.weights, w)
    close(theta.grad, balancer.report.weights @ tensor(J), 1e-12)
    close(torch.stack([head.grad for head in heads]), w)


@pytest.mark.parametrize("normalize", ["none", "l2", "loss", "loss+"])
def test_weights_of_a_loss_balancer_are_scales_of_the_losses(normalize):
    scales = [2.0, 5.0, 0.5]
    scaled, weighted = M(scales=scales), M()
    scaled.step(isonomy.build("mgda", tasks=3, normalize=normalize))
    weighted.step(isonomy.build("fixed+mgda", tasks=3, weights=scales, normalize=normalize))
    close(weighted.theta.grad, scaled.theta.grad, 1e-12)
    close(weighted.heads, scaled.heads, 1e-12)


def test_l2_needs_no_losses_and_the_others_do():
    close(weights("mgda", E, normalize="l2"), [0.218657, 0.398050, 0.383293])
    with pytest.raises(isonomy.IsonomyError, match="losses"):
        weights("mgda", E, normalize="loss+")


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_normalising_by_losses_needs_positive_ones(scale):
    m = M(scales=(1, 1, scale))
    with pytest.raises(isonomy.IsonomyError, match="'2'"):
        m.step(isonomy.build("mgda", tasks=3, normalize="loss"))


def test_heads_get_the_weights():
    m = M()
    balancer = isonomy.build("mgda", tasks=3)
    m.step(balancer)
    # The shortest vector between (2, 0), (0, -1) and (2, 2) lies between the last two.
    close(m.theta.grad, [6 / 13, -4 / 13])
    close(m.heads, [0, -2 * 10 / 13, 6 * 3 / 13])


@pytest.mark.parametrize(("combine", "d"), [("raw", [1, 0.5]), ("normalized", [0.853553, 0.353553])])
def test_raw_and_normalised_gradients_combined(combine, d):
    close(aggregate("mgda", A, normalize="l2", combine=combine), d)


@given(jacobians())
def test_combined_normalised_gradients_are_the_shortest_of_their_hull(J):
    unit = J / J.norm(dim=1, keepdim=True)
    d = aggregate("mgda", J, normalize="l2", combine="normalized")
    close(d, aggregate("mgda", unit), 1e-9)
    assert float((unit @ d).min()) >= float(d @ d) - 1e-9


@pytest.mark.parametrize(("normalize", "c"), [("none", [1, 1, 1]), ("loss", [2, 0.5, 1]), ("loss+", [2, 0.5, 1])])
def test_combined_gradients_are_divided_by_what_normalises_them(normalize, c):
    n = tensor(E).norm(dim=1) if normalize == "loss+" else 1
    theta, heads, losses = linear(E, [2, 0.5, 1])
    balancer = isonomy.build("mgda", tasks=3, normalize=normalize, combine="normalized")
    balancer(losses, shared=[theta]).backward()
    divided = tensor(E) / (tensor(c) * n)[:, None]
    close(theta.grad, aggregate("mgda", divided), 1e-9)
    close(torch.stack([head.grad for head in heads]), balancer.report.weights, 1e-12)


def test_unknown_normaliser():
    with pytest.raises(isonomy.IsonomyError, match="normalize"):
        isonomy.build("mgda", tasks=2, normalize="l1")
    with pytest.raises(isonomy.IsonomyError, match="combine of mgda"):
        isonomy.build("mgda", tasks=2, combine="divided")
