import json

import pytest

import isonomy
from isonomy import methods
from isonomy.bench import plan, records
from isonomy.bench.data.toy import Toy
from isonomy.bench.runner import run_cell
from isonomy.errors import IsonomyError
from tests.bench import noise
from tests.bench.tiny import load

FLAGS = {"data": "tiny", "methods": ["ew", "uw"], "seeds": 2, "epochs": 1}


def resolve(out, resume=False, **flags):
    return plan.resolve({**({} if resume else FLAGS), **flags}, out, resume, load)


def store(out, wanted):
    out.mkdir(parents=True, exist_ok=True)
    records.write_json(out / plan.FILE, wanted.facts)


def test_cells_are_single_task_runs_and_methods_of_every_seed(tmp_path):
    names = [cell.name for cell in plan.cells(resolve(tmp_path), load)]
    singles = ["single_task-a", "single_task-b", "single_task-c"]
    assert names == [f"{name}/{seed}" for seed in (0, 1) for name in [*singles, "ew", "uw"]]


def test_a_cells_config_says_everything(tmp_path):
    cells = {cell.name: cell for cell in plan.cells(resolve(tmp_path, methods=["rlw", "imtl", "log+pcgrad"]), load)}
    assert cells["single_task-b/1"].tasks == ["b"]
    assert cells["single_task-b/1"].config["balancer"] == "ew"
    assert cells["rlw/1"].config["options"] == {"seed": 1}
    assert cells["imtl/0"].config["options"] == {}
    assert cells["imtl/0"].config["level"] == "features"
    assert cells["log+pcgrad/0"].config["balancer"] == "log+pcgrad"
    assert json.loads(json.dumps(cells["rlw/0"].config)) == cells["rlw/0"].config


def test_defaults_come_from_the_data_set(tmp_path):
    wanted = plan.resolve({}, tmp_path, False, load)
    assert (wanted.recipe.epochs, wanted.seeds, wanted.methods) == (2, 3, plan.DEFAULT_METHODS)
    assert (wanted.architecture, wanted.tasks, wanted.device) == ("hps", ("a", "b", "c"), "cpu")


def test_all_is_every_method_that_can_run(tmp_path):
    every = resolve(tmp_path, methods=["all"]).methods
    assert {"ew", "db_mtl", "nash_mtl"} <= set(every)
    features = resolve(tmp_path, methods=["all"], level="features").methods
    assert set(every) - set(features) == {m.name for m in methods() if m.levels and "features" not in m.levels}
    assert {"grid_search", "auto_lambda", "moml", "url"} <= set(every)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"methods": ["db_mlt"]}, r"Unknown method 'db_mlt': did you mean 'db_mtl'\?"),
        ({"methods": ["ew", "log+pcgard"]}, r"Unknown method 'pcgard': did you mean 'pcgrad'\?"),
        ({"methods": ["ew", "uw", "ew"]}, "Method 'ew' is given twice"),
        ({"methods": []}, "--methods is empty"),
        ({"methods": ["db_mtl"], "level": "features"}, "Method 'db_mtl' cannot measure gradients at level 'features'"),
        ({"level": "feature"}, r"Unknown level 'feature': did you mean 'features'\?"),
        ({"tasks": ["a", "d"]}, "Unknown task of tiny 'd'"),
        ({"tasks": ["a", "a"]}, "Task 'a' is given twice"),
        ({"architecture": "hsp"}, r"Unknown architecture 'hsp': did you mean 'hps'\?"),
        ({"architecture": "point"}, "Architecture 'point' does not fit data set 'tiny'"),
        ({"seeds": 0}, "--seeds is 0: it must be at least 1"),
        ({"epochs": -1}, "--epochs is -1: it must be at least 1"),
        ({"learning_rate": 0.0}, "--learning-rate is 0: it must be positive"),
        ({"clip": -1.0}, "--clip is -1: it must be 0 or more"),
        ({"schedule": "lineer"}, r"Unknown schedule 'lineer': did you mean 'linear'\?"),
        ({"schedule": "step:evry=3"}, r"Unknown option of schedule step 'evry': did you mean 'every'\?"),
        ({"optimizer": "sgd"}, "Unknown optimizer 'sgd'"),
        ({"select": "best"}, "Unknown selection 'best'"),
        ({"scales": {"d": 2.0}}, "Unknown task of --scales 'd'"),
        ({"scales": {"a": 0.0}}, "--scales has 0 for task 'a': it must be positive"),
        ({"methods": ["db_mtl:bta=1"]}, r"Unknown option of db_mtl 'bta': did you mean 'beta'\?"),
        ({"methods": ["db_mtl:beta=2"]}, r"EMA: beta=2.0 must lie in \[0, 1\)"),
        ({"methods": ["imtl_g:level=last_layer"]}, "Unknown level of tiny with hps 'last_layer'"),
        ({"methods": ["ew:level=features", "ew-level=features"]}, "Unknown method"),
        ({"methods": ["fixed:weights=1x2"]}, "weights has 2 entries for 3 tasks"),
        ({"device": "tpu"}, "Unknown device 'tpu'"),
        ({"methods": ["grid_search"], "trials": 0}, "--trials is 0: it must be at least 1"),
        ({"trials": 4}, "--trials is for grid_search: add it to --methods, or leave --trials out"),
        ({"methods": ["log+moml"]}, "Method 'log.moml': a hybrid is"),
    ],
)
def test_bad_flags_are_refused_in_one_sentence(tmp_path, flags, sentence):
    with pytest.raises(IsonomyError, match=sentence):
        resolve(tmp_path, **flags)


def test_what_a_data_set_lacks_is_refused_and_left_out_of_all(tmp_path):
    def toy(name):
        return Toy()

    for name, sentence in (
        (
            "dtp",
            "Method 'dtp' needs a validation score from 0 to 1, which data set 'toy' has not: leave the method out",
        ),
        ("url", "Method 'url' distils the one feature that all heads read, which this network has not: leave"),
        ("rotograd", "Method 'rotograd' cannot measure gradients at level 'parameters'"),
    ):
        with pytest.raises(IsonomyError, match=sentence):
            plan.resolve({"methods": [name]}, tmp_path, False, toy)
    every = plan.resolve({"methods": ["all"]}, tmp_path, False, toy).methods
    left_out = {m.name for m in methods() if m.levels == ("features",) or (m.stages and "validation" in m.needs)}
    left_out.add("url")
    assert set(every) == {m.name for m in methods()} - left_out
    assert left_out >= {"dtp", "dsg", "rotograd"}


def test_without_optuna_all_leaves_the_search_out(tmp_path, monkeypatch):
    monkeypatch.setattr("isonomy.bench.choice.find_spec", lambda name: None)
    assert "grid_search" not in resolve(tmp_path, methods=["all"]).methods
    with pytest.raises(IsonomyError, match=r"'grid_search' needs Optuna: pip install 'isonomy\[tune\]'"):
        resolve(tmp_path, methods=["grid_search"])


def test_a_procedures_cell_says_how_it_trains_and_how_long(tmp_path):
    names = ["grid_search", "auto_lambda", "moml", "url", "ew"]
    wanted = resolve(tmp_path, methods=names, trials=5, epochs=3)
    found = {cell.method: cell for cell in plan.cells(wanted, load) if cell.seed == 0}
    for name in names[:4]:
        config = found[name].config
        assert (config["balancer"], config["options"]) == ("fixed", {"weights": [1.0] * 3})
        expected = isonomy.catalogue.find(name).options | ({"trials": 5} if name == "grid_search" else {})
        assert config["procedure"] == {"name": name, **expected}
        assert json.loads(json.dumps(config)) == config
    assert found["ew"].config["procedure"] is found["ew"].procedure is None
    assert [found[name].length for name in names] == [15, 3, 3, 3, 3]
    assert [name for name in names if found[name].waits] == ["grid_search", "url"]
    assert not found["single_task-a"].waits


def test_trials_belong_to_the_sweep_once_it_has_a_search(tmp_path):
    store(tmp_path, resolve(tmp_path))
    assert resolve(tmp_path).trials is None
    grown = resolve(tmp_path, methods=["grid_search"], trials=4)
    assert (grown.methods, grown.trials) == (("ew", "uw", "grid_search"), 4)
    store(tmp_path, grown)
    assert resolve(tmp_path).trials == resolve(tmp_path, resume=True).trials == 4
    with pytest.raises(IsonomyError, match="was made with trials = 4, this sweep has 12"):
        resolve(tmp_path, methods=["grid_search"])


def test_a_plan_that_does_not_say_how_to_train_is_refused(tmp_path):
    stored = resolve(tmp_path)
    facts = stored.facts
    del facts["learning_rate"]
    records.write_json(tmp_path / plan.FILE, facts)
    with pytest.raises(IsonomyError, match="keys are missing or unknown"):
        plan.read(tmp_path)


def test_a_stored_plan_is_read_back_whole(tmp_path):
    flags = {"learning_rate": 0.5, "schedule": "step:every=2", "optimizer": "adamw", "weight_decay": 0.1, "clip": 3.0}
    wanted = resolve(tmp_path, **flags, select="best_val", scales={"b": 2.5}, methods=["db_mtl:beta=0.5,decay=0"])
    store(tmp_path, wanted)
    assert plan.read(tmp_path) == wanted == resolve(tmp_path, resume=True)
    (cell,) = [each for each in plan.cells(wanted, load) if each.method == "db_mtl:beta=0.5,decay=0" and not each.seed]
    assert cell.name == "db_mtl-beta=0.5-decay=0/0"
    assert cell.recipe == wanted.recipe
    assert (cell.config["options"], cell.config["scales"]) == ({"beta": 0.5, "decay": 0.0}, [1.0, 2.5, 1.0])


def test_cuda_without_a_gpu_is_refused_and_auto_is_resolved(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(IsonomyError, match="use --device cpu"):
        resolve(tmp_path, device="cuda")
    assert resolve(tmp_path, device="auto").device == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert resolve(tmp_path, device="auto").device == "cuda"


def test_resuming_needs_no_other_flag(tmp_path):
    wanted = resolve(tmp_path, tasks=["a", "c"], level="features")
    store(tmp_path, wanted)
    assert resolve(tmp_path, resume=True) == wanted
    with pytest.raises(IsonomyError, match="There is no sweep to resume"):
        resolve(tmp_path / "elsewhere", resume=True)


def test_a_sweep_can_grow_and_never_shrinks(tmp_path):
    store(tmp_path, resolve(tmp_path))
    grown = resolve(tmp_path, methods=["imtl", "ew"], seeds=1)
    assert (grown.methods, grown.seeds) == (("ew", "uw", "imtl"), 2)
    assert resolve(tmp_path, resume=True, seeds=3).seeds == 3


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"epochs": 5}, "was made with epochs = 1, this sweep has 5: choose another --out, or delete"),
        ({"tasks": ["a", "c"]}, "was made with tasks = a, b, c, this sweep has a, c"),
        ({"level": "features"}, "was made with level = None, this sweep has features"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_another_sweep_is_refused_by_the_first_differing_key(tmp_path, flags, sentence, resume):
    store(tmp_path, resolve(tmp_path))
    with pytest.raises(IsonomyError, match=sentence):
        resolve(tmp_path, resume, **flags)


def test_a_cell_trained_with_another_config_is_refused(tmp_path):
    cells = plan.cells(resolve(tmp_path), load)
    path = tmp_path / cells[0].name
    path.mkdir(parents=True)
    records.write_json(path / records.CONFIG, {**cells[0].config, "learning_rate": 0.5})
    with pytest.raises(IsonomyError, match=rf"{path} was made with learning_rate = 0.5, this sweep has 0.01"):
        plan.survey(tmp_path, cells)


def test_the_survey_finds_what_is_left(tmp_path):
    cells = plan.cells(resolve(tmp_path), load)
    assert plan.survey(tmp_path, cells) == cells
    run_cell(cells[0], tmp_path, load)
    assert plan.survey(tmp_path, cells) == cells[1:]


def test_a_checkpoint_without_its_config_is_refused(tmp_path):
    cells = plan.cells(resolve(tmp_path), load)
    run_cell(cells[0], tmp_path, load)
    (tmp_path / cells[0].name / records.CONFIG).unlink()
    with pytest.raises(IsonomyError, match=r"config\.json is missing beside a checkpoint"):
        plan.survey(tmp_path, cells)


def test_a_damaged_plan_is_refused(tmp_path):
    (tmp_path / plan.FILE).write_text('{"data": "tiny"}')
    with pytest.raises(IsonomyError, match=r"plan\.json is damaged .*the finished cells stay"):
        resolve(tmp_path)
    plan_of = resolve(tmp_path / "whole")
    records.write_json(tmp_path / plan.FILE, {**plan_of.facts, "seeds": "three"})
    with pytest.raises(IsonomyError, match="seeds and epochs are no numbers"):
        resolve(tmp_path)


def test_a_file_or_a_closed_folder_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(IsonomyError, match="file is not a folder"):
        records.require_writable(tmp_path / "file")
    with pytest.raises(IsonomyError, match="file is not a folder"):
        records.require_writable(tmp_path / "file" / "below")
    records.require_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(IsonomyError, match="is not yours to write"):
        records.require_writable(tmp_path / "new")


def test_plain_summing_is_timed_once_whether_or_not_it_is_compared(tmp_path):
    for names in (["uw"], ["uw", "ew"]):
        timed = [cell.name for cell in plan.timed(resolve(tmp_path, methods=names), load)]
        assert sorted(timed) == ["ew/0", "uw/0"]


def test_procedures_are_timed_except_for_the_search_which_has_no_step_of_its_own(tmp_path):
    names = ["grid_search", "auto_lambda", "moml", "url"]
    timed = [cell.method for cell in plan.timed(resolve(tmp_path, methods=names), load)]
    assert timed == ["ew", "auto_lambda", "moml", "url"]


def dense(tmp_path, **flags):
    return plan.resolve({"data": "noise", "methods": ["ew", "imtl", "url"], **flags}, tmp_path, False, noise.load)


@pytest.mark.parametrize(("baseline", "architecture"), [("matched", "mtan"), ("plain", "hps")])
def test_single_task_networks_are_matched_or_plain(tmp_path, baseline, architecture):
    wanted = dense(tmp_path, methods=["ew"], architecture="mtan", backbone="resnet_mini", baseline=baseline)
    designs = {cell.method: cell.design for cell in plan.cells(wanted, noise.load)}
    assert designs["ew"].architecture == "mtan"
    assert {designs[name].architecture for name in designs if name != "ew"} == {architecture}
    assert {design.backbone for design in designs.values()} == {"resnet_mini"}


def test_a_method_measures_where_the_architecture_lets_it(tmp_path):
    def level(method, **flags):
        wanted = dense(tmp_path, methods=[method], **flags)
        return next(c.config["level"] for c in plan.cells(wanted, noise.load) if c.method == method)

    assert level("imtl") == "features"
    assert level("imtl", architecture="mtan", backbone="resnet_mini") == "parameters"
    assert level("avgnorm", level="last_layer") == "last_layer"
    assert level("ew", level="last_layer") == "last_layer"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"backbone": "resnet"}, "Unknown backbone 'resnet': did you mean"),
        ({"backbone": "mpnn"}, "Backbone 'mpnn' does not fit data set 'noise': use"),
        (
            {"architecture": "pad_net", "backbone": "unet"},
            "Architecture 'pad_net' cannot be built on backbone 'unet': use hrnet18",
        ),
        ({"architecture": "invpt", "head": "vit"}, "Architecture 'invpt' has heads of its own: leave --head out"),
        ({"head": "foot"}, "Unknown head 'foot'"),
        (
            {"backbone": "vit_base_dinov2"},
            "'vit_base_dinov2' needs images whose sides are multiples of 14, not 32 x 32",
        ),
        ({"weights": "nowhere.pth"}, "--weights nowhere.pth is not a file: name a file with weights of 'resnet18'"),
        ({"baseline": "best"}, "Unknown baseline 'best'"),
        ({"level": "last"}, "Unknown level 'last'"),
        (
            {"architecture": "mtan", "backbone": "resnet_mini", "level": "features"},
            "'noise' with architecture 'mtan' has no level 'features': use --level parameters or last_layer",
        ),
        ({"methods": ["db_mtl"], "level": "last_layer"}, "'db_mtl' cannot measure gradients at level 'last_layer'"),
        (
            {"architecture": "mtan", "backbone": "resnet_mini", "methods": ["url"]},
            "'url' distils the one feature that all heads read, which this network has not",
        ),
        ({"backbone": "hrnet18", "methods": ["url"]}, "'url' distils the one feature that all heads read"),
    ],
)
def test_networks_that_do_not_go_together_are_refused_in_one_sentence(tmp_path, flags, sentence):
    with pytest.raises(IsonomyError, match=sentence):
        dense(tmp_path, **flags)


def test_a_data_set_with_its_own_network_takes_no_backbone(tmp_path):
    for name in ("backbone", "head", "weights"):
        with pytest.raises(IsonomyError, match=f"'tiny' brings its own network: leave --{name} out"):
            resolve(tmp_path, **{name: "unet"})
