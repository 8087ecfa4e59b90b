"""Server mutants about prefaces, frames, fields, flags, requests and checks (SPEC.md, 5 and 6)."""

from dataclasses import replace

from protocol.fields import extensions
from protocol.frames import (
    RULES,
    Ack,
    Error,
    Field,
    Frame,
    Goaway,
    Hello,
    Message,
    Ok,
    Publish,
    Unknown,
    Welcome,
)
from protocol.registry import (
    MAGIC,
    PREFACE_SIZE,
    Code,
    is_ignorable,
    is_relayed,
)
from reference_server.core import peer
from tests.mutants.server.changes import FATAL, changes, fatal_if, ignores, recoded, unchanged, without
from tests.mutants.servers import Invalid, MutantConnection, Received, Sent, ServerMutant


def _unknown_field_fatal(c: MutantConnection, received: Frame | Unknown) -> bool:
    return not isinstance(received, Unknown) and any(
        item.type not in RULES[received.TYPE].fields for item in received.fields
    )


class PrefaceEarly(MutantConnection):
    def receive(self, data: bytes) -> bytes:
        if "early" not in self.notes:
            self.notes["early"] = True
            self.extra.append(MAGIC + b"\1\0\0\0")
        return super().receive(data)

    def send(self, data: bytes) -> bytes:
        if data and not self._preface_sent:
            self._preface_sent = True
            data = data[PREFACE_SIZE:]
        return super().send(data)


class PrefaceHttpAnswer(MutantConnection):
    def send(self, data: bytes) -> bytes:
        if self.conn.should_close and not data and not self._preface_sent:
            return b"HTTP/1.1 400 Bad Request\r\n\r\n"
        return super().send(data)


class PrefaceCheckedLate(MutantConnection):
    def receive(self, data: bytes) -> bytes:
        before = self.notes.get("before", b"")
        if len(before) >= PREFACE_SIZE:
            return super().receive(data)
        self.notes["before"] = before + data
        return super().receive(before + data) if len(before + data) >= PREFACE_SIZE else b""


class PrefaceZeroChecked(MutantConnection):
    def receive(self, data: bytes) -> bytes:
        if not self._preface_sent and data[6:8].strip(b"\0"):
            data = bytes(8) + data[8:]
        return super().receive(data)


class WholeFrames(MutantConnection):
    lends = False


class PartialFrameDropped(MutantConnection):
    lends = False

    def receive(self, data: bytes) -> bytes:
        received = super().receive(data)
        self._unread = b""
        return received


class OneFramePerSegment(MutantConnection):
    def receive(self, data: bytes) -> bytes:
        if not self._preface_received:
            self._preface_received = True
            return data[:PREFACE_SIZE]
        size = 16 + int.from_bytes(data[:4], "big") if len(data) >= 16 else len(data)
        return data[:size]


class MaxBodyBeforeWelcome(MutantConnection):
    def receive(self, data: bytes) -> bytes:
        if self.conn.state == "WAIT_HELLO":
            self.conn._reader.max_body = 2**20
        return super().receive(data)


class FrameTimeoutImmediate(MutantConnection):
    def receive(self, data: bytes) -> bytes:
        received = super().receive(data)
        if self._unread:
            self._unread = b""
            return FATAL
        return received


def _max_body_exceeded(sent: Message) -> Message:
    return replace(sent, fields=(*sent.fields, Field(0xC000, bytes(400)))) if len(sent.payload) > 65_000 else sent


def _all_fields_relayed(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Publish):
        c.world[received.id.hex()] = tuple(item for item in received.fields if not is_relayed(item.type))
    return [received]


def _every_third_ack_missing(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Ack):
        c.notes["acks"] = c.notes.get("acks", 0) + 1
        if c.notes["acks"] % 3 == 0:
            return []
    return [sent]


def _replies_interleaved(c: MutantConnection, sent: list[Sent]) -> list[Sent]:
    """Moves the MESSAGEs of one write behind its ACKs, if it has any."""
    if not any(isinstance(f, Ack) for f in sent):
        return sent
    return sorted(sent, key=lambda f: isinstance(f, Message))


def _pipelined_requests_fatal(c: MutantConnection, received: Received) -> list[Sent]:
    if not isinstance(received, (Invalid, Unknown)) and received.request and c.more >= 32:
        return [FATAL]
    return [received]


def _critical_type_ignored(c: MutantConnection, received: Received) -> list[Sent]:
    return [] if isinstance(received, Unknown) and not received.request else [received]


def _silent_after_error(c: MutantConnection, sent: Sent) -> list[Sent]:
    if c.notes.get("silent"):
        return []
    c.notes["silent"] = isinstance(sent, Error)
    return [sent]


def _ill_formed_text_fatal(c: MutantConnection, received: Received) -> bool:
    if isinstance(received, Goaway):
        return "\ufffd" in received.text
    return isinstance(received, Hello) and "\ufffd" in received.mechanism


MUTANTS: tuple[ServerMutant, ...] = (
    # 5.1 Preface
    ServerMutant(
        "preface-early", "Sends its preface after the client's first octet.", ("RW-PREFACE-2",), connection=PrefaceEarly
    ),
    ServerMutant(
        "preface-version-2",
        "Answers every client with version 2.",
        ("RW-PREFACE-2", "RW-PREFACE-3"),
        preface=lambda sent: sent[:4] + b"\2" + sent[5:],
    ),
    ServerMutant(
        "preface-never-version-0",
        "Answers with version 1 where version 0 is due.",
        ("RW-PREFACE-4",),
        preface=lambda sent: sent[:4] + b"\1" + sent[5:],
    ),
    ServerMutant(
        "preface-http-answer",
        "Answers a wrong or missing preface with an HTTP error.",
        ("RW-PREFACE-5", "RW-PREFACE-6"),
        connection=PrefaceHttpAnswer,
    ),
    ServerMutant(
        "preface-checked-late",
        "Waits for the whole preface before it checks the magic.",
        ("RW-PREFACE-5",),
        connection=PrefaceCheckedLate,
    ),
    ServerMutant(
        "preface-zero-checked",
        "Treats a zero field that is not 0 as a wrong magic.",
        ("RW-PREFACE-7",),
        connection=PrefaceZeroChecked,
    ),
    # 5.2 Header
    ServerMutant(
        "partial-frame-dropped",
        "Drops a frame that does not arrive in one segment.",
        ("RW-FRAME-4", "RW-CONN-2", "RW-FRAME-5", "RW-CLOSE-7"),
        connection=PartialFrameDropped,
        receives=unchanged,
    ),
    ServerMutant(
        "one-frame-per-segment",
        "Reads only the first frame of each segment.",
        ("RW-FRAME-4", "RW-HELLO-2", "RW-REQUEST-3", "RW-REQUEST-2"),
        connection=OneFramePerSegment,
    ),
    ServerMutant(
        "body-length-checked-late",
        "Waits for the whole body before it checks its length.",
        ("RW-FRAME-1", "RW-CHECK-1"),
        connection=WholeFrames,
        receives=unchanged,
    ),
    ServerMutant(
        "max-body-before-welcome",
        "Accepts bodies of up to 1 MiB before WELCOME.",
        ("RW-FRAME-2",),
        connection=MaxBodyBeforeWelcome,
    ),
    ServerMutant(
        "max-body-above-announced",
        "Accepts a body that is one octet longer than it announced.",
        ("RW-FRAME-2",),
        sends=changes(Welcome, lambda f: replace(f, max_body=f.max_body - 1)),
    ),
    ServerMutant(
        "max-body-exceeded",
        "Sends MESSAGE bodies that are longer than the limit.",
        ("RW-FRAME-3",),
        sends=changes(Message, _max_body_exceeded),
    ),
    ServerMutant(
        "frame-timeout-immediate",
        "Ends the connection over a frame that does not arrive in one segment.",
        ("RW-FRAME-5", "RW-FRAME-4", "RW-CONN-2"),
        connection=FrameTimeoutImmediate,
        receives=unchanged,
    ),
    ServerMutant(
        "frame-timeout-none",
        "Waits for the rest of a frame without a time-out.",
        ("RW-FRAME-5",),
        config={"frame_ms": 10**9},
    ),
    ServerMutant(
        "timeout-without-goaway",
        "Closes the connection at a time-out without GOAWAY.",
        ("RW-FRAME-5", "RW-HELLO-4", "RW-HEARTBEAT-2"),
        sends=without(Goaway, lambda f: f.code == Code.TIMEOUT),
    ),
    ServerMutant(
        "bad-header-ignored",
        "Ignores frames that earn BAD_HEADER.",
        ("RW-FRAME-6", "RW-CHECK-2"),
        receives=ignores(Code.BAD_HEADER),
    ),
    ServerMutant(
        "malformed-ignored",
        "Ignores frames that earn MALFORMED.",
        ("RW-FRAME-7", "RW-FIELD-3", "RW-FIELD-4", "RW-CHECK-2"),
        receives=ignores(Code.MALFORMED),
    ),
    # 5.3 Extension fields
    ServerMutant(
        "unknown-field-fatal",
        "Ends the connection over an extension field that it does not know.",
        ("RW-FIELD-1", "RW-GREASE-2"),
        receives=fatal_if(_unknown_field_fatal),
    ),
    ServerMutant(
        "unknown-field-other-code",
        "Answers INTERNAL where UNKNOWN_FIELD is due.",
        ("RW-FIELD-2", "RW-CHECK-2"),
        sends=recoded({Code.UNKNOWN_FIELD: Code.INTERNAL}),
    ),
    ServerMutant(
        "extension-field-once",
        "Ends the connection over a HELLO with two EXTENSION fields.",
        ("RW-FIELD-3", "RW-EXT-3"),
        receives=fatal_if(lambda c, f: isinstance(f, Hello) and len(extensions(f)) > 1),
    ),
    ServerMutant(
        "relayed-fields-reversed",
        "Sends the extension fields of a MESSAGE in reverse order.",
        ("RW-FIELD-5",),
        sends=changes(Message, lambda f: replace(f, fields=f.fields[::-1])),
    ),
    ServerMutant(
        "all-fields-relayed",
        "Copies all extension fields from PUBLISH to MESSAGE.",
        ("RW-FIELD-6",),
        receives=_all_fields_relayed,
        sends=lambda c, f: [replace(f, fields=c.world.get(f.id.hex(), ()) + f.fields) if isinstance(f, Message) else f],
    ),
    # 5.4 Flags
    ServerMutant(
        "unknown-flag-fatal",
        "Ends the connection over a flag that it does not know.",
        ("RW-FLAG-1",),
        receives=fatal_if(lambda c, f: not isinstance(f, Unknown) and bool(f.flags & ~RULES[f.TYPE].flags)),
    ),
    ServerMutant(
        "unknown-flag-sent",
        "Sets an unknown flag in every frame.",
        ("RW-FLAG-1",),
        sends=lambda c, f: [replace(f, flags=f.flags | 0x0040)],
    ),
    # 6 Requests, order and checks
    ServerMutant(
        "every-third-ack-missing",
        "Leaves out every third ACK.",
        ("RW-REQUEST-2", "RW-CLOSE-3", "RW-REQUEST-6"),
        sends=_every_third_ack_missing,
    ),
    ServerMutant(
        "not-joined-unanswered",
        "Sends no ERROR(NOT_JOINED).",
        ("RW-REQUEST-2", "RW-LEAVE-1"),
        sends=without(Error, lambda f: f.code == Code.NOT_JOINED),
    ),
    ServerMutant("ok-missing", "Sends no OK.", ("RW-REQUEST-2",), sends=without(Ok)),
    ServerMutant(
        "ack-twice",
        "Sends each ACK twice.",
        ("RW-REQUEST-2",),
        sends=lambda c, f: [f, f] if isinstance(f, Ack) else [f],
    ),
    ServerMutant(
        "ok-out-of-order",
        "Sends OK before the replies to earlier requests.",
        ("RW-REQUEST-3",),
        writes=lambda c, sent: sorted(sent, key=lambda f: not isinstance(f, Ok)),
    ),
    ServerMutant(
        "replies-interleaved",
        "Sends the ACK of a later request between the MESSAGEs of a reply to HISTORY.",
        ("RW-REQUEST-4",),
        writes=_replies_interleaved,
        patch=lambda p: p.setattr(peer, "FRAMES_PER_TICK", 10_000),
    ),
    ServerMutant(
        "pipelined-requests-fatal",
        "Ends the connection over more than 32 requests in one segment.",
        ("RW-REQUEST-6", "RW-REQUEST-2"),
        receives=_pipelined_requests_fatal,
    ),
    # 6.1 Unknown types
    ServerMutant(
        "unknown-request-other-code",
        "Answers FORBIDDEN where UNKNOWN_REQUEST is due.",
        ("RW-TYPE-1", "RW-EXT-1"),
        sends=recoded({Code.UNKNOWN_REQUEST: Code.FORBIDDEN}),
    ),
    ServerMutant(
        "ignorable-type-fatal",
        "Ends the connection over an ignorable frame of unknown type.",
        ("RW-TYPE-2", "RW-HELLO-5", "RW-GREASE-2", "RW-FRAME-4", "RW-HELLO-2"),
        receives=fatal_if(lambda c, f: isinstance(f, Unknown) and not f.request and is_ignorable(f.type)),
    ),
    ServerMutant(
        "critical-type-ignored",
        "Ignores critical frames of unknown type.",
        ("RW-TYPE-3", "RW-CHECK-2", "RW-CLOSE-2", "RW-CLOSE-5"),
        receives=_critical_type_ignored,
    ),
    # 6.2 Order of checks
    ServerMutant(
        "checks-other-order",
        "Answers the code of a later check before that of an earlier one.",
        ("RW-CHECK-1",),
        sends=recoded(
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
    ),
    ServerMutant(
        "silent-after-error", "Sends nothing after its first ERROR.", ("RW-CHECK-2",), sends=_silent_after_error
    ),
    ServerMutant(
        "range-other-code",
        "Answers NOT_JOINED where RANGE_INVALID is due.",
        ("RW-CHECK-4",),
        sends=recoded({Code.RANGE_INVALID: Code.NOT_JOINED}),
    ),
    ServerMutant(
        "ill-formed-text-fatal",
        "Ends the connection over ill-formed UTF-8 in a text or a mechanism.",
        ("RW-CHECK-5",),
        receives=fatal_if(_ill_formed_text_fatal),
    ),
    ServerMutant(
        "name-invalid-other-code",
        "Answers FORBIDDEN where NAME_INVALID is due.",
        ("RW-CHECK-6",),
        sends=recoded({Code.NAME_INVALID: Code.FORBIDDEN}, Error),
    ),
)
