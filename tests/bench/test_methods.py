import pytest

from isonomy.bench import methods
from isonomy.errors import IsonomyError


def test_commas_separate_methods_and_their_options():
    text = "ew, db_mtl:beta=0.5,decay=0,uw,log+pcgrad ,imtl_g:level=parameters"
    assert methods.split(text) == ["ew", "db_mtl:beta=0.5,decay=0", "uw", "log+pcgrad", "imtl_g:level=parameters"]


def test_options_have_the_types_of_their_defaults():
    named = methods.find("db_mtl:beta=0,decay=0.5,alpha=mean")
    assert named.options == {"beta": 0.0, "decay": 0.5, "alpha": "mean"}
    assert isinstance(named.options["beta"], float)
    assert methods.find("fixed:weights=1x1x2x50").options == {"weights": [1.0, 1.0, 2.0, 50.0]}
    assert methods.find("imtl_g:level=parameters") == (methods.find("imtl_g").method, {}, "parameters")


def test_titles_say_the_options():
    assert methods.find("ew").title == "EW"
    assert methods.find("fixed:weights=1x50").title == "Fixed weights (weights = 1 : 50)"
    assert methods.find("imtl_g:level=parameters").title == "IMTL-G (level = parameters)"


def test_the_gradient_half_of_db_mtl_is_a_hybrid():
    both, half = (methods.find(name).method.stages for name in ("db_mtl", "ema+max_norm"))
    assert methods.find("log+ema+max_norm").method.stages == both
    assert half == both[1:]
    for wrong in ("ema", "ema+log", "max_norm+ema", "ema+ema+max_norm", "ema+db_mtl"):
        with pytest.raises(IsonomyError):
            methods.find(wrong)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("db_mtl:beta=0.5,beta=0.4", "Option beta of db_mtl is given twice"),
        ("db_mtl:beta=much", "Option beta of db_mtl is 'much': write something like 0.9"),
        ("db_mtl:gamma=1", "Unknown option of db_mtl 'gamma'"),
        ("db_mlt:beta=1", r"Unknown method 'db_mlt': did you mean 'db_mtl'\?"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(text, sentence):
    with pytest.raises(IsonomyError, match=sentence):
        methods.find(text)


def test_options_that_no_balancer_takes_are_refused_before_anything_runs():
    methods.require("uw", ["a", "b"])
    with pytest.raises(IsonomyError, match="weights has 3 entries for 2 tasks"):
        methods.require("fixed:weights=1x2x3", ["a", "b"])
    with pytest.raises(IsonomyError, match=r"fixed:weights=heavy"):
        methods.require("fixed:weights=heavy", ["a", "b"])
