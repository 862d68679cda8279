import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch

from isonomy import IsonomyError
from isonomy.bench import data
from isonomy.bench.architectures import Design
from isonomy.bench.architectures.output import Output
from isonomy.bench.backbones import mpnn
from isonomy.bench.data import molecules
from isonomy.bench.data.molecules import chemistry, structures
from isonomy.bench.seeds import key
from tests.bench import tiny

HPS = Design("hps")
SYMBOLS = "HCNOF"
VALENCE = {"H": 1, "C": 4, "N": 3, "O": 2, "F": 1}
NUMBER = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
RADIUS = {"H": 0.31, "C": 0.76, "N": 0.71, "O": 0.66, "F": 0.57}
CHI = {"H": 2.2, "C": 2.55, "N": 3.04, "O": 3.44, "F": 3.98}
BONDS = {
    **{"H-H": 4.5, "C-H": 4.3, "H-N": 4.05, "H-O": 4.8, "F-H": 5.9, "C-C": 3.6, "C-N": 3.15, "C-O": 3.7, "C-F": 5.0},
    **{"N-N": 1.7, "N-O": 2.1, "F-N": 2.9, "O-O": 1.5, "F-O": 2.0, "F-F": 1.6},
}
COUNT = 1_500


@pytest.fixture(scope="module")
def many():
    return structures.sample("train", 0, COUNT)


@pytest.fixture(scope="module")
def values(many):
    return chemistry.properties(many)


def unpadded(sampled, row):
    """A molecule as plain lists: its symbols, its bonds {(i, j): order} with i < j, its positions."""
    elements, orders, positions = (array[row] for array in sampled)
    atoms = int((elements != structures.PADDING).sum())
    assert (elements[atoms:] == structures.PADDING).all()
    assert (orders == orders.T).all()
    assert not orders[atoms:].any()
    symbols = [SYMBOLS[element] for element in elements[:atoms]]
    bonds = {(i, j): int(orders[i, j]) for i, j in combinations(range(atoms), 2) if orders[i, j]}
    return symbols, bonds, positions[:atoms].tolist()


def reached(atoms, bonds):
    found, waiting = {0}, [0]
    while waiting:
        here = waiting.pop()
        for pair in bonds:
            if here in pair:
                (other,) = set(pair) - {here}
                if other not in found:
                    found.add(other)
                    waiting.append(other)
    return len(found) == atoms


def steps_between(start, end, bonds):
    """Bonds on the shortest way from one atom to another."""
    near, steps = {start}, 0
    while end not in near:
        near |= {atom for pair in bonds if near & set(pair) for atom in pair}
        steps += 1
    return steps


def test_molecules_obey_valence(many):
    for row in range(300):
        symbols, bonds, _ = unpadded(many, row)
        heavy = sum(symbol != "H" for symbol in symbols)
        assert 5 <= heavy <= 9
        assert symbols[0] == "C"
        assert "H" not in symbols[:heavy]
        assert not many.orders[row].diagonal().any()
        used = Counter()
        for (i, j), order in bonds.items():
            assert 1 <= order <= 3
            used[i] += order
            used[j] += order
        assert all(used[atom] == VALENCE[symbol] for atom, symbol in enumerate(symbols))
        assert reached(len(symbols), bonds)


def test_at_most_one_ring_of_four_to_six(many):
    rings = Counter()
    for row in range(300):
        symbols, bonds, _ = unpadded(many, row)
        extra = len(bonds) - len(symbols) + 1
        assert extra in {0, 1}
        for pair in bonds if extra else ():
            rest = {other: order for other, order in bonds.items() if other != pair}
            if reached(len(symbols), rest):
                rings[row, 1 + steps_between(*pair, rest)] += 1
    # Every bond of a ring sees the same ring, and there are as many of them as it has atoms.
    assert all(size == seen for (_, size), seen in rings.items())
    assert {size for _, size in rings} == {4, 5, 6}
    assert len(rings) == len({row for row, _ in rings})


def test_shares_of_sizes_elements_rings_and_bonds(many):
    heavy = (many.elements > 0).sum(1)
    shares = [(heavy == size).mean() for size in (5, 6, 7, 8, 9)]
    error = 4 * 0.5 / math.sqrt(COUNT)
    np.testing.assert_allclose(shares, [0.02, 0.05, 0.13, 0.30, 0.50], atol=error)
    later = many.elements[:, 1:]
    found = [(later == element).sum() / (later > 0).sum() for element in (1, 2, 3, 4)]
    np.testing.assert_allclose(found, [0.72, 0.12, 0.145, 0.015], atol=4 * 0.5 / math.sqrt((later > 0).sum()))
    # Rings are closed with probability 0.7, where there is a pair of atoms to do it.
    bonds = (many.orders > 0).sum((1, 2)) // 2
    rings = (bonds >= (many.elements >= 0).sum(1)).mean()
    assert 0.6 < rings < 0.7 + error


def test_statistics_are_those_of_the_recipe(many, values):
    """Means and deviations of another implementation's 1,500 molecules."""
    expected = {
        "mu": (1.32, 0.98),
        "alpha": (75.7, 11.1),
        "homo": (-6.88, 0.36),
        "lumo": (-5.83, 0.68),
        "r2": (1311, 419),
        "zpve": (4.29, 0.89),
        "u0": (-75.1, 12.2),
        "cv": (33.7, 4.87),
    }
    for name, (mean, deviation) in expected.items():
        column = values[:, chemistry.TARGETS.index(name)]
        # Four standard errors of a difference of two such means; deviations of skewed numbers to a tenth.
        assert column.mean() == pytest.approx(mean, abs=4 * deviation * math.sqrt(2 / COUNT)), name
        assert column.std() == pytest.approx(deviation, rel=0.1), name
    atoms = (many.elements != structures.PADDING).sum(1)
    assert atoms.mean() == pytest.approx(19.8, abs=4 * atoms.std() * math.sqrt(2 / COUNT))
    assert atoms.max() <= structures.ATOMS
    correlations = np.corrcoef(values.T)
    energies = [chemistry.TARGETS.index(name) for name in ("u0", "u", "h", "g")]
    assert (correlations[np.ix_(energies, energies)] > 0.99).all()
    assert correlations[energies[0], chemistry.TARGETS.index("alpha")] == pytest.approx(-0.98, abs=0.01)


def nth(possible, uniform):
    return possible[int(uniform * len(possible))]


def made_by_hand(row):
    """A molecule draw by draw: the tree, the ring, raised bonds, hydrogens; then an atom after the other is placed."""
    generator = np.random.default_rng(key("molecules", 1, "train", row))
    draws = iter(generator.random(1 + 9 + 9 + 2 + 18).tolist())
    directions = generator.standard_normal((28, 12, 3))

    def drawn_from(shares):
        uniform = next(draws)
        for name, share in shares.items():
            if uniform < share:
                return name
            uniform -= share
        return name

    heavy = drawn_from({5: 0.02, 6: 0.05, 7: 0.13, 8: 0.30, 9: 0.50})
    symbols = [drawn_from({"C": 0.72, "N": 0.12, "O": 0.145, "F": 0.015}) for _ in range(9)]
    symbols = ["C", *symbols[1:heavy]]
    free = [VALENCE[symbol] for symbol in symbols]
    bonds, parents = {}, {}

    def bind(i, j):
        bonds[i, j] = bonds.get((i, j), 0) + 1
        free[i] -= 1
        free[j] -= 1

    for atom, uniform in enumerate([next(draws) for _ in range(9)][:heavy]):
        if atom:
            parents[atom] = nth([i for i in range(atom) if free[i]], uniform)
            bind(parents[atom], atom)
    ring, which = next(draws), next(draws)
    tree = list(bonds)
    ends = [(i, j) for i, j in combinations(range(heavy), 2) if free[i] and free[j]]
    ends = [pair for pair in ends if 3 <= steps_between(*pair, tree) <= 5]
    closes = ring < 0.7 and ends
    if closes:
        bind(*nth(ends, which))
    # Two draws a bond: the tree's eight, of which a small molecule has fewer, then the ring's.
    raises = [(next(draws), next(draws)) for _ in range(9)]
    for pair, twice in [*zip(tree, raises[:8], strict=False), *([(list(bonds)[-1], raises[8])] if closes else [])]:
        for uniform in twice:
            if uniform >= 0.3 or not (free[pair[0]] and free[pair[1]]):
                break
            bind(*pair)
    for i in range(heavy):
        while free[i]:
            parents[len(symbols)] = i
            symbols.append("H")
            free.append(1)
            bind(i, len(symbols) - 1)

    positions = [np.zeros(3)]
    for atom, parent in parents.items():
        length = (RADIUS[symbols[atom]] + RADIUS[symbols[parent]]) * (1 - 0.1 * (bonds[parent, atom] - 1))
        farthest = -1.0
        for direction in directions[atom - 1]:
            tried = positions[parent] + length * direction / math.hypot(*direction)
            gap = min((math.dist(tried, positions[i]) for i in range(atom) if i != parent), default=math.inf)
            if gap > farthest:
                best, farthest = tried, gap
        positions.append(best)
    return symbols, bonds, positions


def test_molecules_made_by_hand(many):
    for row in range(80):
        symbols, bonds, positions = unpadded(many, row)
        expected = made_by_hand(row)
        assert (symbols, bonds) == expected[:2], row
        np.testing.assert_allclose(positions, expected[2], atol=1e-10)


def test_a_saturated_molecule_grows_no_further():
    draws = {name: np.full((1, number), 0.999) for name, number in structures._DRAWS.items()}
    made = structures._placed(structures._bonded(**draws), np.random.default_rng(0).standard_normal((1, 28, 12, 3)))
    symbols, bonds, _ = unpadded(made, 0)
    assert symbols == ["C", "F", "F", "F", "F"]
    assert bonds == {(0, other): 1 for other in (1, 2, 3, 4)}


def properties_by_hand(symbols, bonds, positions):
    """The eleven formulas, atom by atom and bond by bond."""
    atoms = range(len(symbols))
    names = {pair: "-".join(sorted(symbols[atom] for atom in pair)) for pair in bonds}
    length = {pair: math.dist(positions[pair[0]], positions[pair[1]]) for pair in combinations(atoms, 2)}

    u0 = -sum(BONDS[names[pair]] * (1 + 0.75 * (order - 1)) for pair, order in bonds.items())
    u0 += 0.25 * sum((2.6 - d) ** 2 for pair, d in length.items() if pair not in bonds and d < 2.6)
    rotatable = sum(order == 1 and "H" not in names[pair] for pair, order in bonds.items())
    cv = sum({"H": 0.95, "C": 2.35, "N": 2.2, "O": 2.15, "F": 2.3}[s] for s in symbols) + 0.55 * rotatable
    kt = 0.025693
    u = u0 + kt * (1.5 + 0.18 * cv)
    h = u + kt
    total = sum(NUMBER[s] for s in symbols)
    centre = [sum(NUMBER[symbols[i]] * positions[i][axis] for i in atoms) / total for axis in range(3)]
    r2 = 3.571 * sum(NUMBER[symbols[i]] * math.dist(positions[i], centre) ** 2 for i in atoms)
    g = h - kt * (14 + 1.1 * math.log(r2) + 0.35 * rotatable)
    zpve = 0.0
    for pair, order in bonds.items():
        zpve += (0.30 if "H" in names[pair] else 0.11 + 0.03 * (order - 1)) + 0.01 * math.sin(3 * length[pair])
    alpha = sum({"H": 2.0, "C": 6.6, "N": 5.4, "O": 4.6, "F": 3.4}[s] for s in symbols)
    alpha += sum({1: 0, 2: 1.2, 3: 2.0}[order] for order in bonds.values()) + 0.02 * math.sqrt(r2)
    charges = [0.0] * len(symbols)
    for (i, j), order in bonds.items():
        moved = 0.14 * order * (CHI[symbols[i]] - CHI[symbols[j]])
        charges[i] += moved
        charges[j] -= moved
    mu = 4.803 * math.hypot(*(sum(charges[i] * positions[i][axis] for i in atoms) for axis in range(3)))

    heavy = [i for i in atoms if symbols[i] != "H"]
    matrix = np.zeros((len(heavy), len(heavy)))
    for i in heavy:
        carried = sum(i in pair and "H" in names[pair] for pair in bonds)
        matrix[i, i] = -(2 * CHI[symbols[i]] + 0.6 * carried)
    for (i, j), order in bonds.items():
        if j < len(heavy):
            matrix[i, j] = matrix[j, i] = -2.1 * math.sqrt(order) * math.exp(-(length[i, j] - 1.4))
    levels = sorted(np.linalg.eigvals(matrix).real)
    homo = math.ceil(len(heavy) / 2)
    return [mu, alpha, levels[homo - 1], levels[homo], r2, zpve, u0, u, h, g, cv]


def test_properties_are_what_loops_over_atoms_and_bonds_give(many, values):
    assert chemistry.TARGETS == ("mu", "alpha", "homo", "lumo", "r2", "zpve", "u0", "u", "h", "g", "cv")
    for row in range(60):
        np.testing.assert_allclose(values[row], properties_by_hand(*unpadded(many, row)), rtol=1e-9, atol=1e-10)


def test_turning_and_moving_a_molecule_changes_no_property(many, values):
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    there = (many.elements[:50] != structures.PADDING)[..., None]
    moved = np.where(there, many.positions[:50] @ rotation + [1.0, -2.0, 3.0], 0)
    turned = chemistry.properties(structures.Structures(many.elements[:50], many.orders[:50], moved))
    np.testing.assert_allclose(turned, values[:50], rtol=1e-9, atol=1e-9)


def test_a_molecule_depends_on_its_split_and_index_alone(many):
    for array, other in zip(structures.sample("train", 17, 3), many, strict=True):
        assert (array == other[17:20]).all()
    assert torch.equal(molecules.samples("val", 7).targets, molecules.samples("val", 600).targets[:7])
    shapes = {
        positions.tobytes()
        for split in ("train", "val", "test")
        for positions in structures.sample(split, 0, 100).positions
    }
    assert len(shapes) == 300


def test_what_the_network_sees(many):
    x, edges, mask = molecules.encoded(structures.Structures(*(array[:20] for array in many)))
    assert x.shape == (20, 29, 11)
    assert edges.shape == (20, 29, 29, 5)
    assert x.dtype == edges.dtype == torch.float32
    for row in range(20):
        symbols, bonds, positions = unpadded(many, row)
        assert mask[row].tolist() == [True] * len(symbols) + [False] * (29 - len(symbols))
        assert not x[row, len(symbols) :].any()
        assert not edges[row, len(symbols) :].any()
        assert not edges[row, :, len(symbols) :].any()
        for i, symbol in enumerate(symbols):
            own = {pair: order for pair, order in bonds.items() if i in pair}
            highest = 0 if symbol == "H" else max(own.values())
            carried = sum(any(symbols[atom] == "H" for atom in set(pair) - {i}) for pair in own)
            kind = [float(symbol == other) for other in SYMBOLS]
            hybrid = [float(highest == order) for order in (3, 2, 1)]
            assert x[row, i].tolist() == [*kind, NUMBER[symbol], 0, *hybrid, carried]
            for j in range(len(symbols)):
                order = bonds.get((min(i, j), max(i, j)), 0)
                assert edges[row, i, j, :4].tolist() == [float(order == which) for which in (1, 2, 3, 4)]
                assert edges[row, i, j, 4].item() == pytest.approx(math.dist(positions[i], positions[j]), abs=1e-5)


def small(**options):
    return molecules.Molecules(**{"train": 96, "val": 8, "test": 40, **options})


def names(problem):
    return [task.name for task in problem.tasks]


def test_targets_are_learnt_in_the_training_sets_deviations():
    problem = small()
    tasks, model = names(problem), small().network(HPS, names(small()), 0)
    batch = next(problem.batches(0, 0, "cpu"))
    losses, feature, penalty = problem.losses(model, batch, tasks)
    assert feature.shape == (64, molecules.WIDTH)
    assert penalty is None
    train = molecules.samples("train", 96).targets.double().numpy()
    predictions = model(batch.molecules).predictions
    for column, task in enumerate(tasks):
        wanted = (batch.targets[:, column].double().numpy() - train[:, column].mean()) / train[:, column].std()
        error = ((predictions[task][:, 0].detach().numpy() - wanted) ** 2).mean()
        assert losses[task].item() == pytest.approx(error, rel=1e-4)
    assert list(problem.losses(model, batch, ["g", "mu"]).losses) == ["g", "mu"]


def test_without_units_the_largest_property_shouts_a_million_times_louder():
    problem = data.load("molecules:train=96,val=8,test=40,normalise=false")
    model = problem.network(HPS, names(problem), 0)
    batch = next(problem.batches(0, 0, "cpu"))
    losses = problem.losses(model, batch, names(problem)).losses
    prediction = model(batch.molecules).predictions["r2"][:, 0]
    expected = (prediction - batch.targets[:, 4]).square().mean()
    torch.testing.assert_close(losses["r2"], expected)
    assert losses["r2"] > 1e6


class Oracle(torch.nn.Module):
    """The truth of the test molecules, block by block, ``off`` units of the network's from it."""

    def __init__(self, problem, off):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.problem, self.off, self.seen = problem, off, 0

    def forward(self, batch):
        assert isinstance(batch, mpnn.Molecules)
        targets = molecules.samples("test", self.problem.count("test")).targets[self.seen : self.seen + len(batch.x)]
        self.seen += len(batch.x)
        zero, one = self.problem.units("cpu")
        right = (targets - zero) / one + self.off
        return Output(None, {name: right[:, [i]] for i, name in enumerate(chemistry.TARGETS)})


@pytest.mark.parametrize("normalise", [True, False])
def test_errors_are_in_the_propertys_own_units(normalise, monkeypatch):
    monkeypatch.setattr(molecules.Molecules, "judged_at_once", 16)  # 40 test molecules: two whole blocks and a half
    problem = small(normalise=normalise)
    found = problem.evaluate(Oracle(problem, 0.5), names(problem), "test")
    deviations = molecules.samples("train", 96).targets.double().std(0, correction=0).tolist()
    for task, deviation in zip(names(problem), deviations, strict=True):
        assert found[task]["mae"] == pytest.approx(0.5 * deviation if normalise else 0.5, rel=1e-3, abs=1e-4)


def test_always_answering_the_mean_scores_nothing_and_the_truth_everything():
    problem = small()
    targets = molecules.samples("train", 96).targets.double()
    trivial = (targets - targets.mean(0)).abs().mean(0).tolist()
    for task, error in zip(problem.tasks, trivial, strict=True):
        assert task.score({"mae": error}) == pytest.approx(0, abs=1e-5)
        assert task.score({"mae": 2 * error}) == 0
        assert task.score({"mae": 0.25 * error}) == pytest.approx(0.75, abs=1e-5)
        assert task.score({"mae": 0.0}) == 1


def test_every_molecule_is_visited_once_an_epoch_in_a_repeatable_order():
    problem = small()
    batches = [list(problem.batches(seed, epoch, "cpu")) for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert [len(batch.targets) for batch in batches[0]] == [64, 32]
    first, again, *others = (torch.cat([batch.targets for batch in each]) for each in batches)
    assert torch.equal(first, again)
    for other in others:
        assert not torch.equal(first, other)
        assert torch.equal(first[:, 0].sort().values, other[:, 0].sort().values)
    assert torch.equal(first[:, 0].sort().values, molecules.samples("train", 96).targets[:, 0].sort().values)


def test_parts_start_alike_in_single_and_multi_task_networks():
    problem = small()
    multi = problem.network(HPS, names(problem), 3).state_dict()
    for task in ("mu", "cv"):
        for name, value in problem.network(HPS, [task], 3).state_dict().items():
            assert torch.equal(value, multi[name]), name


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_too_few_molecules_are_refused(split):
    with pytest.raises(IsonomyError, match=rf"Option {split} of molecules is 1: it must be at least 2"):
        small(**{split: 1})


def test_a_short_training_beats_the_mean():
    problem = molecules.Molecules(train=320, val=100, test=2, batch_size=32)
    flags = {"data": "molecules", "tasks": ["alpha", "r2", "u0"], "epochs": 12, "learning_rate": 1e-2}
    trainer = tiny.trainer("imtl_g", problem, **flags)
    for epoch in range(12):
        for batches in trainer.begin(epoch):
            trainer.step(batches)
    assert trainer.cell.config["level"] == "features"
    scores = trainer.scores(trainer.evaluate("val"))
    assert min(scores.values()) > 0.2, scores
