"""The steps of a client's script as plain values: what its server and its application do, one by one.

Every step can be taken in every situation. One that makes no sense is passed over.
"""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from conformance.fuzz.client.broken_frames import BROKEN

COMMANDS = ("join", "publish", "leave", "history")
"""What the application wants."""

SERVER = (
    # what others do in a room, and what comes of it
    "others", "presence", "ignorable", "old", "evict", "trim", "reset",
    # how requests are answered
    "hold", "refuse", "unhold",
    # how connections end
    "drop", "goaway", "drain", "break", "quit", "silent",
    # what else a server may say
    "ping", "handshake",
)  # fmt: skip
"""What the server does, and "quit". Each step has a function that takes it: `player.STEPS`."""

DROPS = ("fin", "reset", "half", "unread", "unanswered")
"""How a connection is lost: also with requests that were not read, or were carried out and not answered."""

ENDS = ("DRAINING", "SHUTDOWN", "NONE", "INTERNAL", "SLOW", "SERVER_FULL", "RATE_LIMITED", "TIMEOUT", "SEQUENCE")
LAST = (
    "MALFORMED", "FRAME_TOO_LARGE", "UNKNOWN_TYPE", "BAD_HEADER", "UNEXPECTED", "ABUSE", "ACCOUNT_REVOKED",
    "TLS_REQUIRED", "AUTH_FAILED", "UNSUPPORTED_MECHANISM", "NAME_INVALID", "UNKNOWN_FIELD",
)  # fmt: skip
"""Codes of GOAWAY: after `ENDS` the client may come back by itself, not after `LAST`."""

EVICTIONS = ("LAGGED", "ROOM_CLOSED", "LOG_RESET", "KICKED", "BANNED")
REFUSALS = ("RATE_LIMITED", "UNAVAILABLE", "INTERNAL", "FORBIDDEN", "PAYLOAD_TOO_LARGE", "SERVER_FULL")
JOIN_REFUSALS = ("RATE_LIMITED", "UNAVAILABLE", "ROOM_FULL", "SERVER_FULL", "NO_SUCH_ROOM", "TOO_MANY_ROOMS", "BANNED")
OTHER_REFUSALS = (
    "ALREADY_JOINED", "ID_CONFLICT", "PAYLOAD_INVALID", "UNKNOWN_REQUEST", "RANGE_INVALID", "ID_EXPIRED", "NOT_JOINED",
)  # fmt: skip
HANDSHAKES = (
    "magic", "version-0", "version-9", "error-retry", "error-last", "goaway-retry", "early", "half", "close", "auth",
    "grease", "malformed", "quit-preface", "quit-hello",
)  # fmt: skip
"""What may become of a connection before it is open."""


@dataclass(frozen=True)
class ClientStep:
    """One step. `room` is a number of the script's own, `what` a variant of the step, `number` how many or how far.

    The server sends its frames in `cut` pieces; 0 and 1 stand for one.
    """

    do: str
    room: int = 0
    what: str = ""
    number: int = 1
    cut: int = 0

    def to_json(self) -> dict[str, Any]:
        """Returns the members that do not have their default values."""
        default = ClientStep(self.do)
        return {name: value for name, value in vars(self).items() if name == "do" or value != getattr(default, name)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ClientStep":
        """Returns the step that `to_json` made this of. Raises TypeError or ValueError for other values."""
        step = cls(**value)
        if step.do not in (*COMMANDS, *SERVER):
            raise ValueError(f"no such step: {value}")
        return step

    def simpler(self) -> "list[ClientStep]":
        """Returns steps that do less, the simplest first."""
        simpler = [replace(self, cut=0), replace(self, number=1), replace(self, room=0)]
        return [step for step in simpler if step != self]


_WEIGHTS = {
    "join": 2.0, "publish": 8.0, "leave": 0.7, "history": 1.6, "others": 5.0, "presence": 3.0, "ignorable": 2.0,
    "old": 1.0, "evict": 1.5, "trim": 0.7, "reset": 0.3, "hold": 2.0, "unhold": 2.0, "refuse": 2.0, "ping": 1.0,
}  # fmt: skip
_LOSSES = {"drop": 5.0, "goaway": 1.5, "drain": 1.5, "break": 2.5}


def script(random: Random, losses: int = 2, steps: int = 14) -> list[ClientStep]:
    """Returns steps that mostly make sense. They lose at most `losses` connections, since clients wait after each."""
    made: list[ClientStep] = []
    if random.random() < 0.15:
        made.append(ClientStep("handshake", what=random.choice(HANDSHAKES)))
    made.append(ClientStep("join", number=random.choice((0, 0, 3))))
    names = list(_WEIGHTS)
    left = random.randint(0, losses)
    if random.random() < 0.02:
        return [*made, ClientStep("publish"), ClientStep("silent")]
    for _ in range(random.randint(steps // 2, steps)):
        room = random.choice((0, 0, 0, 1))
        number = random.choice((1, 1, 2, 3, 6))
        cut = random.choice((0, 0, 0, 2, 9, 400, 20_000))
        if left and random.random() < 0.15:
            left -= 1
            do = random.choices(list(_LOSSES), list(_LOSSES.values()))[0]
            if random.random() < 0.4:
                made.append(ClientStep("publish", room, number=number))
            if random.random() < 0.15:
                made.append(ClientStep("handshake", what=random.choice(HANDSHAKES[3:])))
            made.append(ClientStep(do, room, _variant(random, do), number, cut))
            continue
        do = random.choices(names, list(_WEIGHTS.values()))[0]
        made.append(ClientStep(do, room, _variant(random, do), number, cut))
    last = random.random()
    if last > 0.5:
        made.append(ClientStep("break", what=random.choice(list(BROKEN)), number=random.choice((1, 1, 1, 6))))
    elif last < 0.1:
        made.append(ClientStep("goaway", what=random.choice(LAST)))
    elif last < 0.3:
        made.append(ClientStep("quit", what=random.choice(("", "held", "drained"))))
    return made


def _variant(random: Random, do: str) -> str:
    match do:
        case "drop":
            return random.choice(DROPS)
        case "goaway":
            return random.choice(ENDS)
        case "drain":
            return random.choice(("", "", "goaway", "broken", "quit"))
        case "break":
            return random.choice(list(BROKEN))
        case "evict":
            return random.choice(EVICTIONS)
        case "refuse":
            return random.choice((*REFUSALS[:2], *REFUSALS, *OTHER_REFUSALS))
        case "presence":
            return random.choice(("joined", "joined", "left", "lost", "unknown", "roster", "quiet"))
        case "ignorable":
            return random.choice(("frame", "sequenced", "fields", "flags"))
        case "publish" if random.random() < 0.04:
            return "large"
        case "hold" if random.random() < 0.3:
            return "refuse-joins"
    return ""
