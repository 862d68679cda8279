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
from isonomy.stages import GradientBalancer, Level, LossBalancer, Stage

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
        uses: What a procedure needs besides the training set.
    """

    name: str
    title: str
    paper: str
    year: int
    stages: tuple[type[Stage], ...]
    defaults: dict[str, Any] = field(default_factory=dict)
    about: str = ""
    uses: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """What it balances, the losses, the gradients or both, or that it is a procedure."""
        if not self.stages:
            return "procedure"
        if not issubclass(self.stages[-1], GradientBalancer):
            return "loss"
        return "hybrid" if any(issubclass(stage, LossBalancer) for stage in self.stages) else "gradient"

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
        """What it needs besides the losses, as ``Balancer.needs`` says."""
        return self._example().needs if self.stages else self.uses

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
        # The one option without a default is a size, and any will do.
        return Balancer(*self.compose({"features": 1}), tasks=1)


_DBMTL = "Lin et al., Dual-Balancing for Multi-Task Learning, arXiv 2308.12029"
_IMTL = "Liu et al., Towards Impartial Multi-Task Learning, ICLR"
_REVISIT = "Guo et al., Revisit the Imbalance Optimization in Multi-Task Learning: An Experimental Analysis"
_IGB = "Dai et al., Improvable Gap Balancing for Multi-Task Learning, UAI"
_STCH = "Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, ICML"
_GO4ALIGN = "Shen et al., GO4Align: Group Optimization for Multi-Task Alignment, NeurIPS"
_LDC = "Xiao et al., LDC-MTL: Balancing Multi-Task Learning through Scalable Loss Discrepancy Control, arXiv 2502.08585"
_MGDA = "Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS"
_ALIGNED = "Senushkin et al., Independent Component Alignment for Multi-Task Learning, CVPR"
_CONFIG = "Liu et al., ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks, ICLR"
_MOCO = "Fernando et al., Mitigating Gradient Bias in Multi-objective Learning, ICLR"
_SDMGRAD = "Xiao et al., Direction-oriented Multi-objective Learning, NeurIPS"
_MODO = "Chen et al., Three-Way Trade-Off in Multi-Objective Learning, NeurIPS"
_EXCESS = "He et al., Robust Multi-Task Learning with Excess Risks, ICML"
_CRMOGM = "Zhou et al., Stochastic Multi-Objective Gradient Manipulation, NeurIPS"
_FAIR = "Ban and Ji, Fair Resource Allocation in Multi-Task Learning, ICML"
_UPGRAD = "Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, arXiv 2406.16232"
_GEM = "Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS"

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
        Method("igb_v1", "IGBv1", _IGB, 2023, (loss.IGBv1,)),
        Method("igb_v2", "IGBv2", _IGB, 2023, (loss.IGBv2,)),
        Method("famo", "FAMO", "Liu et al., Fast Adaptive Multitask Optimization, NeurIPS", 2023, (loss.FAMO,)),
        Method("dtp", "DTP", "Guo et al., Dynamic Task Prioritization for Multitask Learning, ECCV", 2018, (loss.DTP,)),
        Method("stch", "STCH", _STCH, 2024, (loss.STCH,)),
        Method("go4align", "GO4Align", _GO4ALIGN, 2024, (loss.GO4Align,)),
        Method("ldc_mtl", "LDC-MTL", _LDC, 2025, (loss.LDCMTL,)),
        Method("dsg", "DSG", "Lu et al., 12-in-1: Multi-Task Vision and Language, CVPR", 2020, (loss.DSG,)),
        Method("mgda", "MGDA", _MGDA, 2018, (gradient.MGDA,)),
        Method("mgda_free", "MGDA without w ≥ 0", _IMTL, 2021, (gradient.MGDAFree,)),
        Method("gradnorm", "GradNorm", "Chen et al., GradNorm, ICML", 2018, (gradient.GradNorm,)),
        Method("pcgrad", "PCGrad", "Yu et al., Gradient Surgery, NeurIPS", 2020, (gradient.PCGrad,)),
        Method("gradvac", "GradVac", "Wang et al., Gradient Vaccine, ICLR", 2021, (gradient.GradVac,)),
        Method("graddrop", "GradDrop", "Chen et al., Just Pick a Sign, NeurIPS", 2020, (gradient.GradDrop,)),
        Method("cagrad", "CAGrad", "Liu et al., Conflict-Averse Gradient Descent, NeurIPS", 2021, (gradient.CAGrad,)),
        Method("imtl_g", "IMTL-G", _IMTL, 2021, (gradient.IMTLG,)),
        Method("mtadam", "MTAdam", "Malkiel and Wolf, MTAdam, EMNLP", 2021, (gradient.MTAdam,)),
        Method("nash_mtl", "Nash-MTL", "Navon et al., A Bargaining Game, ICML", 2022, (gradient.NashMTL,)),
        Method("metabalance", "MetaBalance", "He et al., MetaBalance, WWW", 2022, (gradient.MetaBalance,)),
        Method("moco", "MoCo", _MOCO, 2023, (smoothing.Tracking, gradient.MoCo)),
        Method("aligned_mtl", "Aligned-MTL", _ALIGNED, 2023, (gradient.AlignedMTL,)),
        Method("fairgrad", "FairGrad", _FAIR, 2024, (gradient.FairGrad,)),
        Method("avgnorm", "AvgNorm", _REVISIT, 2025, (gradient.AvgNorm,)),
        Method("max_norm", "Max-norm", _DBMTL, 2023, (gradient.MaxNorm,)),
        Method("config", "ConFIG", _CONFIG, 2025, (gradient.ConFIG,)),
        Method("upgrad", "UPGrad", _UPGRAD, 2024, (gradient.UPGrad,)),
        Method("dualproj", "DualProj", _GEM, 2017, (gradient.DualProj,)),
        Method("sdmgrad", "SDMGrad", _SDMGRAD, 2023, (gradient.SDMGrad,)),
        Method("modo", "MoDo", _MODO, 2023, (gradient.MoDo,)),
        Method("cr_mogm", "CR-MOGM", _CRMOGM, 2022, (gradient.CRMOGM,)),
        Method("excess_mtl", "ExcessMTL", _EXCESS, 2024, (gradient.ExcessMTL,)),
        Method("rotograd", "RotoGrad", "Javaloy and Valera, RotoGrad, ICLR", 2022, (gradient.RotoGrad,)),
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
            ("validation",),
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
            ("validation",),
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


# Not a method, but a part of hybrids.
_EMA = Method("ema", "EMA", _DBMTL, 2023, (smoothing.EMA,))


def methods(pattern: str = "*") -> list[Method]:
    """The catalogue's methods whose names match a shell pattern, such as ``"imtl*"``.

    Args:
        pattern: As for file names.

    Returns:
        Methods: loss balancers, gradient balancers, hybrids, procedures.
    """
    return [method for name, method in CATALOGUE.items() if fnmatch.fnmatchcase(name, pattern)]


def find(name: str) -> Method:
    """A method by name, or the hybrid ``"loss+gradient"`` of two or more; ``"ema"`` before the last smooths gradients.

    Raises:
        IsonomyError: There is no such method, or a part of a hybrid cannot stand where it does.
    """
    names = name.split("+")
    smoothed = len(names) > 1 and names[-2] == _EMA.name
    parts = []
    for position, part in enumerate(names):
        if smoothed and position == len(names) - 2:
            parts.append(_EMA)
        elif part not in CATALOGUE:
            raise unknown("method", part, CATALOGUE)
        else:
            parts.append(CATALOGUE[part])
    if len(parts) == 1:
        return parts[0]
    kinds = [part.kind for part in parts if part is not _EMA]
    wrong = any(kind != "loss" for kind in kinds[:-1]) or kinds[-1] in ("hybrid", "procedure")
    if wrong or (smoothed and kinds[-1] != "gradient"):
        raise IsonomyError(
            f"Method {name!r}: a hybrid is loss balancers and then at most one gradient balancer, as in 'log+pcgrad', "
            "which may have 'ema' before it."
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
