from isonomy.errors import IsonomyError, listing, unknown


def test_did_you_mean():
    assert (
        str(unknown("method", "nash-mtl", ["nash_mtl", "mgda"]))
        == "Unknown method 'nash-mtl': did you mean 'nash_mtl'?"
    )
    assert str(unknown("task", "zz", ["b", "a"])) == "Unknown task 'zz': choose from a, b."
    assert str(unknown("run", "x", [])) == "Unknown run 'x': choose from nothing: there is none."
    assert issubclass(IsonomyError, ValueError)


def test_listing():
    assert listing(["a"]) == "'a'"
    assert listing(["a", "b"]) == "'a' and 'b'"
    assert listing("abc") == "'a', 'b' and 'c'"
    assert listing([]) == "none"
