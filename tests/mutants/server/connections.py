"""Server mutants about the handshake, extensions, PING, ERROR, closing and draining (SPEC.md, 7.1 to 7.8, 8, 17)."""

from dataclasses import replace
from typing import Any

import pytest

from conformance.wire.octets import frame
from protocol.fields import extension, extensions
from protocol.frames import (
    Ack,
    Error,
    Field,
    Goaway,
    Hello,
    Joined,
    Message,
    Ok,
    Ping,
    Pong,
    Presence,
    Unknown,
    Welcome,
)
from protocol.registry import (
    MAGIC,
    Code,
    Flag,
    FrameType,
    PresenceKind,
    is_ignorable,
)
from reference_server.net.listener import Listener
from tests.mutants.server.changes import changes, fatal_if, recoded, unchanged, without
from tests.mutants.servers import Invalid, MutantConnection, Received, Sent, ServerMutant


def _unasked_extension_accepted(sent: Welcome) -> Welcome:
    return replace(sent, fields=(*sent.fields, extension("org.example.unasked")))


def _notes_extensions(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Hello):
        c.notes["extensions"] = list(extensions(received))
    return [received]


def _all_extensions_accepted(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Welcome):
        return [replace(sent, fields=tuple(extension(name) for name in c.notes["extensions"]))]
    return [sent]


_REFUSALS_OF_HELLO = (Code.UNKNOWN_FIELD, Code.NAME_INVALID, Code.UNSUPPORTED_MECHANISM)


def _pong_out_of_order(c: MutantConnection, sent: list[Sent]) -> list[Sent]:
    return sorted(sent, key=lambda f: not isinstance(f, Pong))


class HeartbeatRequestsOnly(MutantConnection):
    def receive(self, data: bytes) -> bytes:
        return b"" if data.startswith(frame(FrameType.PONG, b"I live..")) else super().receive(data)


class LingerNone(MutantConnection):
    def send(self, data: bytes) -> bytes:
        if self.conn.state == "CLOSING":
            self.conn._stop()
        return super().send(data)


class LingerEndless(MutantConnection):
    def send(self, data: bytes) -> bytes:
        self.conn.linger = 1e9
        return super().send(data)


def _goaway_read_late(c: MutantConnection, received: Received) -> list[Sent]:
    """Moves a GOAWAY behind the frame that follows it."""
    if isinstance(received, Goaway) and c.more:
        c.notes["held"] = received
        return []
    held = c.notes.pop("held", None)
    return [received, held] if held else [received]


def _acks_lost_at_goaway(c: MutantConnection, sent: list[Sent]) -> list[Sent]:
    gone = any(isinstance(f, Goaway) for f in sent)
    return [f for f in sent if not (gone and isinstance(f, Ack))]


class FailureSilencesAll(MutantConnection):
    """Sends nothing on any connection after `failed` was set."""

    def receive(self, data: bytes) -> bytes:
        if not self._preface_sent and not MAGIC.startswith(data[:4]):
            self.world["failed"] = True
        return super().receive(data)

    def send(self, data: bytes) -> bytes:
        return b"" if self.world.get("failed") else super().send(data)


class PartialFrameBlocksAll(FailureSilencesAll):
    """Counts part of a frame as a failure."""

    def receive(self, data: bytes) -> bytes:
        received = super().receive(data)
        if (self._unread and len(self._unread) < 100) or not data:
            self.world["failed"] = True
        return received


def _notes_failure(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Invalid) or (isinstance(received, Unknown) and not is_ignorable(received.type)):
        c.world["failed"] = True
    return [received]


class ClosedConnectionsCounted(MutantConnection):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.world["places left"] = self.world.get("places left", 7) - 1
        self.notes["refused"] = self.world["places left"] < 0

    def send(self, data: bytes) -> bytes:
        return b"" if self.notes["refused"] else super().send(data)


def _drain_no_replies(c: MutantConnection, sent: list[Sent]) -> list[Sent]:
    return [f for f in sent if not (c.notes.get("draining") and isinstance(f, (Ack, Pong, Message)))]


def _notes_draining(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Joined):
        c.notes["room"] = sent.room
    if isinstance(sent, Goaway) and sent.code == Code.DRAINING:
        c.notes["draining"] = True
    return [sent]


def _drain_presence(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Ping) and c.notes.get("draining"):
        c.extra.append(Presence(PresenceKind.LEFT, 99, "gone", room=c.notes["room"]))
    return [received]


def _drain_accepts_connections(patch: pytest.MonkeyPatch) -> None:
    drain = Listener.drain

    def drain_open(listener: Listener) -> None:
        server, listener._server = listener._server, None
        drain(listener)
        listener._server = server
        listener.hub.state.draining = False

    patch.setattr(Listener, "drain", drain_open)


MUTANTS: tuple[ServerMutant, ...] = (
    # 7.1 HELLO, 7.2 WELCOME
    ServerMutant("welcome-missing", "Sends no WELCOME.", ("RW-HELLO-2", "RW-SASL-3"), sends=without(Welcome)),
    ServerMutant(
        "hello-goaway-other-code",
        "Sends another code in GOAWAY than in the ERROR to HELLO before it.",
        ("RW-HELLO-3",),
        sends=recoded(dict.fromkeys(_REFUSALS_OF_HELLO, Code.AUTH_FAILED), Goaway),
    ),
    ServerMutant(
        "unexpected-other-code",
        "Answers MALFORMED where UNEXPECTED is due.",
        ("RW-HELLO-5", "RW-HELLO-6", "RW-AUTH-2", "RW-CHECK-1"),
        sends=recoded({Code.UNEXPECTED: Code.MALFORMED}),
    ),
    ServerMutant(
        "member-constant",
        "Gives every connection the same member number.",
        ("RW-WELCOME-1",),
        sends=changes(Welcome, lambda f: replace(f, member=7)),
    ),
    ServerMutant(
        "welcome-max-body-too-small",
        "Announces a max_body below the least that is allowed.",
        ("RW-WELCOME-4",),
        sends=changes(Welcome, lambda f: replace(f, max_body=4095)),
    ),
    # 17.2, 17.3 Extensions
    ServerMutant(
        "stop-without-account",
        "Accepts all extensions, and answers STOP with OK on any connection.",
        ("RW-STOP-1",),
        receives=_notes_extensions,
        sends=lambda c, f: (
            [replace(f, fields=tuple(map(extension, c.notes["extensions"])))]
            if isinstance(f, Welcome)
            else [Ok(request=f.request)]
            if isinstance(f, Error) and f.code == Code.UNKNOWN_REQUEST
            else [f]
        ),
    ),
    ServerMutant(
        "unasked-extension-accepted",
        "Names an extension in WELCOME that the client did not name.",
        ("RW-WELCOME-2",),
        sends=changes(Welcome, _unasked_extension_accepted),
    ),
    ServerMutant(
        "all-extensions-accepted",
        "Names every extension of HELLO in WELCOME.",
        ("RW-EXT-3", "RW-WELCOME-2"),
        receives=_notes_extensions,
        sends=_all_extensions_accepted,
    ),
    ServerMutant(
        "unknown-extension-fatal",
        "Ends the connection over an extension that it does not know.",
        ("RW-EXT-3",),
        receives=fatal_if(lambda c, f: isinstance(f, Hello) and not extensions(f).keys() <= {"history"}),
    ),
    ServerMutant(
        "critical-frame-unasked",
        "Sends a critical frame of an extension that was not negotiated.",
        ("RW-EXT-1",),
        sends=lambda c, f: [f, Unknown(0x0030, b"")] if isinstance(f, Welcome) else [f],
    ),
    ServerMutant(
        "critical-frame-to-room",
        "Sends a critical frame of an extension to the members of a room.",
        ("RW-EXT-2",),
        sends=lambda c, f: [Unknown(0x0030, b"", room=f.room), f] if isinstance(f, Message) else [f],
    ),
    ServerMutant(
        "critical-field-to-room",
        "Adds a critical field of an extension to every MESSAGE.",
        ("RW-EXT-2",),
        sends=changes(Message, lambda f: replace(f, fields=(*f.fields, Field(0x0003)))),
    ),
    ServerMutant(
        "ephemeral-frame-with-seq",
        "Sends a frame with both EPHEMERAL and SEQ.",
        ("RW-FLAG-2",),
        sends=lambda c, f: [Unknown(0xF001, bytes(8), Flag.SEQ | Flag.EPHEMERAL), f] if isinstance(f, Message) else [f],
    ),
    ServerMutant(
        "reserved-frame-with-seq",
        "Sets SEQ in a frame of reserved type.",
        ("RW-GREASE-1",),
        sends=lambda c, f: [Unknown(0x8021, bytes(8), Flag.SEQ), f] if isinstance(f, Message) else [f],
    ),
    # 13 Mechanisms and VERIFIED
    ServerMutant(
        "mechanisms-not-listed",
        "Leaves out the MECHANISM fields of ERROR(UNSUPPORTED_MECHANISM).",
        ("RW-SASL-1",),
        sends=changes(Error, lambda f: replace(f, fields=())),
    ),
    ServerMutant(
        "mechanism-other-code",
        "Answers AUTH_FAILED where UNSUPPORTED_MECHANISM is due.",
        ("RW-SASL-1", "RW-CHECK-5", "RW-HELLO-3"),
        sends=recoded({Code.UNSUPPORTED_MECHANISM: Code.AUTH_FAILED}),
    ),
    ServerMutant(
        "welcome-always-verified",
        "Sets VERIFIED in every WELCOME.",
        ("RW-SASL-4",),
        sends=changes(Welcome, lambda f: replace(f, flags=f.flags | Flag.VERIFIED)),
    ),
    ServerMutant(
        "message-always-verified",
        "Sets VERIFIED in every MESSAGE.",
        ("RW-MESSAGE-2",),
        sends=changes(Message, lambda f: replace(f, flags=f.flags | Flag.VERIFIED)),
    ),
    ServerMutant(
        "anonymous-response-fatal",
        "Ends the connection over an initial response of ANONYMOUS.",
        ("RW-SASL-7",),
        receives=fatal_if(lambda c, f: isinstance(f, Hello) and bool(f.auth)),
    ),
    # 7.4 ERROR, 7.5 OK
    ServerMutant(
        "goaway-code-out-of-place",
        "Sends a code in GOAWAY that GOAWAY does not carry.",
        ("RW-CODE-1",),
        sends=recoded({Code.UNKNOWN_FIELD: Code.NOT_JOINED}, Goaway),
    ),
    ServerMutant(
        "error-without-retry-flag",
        "Sends ERROR without the flag RETRY.",
        ("RW-ERROR-1",),
        sends=changes(Error, lambda f: replace(f, flags=0)),
    ),
    ServerMutant(
        "error-without-room",
        "Sends ERROR with room 0.",
        ("RW-ERROR-4",),
        sends=changes(Error, lambda f: replace(f, room=0)),
    ),
    ServerMutant(
        "ok-without-room", "Sends OK with room 0.", ("RW-ERROR-4",), sends=changes(Ok, lambda f: replace(f, room=0))
    ),
    # 7.6 PING, 7.7 PONG, 8.4 Heartbeat
    ServerMutant(
        "pong-of-zeros",
        "Sends PONG with zeros in place of the octets of the PING.",
        ("RW-PING-1",),
        sends=changes(Pong, lambda f: replace(f, opaque=bytes(8))),
    ),
    ServerMutant(
        "pong-out-of-order",
        "Sends PONG before the replies to earlier requests.",
        ("RW-PING-2",),
        writes=_pong_out_of_order,
    ),
    ServerMutant(
        "pong-fatal",
        "Ends the connection over a PONG.",
        ("RW-PING-3",),
        receives=fatal_if(lambda c, f: isinstance(f, Pong)),
    ),
    ServerMutant("ping-missing", "Sends no PING.", ("RW-HEARTBEAT-1",), sends=without(Ping)),
    ServerMutant(
        "heartbeat-requests-only",
        "Counts only requests, and no PONG, as a sign of life.",
        ("RW-HEARTBEAT-2",),
        connection=HeartbeatRequestsOnly,
    ),
    # 8.5 Closing
    ServerMutant(
        "frame-after-goaway",
        "Sends a PONG after GOAWAY.",
        ("RW-CLOSE-1",),
        sends=lambda c, f: [f, Pong(bytes(8))] if isinstance(f, Goaway) else [f],
    ),
    ServerMutant(
        "goaway-read-late",
        "Handles the frame behind a GOAWAY before the GOAWAY itself.",
        ("RW-CLOSE-1",),
        receives=_goaway_read_late,
    ),
    ServerMutant(
        "close-without-goaway",
        "Closes the connection after a fatal failure without GOAWAY.",
        ("RW-CLOSE-2", "RW-CLOSE-5", "RW-CHECK-2", "RW-FIELD-2"),
        sends=without(Goaway, lambda f: f.code not in (Code.NONE, Code.TIMEOUT)),
    ),
    ServerMutant(
        "goaway-unanswered",
        "Does not answer a GOAWAY with GOAWAY.",
        ("RW-CLOSE-3", "RW-FIELD-1", "RW-FLAG-1", "RW-CHECK-5"),
        sends=without(Goaway, lambda f: f.code == Code.NONE),
    ),
    ServerMutant(
        "acks-lost-at-goaway",
        "Leaves out the ACKs that it would send together with GOAWAY.",
        ("RW-CLOSE-3", "RW-REQUEST-2"),
        writes=_acks_lost_at_goaway,
    ),
    ServerMutant("linger-none", "Closes at once after its GOAWAY.", ("RW-CLOSE-5",), connection=LingerNone),
    ServerMutant(
        "linger-endless",
        "Keeps reading after its GOAWAY without a time-out.",
        ("RW-CLOSE-5",),
        connection=LingerEndless,
    ),
    ServerMutant(
        "failure-silences-all",
        "Sends nothing on any connection after one has failed.",
        ("RW-CLOSE-7", "RW-PREFACE-5"),
        connection=FailureSilencesAll,
        receives=_notes_failure,
    ),
    ServerMutant(
        "closed-connections-counted",
        "Serves seven connections in all, because it counts the closed ones.",
        ("RW-CLOSE-7",),
        connection=ClosedConnectionsCounted,
        only=("server/8.3/abandoned",),
    ),
    ServerMutant(
        "failure-stops-streams",
        "Sends no MESSAGE to anybody after one connection has failed.",
        ("RW-CLOSE-7",),
        receives=_notes_failure,
        sends=lambda c, f: [] if isinstance(f, Message) and c.world.get("failed") else [f],
    ),
    ServerMutant(
        "partial-frame-blocks-all",
        "Sends nothing on any connection while one has sent part of a frame.",
        ("RW-CLOSE-7", "RW-FRAME-5"),
        connection=PartialFrameBlocksAll,
        receives=unchanged,
    ),
    # 8.6 Draining
    ServerMutant(
        "drain-no-replies",
        "Leaves out ACK, PONG and MESSAGE while it drains.",
        ("RW-DRAIN-2",),
        sends=_notes_draining,
        writes=_drain_no_replies,
    ),
    ServerMutant(
        "drain-ends-with-none",
        "Ends a drained connection with GOAWAY(NONE).",
        ("RW-DRAIN-3", "RW-DRAIN-5"),
        sends=recoded({Code.SHUTDOWN: Code.NONE}),
    ),
    ServerMutant("drain-endless", "Keeps drained connections open.", ("RW-DRAIN-3",), config={"drain_ms": 10**9}),
    ServerMutant(
        "drain-presence",
        "Sends PRESENCE(left) while it drains.",
        ("RW-DRAIN-5",),
        sends=_notes_draining,
        receives=_drain_presence,
    ),
    ServerMutant(
        "drain-accepts-connections",
        "Accepts new connections while it drains.",
        ("RW-DRAIN-6",),
        patch=_drain_accepts_connections,
    ),
    ServerMutant(
        "drain-unknown-type-fatal",
        "Ends the connection over a frame of unknown type while it drains.",
        ("RW-TYPE-1", "RW-TYPE-2"),
        receives=fatal_if(lambda c, f: isinstance(f, Unknown) and c.conn.state == "DRAINING"),
        only=("server/8.6/unknown-types",),
    ),
)
