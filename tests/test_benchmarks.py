"""The benchmark of a step runs, its memory is what was allocated, and its tables say what was measured."""

import csv
import gc
from pathlib import Path

import pytest
import torch

CPU = torch.device("cpu")
BLOCK = 1 << 16  # bytes


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    """The folder's modules can be imported; what a run changes in the process is undone."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    gc.unfreeze()


def block(blocks=1):
    return torch.zeros(blocks * BLOCK // 4)


def test_memory_of_a_known_pattern():
    from peak import Memory, memory

    def step():
        a, b, c = block(), block(4), block(2)
        del b
        d = block(3)
        return a, c, d

    assert memory(step, lambda: None, CPU) == Memory(0, 7 * BLOCK)  # a + b + c, more than a + c + d.


def test_memory_held_between_steps_counts_apart_even_if_a_step_replaces_it():
    from peak import Memory, memory

    history, old = [], block(8)  # allocated before anybody looks: freeing it must not count

    def step():
        nonlocal old
        old = None
        history[:] = [block(5)]

    # While the list changes hands the new block and the old one live.
    assert memory(step, lambda: None, CPU) == Memory(5 * BLOCK, 5 * BLOCK)


def test_memory_counts_what_autograd_keeps_and_frees():
    from peak import memory

    weight = torch.zeros(BLOCK // 4, requires_grad=True)

    def step():
        (weight * 2).exp().sum().backward()

    used = memory(step, lambda: setattr(weight, "grad", None), CPU)
    # exp keeps its result; its argument lives beside it for a moment, and so does the gradient on the way back.
    assert 0 <= used.held < 100
    assert 2 * BLOCK <= used.peak < 2 * BLOCK + 100


@pytest.mark.parametrize(("model", "millions"), [("conv", 4.7), ("mlp", 1.05), ("vit", 4.8)])
def test_networks_have_the_size_they_are_said_to_have(model, millions):
    from models import workload
    from sides import references

    work = workload(model, 2, CPU)
    assert work.size / 1e6 == pytest.approx(millions, rel=0.01)
    references(work)["sum"].step()
    assert all(p.grad is not None for part in (work.trunk, work.heads) for p in part.parameters())


@pytest.mark.parametrize("side", ["features", "parameters"])
def test_everybody_takes_part_in_the_same_work_or_is_named(side):
    from models import workload
    from sides import PEERS, contestants

    work = workload("mlp", 3, CPU)
    found, missing = contestants(work, ["imtl_g"], side, False)
    assert {entry.solver.split()[0] for entry in found} | set(missing) == {"Isonomy", *PEERS}
    expected = None
    for entry in found:
        entry.clear()
        entry.step()
        assert all(head.grad is not None for head in work.heads.parameters()), entry.solver
        gradients = torch.cat([parameter.grad.flatten() for parameter in work.trunk.parameters()])
        expected = gradients if expected is None else expected
        # LibMTL sums a feature's gradient over the batch before it compares tasks, which is another method.
        if (side, entry.solver) != ("features", "LibMTL (IMTL)"):
            assert torch.allclose(gradients, expected, rtol=1e-3, atol=1e-6), entry.solver


def test_a_run_writes_what_it_measured(monkeypatch, tmp_path, capsys):
    import step

    words = "step.py --models mlp --tasks 2 --methods imtl_g,db_mtl --sides features,parameters --alone --quick --out"
    monkeypatch.setattr("sys.argv", [*words.split(), str(tmp_path)])
    step.main()
    text = (tmp_path / "step.md").read_text()
    assert text in capsys.readouterr().out
    rows = {(r["side"], r["solver"], r["method"]): r for r in csv.DictReader((tmp_path / "step.csv").open())}
    assert len(rows) == 8
    assert all(row["rounds"] == "2" and float(row["seconds"]) > 0 for row in rows.values())
    for side, reference in (("features", "sum"), ("parameters", "floor")):
        assert float(rows[side, reference, ""]["ratio"]) == 1
    assert float(rows["parameters", "Isonomy", "db_mtl"]["held"]) == pytest.approx(2, rel=0.02)  # T x P of history
    assert float(rows["parameters", "Isonomy full", "imtl_g"]["held"]) == pytest.approx(0, abs=0.01)
    assert float(rows["parameters", "Isonomy full", "imtl_g"]["above_sum"]) > 0.5  # one row of J more


def test_a_peer_that_fails_is_named_and_ours_may_not(monkeypatch, tmp_path):
    import step
    from sides import Contestant

    def fail():
        raise ValueError("no solution")

    words = f"step.py --models mlp --tasks 2 --sides features --quick --out {tmp_path}"
    monkeypatch.setattr("sys.argv", words.split())
    for solver in ("TorchJD", "Isonomy"):
        entry = Contestant("features", solver, "nash_mtl", fail, lambda: None)
        monkeypatch.setattr(step, "contestants", lambda *_, entry=entry: ([entry], {"LibMTL": "not there"}))
        if solver == "Isonomy":
            with pytest.raises(ValueError, match="no solution"):
                step.main()
        else:
            step.main()
            text = (tmp_path / "step.md").read_text()
            assert "LibMTL (not there); TorchJD nash_mtl, mlp, T = 2, features (ValueError('no solution'))" in text
            assert "\n| TorchJD" not in text


def test_goals_are_shown_and_misses_stand_out():
    from peak import Memory
    from sides import Contestant
    from step import cell, goal, line_of

    entry, memories = (
        Contestant("features", "Isonomy", "imtl_g", lambda: None, lambda: None),
        (Memory(0, 120), Memory(0, 40)),
    )

    def line(tasks, ratio):
        return line_of(("mlp", tasks, "features"), entry, 10, ([ratio], [1.0], [1.0]), memories)

    good, bad, other = line(3, 1.07), line(10, 1.11), line(4, 2.0)
    assert (cell(good), cell(bad)) == ("× 1.07 (1.07–1.07); 2.00 P", "**× 1.11 (1.11–1.11)**; 2.00 P")
    assert "**" not in cell(other)
    assert goal([good, bad, other]) == "time ≤ 1.08, 1.1, –"


def test_an_unknown_choice_is_refused(capsys):
    from step import parse

    with pytest.raises(SystemExit):
        parse(["--models", "conv,mpl"])
    assert "mpl: choose from conv,mlp,vit" in capsys.readouterr().err


def test_what_a_monitor_costs_is_written_down(monkeypatch, tmp_path):
    import monitor

    monkeypatch.setattr("sys.argv", f"monitor.py --quick --models mlp --tasks 2 --out {tmp_path}".split())
    monitor.main()
    lines = (tmp_path / "monitor.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| mlp")]
    assert [row.split(" | ")[0] for row in rows] == [f"| mlp, {name} at the {side}" for name, side in monitor.CASES]
    assert all(row.count("%") == 1 for row in rows)
