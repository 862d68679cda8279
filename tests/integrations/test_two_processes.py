"""Under every framework, two processes on half the batch each train what a plain loop trains on all of it."""

import os
import tempfile

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DistributedSampler

from tests.integrations import reference, test_accelerate, test_fabric, test_lightning, test_transformers
from tests.integrations.reference import BATCH, CASES


def lightning(name, level, strategy="ddp"):
    module = test_lightning.Module(reference.build(name), level)
    batches = reference.loader(sampler=DistributedSampler)  # Lightning's own shuffles
    test_lightning.trainer(
        strategy=strategy,
        devices=2,
        use_distributed_sampler=False,
        callbacks=[test_lightning.BalancerCallback(module.balancer)],
        log_every_n_steps=1,
    ).fit(module, batches, batches)
    return module.net


def lightning_with_unused_parameters(name, level):
    return lightning(name, level, "ddp_find_unused_parameters_true")


def fabric(name, level):
    made = test_fabric.Fabric(accelerator="cpu", devices=2, strategy="ddp")
    made.launch()
    return test_fabric.train(name, level, fabric=made).net


def fabric_accumulates(name, level):
    made = test_fabric.Fabric(accelerator="cpu", devices=2, strategy="ddp")
    made.launch()
    return test_fabric.train(name, level, accumulate=3, fabric=made).net


def accelerate(name, level):
    try:
        return test_accelerate.train(name, level)[0]
    finally:
        test_accelerate.reset()


def transformers(name, level):
    with tempfile.TemporaryDirectory() as folder:
        made = test_transformers.trainer(folder, name, level, ddp_find_unused_parameters=False)
        made.train()
    test_accelerate.reset()
    return made.model


RUNS = [lightning, lightning_with_unused_parameters, fabric, fabric_accumulates, accelerate, transformers]


def worker(rank, file):
    torch.set_num_threads(1)
    # As torchrun would set them; the processes have met by then, at a file, since a free port may be taken any moment.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", init_method=f"file://{file}.meet", rank=rank, world_size=2)
    found = {(run.__name__, *case): reference.vector(run(*case)) for run in RUNS for case in CASES}
    torch.save(found, f"{file}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    file = tmp_path_factory.mktemp("frameworks") / "found.pt"
    mp.spawn(worker, (str(file),), nprocs=2)
    return [torch.load(f"{file}.{rank}") for rank in range(2)]


@pytest.mark.parametrize("case", CASES, ids="-".join)
@pytest.mark.parametrize("run", [run.__name__ for run in RUNS])
def test_equals_one_process(found, run, case):
    expected = reference.train(*case, batch=2 * BATCH, accumulate=3 if "accumulates" in run else 1)
    for rank in range(2):
        torch.testing.assert_close(found[rank][run, *case], expected, rtol=1e-11, atol=1e-13)
