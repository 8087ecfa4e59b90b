"""The places of the files that the suite carries with it."""

from pathlib import Path

_HERE = Path(__file__).parent

DATA = _HERE / "data"
VECTORS = _HERE / "vectors"
CORPUS = _HERE / "fuzz" / "corpus"
SKELETONS = _HERE / "skeletons"


def document() -> Path:
    """The path of SPEC.md: the copy in an installed suite, or the one beside the package in a checkout."""
    packaged = _HERE / "SPEC.md"
    return packaged if packaged.exists() else _HERE.parent / "SPEC.md"
