"""The catalogue, and the public contract for every method in it."""

import inspect

import pytest
import torch

import isonomy
from isonomy import IsonomyError
from isonomy.catalogue import CATALOGUE, find
from isonomy.stages import LEVELS


def make(name, **options):
    def factory(tasks):
        required = {"weights": [1.0 + t for t in range(len(tasks))]} if name == "fixed" else {}
        return isonomy.build(name, tasks, **required, **options)

    return factory


GRADIENT = [method.name for method in isonomy.methods() if method.kind == "gradient"]
VARIANTS = [
    ("rlw", {"family": "dirichlet", "total": "tasks"}),
    ("uw", {"likelihood": "laplace", "init": -0.5}),
    ("uw", {"own_optimizer": False}),
    ("mgda", {"normalize": "l2"}),
    ("mgda", {"normalize": "loss"}),
    ("mgda", {"normalize": "loss+"}),
    ("gradnorm", {"alpha": 0.0}),
    ("gradnorm", {"simplex": "softmax", "baseline": "epoch", "heads": "own"}),
    ("pcgrad", {"order": "ascending"}),
    ("nash_mtl", {"max_norm": None}),
    ("max_norm", {"alpha": "median"}),
    ("db_mtl", {"decay": 0.0}),
    ("db_mtl", {"beta": 0.0}),
]


@pytest.mark.parametrize("name", [name for name, method in CATALOGUE.items() if method.stages])
def test_contract(name):
    isonomy.check_balancer(make(name))


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_contract_of_options(name, options):
    isonomy.check_balancer(make(name, **options))


@pytest.mark.parametrize("gradient", GRADIENT)
def test_contract_of_log_and_any_gradient_balancer(gradient):
    isonomy.check_balancer(make(f"log+{gradient}"))


@pytest.mark.parametrize("loss", ["rlw", "uw", "gls", "imtl_l"])
def test_contract_of_hybrids(loss):
    isonomy.check_balancer(make(f"{loss}+cagrad"))


@pytest.mark.parametrize("method", isonomy.methods(), ids=lambda m: m.name)
def test_entries_are_complete(method):
    assert method.kind in ("loss", "gradient", "hybrid", "procedure")
    assert method.name == method.name.lower()
    assert method.paper
    assert 2012 <= method.year <= 2026
    assert method.summary
    assert set(method.levels) <= set(LEVELS)
    assert bool(method.levels) == (method.kind in ("gradient", "hybrid")) == ("gramian" in method.needs)
    for stage in method.stages:
        assert inspect.getdoc(stage)
        for option in inspect.signature(stage).parameters:
            assert f"{option}:" in inspect.getdoc(stage), f"{method.name}: {option} is not documented"


def test_methods_by_pattern():
    assert [method.name for method in isonomy.methods("imtl*")] == ["imtl_l", "imtl_g", "imtl"]
    assert len(isonomy.methods()) == 19


def test_levels_and_needs():
    assert find("db_mtl").levels == ("parameters",)
    assert find("imtl").levels == ("features", "parameters")
    assert find("log+pcgrad").levels == ("parameters", "features")
    assert find("dwa").needs == ("epoch_end",)
    assert find("db_mtl").needs == ("gramian", "jacobian")
    assert find("db_mtl").options == {"eps": 1e-8, "beta": 0.9, "decay": 0.5, "alpha": "max"}


def test_an_option_reaches_every_stage_that_has_it():
    log, _, max_norm = isonomy.build("db_mtl", 2, eps=1e-3).stages
    assert log.eps == max_norm.eps == 1e-3


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("dbmtl", {}, "Unknown method 'dbmtl': did you mean 'db_mtl'"),
        ("zzzzzz", {}, "choose from avgnorm, cagrad"),
        ("log+", {}, "Unknown method ''"),
        ("pcgrad+log", {}, "a hybrid is loss balancers and then"),
        ("log+db_mtl", {}, "a hybrid is"),
        ("log+moml", {}, "a hybrid is"),
        ("moml", {}, "moml is a procedure .* run `isonomy compare --methods moml`"),
        ("db_mtl", {"betta": 0.5}, "Unknown option of db_mtl 'betta': did you mean 'beta'"),
        ("log", {"head": "own"}, "did you mean 'heads'"),
        ("fixed", {}, "needs the option weights="),
        ("fixed", {"weights": [1.0, -1.0]}, "holds -1.0"),
        ("fixed", {"weights": [1.0, float("nan")]}, "finite"),
        ("rlw", {"family": "normall"}, "did you mean 'normal'"),
        ("rlw", {"total": "two"}, "total of rlw"),
        ("uw", {"likelihood": "gauss"}, "'gaussian'"),
        ("uw", {"likelihood": ["laplace"]}, "1 entries for 2"),
        ("dwa", {"temperature": 0}, "temperature=0"),
        ("mgda", {"normalize": "l1"}, "'l2'"),
        ("gradnorm", {"alpha": -1}, "alpha=-1"),
        ("gradnorm", {"simplex": "hard"}, "simplex of gradnorm"),
        ("gradnorm", {"baseline": "first"}, "baseline of gradnorm"),
        ("pcgrad", {"order": "any"}, "order of pcgrad"),
        ("cagrad", {"c": -0.1}, "c=-0.1"),
        ("cagrad", {"rescale": 3}, "rescale=3"),
        ("nash_mtl", {"max_norm": 0}, "max_norm=0"),
        ("max_norm", {"alpha": "maximum"}, "alpha of max_norm"),
        ("db_mtl", {"beta": 1.0}, "beta=1.0"),
        ("db_mtl", {"decay": -1}, "decay=-1"),
    ],
)
def test_build_refuses(name, options, match):
    with pytest.raises(IsonomyError, match=match.replace("(", r"\(")):
        isonomy.build(name, 2, **options)


def test_mean_order_refuses_many_tasks():
    with pytest.raises(IsonomyError, match="6 tasks at most, not 7"):
        isonomy.build("pcgrad", 7, order="mean")
    isonomy.build("pcgrad", 6, order="mean").aggregate(torch.eye(6))


def test_a_method_of_your_own_is_one_small_class():
    class Inverse(isonomy.GradientBalancer):
        """Weights that are the inverse norms."""

        def forward(self, measurement):
            return 1 / measurement.gramian.norms

    isonomy.check_balancer(lambda tasks: isonomy.Balancer(isonomy.loss.Log(), Inverse(), tasks=tasks))


def test_a_smoothing_of_your_own_works_at_the_parameters():
    class Plain(isonomy.stages.Smoothing):
        """The gradients as they are."""

        def forward(self, rows, active):
            return rows

    def factory(tasks):
        return isonomy.Balancer(Plain(), isonomy.gradient.MaxNorm(), tasks=tasks)

    isonomy.check_balancer(factory)
    assert factory(2).levels == ("parameters",)
    with pytest.raises(TypeError, match="abstract"):
        isonomy.stages.Smoothing()
