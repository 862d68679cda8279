"""Two and three processes on parts of the batch give every parameter what one process on all of it would."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves

import isonomy
from tests.distributed.processes import run

# The method, where its gradients are taken, and what else is special.
CASES = [
    *(
        (method.name, level, "")
        for method in isonomy.methods()
        if method.stages
        for level in method.levels or ("features",)
    ),
    ("nash_mtl", "features", "batch_sum"),
    ("log+graddrop", "features", ""),
    ("modo", "parameters", "two batches"),
    ("sdmgrad", "parameters", "three batches"),
    *itertools.product(("imtl_g", "pcgrad"), ("features", "parameters"), ("update_every", "probe", "weighted losses")),
    *((name, "parameters", "lean") for name in ("imtl_g", "nash_mtl", "imtl")),
]
# Options with which a short run reaches what a method does later on.
OPTIONS = {
    "rotograd": {"features": 5, "own_lr": 0.1},
    "igb_v1": {"base_epoch": 0},
    "igb_v2": {"base_epoch": 0, "learn_epoch": 1, "policy_epoch": 1},
    "stch": {"nadir_epoch": 0, "mu": 0.5},
    "ldc_mtl": {"own_lr": 0.1},
    "batch_sum": {"feature_reduce": "batch_sum"},
    "update_every": {"update_every": 2},
    "lean": {"memory": "lean"},
}
BATCHES = {"two batches": 2, "three batches": 3}
# Samples of the batches of each optimiser's step: one, one, two micro-batches, one that no number of processes divides.
STEPS = [[12], [12], [12, 12], [7], [12]]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6}


class Net(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5))
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
        self.to(dtype)

    def rotate(self, z):
        return [z] * 3

    def forward(self, x):
        z = self.trunk(x)
        return z, [head(r) for head, r in zip(self.heads, self.rotate(z), strict=True)]


class Run:
    """A short training on the rank's part of every batch or, with no rank, on all parts."""

    def __init__(self, case, dtype, world, rank=None):
        self.name, self.level, self.special = case
        self.dtype, self.world, self.rank = dtype, world, rank
        self.net = Net(dtype)
        self.model = self.net if rank is None else DistributedDataParallel(self.net)
        options = OPTIONS.get(self.name, {}) | OPTIONS.get(self.special, {})
        self.balancer = isonomy.build(self.name, ["a", "b", "c"], **options)
        self.net.rotate = getattr(self.balancer.stages[-1], "rotate", self.net.rotate)
        if dtype == torch.float64:
            self.balancer.stages.double()  # Parameters of a method's own in float32 would round differently.
        self.generator = torch.Generator().manual_seed(1)

    def batch(self, size):
        x, y = torch.randn(2, size, 3, generator=self.generator, dtype=torch.float64).to(self.dtype)
        parts = torch.arange(size).tensor_split(self.world)
        # What each sample counts: a process's loss is the mean of its part, or what the user makes of it.
        shares = torch.cat([x.new_full((len(part),), 1 / len(part) / self.world) for part in parts])
        if self.special == "weighted losses":
            shares = x.new_full((size,), 1 / size)
        mine = slice(None) if self.rank is None else parts[self.rank]
        return x[mine], y[mine], shares[mine] * (1 if self.rank is None else self.world)

    def losses(self, batch):
        x, y, shares = batch
        z, outputs = self.model(x)
        errors = [(output[:, 0] - y[:, t]).square() for t, output in enumerate(outputs)]
        return z, [10.0**t * (error * shares).sum() for t, error in enumerate(errors)]

    def backward(self, size):
        batch = self.batch(size)
        z, losses = self.losses(batch)
        if self.special in BATCHES:
            losses = [losses, *(self.losses(self.batch(size))[1] for _ in range(BATCHES[self.special] - 1))]
        shared = z if self.level == "features" else self.net.trunk
        probe = self.net.trunk[-1] if self.special == "probe" else None
        self.balancer(losses, shared=shared, probe=probe, retain_graph=True).backward()
        return batch

    def train(self):
        """For each parameter its gradients at all steps, or itself if it is the method's own; the method's state."""
        optimizer = torch.optim.SGD(self.net.parameters(), 0.001)
        seen = []
        for k, (*some, last) in enumerate(STEPS):
            optimizer.zero_grad()
            for size in some:
                if self.rank is None:
                    self.backward(size)
                else:
                    with self.model.no_sync():
                        self.backward(size)
            batch = self.backward(last)
            optimizer.step()
            with torch.no_grad():
                if "step_losses" in self.balancer.needs:
                    self.balancer.step_end(self.losses(batch)[1])
                self.balancer.epoch_end({"a": 0.5, "b": 0.9, "c": 0.1 + k / 10}, learning_rate=0.05)
            gradients = [parameter.grad for parameter in self.net.parameters()]
            seen.append([tensor.detach().clone() for tensor in [*gradients, *self.balancer.parameters()]])
        return [torch.stack(steps) for steps in zip(*seen, strict=True)], self.balancer.state_dict()


def worker(rank, world, dtypes):
    return {(case, dtype): Run(case, dtype, world, rank).train() for case in CASES for dtype in dtypes}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    return {
        2: run(worker, 2, tmp_path_factory.mktemp("two"), [torch.float64, torch.float32]),
        3: run(worker, 3, tmp_path_factory.mktemp("three"), [torch.float64]),
    }


@pytest.mark.parametrize(
    ("world", "dtype"), [(2, torch.float64), (2, torch.float32), (3, torch.float64)], ids=["2", "2-float32", "3"]
)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_equals_one_process(processes, case, world, dtype):
    expected, _ = Run(case, dtype, world).train()
    exact, _ = Run(case, torch.float64, world).train()
    for results in processes[world]:
        for actual, tensor, truth in zip(results[case, dtype][0], expected, exact, strict=True):
            # What float32 itself loses, on either side, where a method subtracts what is nearly equal, as FAMO does.
            lost = 2 * float((tensor - truth).abs().max())
            atol = TOLERANCES[dtype] * float(tensor.abs().max()) + lost
            torch.testing.assert_close(actual, tensor, rtol=0, atol=atol)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_every_process_has_the_whole_state(processes, case):
    first, *others = (tree_leaves(results[case, torch.float64][1]) for results in processes[3])
    for state in others:
        for mine, its in zip(state, first, strict=True):
            assert torch.equal(mine.nan_to_num(7), its.nan_to_num(7)) if isinstance(mine, torch.Tensor) else mine == its
