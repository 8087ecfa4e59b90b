"""Servers that break one rule about prefaces, frames, fields, requests and checks (SPEC.md, 5 and 6)."""

from collections.abc import Callable
from dataclasses import replace

from protocol.fields import extensions
from protocol.frames import RULES, Ack, Error, Field, Frame, Goaway, Hello, Message, Ok, Publish, Unknown, Welcome
from protocol.registry import MAGIC, PREFACE_SIZE, Code, is_ignorable, is_relayed
from reference_server.core import peer
from tests.mutants.server_changes import FATAL, broken, fatal_if, never, of, recoded, unchanged, without, wrong
from tests.mutants.servers import Alteration, Heard, Piece, Says, Wrong


def _fields_unknown(a: Alteration, heard: Frame | Unknown) -> bool:
    return not isinstance(heard, Unknown) and any(item.type not in RULES[heard.TYPE].fields for item in heard.fields)


# --- prefaces


class EarlyPreface(Alteration):
    """Answers the first octet."""

    def hear(self, data: bytes) -> bytes:
        if "early" not in self.notes:
            self.notes["early"] = True
            self.extra.append(MAGIC + b"\1\0\0\0")
        return super().hear(data)

    def say(self, data: bytes) -> bytes:
        if data and not self._greeted_out:
            self._greeted_out = True
            data = data[PREFACE_SIZE:]
        return super().say(data)


class Talkative(Alteration):
    """Has a word for those who do not speak the protocol."""

    def say(self, data: bytes) -> bytes:
        if self.conn.should_close and not data and not self._greeted_out:
            return b"HTTP/1.1 400 Bad Request\r\n\r\n"
        return super().say(data)


class Patient(Alteration):
    """Waits for a whole preface before it looks at it."""

    def hear(self, data: bytes) -> bytes:
        before = self.notes.get("before", b"")
        if len(before) >= PREFACE_SIZE:
            return super().hear(data)
        self.notes["before"] = before + data
        return super().hear(before + data) if len(before + data) >= PREFACE_SIZE else b""


class ReadsZero(Alteration):
    """Takes the field zero for something."""

    def hear(self, data: bytes) -> bytes:
        if not self._greeted_out and data[6:8].strip(b"\0"):
            data = bytes(8) + data[8:]
        return super().hear(data)


class WholeSegments(Alteration):
    """Loses what a segment does not hold whole."""

    def hear(self, data: bytes) -> bytes:
        heard = super().hear(data)
        self._unread = b""
        return heard


class OneASegment(Alteration):
    """Reads one frame of each segment."""

    def hear(self, data: bytes) -> bytes:
        if not self._greeted_in:
            self._greeted_in = True
            return data[:PREFACE_SIZE]
        size = 16 + int.from_bytes(data[:4], "big") if len(data) >= 16 else len(data)
        return data[:size]


broken("says hello first", "RW-PREFACE-2", make=EarlyPreface)
broken("speaks version 2 alone", "RW-PREFACE-2", "RW-PREFACE-3", preface=lambda said: said[:4] + b"\2" + said[5:])
broken("knows no version 0", "RW-PREFACE-4", preface=lambda said: said[:4] + b"\1" + said[5:])
broken("answers strangers", "RW-PREFACE-5", "RW-PREFACE-6", make=Talkative)
broken("waits for a whole magic", "RW-PREFACE-5", make=Patient)
broken("reads the field zero", "RW-PREFACE-7", make=ReadsZero)
broken(
    "loses frames that are cut", "RW-FRAME-4", "RW-CONN-2", "RW-FRAME-5", "RW-CLOSE-7",
    make=WholeSegments, hears=unchanged,
)  # fmt: skip
broken("reads one frame a segment", "RW-FRAME-4", "RW-HELLO-2", "RW-REQUEST-3", "RW-REQUEST-2", make=OneASegment)

# --- frames


class Generous(Alteration):
    """Takes bodies of any length before WELCOME."""

    def hear(self, data: bytes) -> bytes:
        if self.conn.state == "WAIT_HELLO":
            self.conn._reader.max_body = 2**20
        return super().hear(data)


class Hasty(Alteration):
    """Gives up on a frame that is not there at once."""

    def hear(self, data: bytes) -> bytes:
        heard = super().hear(data)
        if self._unread:
            self._unread = b""
            return FATAL
        return heard


def _longer(said: Message) -> Message:
    return replace(said, fields=(*said.fields, Field(0xC000, bytes(400)))) if len(said.payload) > 65_000 else said


broken("waits for bodies that are too long", "RW-FRAME-1", "RW-CHECK-1", hears=unchanged)
broken("has no limit before WELCOME", "RW-FRAME-2", make=Generous)
broken("announces less than it takes", "RW-FRAME-2", says=of(Welcome, lambda f: replace(f, max_body=f.max_body - 1)))
broken("sends bodies that are too long", "RW-FRAME-3", says=of(Message, _longer))
broken("gives frames no time", "RW-FRAME-5", "RW-FRAME-4", "RW-CONN-2", make=Hasty, hears=unchanged)
broken("has no time-out for frames", "RW-FRAME-5", config={"frame_ms": 10**9})
broken(
    "says nothing of time-outs", "RW-FRAME-5", "RW-HELLO-4", "RW-HEARTBEAT-2",
    says=without(Goaway, lambda f: f.code == Code.TIMEOUT),
)  # fmt: skip
broken("ignores bad headers", "RW-FRAME-6", "RW-CHECK-2", hears=wrong(Code.BAD_HEADER))
broken("ignores malformed bodies", "RW-FRAME-7", "RW-FIELD-3", "RW-FIELD-4", "RW-CHECK-2", hears=wrong(Code.MALFORMED))
broken("refuses unknown fields", "RW-FIELD-1", "RW-GREASE-2", hears=fatal_if(_fields_unknown))
broken(
    "calls unknown fields something else", "RW-FIELD-2", "RW-CHECK-2", says=recoded({Code.UNKNOWN_FIELD: Code.INTERNAL})
)
broken(
    "takes one EXTENSION", "RW-FIELD-3", "RW-EXT-3",
    hears=fatal_if(lambda a, f: isinstance(f, Hello) and len(extensions(f)) > 1),
)  # fmt: skip
broken("turns fields round", "RW-FIELD-5", says=of(Message, lambda f: replace(f, fields=f.fields[::-1])))


def _remember_fields(a: Alteration, heard: Heard) -> list[Piece]:
    if isinstance(heard, Publish):
        a.world[heard.id.hex()] = tuple(item for item in heard.fields if not is_relayed(item.type))
    return [heard]


broken(
    "relays all fields", "RW-FIELD-6",
    hears=_remember_fields,
    says=lambda a, f: [replace(f, fields=a.world.get(f.id.hex(), ()) + f.fields) if isinstance(f, Message) else f],
)  # fmt: skip
broken(
    "refuses unknown flags", "RW-FLAG-1",
    hears=fatal_if(lambda a, f: not isinstance(f, Unknown) and bool(f.flags & ~RULES[f.TYPE].flags)),
)  # fmt: skip
broken("sets unknown flags", "RW-FLAG-1", says=lambda a, f: [replace(f, flags=f.flags | 0x0040)])

# --- requests


def _every_third(kind: type) -> Says:
    def says(a: Alteration, said: Piece) -> list[Piece]:
        if isinstance(said, kind):
            a.notes["count"] = a.notes.get("count", 0) + 1
            if a.notes["count"] % 3 == 0:
                return []
        return [said]

    return says


def _later(first: type, then: type) -> Callable[[Alteration, list[Piece]], list[Piece]]:
    """Frames of one kind behind those of another in the same write."""
    return lambda a, said: (
        [f for f in said if not isinstance(f, first)] + [f for f in said if isinstance(f, first)]
        if any(isinstance(f, then) for f in said)
        else said
    )


def _overrun(a: Alteration, heard: Heard) -> list[Piece]:
    if not isinstance(heard, (Wrong, Unknown)) and heard.request and a.more >= 32:
        return [FATAL]
    return [heard]


broken("answers some publishes", "RW-REQUEST-2", "RW-CLOSE-3", "RW-REQUEST-6", says=_every_third(Ack))
broken(
    "forgets what is not joined", "RW-REQUEST-2", "RW-LEAVE-1", says=without(Error, lambda f: f.code == Code.NOT_JOINED)
)
broken("does not say OK", "RW-REQUEST-2", says=of(Ok, never))
broken("answers twice", "RW-REQUEST-2", says=lambda a, f: [f, f] if isinstance(f, Ack) else [f])
broken("answers LEAVE first", "RW-REQUEST-3", batch=lambda a, said: sorted(said, key=lambda f: not isinstance(f, Ok)))
broken(
    "mixes replies",
    "RW-REQUEST-4",
    batch=_later(Message, Ack),
    patch=lambda p: p.setattr(peer, "FRAMES_PER_TICK", 10_000),
)
broken("punishes many requests", "RW-REQUEST-6", "RW-REQUEST-2", hears=_overrun)
broken("forbids unknown requests", "RW-TYPE-1", "RW-EXT-1", says=recoded({Code.UNKNOWN_REQUEST: Code.FORBIDDEN}))
broken(
    "refuses unknown types", "RW-TYPE-2", "RW-HELLO-5", "RW-GREASE-2", "RW-FRAME-4", "RW-HELLO-2",
    hears=fatal_if(lambda a, f: isinstance(f, Unknown) and not f.request and is_ignorable(f.type)),
)  # fmt: skip


def _deaf_to_unknown(a: Alteration, heard: Heard) -> list[Piece]:
    return [] if isinstance(heard, Unknown) and not heard.request else [heard]


broken("ignores all unknown types", "RW-TYPE-3", "RW-CHECK-2", "RW-CLOSE-2", "RW-CLOSE-5", hears=_deaf_to_unknown)
broken(
    "checks in another order", "RW-CHECK-1",
    says=recoded(
        {
            Code.UNKNOWN_TYPE: Code.BAD_HEADER,
            Code.BAD_HEADER: Code.MALFORMED,
            Code.MALFORMED: Code.BAD_HEADER,
            Code.UNEXPECTED: Code.UNKNOWN_TYPE,
            Code.FRAME_TOO_LARGE: Code.UNKNOWN_TYPE,
            Code.UNKNOWN_FIELD: Code.NAME_INVALID,
            Code.UNKNOWN_REQUEST: Code.UNKNOWN_FIELD,
            Code.NAME_INVALID: Code.UNSUPPORTED_MECHANISM,
            Code.RANGE_INVALID: Code.NOT_JOINED,
            Code.NOT_JOINED: Code.PAYLOAD_INVALID,
            Code.PAYLOAD_TOO_LARGE: Code.PAYLOAD_INVALID,
            Code.PAYLOAD_INVALID: Code.ID_EXPIRED,
            Code.ID_EXPIRED: Code.ID_CONFLICT,
        }
    ),
)  # fmt: skip


def _deaf_after_error(a: Alteration, said: Piece) -> list[Piece]:
    if a.notes.get("deaf"):
        return []
    a.notes["deaf"] = isinstance(said, Error)
    return [said]


broken("takes every refusal for the end", "RW-CHECK-2", says=_deaf_after_error)
broken("takes any number", "RW-CHECK-4", says=recoded({Code.RANGE_INVALID: Code.NOT_JOINED}))


def _ill_formed(a: Alteration, heard: Heard) -> bool:
    if isinstance(heard, Goaway):
        return "\ufffd" in heard.text
    return isinstance(heard, Hello) and "\ufffd" in heard.mechanism


broken("wants texts to be UTF-8", "RW-CHECK-5", hears=fatal_if(_ill_formed))
broken("forbids names that are no UTF-8", "RW-CHECK-6", says=recoded({Code.NAME_INVALID: Code.FORBIDDEN}, Error))
