"""Two processes on half the batch each give every parameter the gradient of one process on all of it."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import isonomy

CASES = [
    *((method.name, level) for method in isonomy.methods() if method.stages for level in method.levels or ["features"]),
    ("nash_mtl", "batch_sum"),
    ("log+graddrop", "features"),
    ("modo", "two batches"),
    ("sdmgrad", "three batches"),
]
# Options with which a short run reaches what a method does later on.
OPTIONS = {
    "rotograd": {"features": 5, "own_lr": 0.1},
    "igb_v1": {"base_epoch": 0},
    "igb_v2": {"base_epoch": 0, "learn_epoch": 1, "policy_epoch": 1},
    "stch": {"nadir_epoch": 0, "mu": 0.5},
    "ldc_mtl": {"own_lr": 0.1},
}
BATCHES = {"two batches": 2, "three batches": 3}
STEPS = 3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
        self.double()

    def rotate(self, z):
        return [z] * 3

    def forward(self, x):
        z = self.trunk(x)
        return z, [head(r) for head, r in zip(self.heads, self.rotate(z), strict=True)]


def train(name, level, rank=0, world=1):
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(STEPS, 8, n, generator=generator, dtype=torch.float64) for n in (3, 3))
    net = Net()
    model = DistributedDataParallel(net) if world > 1 else net
    options = {"feature_reduce": "batch_sum"} if level == "batch_sum" else OPTIONS.get(name, {})
    balancer = isonomy.build(name, ["a", "b", "c"], **options)
    net.rotate = getattr(balancer.stages[-1], "rotate", net.rotate)
    balancer.stages.double()  # Parameters of a method's own in float32 would round differently.
    optimizer = torch.optim.SGD(net.parameters(), 0.005)

    def run(k):
        part = slice(rank * 8 // world, (rank + 1) * 8 // world)
        z, outputs = model(x[k % STEPS, part])
        return z, [10.0**t * (out[:, 0] - y[k % STEPS, part, t]).square().mean() for t, out in enumerate(outputs)]

    for k in range(STEPS):
        optimizer.zero_grad()
        z, losses = run(k)
        if level in BATCHES:
            losses = [losses, *(run(k + extra)[1] for extra in range(1, BATCHES[level]))]
        balancer(losses, shared=z if level in ("features", "batch_sum") else net.trunk).backward()
        optimizer.step()
        if "step_losses" in balancer.needs:
            with torch.no_grad():
                balancer.step_end(run(k)[1])
        balancer.epoch_end({"a": 0.5, "b": 0.9, "c": 0.1 + k / 10}, learning_rate=0.05)
    return torch.cat([p.detach().flatten() for p in [*net.parameters(), *balancer.parameters()]])


def missing_task():
    _, outputs = Net()(torch.ones(2, 3).double())
    isonomy.build("ew", 3, allow_missing=True)({"0": outputs[0].mean()})


def static_graph():
    net = Net()
    model = DistributedDataParallel(net, static_graph=True)
    _, outputs = model(torch.ones(2, 3).double())
    isonomy.build("imtl_g", 3)([out.square().mean() for out in outputs], shared=net.trunk)


def other_parameters(rank):
    experts, heads = nn.ModuleList(nn.Linear(3, 5) for _ in range(2)), [nn.Linear(5, 1) for _ in range(2)]
    z = experts[rank](torch.ones(2, 3))
    isonomy.build("imtl_g", 2)([head(z).square().mean() for head in heads], shared=experts)


def message(call):
    try:
        call()
    except isonomy.IsonomyError as error:
        return str(error)
    return ""


def worker(rank, world, file):
    torch.set_num_threads(1)
    # A file to meet at: a port that was free a moment ago may be taken by now.
    dist.init_process_group("gloo", init_method=f"file://{file}.meet", rank=rank, world_size=world)
    results = {case: train(*case, rank=rank, world=world) for case in CASES}
    gathered = [None] * world
    dist.all_gather_object(gathered, results)
    refused = [message(call) for call in (missing_task, static_graph, lambda: other_parameters(rank))]
    if rank == 0:
        torch.save([*gathered, refused], file)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    file = tmp_path_factory.mktemp("ddp") / "results.pt"
    mp.spawn(worker, (2, file), nprocs=2)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_equals_one_process(two_processes, case):
    expected = train(*case)
    for rank in range(2):
        torch.testing.assert_close(two_processes[rank][case], expected, rtol=1e-11, atol=1e-13)


def test_what_would_come_out_wrong_is_refused(two_processes):
    missing, static, others = two_processes[2]
    assert "2 processes train together" in missing
    assert "static_graph=True" in static
    assert "reach different shared parameters" in others
