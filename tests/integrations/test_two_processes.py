"""Under every framework, two processes on half the batch each train what a plain loop trains on all of it."""

import os
import tempfile

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.fabric import Fabric
from torch.utils.data import DistributedSampler

from isonomy import IsonomyError
from isonomy.integrations.lightning import BalancerCallback
from tests.integrations import reference, test_accelerate, test_fabric, test_lightning, test_transformers
from tests.integrations.reference import BATCH, CASES

FEATURES, PARAMETERS = CASES


def lightning(name, level, strategy="ddp"):
    module = test_lightning.Module(reference.build(name), level)
    batches = reference.loader(sampler=DistributedSampler)  # Lightning's own shuffles
    test_lightning.trainer(
        strategy=strategy,
        devices=2,
        use_distributed_sampler=False,
        callbacks=[BalancerCallback(module.balancer)],
        log_every_n_steps=1,
    ).fit(module, batches, batches)
    return module.net


def fabric(name, level, **options):
    made = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    made.launch()
    return test_fabric.train(name, level, fabric=made, **options).net


def accelerate(name, level):
    try:
        return test_accelerate.train(name, level)[0]
    finally:
        test_accelerate.reset()


def transformers(name, level, **options):
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = test_transformers.trainer(folder, name, level, **options)
            made.train()
        return made.model
    finally:
        test_accelerate.reset()


RUNS = {
    "lightning, features": lambda: lightning(*FEATURES),
    "lightning, parameters": lambda: lightning(*PARAMETERS),
    "lightning, unused parameters": lambda: lightning(*FEATURES, strategy="ddp_find_unused_parameters_true"),
    "fabric, features": lambda: fabric(*FEATURES),
    "fabric, parameters": lambda: fabric(*PARAMETERS),
    "fabric, features accumulated": lambda: fabric(*FEATURES, accumulate=3),
    "fabric, parameters accumulated": lambda: fabric(*PARAMETERS, accumulate=3),
    "accelerate, features": lambda: accelerate(*FEATURES),
    "accelerate, parameters": lambda: accelerate(*PARAMETERS),
    "transformers, features": lambda: transformers(*FEATURES, ddp_find_unused_parameters=False),
    "transformers, parameters": lambda: transformers(*PARAMETERS),
}


def message(run):
    try:
        run()
    except IsonomyError as error:
        return str(error)
    return ""


def worker(rank, file):
    torch.set_num_threads(1)
    # As torchrun would set them; the processes have met by then, at a file, since a free port may be taken any moment.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", init_method=f"file://{file}.meet", rank=rank, world_size=2)
    found = {name: reference.vector(run()) for name, run in RUNS.items()}
    # The Trainer looks for unused parameters unless it is told otherwise, and DDP copies what the model returns then.
    found["refused"] = message(lambda: transformers(*FEATURES))
    torch.save(found, f"{file}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    file = tmp_path_factory.mktemp("frameworks") / "found.pt"
    mp.spawn(worker, (str(file),), nprocs=2)
    return [torch.load(f"{file}.{rank}") for rank in range(2)]


@pytest.mark.parametrize("run", RUNS)
def test_equals_one_process(two_processes, run):
    case = PARAMETERS if "parameters" in run and "unused" not in run else FEATURES
    expected = reference.train(*case, batch=2 * BATCH, accumulate=3 if "accumulated" in run else 1)
    for found in two_processes:
        torch.testing.assert_close(found[run], expected, rtol=1e-11, atol=1e-13)


def test_a_copied_feature_is_refused(two_processes):
    assert all("does not reach shared=" in found["refused"] for found in two_processes)
