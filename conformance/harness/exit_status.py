"""Exit statuses of `roomwire-check`, and the error that leads to USAGE."""

CONFORMS = 0
FAILS = 1
"""A case fails, or the baseline is stale."""
USAGE = 2
UNREACHABLE = 3
"""The target cannot be reached, or did not start."""
FAULT = 4
"""The suite itself did something wrong."""
NOTHING = 5
"""No case was selected, or none of those selected applies to the target."""
INTERRUPTED = 130
READER_GONE = 141
"""Nobody reads standard output any more: as with SIGPIPE."""


class UsageError(ValueError):
    """An argument, or a file that it names, is malformed or names something that does not exist.

    Modules that read arguments and files have a kind of their own.
    """
