"""The places of the files that the suite carries with it, and of the modules that it needs."""

import sys
from importlib.util import find_spec
from pathlib import Path

_HERE = Path(__file__).parent

DATA = _HERE / "data"
VECTORS = _HERE / "vectors"
CORPUS = _HERE / "fuzz" / "corpus"
SKELETONS = _HERE / "skeletons"

_HOME = _HERE.resolve().parent
_NEEDED = ("protocol", "construct", "rich", "jinja2", "shtab", "trustme")


def document() -> Path:
    """The path of SPEC.md: the copy in an installed suite, or the one beside the package in a checkout."""
    packaged = _HERE / "SPEC.md"
    return packaged if packaged.exists() else _HERE.parent / "SPEC.md"


def obstacle() -> str:
    """What keeps the suite from working in this interpreter, and what to do about it, or ""."""
    if sys.flags.optimize > 1:
        return "PYTHONOPTIMIZE=2 (python -OO) removes the descriptions of the cases: use 1, or leave it out"
    for name in _NEEDED:
        where = _place(name)
        other = where is not None and where.parent != _HOME and (name == "protocol" or where.parent == Path.cwd())
        if other:
            return (
                f"needs a package {name}, and Python finds {where} instead: rename that file, run this in another "
                "folder, or take its folder out of PYTHONPATH"
            )
    return ""


def _place(name: str) -> Path | None:
    """The file or folder in which Python finds a module; None if it finds none."""
    module = sys.modules.get(name)
    spec = module.__spec__ if module else find_spec(name)
    origin = getattr(module, "__file__", None) or (spec.origin if spec else None)
    if not origin:
        return None
    path = Path(origin).resolve()
    return path.parent if path.name == "__init__.py" else path
