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
        required = {"features": 1} if name.endswith("rotograd") else {}
        return isonomy.build(name, tasks, **required, **options)

    return factory


GRADIENT = [method.name for method in isonomy.methods() if method.kind == "gradient"]
VARIANTS = [
    ("rlw", {"family": "dirichlet", "total": "tasks"}),
    ("uw", {"likelihood": "laplace", "init": -0.5}),
    ("uw", {"own_optimizer": False}),
    ("dwa", {"window": 1}),
    ("igb_v1", {"base_epoch": 0}),
    ("igb_v2", {"base_epoch": 0, "learn_epoch": 1, "policy_epoch": 1}),
    ("igb_v2", {"log_prob": "gaussian"}),
    ("stch", {"mu": 0.1, "nadir_epoch": 0}),
    ("stch", {"form": "paper", "mu": 0.5}),
    ("go4align", {"groups": 1, "beta": 0.5}),
    ("ldc_mtl", {"normalize": "log_ratio"}),
    ("ldc_mtl", {"normalize": "none"}),
    ("dsg", {"patience": 0, "interval": 2}),
    ("mgda", {"normalize": "l2"}),
    ("mgda", {"normalize": "loss"}),
    ("mgda", {"normalize": "loss+"}),
    ("mgda", {"normalize": "loss+", "combine": "normalized"}),
    ("gradnorm", {"alpha": 0.0}),
    ("gradnorm", {"simplex": "softmax", "baseline": "epoch", "heads": "own"}),
    ("pcgrad", {"order": "ascending"}),
    ("gradvac", {"groups": "tensor"}),
    ("gradvac", {"order": "ascending", "beta": 0.0}),
    ("metabalance", {"groups": "model"}),
    ("metabalance", {"reference": "mean", "strategy": "reduce"}),
    ("aligned_mtl", {"scale": "rmse"}),
    ("aligned_mtl", {"scale": "median"}),
    ("nash_mtl", {"max_norm": None}),
    ("fairgrad", {"alpha": 0, "max_norm": None}),
    ("fairgrad", {"alpha": 0.5}),
    ("max_norm", {"alpha": "median"}),
    ("graddrop", {"leak": 0.3}),
    ("mtadam", {"betas": (0.5, 0.9, 0.0)}),
    ("moco", {"simplex": "softmax"}),
    ("moco", {"beta": 0.05, "beta_decay": 0.0, "rho": 0.1}),
    ("sdmgrad", {"inner": "exact"}),
    ("excess_mtl", {"warmup_steps": 2, "total": "one", "beta": 1.0}),
    ("rotograd", {"scale": False, "burn_in": 2}),
    ("rotograd", {"own_optimizer": False}),
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


@pytest.mark.parametrize(
    "loss", ["rlw", "uw", "gls", "imtl_l", "igb_v1", "igb_v2", "famo", "dtp", "stch", "go4align", "ldc_mtl"]
)
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
    assert len(isonomy.methods()) == 46


def test_levels_and_needs():
    assert find("db_mtl").levels == ("parameters",)
    assert find("imtl").levels == ("features", "parameters")
    assert find("log+pcgrad").levels == ("parameters", "features")
    assert find("dwa").needs == ("epoch_end",)
    assert find("db_mtl").needs == ("gramian", "jacobian")
    assert find("graddrop").levels == ("features", "parameters")
    assert find("rotograd").levels == ("features",)
    assert find("moml").needs == ("validation",)
    assert find("mtadam").needs == ("gramian", "jacobian")
    assert find("moco").kind == "gradient"
    assert find("log+moco").kind == find("db_mtl").kind == "hybrid"
    assert find("db_mtl").options == {"eps": 1e-8, "beta": 0.9, "decay": 0.5, "alpha": "max"}


def test_an_option_reaches_every_stage_that_has_it():
    log, _, max_norm = isonomy.build("db_mtl", 2, eps=1e-3).stages
    assert log.eps == max_norm.eps == 1e-3


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("dbmtl", {}, "Unknown method 'dbmtl': did you mean 'db_mtl'"),
        ("zzzzzz", {}, "choose from aligned_mtl, "),
        ("log+", {}, "Unknown method ''"),
        ("pcgrad+log", {}, "a hybrid is loss balancers and then"),
        ("log+db_mtl", {}, "a hybrid is"),
        ("log+moml", {}, "a hybrid is"),
        ("moml", {}, "moml is a procedure .* run `isonomy compare --methods moml`"),
        ("db_mtl", {"betta": 0.5}, "Unknown option of db_mtl 'betta': did you mean 'beta'"),
        ("log", {"head": "own"}, "did you mean 'heads'"),
        ("fixed", {"weights": [1.0, -1.0]}, "holds -1.0"),
        ("fixed", {"weights": [1.0, float("nan")]}, "finite"),
        ("rlw", {"family": "normall"}, "did you mean 'normal'"),
        ("rlw", {"total": "two"}, "total of rlw"),
        ("uw", {"likelihood": "gauss"}, "'gaussian'"),
        ("uw", {"likelihood": ["laplace"]}, "1 entries for 2"),
        ("dwa", {"temperature": 0}, "temperature=0"),
        ("dwa", {"window": 0}, "window=0"),
        ("igb_v1", {"base_epoch": -1}, "base_epoch=-1"),
        ("igb_v2", {"learn_epoch": 1}, "learn_epoch=1"),
        ("igb_v2", {"log_prob": "oficial"}, "'official'"),
        ("dtp", {"alpha": 0}, "alpha=0"),
        ("dtp", {"gamma": -1}, "gamma=-1"),
        ("stch", {"mu": 0}, "mu=0"),
        ("stch", {"form": "code"}, "form of stch"),
        ("stch", {"ideal": [0.0, 0.0]}, "ideal belongs to the paper's form"),
        ("go4align", {"groups": 0}, "groups=0"),
        ("go4align", {"beta": -1}, "beta=-1"),
        ("ldc_mtl", {"penalty": -1}, "penalty=-1"),
        ("ldc_mtl", {"normalize": "ratios"}, "did you mean 'ratio'"),
        ("dsg", {"mode": "maximum"}, "did you mean 'max'"),
        ("dsg", {"mode": ["max"]}, "1 entries for 2"),
        ("mgda", {"normalize": "l1"}, "'l2'"),
        ("mgda", {"combine": "norm"}, "combine of mgda"),
        ("gradnorm", {"alpha": -1}, "alpha=-1"),
        ("gradnorm", {"alpha": float("inf")}, "alpha=inf"),
        ("gradnorm", {"simplex": "hard"}, "simplex of gradnorm"),
        ("gradnorm", {"baseline": "first"}, "baseline of gradnorm"),
        ("pcgrad", {"order": "any"}, "order of pcgrad"),
        ("gradvac", {"order": "mean"}, "order of gradvac"),
        ("gradvac", {"beta": 2}, "beta=2"),
        ("gradvac", {"groups": "layer"}, "groups of gradvac"),
        ("metabalance", {"reference": 2}, "reference=2"),
        ("metabalance", {"relax": 2}, "relax=2"),
        ("aligned_mtl", {"scale": "max"}, "scale of aligned_mtl"),
        ("aligned_mtl", {"preference": [1.0]}, "1 entries for 2"),
        ("cr_mogm", {"weighting": "mgda"}, "not a str"),
        ("cr_mogm", {"momentum": 2}, "momentum=2"),
        ("cagrad", {"c": -0.1}, "c=-0.1"),
        ("cagrad", {"c": float("inf")}, "c=inf"),
        ("cagrad", {"rescale": 3}, "rescale=3"),
        ("nash_mtl", {"max_norm": 0}, "max_norm=0"),
        ("fairgrad", {"alpha": 0.2}, "alpha=0.2"),
        ("fairgrad", {"max_norm": -1}, "max_norm=-1"),
        ("upgrad", {"preference": [1.0]}, "1 entries for 2"),
        ("upgrad", {"preference": [0.0, 0.0]}, "not all 0"),
        ("dualproj", {"preference": [1.0, -1.0]}, "numbers of 0 or more"),
        ("max_norm", {"alpha": "maximum"}, "alpha of max_norm"),
        ("max_norm", {"eps": -1e-8}, "eps=-1e-08"),
        ("max_norm", {"eps": float("nan")}, "eps=nan"),
        ("graddrop", {"leak": 2}, "leak=2"),
        ("graddrop", {"leak": [0.5]}, "1 entries for 2"),
        ("mtadam", {"betas": (0.9, 1.0, 0.9)}, "betas="),
        ("mtadam", {"eps": 0}, "eps=0"),
        ("moco", {"beta": 0}, "beta=0"),
        ("moco", {"beta_decay": -1}, "beta_decay=-1"),
        ("moco", {"gamma": -1}, "gamma=-1"),
        ("moco", {"simplex": "hard"}, "simplex of moco"),
        ("modo", {"rho": -1}, "rho=-1"),
        ("sdmgrad", {"lam": -1}, "lam=-1"),
        ("sdmgrad", {"inner": "slsqp"}, "inner of sdmgrad"),
        ("excess_mtl", {"beta": -1}, "beta=-1"),
        ("excess_mtl", {"total": "two"}, "total of excess_mtl"),
        ("rotograd", {}, "needs the option features="),
        ("rotograd", {"features": 0}, "features=0"),
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
