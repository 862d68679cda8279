import numpy as np
import pytest
import torch

from isonomy import IsonomyError
from isonomy.bench import data
from isonomy.bench.architectures import Design
from isonomy.bench.architectures.output import Output
from isonomy.bench.data import qm9, stand_ins
from isonomy.bench.data.molecules.chemistry import TARGETS
from isonomy.bench.data.qm9.properties import targets
from isonomy.bench.data.roots import VARIABLE
from isonomy.bench.recipe import Recipe
from tests.bench import tiny

HPS = Design("hps")
COUNT = 60


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A problem with molecules enough to train on."""
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "files"))
    stand_ins.write("qm9", tmp_path / "files" / "qm9", None, {"train": COUNT - 12, "val": 6, "test": 6})
    return data.load("qm9:batch_size=16")


def names(problem):
    return [task.name for task in problem.tasks]


def test_making_it_looks_at_no_file(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    problem = data.load("qm9")
    assert names(problem) == list(TARGETS)
    assert problem.recipe == Recipe(300, 1e-3, "plateau", weight_decay=1e-5, select="best_val")
    assert problem.batch_size == 128
    for look in (lambda: problem.samples, lambda: problem.notes, lambda: next(problem.batches(0, 0, "cpu"))):
        with pytest.raises(IsonomyError, match="Data set 'qm9': its files are needed, and nothing is downloaded"):
            look()


def test_the_plateau_is_that_of_the_papers():
    recipe = data.load("qm9").recipe
    assert recipe.rate(6, [True, *[False] * 5]) == 1e-3
    assert recipe.rate(7, [True, *[False] * 6]) == pytest.approx(0.7e-3)
    assert recipe.rate(300, [False] * 300) == 1e-5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("statistics=trian", r"Unknown statistics of qm9 'trian': did you mean 'train'\?"),
        ("batch_size=0", "Option batch_size of qm9 is 0: it must be at least 1"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(IsonomyError, match=sentence):
        data.load(f"qm9:{options}")


def test_without_rdkit_only_perceiving_is_refused(monkeypatch):
    monkeypatch.setattr(qm9, "find_spec", lambda name: None)
    data.load("qm9")
    with pytest.raises(IsonomyError, match=r"Option perceive of qm9 needs RDKit: pip install 'isonomy\[chem\]'"):
        data.load("qm9:perceive=true")


def test_splits_are_in_the_papers_proportions_and_noted(many):
    # 60 * 10,000 / 130,831 is 4.6.
    assert [many.count(split) for split in many.splits] == [50, 5, 5]
    found = [name for split in many.splits for name in many.samples[split]]
    # The stand-in has one more, the second, that is to be left out.
    assert sorted(found) == sorted(f"gdb_{number}" for number in range(1, COUNT + 2) if number != 2)
    (note,) = many.notes
    assert note == "Non-standard split of qm9: 50 of 110831 for train, 5 of 10000 for val, 5 of 10000 for test."


def test_a_given_order_is_cut_into_test_val_train(root, tmp_path):
    np.save(root / "split.npy", np.array([3, 0, 2, 1]))
    problem = data.load("qm9")
    assert problem.samples == {"test": ["gdb_5"], "val": ["gdb_1"], "train": ["gdb_4", "gdb_3"]}
    assert problem.notes[-1] == "Split of qm9 as in split.npy."


def test_properties_are_learnt_in_the_training_sets_deviations(many):
    model = many.network(HPS, names(many), 0)
    batch = next(many.batches(0, 0, "cpu"))
    losses, feature, penalty = many.losses(model, batch, names(many))
    assert feature.shape == (16, 64)
    assert penalty is None
    rows = [many.graphs.numbers.tolist().index(int(name[4:])) for name in many.samples["train"]]
    train = targets(many.graphs.values)[rows]
    predictions = model(batch.molecules).predictions
    for column, task in enumerate(names(many)):
        wanted = (batch.targets[:, column].double().numpy() - train[:, column].mean()) / train[:, column].std()
        error = ((predictions[task][:, 0].detach().numpy() - wanted) ** 2).mean()
        assert losses[task].item() == pytest.approx(error, rel=1e-3), task


def test_statistics_of_all_molecules(many):
    mean, deviation = data.load("qm9:statistics=all").units("cpu")
    values = targets(many.graphs.values)
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, values.std(0), rtol=1e-5)
    assert not torch.equal(mean, many.units("cpu")[0])


def test_a_property_without_spread_is_refused(root):
    # Two training molecules, one of them twice.
    table = root / "raw" / "gdb9.sdf.csv"
    head, *rows = table.read_text().splitlines()
    values = rows[3].split(",")
    values[4] = rows[2].split(",")[4]
    rows[3] = ",".join(values)
    table.write_text("\n".join([head, *rows]) + "\n")
    np.save(root / "split.npy", np.array([3, 0, 2, 1]))
    with pytest.raises(IsonomyError, match="Data set 'qm9': property mu is the same for all training molecules"):
        data.load("qm9").units("cpu")


def test_the_network_is_that_of_the_papers():
    network = data.load("qm9").network(HPS, list(TARGETS), 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 617_675
    assert sum(parameter.numel() for parameter in network.shared_parameters()) == 616_960


def test_every_molecule_is_visited_once_an_epoch_in_a_repeatable_order(many):
    batches = [list(many.batches(seed, epoch, "cpu")) for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert [len(batch.targets) for batch in batches[0]] == [16, 16, 16, 2]
    first, again, *others = (torch.cat([batch.targets for batch in each]) for each in batches)
    assert torch.equal(first, again)
    rows = [many.graphs.numbers.tolist().index(int(name[4:])) for name in many.samples["train"]]
    wanted = torch.from_numpy(targets(many.graphs.values)[rows]).float()
    for other in (first, *others):
        assert torch.equal(other[:, 4].sort().values, wanted[:, 4].sort().values)
    assert not any(torch.equal(first, other) for other in others)


def test_molecules_and_properties_belong_together(many):
    chosen = torch.tensor([7, 0, 30])
    batch = many.read("train", chosen, torch.device("cpu"))
    for row, position in enumerate(chosen.tolist()):
        index = many.graphs.numbers.tolist().index(int(many.samples["train"][position][4:]))
        assert batch.molecules.mask[row].sum() == many.graphs.atoms[index]
        np.testing.assert_allclose(batch.targets[row], targets(many.graphs.values)[index], rtol=1e-6)


def test_an_example_has_what_people_look_at(root):
    np.save(root / "split.npy", np.array([3, 0, 2, 1]))
    problem = data.load("qm9")
    found = problem.example("train", 1)  # water
    assert found["atoms"].tolist() == [8, 1, 1]
    assert found["bonds"].tolist() == pytest.approx([0.962, 0.962], abs=1e-3)
    assert list(found)[2:] == list(TARGETS)
    assert found["mu"].item() == pytest.approx(1.8511)
    assert [len(problem.example("test", 0)[name]) for name in ("atoms", "bonds")] == [12, 12]


class Oracle(torch.nn.Module):
    """The truth of the test molecules, ``off`` deviations from it."""

    def __init__(self, problem, off):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.problem, self.off, self.seen = problem, off, 0

    def forward(self, molecules):
        chosen = torch.arange(self.seen, self.seen + len(molecules.x))
        self.seen += len(chosen)
        truth = self.problem.read("test", chosen, torch.device("cpu")).targets
        zero, one = self.problem.units("cpu")
        right = (truth - zero) / one + self.off
        return Output(None, {name: right[:, [i]] for i, name in enumerate(TARGETS)})


def test_errors_are_in_printed_units(many, monkeypatch):
    monkeypatch.setattr(qm9.QM9, "judged_at_once", 3)  # five test molecules
    found = many.evaluate(Oracle(many, 0.5), names(many), "test")
    rows = [many.graphs.numbers.tolist().index(int(name[4:])) for name in many.samples["train"]]
    deviations = targets(many.graphs.values)[rows].std(0)
    for task, deviation in zip(names(many), deviations.tolist(), strict=True):
        assert found[task]["mae"] == pytest.approx(0.5 * deviation, rel=1e-3), task
    assert many.tasks[6].metrics[0].unit == "meV"
    assert found["u0"]["mae"] > 1000


def test_always_answering_the_mean_scores_nothing_and_the_truth_everything(many):
    rows = [many.graphs.numbers.tolist().index(int(name[4:])) for name in many.samples["train"]]
    train = targets(many.graphs.values)[rows]
    for task, error in zip(many.tasks, np.abs(train - train.mean(0)).mean(0).tolist(), strict=True):
        assert task.score({"mae": error}) == pytest.approx(0, abs=1e-5)
        assert task.score({"mae": 0.25 * error}) == pytest.approx(0.75, abs=1e-5)
        assert task.score({"mae": 0.0}) == 1


def test_a_step_at_every_level(many):
    for level in many.levels:
        trainer = tiny.trainer("imtl_g", many, data="qm9", tasks=["mu", "r2"], level=level, epochs=1)
        (batches, *_) = trainer.begin(0)
        before = [parameter.clone() for parameter in trainer.network.parameters()]
        losses = trainer.step(batches)
        assert losses.isfinite().all()
        assert all(not torch.equal(*pair) for pair in zip(before, trainer.network.parameters(), strict=True))
