"""How a broken requirement is reported, with the wire log, and what messages are compared by."""

from dataclasses import dataclass
from typing import NoReturn

from conformance.harness.verdicts import Failed
from conformance.wire.octets import split_frames
from conformance.wire.text import octets_line
from protocol.frames import Field, Message, Publish
from protocol.registry import MAGIC, is_relayed


@dataclass(frozen=True)
class Content:
    """What a PUBLISH and its MESSAGE have to have in common. Two publishes with the same content are the same."""

    ctype: int
    payload: bytes
    fields: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def of(cls, frame: Publish | Message) -> "Content":
        """Returns the content of a frame, with the fields of a PUBLISH that are relayed, or all of a MESSAGE."""
        fields = frame.fields if isinstance(frame, Message) else relayed(frame.fields)
        return cls(frame.ctype, frame.payload, tuple((item.type, item.value) for item in fields))

    @property
    def size(self) -> int:
        """What counts towards `max_body` - 256, in octets (RW-PUBLISH-1)."""
        return len(self.payload) + sum(4 + len(value) for _, value in self.fields)

    @property
    def is_text(self) -> bool:
        """Whether the payload is UTF-8, as with ctype 0."""
        try:
            self.payload.decode()
        except UnicodeDecodeError:
            return False
        return True

    def __str__(self) -> str:
        fields = "".join(f" {type:#06x}=<{value.hex()}>" for type, value in self.fields)
        shown = self.payload[:32].hex() + ("..." if len(self.payload) > 32 else "")
        return f"ctype {self.ctype} <{shown}> of {len(self.payload)} octets{fields}"


@dataclass(frozen=True)
class Said:
    """Octets that went over the wire, for replay files and people. `sender` is C or S."""

    client: str
    sender: str
    octets: bytes


@dataclass(frozen=True)
class Failure:
    """How the target failed a script. `at` is the number of the step that showed it.

    `requirement` is "" if none is broken, and nothing can go on all the same: the server does not start again.
    """

    requirement: str
    expected: str
    got: str
    at: int
    log: tuple[Said, ...]
    crashed: bool = False

    def __str__(self) -> str:
        return f"{self.requirement}: expected {self.expected}, got {self.got}"


def relayed(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Returns the fields that a server copies from PUBLISH to MESSAGE."""
    return tuple(item for item in fields if is_relayed(item.type))


def fail(requirement: str, expected: str, got: str) -> NoReturn:
    """Raises Failed: the target breaks a requirement."""
    raise Failed(expected, got, requirement)


def wire_lines(log: list[Said], most: int = 40) -> list[str]:
    """Returns the newest entries of a log as text, one line for each frame."""
    lines = []
    for said in log[-most:]:
        frames, rest = split_frames(said.octets)
        arrow = "->" if said.sender == "C" else "<-"
        if len(said.octets) >= 4 and said.octets.startswith(MAGIC):
            lines.append(f"{said.client} {arrow} preface {said.octets.hex()}")
            continue
        lines += [f"{said.client} {arrow} {octets_line(one, 'C' if said.sender == 'C' else 'S')}" for one in frames]
        if rest:
            lines.append(f"{said.client} {arrow} {len(rest)} octets {rest[:32].hex()}")
    return lines
