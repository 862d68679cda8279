"""Which methods mind the unit of a loss: what follows from their formulas is measured."""

import pytest

import isonomy
from isonomy import IsonomyError
from isonomy.diagnostics import invariance


@pytest.mark.parametrize("method", ["log", "gls", "stch", "db_mtl", "nash_mtl", "mtadam", "log+pcgrad"])
def test_methods_that_are_blind_to_it(method):
    assert invariance(method) < 1e-6


@pytest.mark.parametrize("method", ["ew", "dwa", "cagrad", "pcgrad", "mgda", "moco", "modo"])
def test_methods_that_are_not(method):
    assert invariance(method) > 0.1


def test_no_change_moves_nothing():
    assert invariance("ew", scale=1.0) == 0


def test_a_trained_scale_takes_its_time():
    """IMTL-L is blind once its scales have settled, not before."""
    quick = lambda: isonomy.Balancer(isonomy.loss.IMTLL(own_lr=0.03), tasks=["rescaled", "other"])  # noqa: E731
    assert invariance(quick, steps=50) > 0.1
    assert invariance(quick) < 0.03
    assert invariance("imtl_l") > 1


def test_bad_numbers_are_named():
    with pytest.raises(IsonomyError, match="scale=0"):
        invariance("ew", scale=0)
    with pytest.raises(IsonomyError, match="steps=0"):
        invariance("ew", steps=0)
    with pytest.raises(IsonomyError, match="did you mean 'db_mtl'"):
        invariance("db_mlt")
