"""What a fuzzer is asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SHRINKING = 90.0  # seconds


@dataclass
class Options:
    """How to fuzz. `timeout` is how long an answer may take, in seconds; `save` is where failures are written.

    `limits` are those of SPEC.md, section 15, that the server is known to have, `accounts` its passwords by name. With
    `ascii_only` it is known to take only ASCII names.
    """

    seed: int = 1
    max_time: float = 60.0
    max_examples: int = 0
    max_failures: int = 1
    timeout: float = 5.0
    save: Path | None = None
    format: str = "human"
    mutations: bool = True
    limits: dict[str, int] = field(default_factory=dict)
    shrinking: float = SHRINKING
    accounts: Mapping[str, str] = field(default_factory=dict)
    ascii_only: bool | None = None
    restart: float = 0.03
    lag_every: int = 60  # scripts, one of which leaves a member behind, at the cost of megaoctets
