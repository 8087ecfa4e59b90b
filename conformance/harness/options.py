"""The options of a run, and names that they may have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

DECLARATIONS = {
    "ascii-names": "names outside of ASCII are refused (RW-NAME-6)",
    "no-retention": "messages are not retained beyond their delivery (17.5)",
}
"""What a target may be declared to leave out."""

ROOM_PREFIX = "rw-"
"""What the names of the suite's rooms begin with."""


@dataclass(frozen=True)
class Options:
    """The options of a run. All times are in seconds.

    `timeout` bounds each expectation, `patience` the wait for each time-out of the target, `ready` its start, and
    `max_time` the whole run unless it is 0. `jobs` cases run side by side, each `repeat` times; `max_failures` end the
    run unless it is 0. `declared` are keys of DECLARATIONS, `limits` those of SPEC.md, section 15, that the target is
    declared to have. `accounts` and `admins` are passwords by name; admins may stop the target. With `tls` a client is
    told to speak TLS. Random inputs follow from `seed`. Names of rooms begin with `room_prefix`. Failures are written
    to `replay_dir`, if given. `command` is what started the run, without its selection.
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
    room_prefix: str = ROOM_PREFIX
    repeat: int = 1
    max_time: float = 0.0
    replay_dir: Path | None = None
    command: tuple[str, ...] = ("roomwire-check",)
