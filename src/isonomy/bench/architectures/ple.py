"""Progressive layered extraction: shared experts and a task's own, mixed after every stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isonomy.bench.architectures import sharing
from isonomy.bench.architectures.experts import Gate, GateInput, View, count, mixture
from isonomy.bench.architectures.output import Output
from isonomy.bench.seeds import drawn
from isonomy.errors import unknown

LEVELS = 5


class PLE(nn.Module):
    """Gates after the stem and after each stage: a task's own stream, and in the paper's form a shared one besides.

    Tang et al., "Progressive layered extraction (PLE)", RecSys 2020. On each of five levels, a task's gate reads the
    task's stream and mixes what its own experts make of this stream and what the shared experts make of theirs. A
    single task has one expert and no gate.

    Args:
        encoder: Makes a staged backbone, which is an expert on every level.
        heads: For each task, what makes its head.
        seed: Of the initial weights.
        shared_experts: How many experts all tasks use.
        own_experts: How many further ones each task has.
        variant: ``"paper"``: the shared experts have a stream of their own, a mixture of all experts. ``"libmtl"``:
            they are given every task's stream in turn, and there is no shared one.
        gate_input: What a gate reads of its stream: ``"pooled"``, averages over 4 x 4 windows, or ``"image"``, all its
            numbers as in the paper.
        image: Shape (C, H, W) of an image; (C,) will do where it is pooled.

    Raises:
        IsonomyError: There is no task, the encoder has no stages, or an option is out of range.
    """

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        heads: Mapping[str, Callable[[], nn.Module]],
        seed: int,
        shared_experts: int = 1,
        own_experts: int = 1,
        variant: Literal["paper", "libmtl"] = "paper",
        gate_input: GateInput = "pooled",
        image: Sequence[int] = (3,),
    ) -> None:
        super().__init__()
        if variant not in {"paper", "libmtl"}:
            raise unknown("variant", variant, ("paper", "libmtl"))
        alone = len(heads) == 1
        shared = count("shared_experts", shared_experts)
        own = count("own_experts", own_experts)
        self.paper = variant == "paper"

        def experts(number: int, *part: str) -> nn.ModuleList:
            made = nn.ModuleList()
            for each in range(number):
                with drawn(seed, "expert", *part, each):
                    made.append(encoder())
            return made

        self.shared = experts(1 if alone else shared)
        sharing.require_stages(self.shared[0], "PLE")
        self.own = nn.ModuleDict({task: experts(0 if alone else own, task) for task in heads})
        # By level: a task's gate over the shared experts and its own, and the shared stream's over all.
        self.gates = nn.ModuleDict({task: nn.ModuleList() for task in heads})
        self.shared_gates = nn.ModuleList()
        views = _views(self.shared[0], image, gate_input)
        for level, view in enumerate([] if alone else views):
            for task in heads:
                gates: Any = self.gates[task]
                with drawn(seed, "gate", task, level):
                    gates.append(Gate(view, shared + own))
            if self.paper and level < LEVELS - 1:
                with drawn(seed, "gate", level):
                    self.shared_gates.append(Gate(view, shared + own * len(heads)))
        self.heads = sharing.make_heads(heads, seed)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The shared experts, and what else reaches the shared stream, through which a task comes to others."""
        modules: list[nn.Module] = [*self.shared, *self.shared_gates]
        if self.paper:
            experts: Any = self.own.values()
            for expert in chain.from_iterable(experts):
                modules += sharing.stages(expert)[: LEVELS - 1]
            # The stream that a gate makes is read by own experts on the next level, and these by the shared gate there.
            modules += [gate for gates in self.gates.values() for gate in gates[: LEVELS - 2]]  # type: ignore[index]
        return chain.from_iterable(module.parameters() for module in modules)

    def last_layer(self) -> list[nn.Parameter]:
        """The parameters of each shared expert's last layer."""
        return list(chain.from_iterable(map(sharing.last_layer, self.shared)))

    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Output:
        """The predictions.

        Args:
            x: Images.
            tasks: Only these are computed, with what reaches them through the shared stream; None for all.

        Raises:
            IsonomyError: A task is unknown.
        """
        chosen = sharing.wanted(self.heads, tasks)
        if len(self.heads) == 1:
            maps = dict.fromkeys(chosen, self.shared[0](x)) if chosen else {}
        else:
            maps = self._maps(x, chosen)
        return Output(None, {task: sharing.predict(self.heads[task], maps[task]) for task in chosen})

    def _maps(self, x: Tensor, chosen: list[str]) -> dict[str, list[Tensor]]:
        """Each chosen task's stream after each stage."""
        shared = [sharing.stages(expert) for expert in self.shared]
        experts: Any = self.own
        own = {task: [sharing.stages(expert) for expert in experts[task]] for task in self.heads}
        gates: Any = self.gates
        streams, common = dict.fromkeys(self.heads, x), x
        maps: dict[str, list[Tensor]] = {task: [] for task in chosen}
        for level in range(LEVELS):
            joint = self.paper and level < LEVELS - 1
            # Up to the last shared gate, every task's experts have a part in the shared stream.
            running = list(self.heads) if joint else chosen
            seen = {task: [parts[level](streams[task]) for parts in own[task]] for task in running}
            known = [parts[level](common) for parts in shared] if self.paper else []
            following = {}
            for task in list(self.heads) if joint and level < LEVELS - 2 else chosen:
                given = known if self.paper else [parts[level](streams[task]) for parts in shared]
                following[task] = mixture(gates[task][level](streams[task])[0], [*given, *seen[task]])
            if joint:
                everyone = chain.from_iterable(seen.values())
                common = mixture(self.shared_gates[level](common)[0], [*known, *everyone])
            streams = following
            if level > 0:
                for task in chosen:
                    maps[task].append(streams[task])
        return maps


def _views(expert: nn.Module, image: Sequence[int], gate_input: GateInput) -> list[View]:
    """What the gates of each level read: the images, and what the stem and the stages but the last give."""
    views = [View(image, gate_input)]
    # Where only the channels are asked for, any size will do.
    x = next(expert.parameters()).new_zeros(1, image[0], *(image[1:] or (32, 32)))
    training = expert.training
    expert.eval()
    with torch.no_grad():
        for part in sharing.stages(expert)[: LEVELS - 1]:
            x = part(x)
            views.append(View(x.shape[1:], gate_input))
    expert.train(training)
    return views
