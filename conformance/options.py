"""What a run was asked to do; one value that everything else is given."""

from dataclasses import dataclass

DECLARATIONS = {
    "ascii-names": "names outside of ASCII are refused (RW-NAME-6)",
    "no-retention": "messages are not retained beyond their delivery (17.5)",
}


@dataclass(frozen=True)
class Options:
    """`timeout` bounds each expectation, `patience` each time-out of the target, both in seconds.

    `declared` are keys of DECLARATIONS. `command` is what started the run, without its selection.
    """

    timeout: float = 5.0
    patience: float = 75.0
    ready: float = 15.0
    jobs: int = 8
    max_failures: int = 0
    declared: frozenset[str] = frozenset()
    command: tuple[str, ...] = ("roomwire-check",)
