"""Reads the files that people write or hand on: text, JSON and TOML. Each failure is a ValueError that says why."""

import json
import tomllib
from pathlib import Path
from typing import Any


def text(path: Path) -> str:
    """The text of a file in UTF-8, without its byte order mark. Raises ValueError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start
        raise ValueError(f"expected text in UTF-8, found octet {error.object[at]:02x} at {at}") from None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def from_json(text: str | bytes) -> Any:
    """The value of a text in JSON. Raises ValueError, also for a value that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def from_toml(text: str) -> dict[str, Any]:
    """The tables of a text in TOML. Raises ValueError, also for a value that is nested too deeply."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
