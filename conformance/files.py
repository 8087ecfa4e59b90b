"""Where the files are that the suite carries with it."""

from pathlib import Path

_HERE = Path(__file__).parent

DATA = _HERE / "data"
VECTORS = _HERE / "vectors"
CORPUS = _HERE / "corpus"
SKELETONS = _HERE / "skeletons"


def document() -> Path:
    """SPEC.md: the copy of an installed suite, or the one beside the package in a checkout."""
    packaged = _HERE / "SPEC.md"
    return packaged if packaged.exists() else _HERE.parent / "SPEC.md"
