"""check_balancer finds what is wrong: every check is shown a balancer that breaks it."""

import pytest
import torch
from torch import nn

import isonomy
from isonomy import Balancer, GradientBalancer, IsonomyError, LossBalancer
from isonomy.testing import same_state


class Gradient(GradientBalancer):
    def forward(self, measurement):
        return torch.ones_like(measurement.gramian.norms)


class Loss(LossBalancer):
    def forward(self, losses, active):
        return losses


class NotFinite(Gradient):
    def forward(self, measurement):
        return 1 / (measurement.gramian.norms - measurement.gramian.norms)


class Forgetful(Loss):
    """Weights depend on a count that is not in the state."""

    count = 0

    def forward(self, losses, active):
        return losses * (1 + self.count)

    def update(self, losses, active):
        self.count += 1


class Hasty(Loss):
    """Remembers before it knows that the step is finite."""

    def setup(self, tasks):
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, losses, active):
        self.seen += 1
        return losses


class Partial(Loss):
    """Treats the first task otherwise and does not say so."""

    def forward(self, losses, active):
        return losses * torch.where(active == 0, 2.0, 1.0)


class Silent(Balancer):
    """Takes any loss."""

    def forward(self, losses, shared=None, **options):
        try:
            return super().forward(losses, shared, **options)
        except IsonomyError:
            return torch.zeros((), requires_grad=True)


class Valueless(Balancer):
    def forward(self, losses, shared=None, **options):
        return 2 * super().forward(losses, shared, **options)


class Wrong(Balancer):
    """Hands on other gradients than it reports."""

    def forward(self, losses, shared=None, **options):
        loss = super().forward(losses, shared, **options)
        return loss + 0.1 * (shared - shared.detach()).sum()


class WrongHeads(Wrong):
    def forward(self, losses, shared=None, **options):
        loss = super(Wrong, self).forward(losses, shared, **options)
        extra = sum(losses.values()) if isinstance(losses, dict) else 0
        return loss + 0.1 * (extra - extra.detach()) if isinstance(extra, torch.Tensor) else loss


class Careless(Balancer):
    """Loads the state of any tasks."""

    def _load_from_state_dict(self, state_dict, prefix, *args):
        state_dict[prefix + "_extra_state"]["tasks"] = list(self.tasks)
        super()._load_from_state_dict(state_dict, prefix, *args)


class Trains(Balancer):
    """Takes a step in evaluation, too."""

    def forward(self, losses, shared=None, **options):
        self.steps += 1
        return super().forward(losses, shared, **options)


class Single(Balancer):
    def forward(self, losses, shared=None, **options):
        loss = super().forward(losses, shared, **options)
        return loss.float() if shared is None else _cast(loss, shared)


def _cast(loss, shared):
    class Cast(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * 0

    return Cast.apply(loss) if shared.dtype == torch.bfloat16 else loss


class AtFeatures(Gradient):
    levels = ("features",)


class AtFeaturesNotFinite(NotFinite, AtFeatures):
    pass


def balancer(*stages, kind=Balancer):
    return lambda tasks: kind(*(stage() for stage in stages), tasks=tasks)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (balancer(NotFinite), "is not finite"),
        (balancer(AtFeaturesNotFinite), "is not finite"),
        (balancer(Forgetful), "bit for bit"),
        (balancer(Hasty, Gradient), "changes the balancer's state"),
        (balancer(Partial), "permuting"),
        (balancer(Loss, kind=Silent), "that names"),
        (balancer(Loss, kind=Valueless), "not the sum of the losses"),
        (balancer(Gradient, kind=Wrong), "under the reported weights"),
        (balancer(Loss, kind=Careless), "state of other tasks"),
        (balancer(Loss, kind=Trains), "state"),
        (balancer(Gradient, kind=Single), "unusable"),
    ],
)
def test_finds(factory, message):
    with pytest.raises(AssertionError, match=message):
        isonomy.check_balancer(factory)


def test_passes_what_is_right():
    isonomy.check_balancer(balancer(Gradient))
    isonomy.check_balancer(balancer(Loss, Gradient))
    isonomy.check_balancer(balancer(Loss, AtFeatures))


def test_same_state():
    state = {"a": [torch.tensor([1.0, torch.nan]), 2, "x"], "b": None}
    assert same_state(state, {"a": [torch.tensor([1.0, torch.nan]), 2, "x"], "b": None})
    assert not same_state(state, {"a": [torch.tensor([1.5, torch.nan]), 2, "x"], "b": None})
    assert not same_state(state, {"a": [torch.tensor([1.0, torch.nan]), 2], "b": None})
    assert not same_state(state, {"a": state["a"]})
    assert not same_state(state["a"][0], 1)


def test_jacobians_are_what_their_names_say():
    found = dict(isonomy.testing.jacobians(3))
    assert found["norms from 1e-10 to 1e15"].norm(dim=1).log10().diff().min() > 10
    assert torch.linalg.matrix_rank(found["rank deficient"]) == 2
    assert torch.equal(found["opposed"][0], -found["opposed"][1])
    assert not found["one zero"][0].any()
    assert nn.functional.cosine_similarity(*found["duplicate"][:2], dim=0) > 1 - 1e-12
