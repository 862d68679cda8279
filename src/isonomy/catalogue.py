"""Every method by name: its stages, its paper, its options; ``build`` and ``methods``."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from isonomy import gradient, loss, smoothing
from isonomy.balancer import Balancer
from isonomy.errors import IsonomyError, unknown
from isonomy.stages import GradientBalancer, Level, Stage

Kind = Literal["loss", "gradient", "hybrid", "procedure"]


@dataclass(frozen=True)
class Method:
    """A published method, or a hybrid of two.

    Attributes:
        name: As ``build`` takes it.
        title: As its paper writes it.
        paper: Authors, title and venue.
        year: Of publication.
        stages: The classes it is composed of; none for a procedure, which trains in a way of its own and is run by
            ``isonomy compare``.
        defaults: Options in which the method differs from its stages' defaults; all options of a procedure.
        about: One line on a procedure.
    """

    name: str
    title: str
    paper: str
    year: int
    stages: tuple[type[Stage], ...]
    defaults: dict[str, Any] = field(default_factory=dict)
    about: str = ""

    @property
    def kind(self) -> Kind:
        """What it balances, the losses, the gradients or both, or that it is a procedure."""
        if not self.stages:
            return "procedure"
        takes_gradients = issubclass(self.stages[-1], GradientBalancer)
        return "loss" if not takes_gradients else "gradient" if len(self.stages) == 1 else "hybrid"

    @property
    def options(self) -> dict[str, Any]:
        """Its options and their defaults; ``inspect.Parameter.empty`` for one without a default."""
        found = {
            name: parameter.default
            for stage in self.stages
            for name, parameter in inspect.signature(stage).parameters.items()
        }
        return found | self.defaults

    @property
    def summary(self) -> str:
        """The first line of what its stages say."""
        return self.about or " ".join((inspect.getdoc(stage) or "").splitlines()[0] for stage in self.stages)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Where it can take gradients with its defaults, its paper's choice first; empty if it takes none."""
        return self._example().levels if self.stages else ()

    @property
    def needs(self) -> tuple[str, ...]:
        """What it needs besides the losses, as ``Balancer.needs`` says; nothing of the user for a procedure."""
        return self._example().needs if self.stages else ()

    def compose(self, options: dict[str, Any]) -> list[Stage]:
        """Its stages with these options; an option goes to every stage that has one of that name.

        Raises:
            IsonomyError: An option without a default is missing, or it is a procedure.
        """
        if not self.stages:
            raise IsonomyError(
                f"{self.name} is a procedure that trains a network in its own way: run `isonomy compare --methods "
                f"{self.name}`."
            )
        given = self.defaults | options
        composed = []
        for stage in self.stages:
            parameters = inspect.signature(stage).parameters
            missing = [n for n, p in parameters.items() if p.default is p.empty and n not in given]
            if missing:
                raise IsonomyError(f"{self.name} needs the option {missing[0]}=: pass it to build().")
            composed.append(stage(**{name: value for name, value in given.items() if name in parameters}))
        return composed

    def _example(self) -> Balancer:
        required = {"weights": [1.0]} if loss.Fixed in self.stages else {}
        return Balancer(*self.compose(required), tasks=1)


_DBMTL = "Lin et al., Dual-Balancing for Multi-Task Learning, arXiv 2308.12029"
_IMTL = "Liu et al., Towards Impartial Multi-Task Learning, ICLR"
_REVISIT = "Guo et al., Revisit the Imbalance Optimization in Multi-Task Learning: An Experimental Analysis"
_MGDA = "Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS"

CATALOGUE: dict[str, Method] = {
    method.name: method
    for method in (
        Method("ew", "EW", "Zhang and Yang, A Survey on Multi-Task Learning, TKDE", 2022, (loss.EW,)),
        Method("fixed", "Fixed weights", _REVISIT, 2025, (loss.Fixed,)),
        Method("rlw", "RLW", "Lin et al., Reasonable Effectiveness of Random Weighting, TMLR", 2022, (loss.RLW,)),
        Method("gls", "GLS", "Chennupati et al., MultiNet++, CVPR Workshops", 2019, (loss.GLS,)),
        Method("uw", "UW", "Kendall et al., Multi-Task Learning Using Uncertainty, CVPR", 2018, (loss.UW,)),
        Method("dwa", "DWA", "Liu et al., End-to-End Multi-Task Learning with Attention, CVPR", 2019, (loss.DWA,)),
        Method("imtl_l", "IMTL-L", _IMTL, 2021, (loss.IMTLL,)),
        Method("log", "Log-loss", _DBMTL, 2023, (loss.Log,)),
        Method("mgda", "MGDA", _MGDA, 2018, (gradient.MGDA,)),
        Method("mgda_free", "MGDA without w ≥ 0", _IMTL, 2021, (gradient.MGDAFree,)),
        Method("gradnorm", "GradNorm", "Chen et al., GradNorm, ICML", 2018, (gradient.GradNorm,)),
        Method("pcgrad", "PCGrad", "Yu et al., Gradient Surgery, NeurIPS", 2020, (gradient.PCGrad,)),
        Method("cagrad", "CAGrad", "Liu et al., Conflict-Averse Gradient Descent, NeurIPS", 2021, (gradient.CAGrad,)),
        Method("imtl_g", "IMTL-G", _IMTL, 2021, (gradient.IMTLG,)),
        Method("nash_mtl", "Nash-MTL", "Navon et al., A Bargaining Game, ICML", 2022, (gradient.NashMTL,)),
        Method("avgnorm", "AvgNorm", _REVISIT, 2025, (gradient.AvgNorm,)),
        Method("max_norm", "Max-norm", _DBMTL, 2023, (gradient.MaxNorm,)),
        Method("imtl", "IMTL", _IMTL, 2021, (loss.IMTLL, gradient.IMTLG)),
        Method("db_mtl", "DB-MTL", _DBMTL, 2023, (loss.Log, smoothing.EMA, gradient.MaxNorm)),
        Method(
            "grid_search",
            "Grid search",
            _REVISIT,
            2025,
            (),
            {"trials": 12},
            "Searches fixed weights by training again and again, and keeps the best on the validation split.",
        ),
        Method(
            "auto_lambda",
            "Auto-λ",
            "Liu et al., Auto-Lambda: Disentangling Dynamic Task Relationships, TMLR",
            2022,
            (),
            {"init": 0.1, "own_lr": 1e-4, "outer": "train"},
            "Learns weights under which a virtual step lowers the loss on other data.",
        ),
        Method(
            "moml",
            "MOML",
            "Ye et al., Multi-Objective Meta Learning, NeurIPS",
            2021,
            (),
            {"inner_lr": 1e-4, "own_lr": 1e-3, "normalize": "l2"},
            "Learns weights by multi-objective descent on the validation losses after a virtual step.",
        ),
        Method(
            "url",
            "URL",
            "Li and Bilen, Knowledge Distillation for Multi-task Learning, ECCV Workshops",
            2020,
            (),
            {"own_lr": 1e-2, "weight_decay": 5e-4},
            "Draws the shared feature towards the features of trained single-task networks.",
        ),
    )
}


def methods(pattern: str = "*") -> list[Method]:
    """The catalogue's methods whose names match a shell pattern, such as ``"imtl*"``.

    Args:
        pattern: As for file names.

    Returns:
        Methods: loss balancers, gradient balancers, hybrids, procedures.
    """
    return [method for name, method in CATALOGUE.items() if fnmatch.fnmatchcase(name, pattern)]


def find(name: str) -> Method:
    """A method by name, or the hybrid ``"loss+gradient"`` of two or more.

    Raises:
        IsonomyError: There is no such method, or a part of a hybrid cannot stand where it does.
    """
    parts = []
    for part in name.split("+"):
        if part not in CATALOGUE:
            raise unknown("method", part, CATALOGUE)
        parts.append(CATALOGUE[part])
    if len(parts) == 1:
        return parts[0]
    kinds = [part.kind for part in parts]
    if any(kind != "loss" for kind in kinds[:-1]) or kinds[-1] in ("hybrid", "procedure"):
        raise IsonomyError(
            f"Method {name!r}: a hybrid is loss balancers and then at most one gradient balancer, as in 'log+pcgrad'."
        )
    return Method(
        name,
        " + ".join(part.title for part in parts),
        "; ".join(dict.fromkeys(part.paper for part in parts)),
        max(part.year for part in parts),
        tuple(stage for part in parts for stage in part.stages),
    )


def build(name: str, tasks: int | Sequence[str], **options: Any) -> Balancer:
    """A balancer by its method's name.

    Args:
        name: A method of the catalogue, such as ``"db_mtl"``, or a hybrid, such as ``"log+pcgrad"``.
        tasks: How many tasks there are, or their names.
        **options: The method's own (``methods(name)[0].options``) and ``Balancer``'s.

    Returns:
        The balancer.

    Raises:
        IsonomyError: The method or an option is unknown, a value is out of range, or it is a procedure.
    """
    method = find(name)
    general = set(inspect.signature(Balancer).parameters) - {"stages", "tasks"}
    unknown_options = [option for option in options if option not in general and option not in method.options]
    if unknown_options:
        raise unknown(f"option of {name}", unknown_options[0], general | set(method.options))
    own = {option: value for option, value in options.items() if option not in general}
    return Balancer(*method.compose(own), tasks=tasks, **{o: v for o, v in options.items() if o in general})
