"""What a task is judged by: each a ``torchmetrics.Metric`` that is fed batches and gives a dictionary of numbers.

The keys are the names that results go by (``mIoU``, ``RMSE``, ``odsF``, …); shares are in percent. A set without
anything to judge gives NaN, or 0 for the F-measures, which are counts.
"""

from isonomy.bench.metrics.depth import Depth
from isonomy.bench.metrics.edges import Edges
from isonomy.bench.metrics.normals import Normals
from isonomy.bench.metrics.saliency import Saliency
from isonomy.bench.metrics.scalars import L1, MAE, Accuracy
from isonomy.bench.metrics.segmentation import Segmentation

__all__ = ["L1", "MAE", "Accuracy", "Depth", "Edges", "Normals", "Saliency", "Segmentation"]
