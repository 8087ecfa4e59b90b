"""What the contracts of clients and codecs have in common, which the suite drives by lines of JSON (CONTRACT.md)."""

from typing import Any

from conformance.harness import input_file

CONTRACT = 1
"""The version of the contract."""

_SHOWN = 300  # characters of a line that a report shows


def parse(line: str | bytes) -> Any:
    """The JSON value of a line. Raises ValueError, also for a value that is nested too deeply."""
    return input_file.from_json(line)


def greeting(line: str | bytes) -> dict[str, Any]:
    """The greeting in a program's first line. Raises ValueError, which says what is wrong."""
    try:
        value = parse(line)
    except ValueError as error:
        raise ValueError(f"its first line is not a greeting: {short(error)}") from None
    if not isinstance(value, dict) or value.get("ready") is not True:
        raise ValueError(f"its first line is not a greeting: {short(line)}")
    if value.get("contract") != CONTRACT:
        raise ValueError(f"it speaks contract {short(value.get('contract'))}, not {CONTRACT}")
    return value


def short(value: object) -> str:
    """The start of a line, as reports show it."""
    text = (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).rstrip("\n")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... {len(text)} characters"
