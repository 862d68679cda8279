"""Pretrained weights from a local file. Nothing is ever downloaded."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isonomy.errors import IsonomyError, listing

logger = logging.getLogger(__name__)
State = dict[str, Tensor]


def load(
    network: nn.Module,
    path: str | Path,
    *,
    drop: tuple[str, ...] = (),
    convert: Callable[[State], State] | None = None,
) -> int:
    """Loads all of a network's weights from a file, or nothing at all.

    Args:
        network: The network.
        path: A ``.pth``, ``.pt`` or ``.safetensors`` file: a state dict, by itself or under ``"state_dict"`` or
            ``"model"``, with or without the ``"module."`` of data parallelism before its names.
        drop: Beginnings of the names that belong to the classifier and are left out.
        convert: From the layout of the file to that of the network.

    Returns:
        How many tensors were loaded.

    Raises:
        IsonomyError: If the file cannot be read, or if what is in it is not exactly the network's parameters and
            buffers. Nothing has changed then.
    """
    path = Path(path)
    state = _named(_read(path), path)
    if convert is not None:
        try:
            state = convert(state)
        except Exception as error:
            raise IsonomyError(
                f"weights: {path} does not hold a {type(network).__name__} ({type(error).__name__}: {error}). "
                f"Pass the file of the network that you ask for."
            ) from error
    state = {name: tensor for name, tensor in state.items() if not name.startswith(drop)}
    own = network.state_dict()
    # Files from before torch counted batches have no counters; they matter to nobody with a momentum.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    misshapen = [
        f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and own[name].shape != tensor.shape
    ]
    wrong = {"lacks": missing, "has unexpectedly": unexpected, "has in another shape": misshapen}
    if any(wrong.values()):
        found = "; ".join(f"{what} {_first(names)}" for what, names in wrong.items() if names)
        raise IsonomyError(
            f"weights: {path} is not of this network: it {found}. Pass the file of the network that you ask for."
        )
    network.load_state_dict(state, strict=False)
    logger.info("loaded %d tensors from %s", len(state), path)
    return len(state)


def _first(names: list[str], count: int = 3) -> str:
    more = len(names) - count
    return listing(names[:count]) + (f" and {more} more" if more > 0 else "")


def _read(path: Path) -> Any:
    if not path.is_file():
        raise IsonomyError(f"weights: there is no file {path}. Download it first; nothing is downloaded here.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # noqa: PLC0415 - comes with timm, and only these files need it

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise IsonomyError(f"weights: {path} needs safetensors: pip install 'isonomy[bench]'.") from error
    except pickle.UnpicklingError as error:
        raise IsonomyError(
            f"weights: {path} is damaged or holds more than tensors, which is not loaded. Save its state dict anew, "
            f"with torch.save."
        ) from error
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise IsonomyError(
            f"weights: {path} cannot be read ({type(error).__name__}: {reason}). It may be damaged; fetch it again."
        ) from error


def _named(content: Any, path: Path) -> State:
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise IsonomyError(
            f"weights: {path} holds no state dict, by itself or under 'state_dict' or 'model'. Save one."
        )
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}
