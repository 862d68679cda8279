import pytest
import torch

from isonomy.bench.architectures.experts import Gate, View, mixture
from isonomy.errors import IsonomyError
from tests.bench.architectures.networks import images, small


def test_a_pooled_view_has_the_means_of_sixteen_windows():
    x = images(size=(32, 48))
    expected = x.unflatten(2, (4, 8)).unflatten(4, (4, 12)).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(View((3,), "pooled")(x), expected)
    assert View((3, 5, 7), "image").width == 105
    assert torch.equal(View((3, 32, 48), "image")(x), x.flatten(1))


def test_gates_are_positive_and_sum_to_one():
    weights, penalty = Gate(View((3,), "pooled"), 5)(images())
    assert weights.shape == (3, 5)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert penalty is None


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2, 2)])
def test_a_mixture_by_loops(shape):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 2, generator=generator)
    experts = torch.randn(2, *shape, generator=generator)
    expected = torch.stack([sum(weights[b, e] * experts[e, b] for e in range(2)) for b in range(3)])
    torch.testing.assert_close(mixture(weights, list(experts)), expected)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(IsonomyError, match="Unknown gate_input 'pool': did you mean 'pooled'"):
        View((3,), "pool")
    with pytest.raises(IsonomyError, match=r"pass image=\(C, H, W\), not \(3,\)"):
        View((3,), "image")
    with pytest.raises(IsonomyError, match=r"reads 3072 numbers got 4608, of images of shape \(3, 32, 48\)"):
        View((3, 32, 32), "image")(images(size=(32, 48)))
    with pytest.raises(IsonomyError, match="reads images"):
        View((3,), "pooled")(torch.zeros(2, 48))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mmoe", {"experts": 0}),
        ("mmoe", {"experts": 2.0}),
        ("cgc", {"shared_experts": 0}),
        ("cgc", {"own_experts": 0}),
        ("ple", {"shared_experts": 0}),
        ("ple", {"own_experts": -1}),
        ("dselect_k", {"experts": 1}),
        ("dselect_k", {"k": 0}),
    ],
)
def test_numbers_of_experts_are_checked(kind, options):
    name, value = next(iter(options.items()))
    with pytest.raises(IsonomyError, match=rf"{name}={value!r} must be a whole number from"):
        small(kind, **options)
