import numpy as np
import torch
from torch import nan

from isonomy.bench.data.offsets import offsets


def test_every_pixel_points_to_the_middle_of_its_instance():
    instances = torch.tensor([[7, 7, -1, 26003], [7, 7, -1, -1], [-1, -1, -1, 26003]])
    dx, dy = offsets(instances)
    # Instance 7 has its middle half a pixel off each of its own; the other one, of two pieces, between them.
    expected_x = torch.tensor([[0.5, -0.5, nan, 0], [0.5, -0.5, nan, nan], [nan, nan, nan, 0]])
    expected_y = torch.tensor([[0.5, 0.5, nan, 1], [-0.5, -0.5, nan, nan], [nan, nan, nan, -1]])
    torch.testing.assert_close(dx, expected_x, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(dy, expected_y, equal_nan=True, rtol=0, atol=0)


def test_offsets_equal_those_by_hand():
    instances = torch.randint(-2, 30, (23, 31), generator=torch.Generator().manual_seed(0))
    found = offsets(instances)
    assert (found.dtype, tuple(found.shape)) == (torch.float32, (2, 23, 31))
    for number in instances.unique().tolist():
        rows, columns = np.nonzero((instances == number).numpy())
        own = found[:, rows, columns]
        if number < 0:
            assert own.isnan().all()
            continue
        expected = np.stack([columns.mean() - columns, rows.mean() - rows])
        np.testing.assert_allclose(own.numpy(), expected, atol=1e-5)


def test_an_image_without_instances_has_no_offset():
    assert offsets(torch.full((3, 4), -1)).isnan().all()
