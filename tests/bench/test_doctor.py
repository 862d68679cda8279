"""The doctor runs a script as it is, reads what was recorded, and says what is wrong in words."""

import io
import os
import re
import runpy
import shutil
import subprocess
import sys
import textwrap
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

import isonomy
from isonomy.balancer import Balancer
from isonomy.bench import cli, doctor, looks, plan, records
from isonomy.bench.watching import Watch
from isonomy.diagnostics import Monitor, load
from isonomy.diagnostics.recording import FILE

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_loop.py"

# Two tasks that want the same of one encoder, from their own heads; SCALE is the second one's unit.
LOOP = """
    import torch
    from torch import nn

    torch.manual_seed(0)
    x = torch.randn(256, 6)
    y = torch.stack([x[:, 0] + x[:, 1], x[:, 2] - x[:, 3], x[:, 4]], 1)
    encoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh())
    heads = nn.ModuleList(nn.Linear(16, 1) for _ in range(3))
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], 0.003)

    for step in range(STEPS):
        z = encoder(x)
        seg, depth, edge = ((head(z)[:, 0] - y[:, i]).square().mean() for i, head in enumerate(heads))
        depth_loss = SCALE * depth
        del depth
        loss = SUM
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        DO
    print("done", step + 1)
"""


@pytest.fixture
def script(tmp_path):
    """Writes a script."""

    def write(text=LOOP, name="train.py", **changes):
        changes = {"STEPS": "30", "SCALE": "1.0", "SUM": "seg + depth_loss + edge", "DO": "pass"} | changes
        text = textwrap.dedent(text)
        for word, change in changes.items():
            text = re.sub(rf"\b{word}\b", lambda _, change=change: change, text)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def run(*arguments, code=0):
    assert cli.run(["doctor", *map(str, arguments)]) == code


def seen(path, steps=200, every=5, arguments=()):
    watch = Watch(path, steps, every)
    assert watch.run(arguments) == 0
    return dict(watch.recordings())


def test_a_dominating_loss_is_called_by_its_name(script, capsys):
    path = script(SCALE="100.0", STEPS="30")
    run(path, "--every", 2)
    output = capsys.readouterr().out
    assert output.startswith("done 30\n")
    heading, first = re.search(r"^(line \d+ of train.py: .*)\n- (.*)$", output, flags=re.MULTILINE).groups()
    line = int(re.search(r"\d+", heading)[0])
    assert path.read_text().splitlines()[line - 1].strip() == "loss.backward()"
    assert heading.endswith("plain summing, gradients at the last shared layer, 15 looks up to step 28")
    assert re.search(r"'(\w+)'", first)[1] == "depth"
    method = re.search(r'isonomy.build\("(\w+)", tasks\)', output)[1]
    assert f'    balancer = isonomy.build("{method}", tasks=["seg", "depth", "edge"])\n' in output
    assert output.endswith('    loss = balancer({"seg": ..., "depth": ..., "edge": ...}, shared=z)\n')


def test_following_the_two_lines_takes_the_finding_away(script, capsys):
    run(script(SCALE="100.0"))
    first, second = (line.strip() for line in capsys.readouterr().out.splitlines()[-2:])
    first = f"import isonomy; {first}\n    for step in"
    second = second.partition("=")[2].strip()
    for task, name in (("seg", "seg"), ("depth", "depth_loss"), ("edge", "edge")):
        second = second.replace(f'"{task}": ...', f'"{task}": {name}')
    run(script(LOOP.replace("for step in", first), SCALE="100.0", SUM=second))
    output = capsys.readouterr().out
    assert "the balancer of train.py: " in output
    assert "- Nothing is wrong (" in output


def test_losses_that_are_alike_have_nothing_wrong(script, capsys):
    path = script()
    run(path)
    output = capsys.readouterr().out
    ((name, recording),) = seen(path).items()
    assert doctor.paragraph(name, recording)[0] in output
    assert doctor.findings(recording) == []
    assert "isonomy.build" not in output


def test_what_is_seen_is_what_was_added_up(script):
    ((_, recording),) = seen(script(SCALE="3.0", SUM="(2 * seg + depth_loss + edge) / 4")).items()
    assert recording.tasks == ("seg", "depth", "edge")
    assert recording.steps.tolist() == [0, 5, 10, 15, 20, 25]
    assert recording.loss_weights[0].tolist() == [0.5, 0.25, 0.25]
    assert (recording.losses[-1] < recording.losses[0]).all()
    assert (recording.weights == 1).all()
    assert recording.norms.isfinite().all()


def test_losses_without_names_have_no_values(script):
    text = LOOP.replace("loss = SUM", "loss = sum((h(z)[:, 0] - y[:, i]).abs().mean() for i, h in enumerate(heads))")
    ((_, recording),) = seen(script(text.replace("depth_loss = SCALE * depth", "").replace("del depth", ""))).items()
    assert recording.tasks == ("loss 1", "loss 2", "loss 3")
    assert recording.losses.isnan().all()
    assert recording.norms.isfinite().all()
    doctor.paragraph("it", recording)


NOISY = """
    import random
    import sys

    import torch
    from torch import nn

    torch.manual_seed(3)
    random.seed(3)
    encoder = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.ReLU())
    heads = nn.ModuleDict({"a": nn.Linear(16, 1), "b": nn.Linear(16, 3)})
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], 0.01)
    seen = []
    encoder[0].weight.register_hook(lambda g: seen.append(g.norm().item()))
    for step in range(23):
        x = torch.randn(32, 6)
        z = encoder(x)
        HOOKS
        losses = {"a": (heads["a"](z) - x[:, :1]).square().mean(), "b": heads["b"](z).logsumexp(1).square().mean()}
        BALANCE
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += [z.grad.norm().item()] if z.retains_grad else []
        print(step, loss.item().hex(), random.random().hex(), torch.rand(()).item().hex())
    print(*(value.hex() for value in seen), *(p.double().sum().item().hex() for p in encoder.parameters()))
    print(__name__, len(sys.argv), sorted(encoder.state_dict()))
"""
HOOKS = "z.retain_grad(); z.register_hook(lambda g: seen.append(g.sum().item()))"
BALANCES = {
    "sum": "loss = sum(losses.values())",
    "weights": "loss = torch.stack([*losses.values()]) @ torch.tensor([1.0, 0.3])",
    "imtl": "import isonomy; b = globals().setdefault('m', isonomy.build('imtl', ['a', 'b'])); loss = b(losses, z)",
    "ew": "import isonomy; b = globals().setdefault('m', isonomy.build('ew', ['a', 'b'])); loss = b(losses, encoder)",
}


@pytest.mark.parametrize("balance", ["sum", "weights"])
def test_a_scripts_numbers_are_the_same_bit_for_bit(balance, script, monkeypatch):
    path = script(NOISY, BALANCE=BALANCES[balance], HOOKS=HOOKS)
    alone, watched = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "argv", [str(path)])
    with redirect_stdout(alone):
        runpy.run_path(str(path), run_name="__main__")
    with redirect_stdout(watched):
        recording = next(iter(seen(path, every=1).values()))
    assert len(recording) == 23
    assert recording.tasks == ("a", "b")
    assert watched.getvalue() == alone.getvalue()
    assert len(alone.getvalue().splitlines()) == 25


@pytest.mark.parametrize("balance", ["imtl", "ew"])
def test_a_balancer_is_watched_without_the_scripts_help(balance, script, monkeypatch):
    path = script(NOISY, BALANCE=BALANCES[balance], HOOKS="pass")
    alone, watched = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "argv", [str(path)])
    with redirect_stdout(alone):
        runpy.run_path(str(path), run_name="__main__")
    with redirect_stdout(watched):
        ((name, recording),) = seen(path, every=4).items()
    assert (name, recording.tasks) == ("the balancer of train.py", ("a", "b"))
    assert recording.steps.tolist() == [0, 4, 8, 12, 16, 20]
    assert watched.getvalue() == alone.getvalue()
    assert len(alone.getvalue().splitlines()) == 25


def test_the_script_is_stopped(script, capsys):
    path = script(STEPS="10**9", DO="print('step', step)")
    run(path, "--steps", 7, "--every", 3)
    output = capsys.readouterr().out
    assert re.findall(r"^step (\d+)", output, flags=re.MULTILINE) == [str(step) for step in range(7)]
    assert "3 looks up to step 6" in output
    assert "done" not in output


def test_a_script_that_catches_errors_is_stopped_all_the_same(script):
    text = LOOP.replace("loss.backward()", "try: loss.backward()\n        except Exception: raise SystemExit(3)")
    seen(script(text, STEPS="10**9"), steps=3)


def test_everything_is_put_back(script):
    def state():
        return Balancer.__init__, torch.autograd.backward, torch.amp.GradScaler.scale, sys.argv, [*sys.path], sys.stdout

    before = state()
    seen(script())
    run(script("raise RuntimeError", name="bad.py"), code=1)
    assert state() == before


def test_arguments_neighbours_and_the_folder_it_is_run_in(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "neighbour_of_train.py").write_text("N = 11")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = "import os, sys\nfrom neighbour_of_train import N\nprint(os.getcwd(), sys.argv)\n" + textwrap.dedent(LOOP)
    path = script(text, STEPS="N + int(sys.argv[2])")
    run(path, "--", "--more", 4)
    output = capsys.readouterr().out
    assert output.startswith(f"{elsewhere} {[str(path), '--more', '4']}\ndone 15\n")


def test_a_grad_scaler_is_divided_out(script):
    path = script()
    plain = next(iter(seen(path).values()))
    text = LOOP.replace("loss.backward()", "scaler.scale(loss).backward()").replace(
        "optimizer.step()", "scaler.step(optimizer); scaler.update()"
    )
    text = text.replace("for step in", "scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)\n    for step in")
    scaled = next(iter(seen(script(text)).values()))
    assert scaled.tasks == plain.tasks
    torch.testing.assert_close(scaled.norms, plain.norms, rtol=1e-5, atol=0)
    torch.testing.assert_close(scaled.loss_weights, plain.loss_weights)


def test_a_loss_that_comes_and_goes_is_absent_in_between(script):
    ((_, recording),) = seen(script(SUM="seg + edge if step % 10 else seg + depth_loss + edge")).items()
    assert recording.tasks == ("seg", "depth", "edge")
    absent = recording.steps % 10 != 0
    assert absent.any()
    assert torch.equal(recording.norms[:, 1].isnan(), absent)
    assert torch.equal(recording.cosines[:, 1].isnan().all(1), absent)
    assert not recording.norms[:, [0, 2]].isnan().any()


def test_a_loss_between_two_sums_is_another_loss(script):
    text = LOOP.replace(
        "optimizer.step()", "optimizer.step()\n        (encoder(x).mean() + 2 * encoder(x).std()).backward()"
    )
    first, second = seen(script(text)).items()
    assert [name.partition(" of ")[2] for name, _ in (first, second)] == ["train.py"] * 2
    assert first[1].tasks == ("seg", "depth", "edge")
    assert second[1].tasks == ("loss 1", "loss 2")
    assert second[1].loss_weights[0].tolist() == [1.0, 2.0]


def test_a_backward_pass_within_another_is_part_of_it(script, capsys):
    inner = """
        class Inner(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, gradient):
                with torch.enable_grad():
                    v = torch.ones(2, requires_grad=True)
                    (v.exp().sum() + v.sin().sum()).backward()
                return gradient

        for step in"""
    text = (
        textwrap.dedent(LOOP)
        .replace("for step in", textwrap.dedent(inner))
        .replace("encoder(x)", "encoder(Inner.apply(x + v0))")
    )
    path = script(
        text.replace("x = torch", "v0 = torch.zeros(6, requires_grad=True)\nx = torch"), STEPS="99", DO="print(step)"
    )
    run(path, "--steps", 7)
    output = capsys.readouterr().out
    assert "\n6\nline " in output
    assert output.count(" of train.py: plain summing") == 1
    assert "2 looks up to step 5" in output


def test_balancers_are_told_apart_by_number(script, capsys):
    text = LOOP.replace(
        "for step in", "import isonomy\n    b, c = isonomy.build('ew', 3), isonomy.build('imtl_g', 3)\n    for step in"
    )
    run(script(text, SUM="(c if step % 2 else b)([seg, depth_loss, edge], encoder)"))
    output = capsys.readouterr().out
    assert re.findall(r"^balancer (\d) of train.py: (\w+), gradients at ", output, re.M) == [
        ("1", "EW"),
        ("2", "IMTLG"),
    ]


def test_the_example_as_it_is(capsys):
    run(EXAMPLE)
    output = capsys.readouterr().out
    assert "step 160: kind" in output
    assert "the balancer of plain_loop.py: IMTLL + IMTLG, gradients at the shared feature, 32 looks" in output


def test_a_script_that_fails_shows_its_traceback_and_what_was_seen(script, capsys):
    run(script(STEPS="13", DO="step == 11 and 1 / 0"), code=1)
    found = capsys.readouterr()
    assert found.err.splitlines()[1].endswith('train.py", line 21, in <module>')
    assert found.err.endswith("ZeroDivisionError: division by zero\n")
    assert "3 looks up to step 10" in found.out
    run(script("import nothing_of_this_name"), code=1)
    found = capsys.readouterr()
    assert "No module named 'nothing_of_this_name'" in found.err
    assert "Error: " not in found.err.replace("ModuleNotFoundError: ", "")
    run(script("x ="), code=1)
    found = capsys.readouterr().err
    assert "SyntaxError" in found
    assert "runpy" not in found


def test_how_a_script_may_end(script, capsys):
    for ending, code in (("0", 0), ("", 0), ("2", 1), ("'no data'", 1)):
        run(script(DO=f"step == 6 and __import__('sys').exit({ending})"), code=code)
        found = capsys.readouterr()
        assert "2 looks up to step 5" in found.out
        assert found.err == ("no data\n" if "no" in ending else "")
    run(script(DO="if step == 6: raise KeyboardInterrupt"), code=130)
    assert "2 looks up to step 5" in capsys.readouterr().out


REFUSED = {
    "print(1)": "never calls backward",
    "import torch\ntorch.ones(2, requires_grad=True).sum().backward()": (
        "line 2 of train.py: there is nothing to balance, the loss is not a sum of several"
    ),
    "import torch\na, b = (x.detach().requires_grad_() for x in torch.eye(2))\n"
    "(a.exp().sum() + b.exp().sum()).backward()": (
        "line 3 of train.py: there is nothing to balance, the loss is a sum of losses that share no parameter"
    ),
    "import torch\ntorch.ones((), requires_grad=True).backward()": "backward on nothing that",
}


@pytest.mark.parametrize("text", REFUSED)
def test_scripts_with_nothing_to_judge(text, script, capsys):
    run(script(text), code=2)
    found = capsys.readouterr().err
    assert found.startswith("Error: ")
    assert REFUSED[text] in found


def test_a_script_whose_gradients_cannot_be_looked_at(script, capsys):
    text = """
        import torch

        class Once(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, gradient):
                raise RuntimeError("not with .grad()")

        w = torch.ones(3, requires_grad=True)
        x = Once.apply(w)
        (x.exp().sum() + x.sin().sum()).backward()
        print("on")
    """
    run(script(text), code=2)
    found = capsys.readouterr()
    assert found.err == "Error: The losses' gradients cannot be taken one by one in this script: not with .grad()\n"
    assert found.out == ""


def test_one_process_of_several_is_refused(script, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "0")
    run(script(), code=2)
    assert "without torchrun" in capsys.readouterr().err


@pytest.fixture(scope="module")
def diagnosis(tmp_path_factory):
    """The folder of a Monitor."""
    folder = tmp_path_factory.mktemp("diagnosis")
    torch.manual_seed(0)
    w = torch.randn(4, requires_grad=True)
    balancer = isonomy.build("avgnorm", ["near", "far"])
    Monitor(balancer, every=2, folder=folder)
    for _ in range(10):
        balancer({"near": (w - 1).square().sum(), "far": (w + torch.arange(4)).square().sum()}, [w]).backward()
    return folder


def test_a_monitors_folder_or_file(diagnosis, capsys):
    run(diagnosis)
    first = capsys.readouterr().out
    assert first.startswith(f"{diagnosis}: AvgNorm, gradients at the shared parameters, 5 looks up to step 8\n- ")
    run(diagnosis / FILE)
    assert capsys.readouterr().out == first.replace(str(diagnosis), str(diagnosis / FILE), 1)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of a sweep, of which one method's first seed and another one altogether are not finished."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    out.mkdir()
    wanted = plan.resolve({"data": "toy", "methods": ["ew", "pcgrad", "uw"], "seeds": 2, "epochs": 2}, out, False)
    records.write_json(out / plan.FILE, wanted.facts)
    for cell in plan.cells(wanted):
        if cell.method not in ("ew", "pcgrad"):
            continue
        folder = out / cell.name
        folder.mkdir(parents=True)
        records.write_json(folder / records.CONFIG, cell.config)
        ones = dict.fromkeys(cell.tasks, 1.0)
        line = {"train_losses": ones, "loss_weights": ones, "weights": ones, "gradient_norms": ones}
        line["cosines"] = torch.eye(len(ones)).tolist()
        lines = [{"epoch": number, **line} for number in (1, 2)]
        if cell.name != "ew/0":
            (folder / records.CHECKPOINT).touch()
            lines[-1]["test"] = {task: {"loss": 1.0} for task in cell.tasks}
        records.write_lines(folder / records.METRICS, lines)
    return out


def test_a_run_of_the_bench(sweep, capsys):
    run(sweep / "pcgrad" / "0")
    output = capsys.readouterr().out
    recording = looks.recording(sweep / "pcgrad" / "0")
    assert output.splitlines() == doctor.paragraph(str(sweep / "pcgrad" / "0"), recording)
    assert "2 looks up to epoch 2" in output


def test_a_sweep_and_an_experiment(sweep, capsys):
    run(sweep)
    found = capsys.readouterr()
    one, other = found.out.split("\n\n")
    assert one.startswith(f"{sweep / 'ew' / '1'}: ")
    assert other.startswith(f"{sweep / 'pcgrad' / '0'}: ")
    assert found.err == f"{sweep}: no seed of 'uw' is finished.\n\n"
    shutil.copytree(sweep, sweep.parent / "zoo")
    run(sweep.parent)
    assert capsys.readouterr().out.count("pcgrad/0: ") == 2


def test_folders_with_nothing_to_judge(sweep, tmp_path, capsys):
    for name in ("ew", "pcgrad"):
        shutil.copytree(sweep / name, tmp_path / "sweep" / name, ignore=shutil.ignore_patterns(records.CHECKPOINT))
    shutil.copy(sweep / plan.FILE, tmp_path / "sweep" / plan.FILE)
    header = '{"tasks": ["a", "b"], "method": "EW", "place": "here"}\n'
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / FILE).write_text(header)
    (tmp_path / "notes.txt").write_text("no recording\n")
    (tmp_path / "nothing").mkdir()
    for name, message in {
        "sweep": "has no finished run: `isonomy compare --resume",
        "empty": "has no look in it yet",
        "notes.txt": "is not a Monitor's recording",
        "nothing": f"neither {FILE} of a Monitor is in it, nor {records.METRICS} of a run, nor {plan.FILE}",
        "missing": "There is no",
    }.items():
        run(tmp_path / name, code=2)
        errors = capsys.readouterr().err.splitlines()
        assert errors[-1].startswith("Error: ")
        assert message in errors[-1]


def test_bad_arguments(script, diagnosis, tmp_path, capsys):
    for arguments, message in (
        ([script(), "--steps", 0], "--steps is 0"),
        ([script(), "--every", 0], "--every is 0"),
        ([diagnosis, "--", "--lr", 1], "takes no arguments (--lr 1)"),
        ([diagnosis, "--report", tmp_path], "is a folder"),
        ([diagnosis, "--report", script() / "page.html"], "is not a folder"),
    ):
        run(*arguments, code=2)
        assert message in capsys.readouterr().err


def test_the_report_is_written(diagnosis, sweep, tmp_path, capsys):
    run(diagnosis, "--report", tmp_path / "new" / "page.html")
    page = tmp_path / "new" / "page.html"
    assert capsys.readouterr().out.endswith(f"\n{page}\n")
    assert page.read_text().lower().startswith("<!doctype html")
    run(sweep, "--report", tmp_path / "all.html")
    assert sorted(path.name for path in tmp_path.glob("all*")) == ["all-1.html", "all-2.html"]
    assert len(load(diagnosis)) == 5


def test_in_a_process_of_its_own(script):
    path = script(SCALE="100.0", DO="print('step', step)")
    command = [sys.executable, "-m", "isonomy", "doctor", path.name, "--steps", "6", "--every", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("step 0\n")
    assert "\nline 19 of train.py: plain summing, gradients at the last shared layer, 6 looks" in done.stdout
    assert done.stderr == ""
