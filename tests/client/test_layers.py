"""Imports within reference_client only point down: chat, library, session; all of them share errors and events."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGE = ROOT / "reference_client"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")


def layer(module: Path) -> int:
    """0 for errors and events, 1 for session, 2 for the library, 3 for chat."""
    if module.parts[0] in ("session", "chat"):
        return 1 if module.parts[0] == "session" else 3
    return 0 if module.stem in ("errors", "events") else 2


def imported(module: Path) -> Iterator[Path]:
    """The modules of the package that `module` imports."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE.name:
            folder = Path(*(node.module or "").split(".")[1:])
            names = [folder / alias.name for alias in node.names]
            yield from {path if (PACKAGE / path.with_suffix(".py")).is_file() else folder for path in names}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_down(module: Path) -> None:
    assert [str(below) for below in imported(module) if layer(below) > layer(module)] == []
