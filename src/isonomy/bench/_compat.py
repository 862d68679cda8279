"""Makes timm and torchmetrics importable beside a torchvision whose compiled part does not match torch.

torch from the CPU index and torchvision from the default one are such a pair. timm needs torchvision, and torchmetrics
imports it whenever it is there; both fail with it, though neither uses what is missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from torch import library

from isonomy.errors import IsonomyError

# Kept alive: the operators vanish with the object that declares them.
_operators: library.Library | None = None


def repair_torchvision() -> bool:
    """Declares the operators that torchvision's Python part expects, if and only if its compiled part is missing.

    Call it before the first import of torchmetrics or timm. Without torchvision, or with a matching one, nothing
    happens.

    Returns:
        Whether it had to.
    """
    global _operators  # noqa: PLW0603 - once a process
    if _operators is not None or importlib.util.find_spec("torchvision") is None:
        return _operators is not None
    try:
        import torchvision  # type: ignore[import-untyped,import-not-found,unused-ignore]  # noqa: F401, PLC0415
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _operators = library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            _operators.define(schema)  # type: ignore[no-untyped-call]
    return _operators is not None


def import_timm() -> ModuleType:
    """timm, with the torchvision that it imports repaired where that is needed.

    Raises:
        IsonomyError: If timm is not installed.
    """
    repair_torchvision()
    if importlib.util.find_spec("timm") is None:
        raise IsonomyError("This backbone is timm's, which is not installed: pip install 'isonomy[bench]'.")
    return importlib.import_module("timm")
