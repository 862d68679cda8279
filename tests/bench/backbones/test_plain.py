"""SegNet and the small U-Net."""

import torch
from torch.nn import functional

from tests.bench.backbones.nets import built, count, sample, shaken


def test_segnet_s_parts_have_the_published_sizes():
    network = built("segnet")
    parts = (network.encoder_blocks, network.decoder_blocks, network.encoder_convs, network.decoder_convs)
    assert [count(part) for part in parts] == [3_913_728, 3_947_520, 10_809_408, 6_272_640]
    assert [[len(stage) for stage in part] for part in parts[2:]] == [[1, 1, 2, 2, 2]] * 2


def test_segnet_stage_by_stage():
    """As an architecture that reads its stages runs it: values go back to where they were the largest."""
    network = shaken(built("segnet"))
    x = z = sample("segnet")
    sizes, indices = [], []
    for stage in range(5):
        z = network.encoder_convs[stage](network.encoder_blocks[stage](z))
        pooled, index = functional.max_pool2d(z, 2, return_indices=True)
        sizes.append(z.shape)
        indices.append(index)
        z = pooled
    for stage in reversed(range(5)):
        placed = torch.zeros(sizes[stage]).flatten(2).scatter(2, indices[stage].flatten(2), z.flatten(2))
        z = network.decoder_convs[stage](network.decoder_blocks[stage](placed.view(sizes[stage])))
    torch.testing.assert_close(network(x), [z])


def test_segnet_starts_from_xavier_s_weights_and_zero_biases():
    layers = [m for m in built("segnet").modules() if isinstance(m, torch.nn.Conv2d)]
    for layer in layers:
        fan = 9 * (layer.in_channels + layer.out_channels)
        assert not layer.bias.any()
        torch.testing.assert_close(layer.weight.std(), torch.tensor((2 / fan) ** 0.5), rtol=0.1, atol=0)


def test_unet_s_map_sees_all_resolutions():
    """A pixel of the map depends on pixels further away than its fine convolutions alone reach."""
    network = built("unet").eval()
    x = sample("unet").requires_grad_()
    network(x)[0][0, :, 32, 48].sum().backward()
    rows, columns = x.grad[0].abs().sum(0).nonzero().T
    assert (rows.max() - rows.min(), columns.max() - columns.min()) > (16, 16)
    assert not x.grad[1].any()
