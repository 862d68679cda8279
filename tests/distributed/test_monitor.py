"""Monitors of two processes see what one process on the whole batch would, and the first one writes it down."""

import pytest
import torch

import isonomy
from isonomy.diagnostics import load
from tests.diagnostics.nets import TASKS, Net
from tests.distributed.processes import run


def train(rank, world, method, at, folder):
    net, balancer = Net(), isonomy.build(method, TASKS)
    heard = []
    monitor = isonomy.Monitor(balancer, every=2, folder=folder, log=lambda numbers, step: heard.append(step))
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = x.chunk(world)[rank]
    for _ in range(3):
        # The parameters stay as they are: every process alone would move its own way.
        z = net.trunk(x)
        losses = {
            task: (net.heads[task](net.trunk(x) if at == "batches" else z).squeeze(1) - x[:, k]).square().mean()
            for k, task in enumerate(TASKS)
        }
        balancer(losses, shared=z if at == "features" else net.trunk).backward()
    seen = monitor.recording
    return seen.losses, seen.norms, seen.cosines, heard, seen.place


@pytest.mark.parametrize(
    ("method", "at"), [("ew", "features"), ("ew", "parameters"), ("ew", "batches"), ("imtl", "features")]
)
def test_two_processes_see_what_one_would(tmp_path, method, at):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (alone,) = run(train, 1, tmp_path / "one", method, at, tmp_path / "one" / "looks")
    both = run(train, 2, tmp_path / "two", method, at, tmp_path / "two" / "looks")
    for losses, norms, cosines, _, place in both:
        torch.testing.assert_close(losses, alone[0])
        torch.testing.assert_close(norms, alone[1])
        torch.testing.assert_close(cosines, alone[2])
        assert place == alone[4]
    assert [heard for *_, heard, _ in both] == [[0, 2], []]
    assert load(tmp_path / "two" / "looks").steps.tolist() == [0, 2]
