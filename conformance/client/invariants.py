"""What every client must keep on every connection, in every case.

`Invariants` see all frames of one connection; `CaseInvariants` are what holds across the connections of a case. They
know just enough to say when a frame of the client breaks a requirement.
"""

from dataclasses import dataclass, field

from conformance.harness.flags import Breach, judge_code, judge_flags
from conformance.wire.text import frame_line
from protocol.fields import extensions
from protocol.frames import (
    FINAL_REPLIES,
    RULES,
    Auth,
    Frame,
    Goaway,
    Hello,
    Join,
    Joined,
    Publish,
    Unknown,
    Welcome,
)
from protocol.registry import is_ignorable


@dataclass
class CaseInvariants:
    """What the client has published, by id: an id keeps its content (RW-PROMISE-5)."""

    contents: dict[bytes, tuple[int, bytes, tuple[object, ...]]] = field(default_factory=dict)


@dataclass
class Invariants:
    """Judges what a client sends on one connection, and calls `breach(requirement, expected, got)` for each breach."""

    breach: Breach
    case: CaseInvariants
    prefaced: bool = False
    hello: Hello | None = None
    welcome: Welcome | None = None
    refs: set[int] = field(default_factory=set)
    outstanding: dict[int, Frame] = field(default_factory=dict)
    goaway: Goaway | None = None

    def preface(self, octets: bytes) -> None:
        """Judges the client's preface."""
        if not 1 <= octets[4] <= octets[5]:
            self.breach("RW-PREFACE-1", "a range of versions that begins at 1 or above", octets.hex())

    def sent(self, frame: Frame | Unknown) -> None:
        """Remembers a frame that the suite sends."""
        if isinstance(frame, Welcome) and self.welcome is None:
            self.welcome = frame
        if isinstance(frame, Joined):
            self.refs.add(frame.room)
        if isinstance(frame, Frame) and frame.TYPE in FINAL_REPLIES:
            self.outstanding.pop(frame.request, None)

    def received(self, frame: Frame | Unknown) -> None:
        """Judges a frame of the client."""
        line = frame_line(frame)
        if self.goaway is not None:
            self.breach("RW-CLOSE-1", "nothing after GOAWAY", line)
        if self.hello is None and not isinstance(frame, Hello | Goaway):
            self.breach("RW-HELLO-1", "HELLO as the first frame", line)
        judge_flags(frame, self.breach)
        if isinstance(frame, Unknown):
            self._unknown(frame, line)
            return
        match frame:
            case Hello():
                if self.hello is not None:
                    self.breach("RW-HELLO-1", "one HELLO", line)
                self.hello = frame
                self._request(frame, line)
            case Goaway():
                self.goaway = frame
                judge_code(frame, self.breach)
            case Auth():
                pass
            case _:
                if self.welcome is None:
                    self.breach("RW-CONN-1", "nothing but HELLO and AUTH before WELCOME", line)
                elif frame.request:
                    self._request(frame, line)
                if frame.room and frame.room not in self.refs:
                    self.breach("RW-MODEL-8", "the ref of a JOINED on this connection", line)
                if isinstance(frame, Publish):
                    self._publish(frame, line)

    def _unknown(self, frame: Unknown, line: str) -> None:
        if not is_ignorable(frame.type) or frame.request:
            self.breach("RW-EXT-1", "no critical frame of an extension not negotiated", line)

    def _request(self, frame: Frame, line: str) -> None:
        if not frame.request or frame.request in self.outstanding:
            self.breach("RW-REQUEST-1", "a request number other than 0 and than those of unanswered requests", line)
        self.outstanding[frame.request] = frame
        if self.welcome and len(self.outstanding) > self.welcome.window:
            expected = f"at most {self.welcome.window} requests unanswered"
            self.breach("RW-REQUEST-5", expected, f"{len(self.outstanding)}: {line}")
        if isinstance(frame, Join) and not 0 < len(frame.name.encode()) <= 255:
            self.breach("RW-FRAME-7", "a name of 1 to 255 octets", line)
        extension = RULES[frame.TYPE].extension
        if extension and self.welcome and extension not in extensions(self.welcome):
            self.breach("RW-EXT-1", f"no frame of {extension}, which was not negotiated", line)

    def _publish(self, frame: Publish, line: str) -> None:
        content = frame.ctype, frame.payload, frame.fields
        known = self.case.contents.setdefault(frame.id, content)
        if known != content:
            self.breach("RW-PROMISE-5", "the same content with the same id", line)
