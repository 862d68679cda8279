"""What the cells of a sweep train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from isonomy.bench import data
from isonomy.bench.methods import find
from isonomy.bench.precise import PRECISIONS
from isonomy.errors import IsonomyError, unknown

DEVICES = ("auto", "cpu", "cuda")
EXECUTORS = LOCAL, RAY = "local", "ray"
# They take gradients, or train networks, outside of the step that is shared.
ALONE = ("auto_lambda", "moml", "url")


def chosen(given: Mapping[str, Any], methods: Sequence[str], problem: data.Problem) -> dict[str, Any]:
    """The devices and the precision that flags ask for.

    Args:
        given: ``device``, ``devices``, ``precision``, ``executor`` and ``observe``, where the user gave them.
        methods: Of the sweep.
        problem: The data set.

    Returns:
        ``device``, ``devices`` and ``precision``.

    Raises:
        IsonomyError: One is unknown or not there, or something of the sweep cannot be shared by several.
    """
    executor, precision = given.get("executor", LOCAL), given.get("precision", PRECISIONS[0])
    for what, value, choices in (("executor", executor, EXECUTORS), ("precision", precision, PRECISIONS)):
        if value not in choices:
            raise unknown(what, value, choices)
    if given.get("address") is not None and executor != RAY:
        raise IsonomyError("--address is a Ray cluster's: add --executor ray, or leave --address out.")
    devices = given.get("devices", 1)
    if devices < 1:
        raise IsonomyError(f"--devices is {devices}: it must be at least 1.")
    device = _device(given.get("device", "cpu"), devices, elsewhere=executor == RAY)
    if precision == "16-mixed" and device == "cpu":
        raise IsonomyError("Precision '16-mixed' is for GPUs: use --device cuda, or --precision bf16-mixed.")
    if devices > 1:
        _require_shared(devices, given, methods, problem)
    return {"device": device, "devices": devices, "precision": precision}


def _device(name: str, devices: int, elsewhere: bool) -> str:
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "cuda" and elsewhere:
        return name
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise IsonomyError("Device 'cuda' is not available here: use --device cpu, or auto.")
    device = name if name != "auto" else "cuda" if available else "cpu"
    count = torch.cuda.device_count()
    if device == "cuda" and 1 < devices > count:
        raise IsonomyError(f"--devices is {devices} and there are {count} GPUs: use at most as many.")
    return device


def _require_shared(devices: int, given: Mapping[str, Any], methods: Sequence[str], problem: data.Problem) -> None:
    for name in methods:
        if find(name).method.name in ALONE:
            raise IsonomyError(f"Method {name!r} trains on one device: leave it out, or use --devices 1.")
    if given.get("observe") is not None:
        raise IsonomyError(f"Observer {given['observe']!r} looks at one device: leave it out, or use --devices 1.")
    size = getattr(problem, "batch_size", devices)
    if size % devices:
        raise IsonomyError(
            f"A batch of {problem.name!r} has {size} samples, which {devices} devices cannot share: choose a "
            "batch_size and a number of --devices that divides it."
        )
