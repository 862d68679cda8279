"""Where the files of data sets are: below the folder that ``--data-root`` names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from isonomy.errors import IsonomyError

# The flag becomes the variable, which the processes of a sweep inherit; results do not depend on where files lie.
VARIABLE = "ISONOMY_DATA"


@dataclass(frozen=True)
class Layout:
    """What a data set's folder has to look like.

    Attributes:
        name: Of the data set.
        tree: The expected files, drawn for people.
        source: Where users get them, in a sentence.
    """

    name: str
    tree: str
    source: str

    def error(self, reason: str) -> IsonomyError:
        """The error for a folder that does not fit.

        Args:
            reason: What is wrong, ending in what is missing first, without its full stop.
        """
        return IsonomyError(f"Data set {self.name!r}: {reason}. {self.source} Expected:\n{self.tree}")

    def root(self) -> Path:
        """The data set's folder: the one of its name below ``--data-root``, if there is one, else that folder itself.

        Raises:
            IsonomyError: There is no such folder, or none was named.
        """
        if not (named := os.environ.get(VARIABLE)):
            raise self.error("its files are needed, and nothing is downloaded: name their folder with --data-root")
        root = Path(named).expanduser()
        own = root / self.name
        if not root.is_dir():
            raise self.error(f"--data-root {root} is not a folder")
        return own if own.is_dir() else root

    def require(self, *paths: Path) -> None:
        """Refuses a folder that lacks one of these.

        Args:
            paths: Files or folders, the most telling first.

        Raises:
            IsonomyError: One is missing; the first such is named.
        """
        for path in paths:
            if not path.exists():
                raise self.error(f"{path} is missing")


def damaged(path: Path, index: int, reason: object) -> IsonomyError:
    """The error for a file of a data set that cannot be what it should be.

    Args:
        path: The file.
        index: Of its sample in the split.
        reason: What is wrong with it.
    """
    return IsonomyError(f"{path} (sample {index}) is damaged ({reason}): fetch or unpack it again, or leave it out.")
