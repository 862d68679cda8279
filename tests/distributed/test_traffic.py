"""What travels between processes: how much, in how many messages, and that nothing is lost on the way."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

import isonomy
from isonomy import distributed
from tests.distributed.processes import run

TASKS = 4
# Of the trunk and of its last layer; three processes do not divide the former.
PARAMETERS, PROBED = 1159, 147


def rows(rank):
    """Rows of several dtypes, of sizes that three do not divide, one laid out by columns, one conjugate by a flag."""
    generator = torch.Generator().manual_seed(rank)
    made = []
    for _ in range(TASKS):
        real = torch.randn(50, generator=generator, dtype=torch.float64)
        split = [real[:7], real[7:7], real[7:8].reshape(()), real[8:20].view(3, 4).mT, real[20:31].float()]
        made.append([*split, real[31:40].bfloat16(), torch.view_as_complex(real[40:50].view(5, 2)).conj()])
    return made


def there_and_back(bucket):
    """Rows that were scattered and gathered again, and rows that were averaged as a whole."""
    distributed._BUCKET = bucket
    like = rows(0)[0]
    slices = distributed.scatter_rows(rows(dist.get_rank()))
    most = max(len(part) for row in slices for part in row)
    gathered = [distributed.gather_row(row, like) for row in slices]
    return gathered, distributed.mean_rows(rows(dist.get_rank())), most


def count(name, level="parameters", **options):
    """The numbers that one step hands to each kind of message, and how many messages there are."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(11, 31), nn.Tanh(), nn.Linear(31, 20), nn.Tanh(), nn.Linear(20, 7))
    heads = [nn.Linear(7, 1) for _ in range(TASKS)]
    balancer = isonomy.build(name, TASKS, **options)
    z = trunk(torch.randn(6, 11))
    losses = [head(z).square().mean() for head in heads]
    sent = {"all_reduce": [], "all_to_all_single": [], "all_gather": []}
    kept = {kind: getattr(dist, kind) for kind in sent}
    for kind, call in kept.items():

        def counted(first, *args, kind=kind, call=call, **kwargs):
            sent[kind].append(args[0].numel() if args else first.numel())
            return call(first, *args, **kwargs)

        setattr(dist, kind, counted)
    try:
        shared = trunk if level == "parameters" else z
        balancer(losses, shared=shared, probe=trunk[-1] if level == "probe" else None)
    finally:
        for kind, call in kept.items():
            setattr(dist, kind, call)
    assert sum(parameter.numel() for parameter in trunk.parameters()) == PARAMETERS
    return sent


def worker(rank, world):
    buckets = {bucket: there_and_back(bucket) for bucket in (5, 1 << 20)}
    return {
        "there and back": buckets,
        "gramian": count("imtl_g"),
        "history": count("db_mtl"),
        "lean": count("imtl_g", memory="lean"),
        "probe": count("imtl_g", "probe"),
        "feature": count("imtl_g", "features"),
        "loss": count("uw"),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run(worker, 3, tmp_path_factory.mktemp("traffic"))


@pytest.mark.parametrize("bucket", [5, 1 << 20])
def test_rows_are_the_means_over_the_processes(found, bucket):
    parts = [rows(rank) for rank in range(3)]
    for results in found:
        gathered, whole, most = results["there and back"][bucket]
        assert most <= bucket
        for k in range(TASKS):
            for actual, averaged, *three in zip(gathered[k], whole[k], *(part[k] for part in parts), strict=True):
                expected = sum(part.to(torch.promote_types(part.dtype, torch.float32)) for part in three) / 3
                eps = 4 * torch.finfo(actual.dtype).eps
                torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=eps, atol=eps)
                torch.testing.assert_close(averaged, expected.to(actual.dtype), rtol=eps, atol=eps)


# What every process votes on and the losses; the gramian; one slice of the parameters.
FIRST, G, SLICE = [3, TASKS], TASKS**2, -(-PARAMETERS // 3)


@pytest.mark.parametrize(
    ("what", "reduced", "scattered", "gathered"),
    [
        ("loss", FIRST, [], []),
        ("feature", [*FIRST, G], [], []),
        ("gramian", [*FIRST, G], [3 * SLICE] * TASKS, [SLICE]),
        ("probe", [*FIRST, G], [PROBED] * TASKS, []),
        ("history", [*FIRST, *[PARAMETERS] * TASKS], [], []),
    ],
)
def test_no_more_travels_than_has_to(found, what, reduced, scattered, gathered):
    for results in found:
        assert results[what] == {"all_reduce": reduced, "all_to_all_single": scattered, "all_gather": gathered}


def test_lean_sends_the_weighted_row_whole_and_agrees_where_to_pause(found):
    for results in found:
        numbers = results["lean"]
        assert sum(numbers["all_to_all_single"]) >= TASKS * PARAMETERS
        assert PARAMETERS in numbers["all_reduce"]
        assert numbers["all_gather"] == []
