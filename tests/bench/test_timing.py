import weakref
from dataclasses import dataclass, field
from pathlib import Path

import torch

from isonomy.bench import plan, timing
from tests.bench.tiny import Tiny


@dataclass
class Watched(Tiny):
    """``Tiny`` that knows how many of the batches it has given are still held."""

    given: list = field(default_factory=list)
    most: int = 0

    def batches(self, seed, epoch, device, split="train"):
        for x, y in super().batches(seed, epoch, device, split):
            batch = x.clone()
            self.given.append(weakref.ref(batch))
            self.most = max(self.most, sum(ref() is not None for ref in self.given))
            yield batch, y
            del batch


def test_every_step_has_a_batch_of_its_own_and_none_is_kept(monkeypatch):
    problem = Watched()
    flags = {"data": "tiny", "methods": ["ew", "uw", "imtl"], "seeds": 1}
    cells = plan.timed(plan.resolve(flags, Path("nowhere"), False, lambda name: problem), lambda name: problem)
    monkeypatch.setattr(timing, "WARM_UP", 2)
    found = timing.measure(cells, lambda name: problem)
    assert list(found) == ["ew", "uw", "imtl"]
    assert all(seconds > 0 for seconds in found.values())
    steps = timing.WARM_UP + timing.MEASURED
    assert len(torch.cat([x for x, _ in Tiny().batches(0, 0, "cpu")])) == 64  # so four batches an epoch are not enough
    assert len(problem.given) == len(cells) * steps
    assert problem.most <= 2 * len(cells)


def test_slow_steps_are_timed_a_few_times(monkeypatch):
    problem = Watched()
    cells = plan.timed(
        plan.resolve({"data": "tiny", "methods": ["ew"], "seeds": 1}, Path("nowhere"), False, lambda name: problem),
        lambda name: problem,
    )
    monkeypatch.setattr(timing, "PATIENCE", 0.0)
    assert list(timing.measure(cells, lambda name: problem)) == ["ew"]
    assert len(problem.given) == timing.LEAST + 1
