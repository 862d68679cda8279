"""The message-passing network, against one that forms every edge's matrix."""

import pytest
import torch
from torch.nn import functional

from isonomy.bench.backbones import heads, make
from isonomy.bench.backbones.mpnn import MPNN, Molecules
from isonomy.bench.seeds import drawn
from tests.bench.backbones.nets import count


def molecules(sizes, padded=None):
    with drawn("molecules"):
        batch, most = len(sizes), padded or max(sizes)
        mask = torch.arange(most) < torch.tensor(sizes)[:, None]
        return Molecules(torch.randn(batch, most, 11), torch.rand(batch, most, most, 5), mask)


def small(seed=0):
    with drawn(seed, "encoder"):
        return MPNN(width=6, hidden=7)


def by_hand(network, x, edges):
    """One molecule without padding, atom by atom and edge by edge."""
    width, atoms = network.channels[0], len(x)
    convolution = network.convolution
    h = network.lin0(x).relu()
    for _ in range(3):
        heard = []
        for i in range(atoms):
            messages = []
            for j in range(atoms):
                if i != j:
                    matrix = convolution.matrix(convolution.hidden(edges[i, j]).relu()).view(width, width)
                    messages.append(h[j] @ matrix)
            mean = torch.stack(messages).mean(0) if messages else h.new_zeros(width)
            heard.append((convolution.root(h[i]) + mean).relu())
        h = network.gru(torch.stack(heard), h)
    whole, state = h.new_zeros(1, 2 * width), (h.new_zeros(1, width), h.new_zeros(1, width))
    for _ in range(3):
        state = network.lstm(whole, state)
        attention = (h @ state[0][0]).softmax(0)
        whole = torch.cat([state[0], (attention[:, None] * h).sum(0, keepdim=True)], dim=1)
    return network.lin1(whole)[0].relu()


def test_equals_the_network_that_forms_every_edge_s_matrix():
    network, batch = small().double(), molecules([4, 1, 3], padded=5)
    x, edges = batch.x.double(), batch.edges.double()
    (z,) = network(Molecules(x, edges, batch.mask))
    for index, size in enumerate([4, 1, 3]):
        torch.testing.assert_close(z[index], by_hand(network, x[index, :size], edges[index, :size, :size]))


def test_padding_and_the_other_molecules_do_not_matter():
    network, batch = small(), molecules([4, 3])
    (z,) = network(batch)
    (alone,) = network(Molecules(*(part[1:] for part in batch)))
    x, edges, mask = batch
    wide = Molecules(
        functional.pad(x, (0, 0, 0, 2), value=9.0),
        functional.pad(edges, (0, 0, 0, 2, 0, 2), value=9.0),
        functional.pad(mask, (0, 2)),
    )
    torch.testing.assert_close(alone[0], z[1])
    torch.testing.assert_close(network(wide), [z])


def test_the_order_of_the_atoms_does_not_matter():
    network, (x, edges, mask) = small(), molecules([5])
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = Molecules(x[:, order], edges[:, order][:, :, order], mask)
    torch.testing.assert_close(network(shuffled), network(Molecules(x, edges, mask)))


def test_parts_have_the_published_sizes():
    network = make("mpnn")
    parts = (network.lin0, network.convolution, network.gru, network.lstm, network.lin1)
    assert [count(part) for part in parts] == [768, 533_312, 24_960, 49_664, 8_256]
    head = heads.make("linear", network.channels, 1)
    assert count(network) + count(head) == 617_025
    assert count(network) + 11 * count(head) == 617_675


@pytest.mark.parametrize("width", [8, 16])
def test_a_small_one(width):
    network = make("mpnn", width=width, hidden=width)
    assert network(molecules([3, 2]))[0].shape == (2, width)
    assert network.channels == (width,)
