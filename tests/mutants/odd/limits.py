"""Odd servers whose limits are unusual (SPEC.md, section 15)."""

from protocol.registry import LIMITS
from tests.mutants.odd.servers import OddServer

_FIXED = ("hello_max_body", "auth_steps")

HIGHEST = {name: limit.high for name, limit in LIMITS.items() if name not in _FIXED}

ODD: tuple[OddServer, ...] = (
    OddServer("offers-ignored", "Heeds no limit that the suite offers.", heeds=False),
    OddServer("window-1", "Allows one request at a time.", config={"window": 1}),
    OddServer("dedupe-none", "Remembers no ids.", config={"dedupe_ms": 0}),
    OddServer("one-room", "Lets a connection be in one room.", config={"max_rooms": 1}),
    OddServer("highest-limits", "Has every limit as high as it may be.", config=HIGHEST, limits=HIGHEST),
    OddServer(
        "bursts-of-1",
        "Limits each rate with a burst of 1.",
        config={"publish_burst": 1, "join_burst": 1, "history_burst": 1},
    ),
    OddServer(
        "replay-cap-2",
        "Replays two messages at most.",
        config={"replay_messages": 2},
        limits={"replay_messages": 2},
    ),
    OddServer("every-room-quiet", "Makes every room quiet with its first member.", config={"quiet_members": 0}),
    OddServer("no-drain-time", "Ends connections as soon as it drains.", config={"drain_ms": 0}),
    OddServer("history-1", "Answers HISTORY with one message.", config={"history_messages": 1}),
)
