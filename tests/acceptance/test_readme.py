"""The README's lines work when they are pasted into a plain script."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.seg, self.depth = nn.Linear(8, 3), nn.Linear(8, 1)


def script(lines, name="imtl"):
    """Runs a training loop and returns what it has trained, and its last losses."""
    model = Model()
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(16, 4, generator=generator) for _ in range(30)]
    names = {
        "model": model,
        "loader": [(x, {"seg": x[:, :3].argmax(1), "depth": 1000 * x[:, :1]}) for x in batches],
        "seg_loss": nn.functional.cross_entropy,
        "depth_loss": nn.functional.l1_loss,
        "optimizer": torch.optim.Adam(model.parameters(), 1e-2),
    }
    exec(compile(lines.replace('"imtl"', f'"{name}"'), "README.md", "exec"), names)
    return model, names["losses"]


def test_the_diff_is_three_lines_and_both_sides_train():
    (diff,) = blocks("diff")
    lines = diff.splitlines()
    assert sum(line.startswith("+") for line in lines) == 3
    assert sum(line.startswith("-") for line in lines) == 1
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    _, plain = script(before)
    model, balanced = script(after)
    assert balanced["seg"] < plain["seg"]  # Under plain summing the loss in millimetres decides everything.
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["uw", "nash_mtl", "log+pcgrad", "log+max_norm"])
def test_the_diff_with_another_method(name):
    (diff,) = blocks("diff")
    after = "\n".join(line[1:] for line in diff.splitlines() if not line.startswith("-"))
    script(after, name)


def test_the_other_examples_run():
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})
