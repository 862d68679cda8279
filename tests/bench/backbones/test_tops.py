"""What a shared encoder may have on top."""

import torch

from isonomy.bench.backbones import Pooled, PyramidPooled, heads
from isonomy.bench.backbones.tops import PyramidPool
from tests.bench.backbones.nets import built, sample


def test_pooled_is_the_average_of_the_last_map():
    network = built("resnet_mini").eval()
    x = sample("resnet_mini")
    (z,) = Pooled(network)(x)
    torch.testing.assert_close(z, network(x)[-1].mean(dim=(2, 3)))
    assert Pooled(network).channels == (64,)
    assert Pooled(network).last_layer()[0] is network.last_layer()[0]


def test_a_hidden_layer_starts_as_in_the_office_codes():
    network = Pooled(built("resnet_mini"), hidden=512)
    weight, bias = network.last_layer()
    torch.testing.assert_close(weight.std(), torch.tensor(0.005), rtol=0.05, atol=0)
    assert (bias == 0.1).all()
    assert network(sample("resnet_mini"))[0].shape == (2, 512)
    assert network.channels == (512,)


def test_the_pooled_network_of_the_catalogue_is_not_dilated():
    assert built("resnet18_pooled").backbone.strides[-1] == 32
    assert built("resnet18_pooled", hidden=0).channels == (512,)


def test_the_pyramid_averages_over_1_4_9_and_36_windows():
    pool = PyramidPool(8).eval()
    x = torch.rand(2, 8, 12, 18)
    y = pool(x)
    assert torch.equal(y[:, :8], x)
    # In the corners of the map interpolation keeps what the outermost windows have.
    for level, (bins, layers) in enumerate(zip((1, 2, 3, 6), pool.levels, strict=True)):
        part = y[:, 8 + 2 * level : 10 + 2 * level]
        first, last = x[:, :, : 12 // bins, : 18 // bins], x[:, :, -(12 // bins) :, -(18 // bins) :]
        for corner, window in ((part[..., 0, 0], first), (part[..., -1, -1], last)):
            torch.testing.assert_close(corner, layers[1](window.mean(dim=(2, 3), keepdim=True))[..., 0, 0])
    torch.testing.assert_close(y[:, 8:10], y[:, 8:10, :1, :1].expand(-1, -1, 12, 18))


def test_a_shared_pyramid_and_its_tail_are_the_whole_head():
    network, head = built("resnet_mini").eval(), heads.make("psp", (8, 16, 32, 64), 3).eval()
    shared = PyramidPooled(network).eval()
    shared.pool.load_state_dict(head.pool.state_dict())
    x = sample("resnet_mini")
    maps = shared(x)
    assert [m.shape[1] for m in maps] == list(shared.channels) == [8, 16, 32, 128]
    torch.testing.assert_close(head.tail(maps[-1]), head(network(x)[-1]))
    assert sum(p.numel() for p in shared.last_layer()) == 64 * 64
