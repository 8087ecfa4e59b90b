"""Runs `roomwire-check`, also as `python -m conformance`, where Python finds the modules that this needs."""

import sys
from pathlib import Path

from conformance.files import obstacle

_HOME = Path(__file__).resolve().parent.parent
_USAGE = 2


def main() -> int:
    """Runs the command and returns its exit status."""
    found = obstacle()
    if found:
        print(f"roomwire-check: {found}", file=sys.stderr)
        return _USAGE
    from conformance.cli import main as command  # not before, since it would fail in a way that nobody understands

    return command()


if __name__ == "__main__":
    # `python -m` looks for modules in the working directory first. Those of a user's program are not meant.
    if sys.path and Path(sys.path[0] or ".").resolve() not in (_HOME, _HOME / "conformance"):
        del sys.path[0]
    sys.exit(main())
