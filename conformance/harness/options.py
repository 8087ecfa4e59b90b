"""What a run was asked to do; one value that everything else is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

DECLARATIONS = {
    "ascii-names": "names outside of ASCII are refused (RW-NAME-6)",
    "no-retention": "messages are not retained beyond their delivery (17.5)",
}


class UsageError(ValueError):
    """An argument names something that does not exist, or is malformed."""


@dataclass(frozen=True)
class Options:
    """`timeout` bounds each expectation, `patience` each time-out of the target, both in seconds.

    `declared` are keys of DECLARATIONS. `limits` are those of SPEC.md, section 15, that the target was declared
    to have, `accounts` passwords by name, `admins` those of accounts that may stop it. With `tls` a client is told to
    speak TLS. `command` is what started the run, without its selection. Inputs that are chosen at random follow from
    `seed`. Each case is run `repeat` times; `max_time` bounds the run in
    seconds, and 0 does not. Failures are written to `replay_dir`, if that is given.
    """

    timeout: float = 5.0
    patience: float = 75.0
    ready: float = 15.0
    jobs: int = 8
    max_failures: int = 0
    declared: frozenset[str] = frozenset()
    limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    accounts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    admins: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tls: bool = False
    seed: int = 0
    repeat: int = 1
    max_time: float = 0.0
    replay_dir: Path | None = None
    command: tuple[str, ...] = ("roomwire-check",)
