"""Takes the scalar that a training loop calls ``backward`` on apart into the losses that were added up to it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge

from isonomy import engine
from isonomy.diagnostics.probe import last_layer_of
from isonomy.engine.gradients import silent
from isonomy.engine.graph import Edge, edge_of, leaf_of, walk
from isonomy.errors import IsonomyError
from isonomy.gramian import Gramian, gramian

# What a loop weighs and adds numbers up with. A product of two losses' numbers is here for weights that are learned.
_LINEAR = {"Add", "Sub", "Rsub", "Neg", "Mul", "Div", "Sum", "Mean", "Stack", "Cat", "Dot", "Mv", "Select", "Unbind"}
_LINEAR |= {"Index", "View", "UnsafeView", "Squeeze", "Unsqueeze", "Alias", "ToCopy", "Clone", "Where", "NanToNum"}
_SUFFIX = re.compile(r"Backward\d*$")
_LOSS = re.compile(r"^loss(es)?[ _.-]+|[ _.-]+loss(es)?$|(?<=[a-z0-9])Loss$", re.IGNORECASE)
# Longer containers are data.
_LONGEST = 1000

Names = dict[Edge, tuple[str, Tensor]]
"""What one place in a script calls the tensors that came out of some edges."""


@dataclass(frozen=True)
class Summand:
    """A loss among those that were added up.

    Attributes:
        name: What the script calls it, or ``"loss 2"``.
        edge: Of the graph, where it came out.
        seed: ∂total/∂loss, what the backward pass begins with there.
        value: Its tensor, where the script still has it.
    """

    name: str
    edge: Edge
    seed: Tensor
    value: Tensor | None


def take_apart(
    totals: Sequence[Tensor], seeds: Sequence[Tensor | None], sources: Sequence[Names] = ()
) -> list[Summand]:
    """The losses that were added up to what a backward pass starts from.

    Goes down the graph as long as what it meets are numbers: sums, differences, weights that are constant or learned,
    entries of a stack. A sum that has a name is one loss, unless everything it is made of has names too. Penalties on
    single parameters, such as a weight decay written into the loss, are no losses of a task and are left out; and so is
    what shares no parameter with another loss.

    Args:
        totals: What ``backward`` is called on.
        seeds: What it is given for each; None for 1.
        sources: What tensors are called, of ``named``; the nearest first.

    Returns:
        The losses in the script's order; one, if there is but one, and several that share nothing only if all do so.
    """
    known = {edge for source in sources for edge in source}
    starts = [
        (edge_of(total), torch.ones_like(total) if seed is None else seed)
        for total, seed in zip(totals, seeds, strict=True)
    ]
    with torch.no_grad():
        found = _of_tasks([part for edge, seed in starts for part in _split(edge, seed, known, True)])
        if len(found) == 1:  # a named sum and penalties
            found = _of_tasks([part for edge, seed in found.items() for part in _split(edge, seed, known, True)])
    return [Summand(name, edge, found[edge], value) for edge, (name, value) in _called(found, sources, totals).items()]


def _of_tasks(parts: Iterable[tuple[Edge, Tensor]]) -> dict[Edge, Tensor]:
    """Seeds of the losses among the parts of a sum, each part once."""
    seeds: dict[Edge, Tensor] = {}
    for edge, seed in parts:
        seeds[edge] = seeds[edge] + seed if edge in seeds else seed
    leaves = {edge: _leaves(edge) for edge in seeds if leaf_of(edge[0]) is None}
    penalties = {edge for edge in leaves if _is_penalty(edge)}
    losses = [edge for edge in leaves if edge not in penalties or len(penalties) == len(leaves)]
    joined = [edge for edge in losses if any(leaves[edge] & leaves[other] for other in losses if other != edge)]
    return {edge: seeds[edge] for edge in joined or losses}


def _is_penalty(edge: Edge) -> bool:
    """Whether something is made of numbers each of which depends on one parameter alone."""
    atoms = _split(edge, _ones(edge), set(), True)
    return all(leaf_of(atom[0]) is not None or len(_leaves(atom)) <= 1 for atom, _ in atoms)


def _leaves(edge: Edge) -> set[Tensor]:
    return {leaf for node, _ in walk(edge, {}) if (leaf := leaf_of(node)) is not None}


def _split(edge: Edge, seed: Tensor, known: set[Edge], whole: bool) -> list[tuple[Edge, Tensor]]:
    """The parts of a sum, with ∂total/∂part; ``whole`` for what has to be taken apart whatever its name."""
    parts, rest = [], [(edge, seed, whole)]
    while rest:
        edge, seed, whole = rest.pop()
        if not _is_sum(edge, known):
            parts.append((edge, seed))
        elif edge in known and not whole:
            inner = _split(edge, seed, known - {edge}, False)
            nameless = any(part not in known and leaf_of(part[0]) is None for part, _ in inner)
            parts += [(edge, seed)] if nameless else inner
        else:
            pairs = _handed_on(edge, seed)
            rest += [(below, part, whole and len(pairs) == 1) for below, part in reversed(pairs)]
    return parts


def _handed_on(edge: Edge, seed: Tensor) -> list[tuple[Edge, Tensor]]:
    """What a node's backward gives to those below it, in their shapes and dtypes; hooks do not see it."""
    node, number = edge
    incoming = [seed if slot == number else None for slot in range(len(_inputs(node)))]
    handed = node(*incoming)  # type: ignore[operator]
    parts = handed if isinstance(handed, tuple) else (handed,)
    pairs = zip(node.next_functions, parts, strict=True)
    return [((below, slot), _fitting(part, (below, slot))) for (below, slot), part in pairs if below is not None]


def _is_sum(edge: Edge, known: set[Edge]) -> bool:
    """Whether an edge's value is computed from numbers, in a way that makes them parts of a sum."""
    node = edge[0]
    below = [(after, number) for after, number in node.next_functions if after is not None]
    if not below or isinstance(node, BackwardCFunction):
        return False
    if _SUFFIX.sub("", type(node).__name__) in _LINEAR:
        return all(_is_number(after) or _is_sum(after, known) for after in below)
    # A logarithm or a root of a loss: by the chain rule, with a weight that depends on the loss.
    return all(_is_number(after) and (after in known or leaf_of(after[0]) is not None) for after in below)


def _inputs(node: Any) -> Sequence[Any]:
    return node._input_metadata  # type: ignore[no-any-return]


def _is_number(edge: Edge) -> bool:
    shape: Sequence[int] = _inputs(edge[0])[edge[1]].shape
    return math.prod(shape) == 1


def _ones(edge: Edge) -> Tensor:
    like = _inputs(edge[0])[edge[1]]
    return torch.ones(like.shape, dtype=like.dtype, device=like.device)


def _fitting(seed: Tensor | None, edge: Edge) -> Tensor:
    """A seed in the shape and dtype of an edge, as the engine hands it on."""
    like = _inputs(edge[0])[edge[1]]
    if seed is None:
        return torch.zeros(like.shape, dtype=like.dtype, device=like.device)
    return seed.sum_to_size(like.shape).to(dtype=like.dtype, device=like.device)


def named(frame: FrameType) -> list[Names]:
    """What a frame's variables are called, and what is in them one level down.

    Args:
        frame: Running.

    Returns:
        A mapping for each dictionary, one of all variables, and one for each list or tuple.
    """
    variables, mappings, sequences = [], [], []
    for name, value in list(frame.f_locals.items()):
        if isinstance(value, Tensor):
            variables.append((name, value))
        elif isinstance(value, Mapping) and len(value) <= _LONGEST:
            mappings.append([(str(key), item) for key, item in value.items()])
        elif isinstance(value, tuple | list) and len(value) <= _LONGEST:
            fields = getattr(value, "_fields", [f"{name}[{index}]" for index in range(len(value))])
            sequences.append(list(zip(fields, value, strict=True)))
    sources = [
        {edge_of(item): (name, item) for name, item in source if isinstance(item, Tensor) and item.grad_fn is not None}
        for source in (*mappings, variables, *sequences)
    ]
    return [source for source in sources if source]


def _called(
    edges: Iterable[Edge], sources: Sequence[Names], totals: Sequence[Tensor]
) -> dict[Edge, tuple[str, Tensor | None]]:
    """Names and tensors of the losses, each from the place that names the most of them."""
    ends = list(edges)
    best = sorted(sources, key=lambda source: -sum(edge in source for edge in ends))
    found: dict[Edge, tuple[str, Tensor | None]] = {}
    for number, edge in enumerate(ends, start=1):
        given = next((source[edge] for source in best if edge in source), None)
        own = next((total for total in totals if edge_of(total) == edge), None)
        found[edge] = given or (f"loss {number}", own)
    short = {edge: _LOSS.sub("", name) for edge, (name, _) in found.items()}
    short = {edge: name if name and not name.isdigit() else found[edge][0] for edge, name in short.items()}
    taken: set[str] = set()
    for edge, (name, value) in found.items():
        options = _options(short[edge], name)
        chosen = next(option for option in options if option not in taken)
        taken.add(chosen)
        found[edge] = (chosen, value)
    return found


def _options(short: str, name: str) -> Iterator[str]:
    yield from (short, name)
    number = 2
    while True:
        yield f"{name} ({number})"
        number += 1


def meeting_place(summands: Sequence[Summand]) -> tuple[list[Tensor], str]:
    """Where the gradients of losses can be compared, and how that is called.

    Args:
        summands: The losses.

    Returns:
        The last layer that all of them reach, else all parameters that two of them reach; none if they share nothing.
    """
    if at := last_layer_of([summand.edge for summand in summands]):
        return at, "the last shared layer"
    reached = [_leaves(summand.edge) for summand in summands]
    every = dict.fromkeys(leaf for leaves in reached for leaf in leaves)
    return [leaf for leaf in every if sum(leaf in leaves for leaves in reached) > 1], "the shared parameters"


def look(
    summands: Sequence[Summand], at: Sequence[Tensor], scale: float = 1.0, quiet: Iterable[Tensor] = ()
) -> dict[str, Any]:
    """Measures the gradients of losses that are added up, before they are; the graph stays, and no ``.grad`` changes.

    Args:
        summands: T of them.
        at: Where.
        scale: What a ``GradScaler`` has multiplied their sum by.
        quiet: Tensors whose hooks do not see the passes of single losses, and whose ``.grad`` stays, as ``at``'s do.

    Returns:
        What was seen, by the names of a recording's columns and in the order of the losses.

    Raises:
        IsonomyError: Their gradients cannot be taken one by one.
    """
    edges = [GradientEdge(*summand.edge) for summand in summands]
    try:
        with _untouched(quiet):
            rows = engine.rows_at(edges, [summand.seed for summand in summands], at)
    except RuntimeError as error:
        raise IsonomyError(f"The losses' gradients cannot be taken one by one in this script: {error}") from error
    seen = Gramian.of(gramian(rows))
    weights = [float(summand.seed) / scale if summand.seed.numel() == 1 else 1.0 for summand in summands]
    values = [None if summand.value is None else float(summand.value.detach().sum()) for summand in summands]
    return {
        "losses": values,
        "loss_weights": weights,
        "weights": [1.0] * len(summands),
        "norms": (seen.norms / scale).tolist(),
        "cosines": seen.cosines.tolist(),
    }


@contextmanager
def _untouched(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Silences hooks of tensors, and puts the ``.grad`` of those that retain it back."""
    held = list(tensors)
    before = [(tensor, tensor.grad) for tensor in held if tensor.retains_grad]
    try:
        with silent(held):
            yield
    finally:
        for tensor, grad in before:
            tensor.grad = grad
