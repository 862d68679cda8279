"""Other people's codes on the same numbers; skipped where they are not installed: `make test-peers`."""
