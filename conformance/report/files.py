"""The files of a report, in one folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.harness.exit_status import UsageError
from conformance.report import results
from conformance.report.junit import badge, junit
from conformance.report.results import About, Summary
from conformance.spec.tables import load


def prepare(folder: Path) -> None:
    """Makes the folder of a report; called before the run, which takes longer. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--report {folder}: {error.strerror}") from None


def write(summary: Summary, about: About, folder: Path) -> None:
    """Writes results.json, junit.xml, badge.json and index.html of a run. Raises UsageError."""
    document = results.build(summary, about, load())
    try:
        results.write(document, folder / "results.json")
        (folder / "junit.xml").write_text(junit(document), encoding="utf-8")
        (folder / "badge.json").write_text(json.dumps(badge(document), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--report {folder}: {error.strerror}") from None
    write_page([document], folder)


def write_page(documents: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Writes index.html of one run or several, and returns its path. Raises UsageError."""
    from conformance.report.html import render  # jinja2 would slow down every command that writes no page

    path = folder / "index.html"
    try:
        path.write_text(render(documents), encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return path
