"""The configuration of a target: what it leaves out, limits that differ, and test accounts.

The implementer keeps it in a file of TOML, whose form CONTRACT.md shows. Every table is optional.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.harness import input_file
from conformance.harness.exit_status import UsageError
from conformance.harness.options import DECLARATIONS
from protocol.registry import LIMITS


class ConfigError(UsageError):
    """The file cannot be read, does not have that form, or has an unknown name."""


@dataclass(frozen=True)
class Config:
    """A target's configuration.

    `features` are keys of options.DECLARATIONS. `limits` have the names and units of SPEC.md, section 15. `accounts`
    and `admins` are passwords by name.
    """

    features: frozenset[str] = frozenset()
    limits: Mapping[str, int] = field(default_factory=dict)
    accounts: Mapping[str, str] = field(default_factory=dict)
    admins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Config":
        """Reads a file. Raises ConfigError."""
        try:
            document = input_file.from_toml(input_file.text(path))
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None
        features = _table(path, document, "features", bool, DECLARATIONS)
        limits = _table(path, document, "limits", int, LIMITS)
        accounts = _table(path, document, "accounts", str, None)
        admins = _table(path, document, "admins", str, None)
        if document:
            raise ConfigError(f"{path}: unknown table [{sorted(document)[0]}]")
        for name, value in limits.items():
            limit = LIMITS[name]
            if not limit.low <= value <= limit.high:
                raise ConfigError(f"{path}: {name}: expected {limit.low} to {limit.high} {limit.unit}, found {value}")
        return cls(frozenset(name for name, left_out in features.items() if left_out), limits, accounts, admins)


def _table(
    path: Path, document: dict[str, Any], name: str, kind: type, known: Mapping[str, object] | None
) -> dict[str, Any]:
    table = document.pop(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {name}: expected a table")
    for key, value in table.items():
        if known is not None and key not in known:
            raise ConfigError(f"{path}: [{name}] {key}: expected one of {', '.join(sorted(known))}")
        if type(value) is not kind:
            raise ConfigError(f"{path}: [{name}] {key}: expected {kind.__name__}, found {value!r}")
    return table
