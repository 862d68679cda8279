"""``isonomy`` on the command line, or ``python -m isonomy``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# What the extra brings, by the names that are imported.
EXTRA = {"click", "lightning_fabric", "matplotlib", "rich", "sklearn", "torchmetrics"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, or says what to install for it.

    Args:
        arguments: Without the program's name; None for the process's own.

    Returns:
        The exit code.
    """
    try:
        from isonomy.bench.cli import run  # noqa: PLC0415 - the core works without the extra

        return run(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        print(f"The command line needs {error.name}: pip install 'isonomy[bench]'", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
