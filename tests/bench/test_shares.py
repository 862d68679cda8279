import pytest

from isonomy.bench.data.shares import check, kept, size
from isonomy.errors import IsonomyError


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [("all", 10, 10), ("1/2", 10, 5), ("1/4", 10, 2), ("12", 40, 12), ("12", 7, 7), ("1", 10, 1), ("1/4", 1, 1)],
)
def test_a_share_is_that_of_what_there_is(share, count, expected):
    check(share, "Option scans of it")
    assert size(share, count) == expected
    assert len(kept(range(count), share, "it")) == expected


@pytest.mark.parametrize("share", ["", "none", "0", "-1", "0.5", "1/0", "3/2", "0/4", "1/2/3", "-1/2"])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(IsonomyError, match=r"Option scans of it is .*: write all, a fraction such as 1/4, or a number"):
        check(share, "Option scans of it")


def test_less_is_a_part_of_more_in_the_old_order_and_drawn_at_random():
    every = [f"scan {i}" for i in range(100)]
    half, quarter, few = (kept(every, share, "building", "point") for share in ("1/2", "1/4", "12"))
    assert set(few) < set(quarter) < set(half) < set(every)
    assert half == sorted(half, key=every.index)
    assert half == kept(every, "1/2", "building", "point")
    assert half != kept(every, "1/2", "other building", "point")
    # Were the first half taken, none of the last 50 would be there; of a random one 25 are, give or take.
    assert 10 < sum(every.index(name) >= 50 for name in half) < 40
    assert kept(every, "all", "building") == every
