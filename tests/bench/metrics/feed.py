"""What every metric is fed in the tests that hold for all of them."""

import torch

from isonomy.bench import metrics


def draw(count):
    """Predictions and targets of ``count`` samples for every metric: (make, prediction, target)."""
    random = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(count, *shape, generator=random)

    def integers(low, high, *shape):
        return torch.randint(low, high, (count, *shape), generator=random)

    labels = integers(-1, 5, 6, 7)
    depth = normal(1, 6, 7).abs() + 0.1
    depth[normal(1, 6, 7) > 1] = 0
    directions = torch.nn.functional.normalize(normal(3, 6, 7), dim=1)
    directions *= (normal(1, 6, 7) < 1).float()
    salient = integers(0, 2, 6, 7)
    salient[normal(6, 7) > 1] = 255
    edges = (normal(12, 13) > 0.8).long()
    edges[0, :, -2:] = 255
    offsets = normal(2, 6, 7)
    offsets[normal(2, 6, 7) > 1] = torch.nan
    shifted = 2 * edges.clamp(max=1).roll(1, -1).float()[:, None] - 1 + normal(1, 12, 13)
    return {
        "segmentation": (lambda: metrics.Segmentation(5), normal(5, 6, 7), labels),
        "segmentation as MTAN": (lambda: metrics.Segmentation(5, legacy_mtan=True), normal(5, 6, 7), labels),
        "depth": (metrics.Depth, depth + 0.3 * normal(1, 6, 7), depth),
        "normals": (metrics.Normals, directions + 0.3 * normal(3, 6, 7), directions),
        "saliency": (metrics.Saliency, normal(2, 6, 7), salient),
        "saliency as InvPT": (lambda: metrics.Saliency(compat="invpt"), normal(1, 6, 7), salient),
        "edges": (lambda: metrics.Edges(1.5, "pixels", thresholds=9), shifted, edges),
        "edges without suppression": (
            lambda: metrics.Edges(0.1, nms=False, thresholds=9, convert=True),
            shifted,
            edges,
        ),
        "accuracy": (metrics.Accuracy, normal(4), integers(0, 4)),
        "MAE": (metrics.MAE, normal(), normal()),
        "L1": (metrics.L1, normal(2, 6, 7), offsets),
    }


NAMES = tuple(draw(1))
