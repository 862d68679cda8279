import math

import torch

from isonomy.bench.data.qm9 import raw
from isonomy.bench.data.qm9.graphs import Batches, Graphs


def test_a_batch_is_padded_to_its_largest_molecule(root):
    graphs = raw.read(root / "raw", False)
    x, edges, mask = Batches(graphs, torch.device("cpu")).at(torch.tensor([2, 1]))
    assert x.shape == (2, 9, 11)
    assert edges.shape == (2, 9, 9, 5)
    assert x.dtype == edges.dtype == torch.float32
    assert mask.tolist() == [[True] * 9, [True] * 3 + [False] * 6]
    assert x[1].tolist() == [
        [0, 0, 0, 1, 0, 8, 0, 0, 0, 0, 2],
        *[[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]] * 2,
        *[[0] * 11] * 6,
    ]
    oh = math.dist((-0.0344, 0.9775, 0.0076), (0.0648, 0.0206, 0.0015))
    hh = math.dist((0.8718, 1.3008, 0.0007), (0.0648, 0.0206, 0.0015))
    torch.testing.assert_close(edges[1, 0, 1], torch.tensor([1, 0, 0, 0, oh]))
    torch.testing.assert_close(edges[1, 1, 2], torch.tensor([0, 0, 0, 0, hh]))
    assert not edges[1, 3:].any()
    assert not edges[1, :, 3:].any()
    assert torch.equal(edges, edges.transpose(1, 2))
    assert not edges.diagonal(dim1=1, dim2=2).any()
    assert edges[0, ..., :4].sum() == 2 * 8


def test_bonds_of_every_type_lie_where_they_belong(root):
    graphs = raw.read(root / "raw", True)
    batches = Batches(graphs, torch.device("cpu"))
    benzene = batches.at(torch.tensor([3])).edges[0]
    ring = torch.tensor([[(i - j) % 6 in (1, 5) for j in range(6)] for i in range(6)])
    assert torch.equal(benzene[:6, :6, 3] == 1, ring)
    assert torch.equal(benzene[:6, 6:, 0], torch.eye(6))
    everything = batches.at(torch.arange(4))
    assert torch.equal(everything.edges[3], benzene)


def test_an_atom_alone_has_no_bond(root):
    graphs = raw.read(root / "raw", False)
    alone = Graphs(*(array[:1] for array in graphs))._replace(
        atoms=graphs.atoms[:1] * 0 + 1, links=graphs.links[:1] * 0
    )
    x, edges, mask = Batches(alone, torch.device("cpu")).at(torch.tensor([0]))
    assert mask.tolist() == [[True]]
    assert x.shape == (1, 1, 11)
    assert not edges.any()
