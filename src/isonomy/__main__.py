"""``isonomy`` on the command line, or ``python -m isonomy``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

# What the extra brings, by the names that are imported.
EXTRA = ("click", "lightning_fabric", "matplotlib", "rich", "sklearn", "torchmetrics")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, or says what to install for it.

    Args:
        arguments: Without the program's name; None for the process's own.

    Returns:
        The exit code.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        print(f"The command line needs {missing[0]}: pip install 'isonomy[bench]'", file=sys.stderr)
        return 2
    from isonomy.bench.cli import run  # noqa: PLC0415 - the core works without the extra

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
