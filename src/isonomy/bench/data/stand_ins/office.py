"""Stand-ins for ``office31`` and ``officehome``, with lists, of four classes: coloured noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from isonomy.bench.data.office import Office, Office31, OfficeHome
from isonomy.bench.seeds import key

SIZE = (300, 300)
# A class's number is its place in LibMTL's lists.
THINGS = {
    Office31: ("back_pack", "paper_notebook", "desktop_computer", "scissors"),
    OfficeHome: ("Calendar", "Postit_Notes", "Candles", "File_Cabinet"),
}


def office31(root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    """Writes ``office31``.

    Args:
        root: The data set's folder.
        size: Height and width; None for that of Amazon's pictures.
        counts: How many images of every domain each split has.
    """
    _write(Office31, "frame_{:04d}.jpg", root, size, counts)


def officehome(root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    """Writes ``officehome``.

    Args:
        root: The data set's folder.
        size: Height and width; None for a usual one.
        counts: How many images of every domain each split has.
    """
    _write(OfficeHome, "{:05d}.jpg", root, size, counts)


def _write(data: type[Office], file: str, root: Path, size: tuple[int, int] | None, counts: Mapping[str, int]) -> None:
    things = THINGS[data]
    for domain in data.domains:
        number = 0
        for split, count in counts.items():
            lines = []
            for _ in range(count):
                label = number % len(things)
                path = Path(domain) / data.inside / things[label] / file.format(number // len(things) + 1)
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                picture(label, key("stand-in", domain, number), size or SIZE).save(root / path)
                lines.append(f"{path.as_posix()} {label}\n")
                number += 1
            (root / f"{domain}_{split}.txt").write_text("".join(lines))


def picture(kind: int, seed: int, size: tuple[int, int]) -> Image.Image:
    """Noise in one of eight colours.

    Args:
        kind: Which colour, from 0.
        seed: Of the noise.
        size: Height and width.
    """
    colour = np.array([kind & 1, kind & 2, kind & 4], dtype=bool)
    noise = np.random.default_rng(seed).random((*size, 3))
    return Image.fromarray((noise * 100 + 155 * colour).astype(np.uint8))
