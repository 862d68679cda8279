"""Settings that all tests share."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("isonomy", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("isonomy")
