"""Two processes on half the batch each give every parameter the gradient of one process on all of it."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import isonomy

CASES = [
    ("uw", "features"),
    ("log", "features"),
    ("rlw", "features"),
    ("imtl", "features"),
    ("imtl", "parameters"),
    ("nash_mtl", "features"),
    ("pcgrad", "parameters"),
    ("gradnorm", "features"),
    ("db_mtl", "parameters"),
    ("nash_mtl", "batch_sum"),
]
STEPS = 3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
        self.double()

    def forward(self, x):
        z = self.trunk(x)
        return z, [head(z) for head in self.heads]


def train(name, level, rank=0, world=1):
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(STEPS, 8, n, generator=generator, dtype=torch.float64) for n in (3, 3))
    net = Net()
    model = DistributedDataParallel(net) if world > 1 else net
    options = {"feature_reduce": "batch_sum"} if level == "batch_sum" else {}
    balancer = isonomy.build(name, ["a", "b", "c"], **options)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    for k in range(STEPS):
        part = slice(rank * 8 // world, (rank + 1) * 8 // world)
        z, outputs = model(x[k, part])
        losses = [10.0**t * (out[:, 0] - y[k, part, t]).square().mean() for t, out in enumerate(outputs)]
        optimizer.zero_grad()
        balancer(losses, shared=net.trunk if level == "parameters" else z).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()])


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
