"""A method that shows what it was told."""

import torch

import isonomy


class Spy(isonomy.LossBalancer):
    """Sums, and remembers what it hears at the end of an epoch."""

    uses = ("epoch_end", "validation")

    def setup(self, tasks):
        self.register_buffer("heard", torch.zeros(0, 3, dtype=torch.float64))

    def _load_from_state_dict(self, state_dict, prefix, *args):
        self.heard = torch.zeros_like(state_dict[prefix + "heard"])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, losses, active):
        return losses

    def epoch_end(self, metrics, learning_rate):
        self.heard = torch.cat([self.heard, torch.tensor([[*metrics.tolist(), learning_rate]], dtype=torch.float64)])
