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


def script(lines, name="imtl", steps=30):
    """Runs a training loop and returns what it has trained, and its last losses."""
    model = Model()
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(16, 4, generator=generator) for _ in range(steps)]
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
    diff, _ = blocks("diff")
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
    diff, _ = blocks("diff")
    after = "\n".join(line[1:] for line in diff.splitlines() if not line.startswith("-"))
    script(after, name)


def test_two_lines_bring_the_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loop, two = blocks("diff")
    first, last = [line[1:] for line in two.splitlines() if line.startswith("+")]
    lines = [line[1:] for line in loop.splitlines() if not line.startswith("-")]
    place = next(number for number, line in enumerate(lines) if line.startswith("balancer"))
    script("\n".join([*lines[: place + 1], first, *lines[place + 1 :], last]), "ew", steps=300)
    page = (tmp_path / "diagnosis" / "report.html").read_text()
    found = page[page.index("Findings") : page.index("<table")].replace("&#x27;", "'")
    assert "the strongest task, 'depth', pulls" in found
    assert page.count("<svg") > 6


def test_the_other_examples_run():
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})
