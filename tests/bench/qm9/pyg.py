"""The molecules written by hand as PyTorch Geometric keeps them: what it makes of them, written by other code."""

import torch

from tests.bench.qm9 import by_hand

SYMBOLS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}


def dictionary(number, values):
    """One molecule; its nineteen values as they are."""
    block = by_hand.STRUCTURES.split("$$$$\n")[number - 1].splitlines()
    rows = [line.split() for line in block[4:]]
    atoms = [row for row in rows if len(row) == 16]
    symbols = [row[3] for row in atoms]
    both = []
    for one, other, kind in ([int(word) - 1 for word in row[:3]] for row in rows if len(row) == 7):
        both += [(one, other, kind), (other, one, kind)]
    both.sort()
    hydrogens = [sum(symbols[other] == "H" for one, other, _ in both if one == atom) for atom in range(len(symbols))]
    x = [
        [*(float(symbol == each) for each in SYMBOLS), SYMBOLS[symbol], 0, 0, 0, 0, carried]
        for symbol, carried in zip(symbols, hydrogens, strict=True)
    ]
    return {
        "x": torch.tensor(x),
        "z": torch.tensor([SYMBOLS[symbol] for symbol in symbols]),
        "pos": torch.tensor([[float(word) for word in row[:3]] for row in atoms]),
        "edge_index": torch.tensor([edge[:2] for edge in both]).T,
        "edge_attr": torch.eye(4)[[edge[2] for edge in both]],
        "y": torch.tensor([values]),
        "name": f"gdb_{number}",
        "idx": number - 1,
    }


def listed(values):
    """As ``qm9_v3.pt``; ``values`` by number."""
    return [dictionary(number, own) for number, own in values.items()]


def collated(molecules):
    """As ``data_v3.pt``: one dictionary, where each molecule begins, and the class of one."""
    data, slices = {}, {}
    for name in molecules[0]:
        parts = [molecule[name] for molecule in molecules]
        if isinstance(parts[0], torch.Tensor):
            dim = 1 if name == "edge_index" else 0
            data[name] = torch.cat(parts, dim)
            ends = torch.tensor([part.shape[dim] for part in parts]).cumsum(0)
            slices[name] = torch.cat([torch.zeros(1, dtype=torch.long), ends])
        else:
            data[name] = torch.tensor(parts) if name == "idx" else parts
            slices[name] = torch.arange(len(parts) + 1)
    return data, slices


def save_collated(path, molecules):
    """Writes ``data_v3.pt``, in which the class is only named."""
    import sys
    from types import ModuleType

    path.parent.mkdir(parents=True, exist_ok=True)
    module = ModuleType("torch_geometric.data.data")
    module.Data = type("Data", (), {"__module__": module.__name__})
    names = ["torch_geometric", "torch_geometric.data", module.__name__]
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(dict.fromkeys(names, module))
    try:
        torch.save((*collated(molecules), module.Data), path)
    finally:
        for name, was in before.items():
            if was is None:
                del sys.modules[name]
            else:
                sys.modules[name] = was
