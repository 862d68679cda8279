"""Python runs this first in processes that tests start with this folder on their path.

Lightning and Transformers import torchvision where it is installed, and fail with one that does not match torch.
"""

from isonomy.bench._compat import repair_torchvision

repair_torchvision()
