"""Client mutants about prefaces, frames, fields, flags, requests and checks (SPEC.md, 5, 6, 17)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from conformance.wire import octets
from protocol.client import ClientConnection
from protocol.errors import (
    BadHeader,
    Malformed,
    Unexpected,
    UnknownField,
    UnknownType,
)
from protocol.frames import (
    Field,
    Frame,
    Goaway,
    Join,
    Joined,
    Leave,
    Message,
    Publish,
    Unknown,
    Welcome,
)
from protocol.framing import FrameReader
from protocol.registry import Code, Flag
from reference_client.session import requests
from tests.mutants.client.changes import (
    Change,
    as_is,
    each,
    fatal_if,
    ignores,
    ignores_in,
    receives,
    replaces,
    reports,
    sends,
)
from tests.mutants.clients import ClientMutant, Patch


def _hello_before_preface(patch: Patch) -> None:
    plain = ClientConnection.transport_up

    def transport_up(self: ClientConnection, now: float) -> None:
        plain(self, now)
        self._out.append(octets.encode(self._hello))

    patch.setattr(ClientConnection, "transport_up", transport_up)


def _preface_checked_late(patch: Patch) -> None:
    plain = ClientConnection._receive_preface
    held: dict[int, bytes] = {}

    def receive(self: ClientConnection, data: bytes) -> bytes:
        held[id(self)] = held.get(id(self), b"") + data
        return plain(self, held.pop(id(self))) if len(held[id(self)]) >= 8 else b""

    patch.setattr(ClientConnection, "_receive_preface", receive)


def _preface(change: Callable[[bytes], bytes]) -> Change:
    """Changes the server's preface on its way in."""

    def apply(patch: Patch) -> None:
        plain = ClientConnection._receive_preface
        patch.setattr(ClientConnection, "_receive_preface", lambda self, data: plain(self, change(data)))

    return apply


_CRITICAL = (Field(0x0003, b"mine"),)


def _max_body_none(patch: Patch) -> None:
    plain = FrameReader.next_frame

    def next_frame(self: FrameReader) -> Any:
        self.max_body = 2**33
        return plain(self)

    patch.setattr(FrameReader, "next_frame", next_frame)


def _max_body_stays_4095(patch: Patch) -> None:
    plain = FrameReader.next_frame

    def next_frame(self: FrameReader) -> Any:
        self.max_body = min(self.max_body, 4095)
        return plain(self)

    patch.setattr(FrameReader, "next_frame", next_frame)


def _single_octets_dropped(patch: Patch) -> None:
    plain = ClientConnection.receive_data
    patch.setattr(
        ClientConnection,
        "receive_data",
        lambda self, data, now: iter(()) if len(data) == 1 and self.state != "PREFACE" else plain(self, data, now),
    )


_KNOWN_FIELDS = (0x0001, 0x8002, 0x8003, 0x8004)


def _late_ack_fatal(patch: Patch) -> None:
    plain = ClientConnection._replied

    def replied(self: ClientConnection, frame: Frame) -> Any:
        if frame.room and frame.room not in self.memberships and not isinstance(frame, Joined):
            raise Unexpected("a reply", "room", "a room that this client is in")
        return plain(self, frame)

    patch.setattr(ClientConnection, "_replied", replied)


def _goaway_after_wrong_magic(patch: Patch) -> None:
    plain = ClientConnection._receive_preface

    def receive(self: ClientConnection, data: bytes) -> bytes:
        rest = plain(self, data)
        if self.state == "CLOSED":
            self._out.append(octets.encode(Goaway(Code.MALFORMED)))
        return rest

    patch.setattr(ClientConnection, "_receive_preface", receive)


def _long_segments_truncated(patch: Patch) -> None:
    plain = ClientConnection.receive_data
    patch.setattr(ClientConnection, "receive_data", lambda self, data, now: plain(self, data[:9000], now))


def _ignored_reply_moves_cursor(patch: Patch) -> None:
    plain = ClientConnection._unknown

    def unknown(self: ClientConnection, frame: Unknown) -> None:
        if frame.request and frame.seq is not None and frame.room in self.memberships:
            self.memberships[frame.room].cursor = frame.seq
        plain(self, frame)

    patch.setattr(ClientConnection, "_unknown", unknown)


MUTANTS: tuple[ClientMutant, ...] = (
    # 5.1 Preface
    ClientMutant(
        "hello-before-preface",
        "Sends HELLO before it has received the server's preface.",
        ("RW-PREFACE-1",),
        _hello_before_preface,
    ),
    ClientMutant(
        "preface-checked-late",
        "Waits for the whole preface before it checks the magic.",
        ("RW-PREFACE-5",),
        _preface_checked_late,
    ),
    ClientMutant(
        "goaway-after-wrong-magic", "Answers a wrong magic with GOAWAY.", ("RW-PREFACE-5",), _goaway_after_wrong_magic
    ),
    ClientMutant(
        "preface-zero-checked",
        "Treats a zero field that is not 0 as a wrong magic.",
        ("RW-PREFACE-7",),
        _preface(lambda d: d if d[5:8] in (b"", bytes(3)) else b"\0" * 8),
    ),
    ClientMutant(
        "any-version-accepted",
        "Accepts any version of the server.",
        ("RW-PREFACE-8",),
        _preface(lambda d: d[:4] + b"\x01" + d[5:] if len(d) >= 8 else d),
    ),
    # 5.2 Header
    ClientMutant("max-body-none", "Has no limit for bodies.", ("RW-FRAME-1",), _max_body_none),
    ClientMutant(
        "max-body-stays-4095", "Keeps a limit of 4,095 octets for bodies.", ("RW-FRAME-2",), _max_body_stays_4095
    ),
    ClientMutant(
        "max-body-exceeded",
        "Sends payloads that are longer than the limit.",
        ("RW-FRAME-3",),
        replaces(requests, "CONTENT_RESERVE", -(10**6)),
    ),
    ClientMutant("single-octets-dropped", "Drops segments of one octet.", ("RW-FRAME-4",), _single_octets_dropped),
    ClientMutant(
        "long-segments-truncated",
        "Drops what is behind the first 9,000 octets of a segment.",
        ("RW-FRAME-4",),
        _long_segments_truncated,
    ),
    ClientMutant("bad-header-ignored", "Ignores frames that earn BAD_HEADER.", ("RW-FRAME-6",), ignores(BadHeader)),
    ClientMutant(
        "octet-left-over",
        "Sends LEAVE with an octet left over.",
        ("RW-FRAME-7",),
        sends(each(Leave, lambda f: octets.frame(0x14, b"!", request=f.request, room=f.room))),
        only=("client/7.13/*",),
    ),
    ClientMutant("malformed-body-ignored", "Ignores malformed bodies.", ("RW-FRAME-7",), ignores(Malformed)),
    # 5.3 Extension fields
    ClientMutant(
        "unknown-field-fatal",
        "Ends the connection over an extension field that it does not know.",
        ("RW-FIELD-1",),
        fatal_if(lambda f: any(x.type not in _KNOWN_FIELDS for x in getattr(f, "fields", ())), UnknownField),
    ),
    ClientMutant(
        "unknown-welcome-field-fatal",
        "Ends the connection over the field SERVER of WELCOME.",
        ("RW-FIELD-1",),
        fatal_if(lambda f: isinstance(f, Welcome) and any(x.type == 0x8003 for x in f.fields), UnknownField),
    ),
    ClientMutant(
        "critical-field-ignored",
        "Ignores frames with an unknown critical field.",
        ("RW-FIELD-2",),
        ignores(UnknownField),
    ),
    ClientMutant(
        "repeated-field-ignored",
        "Ignores frames with a field that occurs twice.",
        ("RW-FIELD-3",),
        ignores(Malformed),
    ),
    ClientMutant(
        "malformed-field-ignored", "Ignores frames with a malformed field.", ("RW-FIELD-4",), ignores(Malformed)
    ),
    # 5.4 Flags
    ClientMutant(
        "unknown-flag-fatal",
        "Ends the connection over a flag that it does not know.",
        ("RW-FLAG-1",),
        fatal_if(lambda f: bool(f.flags & 0x3F40) and not isinstance(f, Unknown), BadHeader),
    ),
    ClientMutant(
        "unknown-flag-sent",
        "Sets an unknown flag in PUBLISH.",
        ("RW-FLAG-1",),
        sends(each(Publish, lambda f: replace(f, flags=f.flags | 0x40))),
        only=("client/7.15/*",),
    ),
    ClientMutant(
        "ephemeral-frame-with-seq",
        "Sends a frame with both EPHEMERAL and SEQ.",
        ("RW-FLAG-2",),
        sends(each(Join, as_is, lambda f: Unknown(0xF001, bytes(8), flags=Flag.SEQ | Flag.EPHEMERAL))),
        only=("client/9.1/*",),
    ),
    # 6 Requests, order and checks
    ClientMutant(
        "request-number-constant",
        "Gives all requests the same number.",
        ("RW-REQUEST-1",),
        replaces(ClientConnection, "_number", lambda self: 7),
    ),
    ClientMutant(
        "window-exceeded",
        "Sends more requests than the window allows.",
        ("RW-REQUEST-5",),
        replaces(
            ClientConnection, "can_request", property(lambda self: self.state == "OPEN" and self.welcome is not None)
        ),
    ),
    ClientMutant(
        "late-ack-fatal",
        "Ends the connection over an ACK of a room that it has left.",
        ("RW-REQUEST-7",),
        _late_ack_fatal,
    ),
    ClientMutant(
        "ack-of-other-request",
        "Reports the seq of another ACK.",
        ("RW-REQUEST-7",),
        reports(lambda r: {**r, "seq": "31"} if r.get("event") == "published" else r),
    ),
    ClientMutant(
        "unasked-reply-ignored",
        "Ignores replies that answer none of its requests.",
        ("RW-REQUEST-8",),
        ignores_in("_replied", Unexpected),
    ),
    ClientMutant(
        "joined-of-known-ref-ignored",
        "Ignores a JOINED with the ref of a room that it is in.",
        ("RW-REQUEST-9",),
        ignores_in("_membership_replied", Unexpected),
    ),
    # 6.1 Unknown types
    ClientMutant(
        "ignorable-type-fatal",
        "Ends the connection over an ignorable frame of unknown type.",
        ("RW-TYPE-4",),
        fatal_if(lambda f: isinstance(f, Unknown), UnknownType),
    ),
    ClientMutant(
        "critical-type-ignored",
        "Ignores critical frames of unknown type.",
        ("RW-TYPE-4",),
        ignores_in("_unknown", UnknownType),
    ),
    ClientMutant(
        "ignored-frame-keeps-cursor",
        "Does not move its cursor for a frame of unknown type.",
        ("RW-TYPE-5",),
        receives(lambda f: Unknown(0x8021) if isinstance(f, Unknown) else f),
    ),
    ClientMutant(
        "ignored-reply-moves-cursor",
        "Moves its cursor for a frame of unknown type that is a reply.",
        ("RW-TYPE-5",),
        _ignored_reply_moves_cursor,
    ),
    ClientMutant(
        "unknown-type-without-seq-ignored",
        "Ignores a frame of unknown type with SEQ and no seq.",
        ("RW-TYPE-6",),
        ignores(Malformed),
    ),
    # 6.2 Order of checks
    ClientMutant(
        "unexpected-before-welcome-ignored",
        "Ignores unexpected frames before WELCOME.",
        ("RW-CHECK-3",),
        ignores_in("_interpret", Unexpected, states=("HELLO_SENT",)),
    ),
    ClientMutant(
        "unexpected-when-open-ignored",
        "Ignores unexpected frames when it is OPEN.",
        ("RW-CHECK-3",),
        ignores_in("_interpret", Unexpected, states=("OPEN",)),
    ),
    ClientMutant(
        "number-out-of-range-ignored",
        "Ignores frames with a number above 2^53 - 1.",
        ("RW-CHECK-4",),
        ignores(Malformed),
    ),
    ClientMutant(
        "ill-formed-text-fatal",
        "Ends the connection over ill-formed UTF-8 in a text or a payload.",
        ("RW-CHECK-5",),
        fatal_if(lambda f: "\ufffd" in repr(f) or (isinstance(f, Message) and b"\xff" in f.payload), Malformed),
    ),
    ClientMutant(
        "ill-formed-name-ignored",
        "Ignores frames with ill-formed UTF-8 in a name.",
        ("RW-CHECK-6",),
        ignores(Malformed),
    ),
    # 17.3 Negotiation, 17.4 Reserved numbers
    ClientMutant(
        "critical-frame-sent",
        "Sends a critical frame of an extension that was not negotiated.",
        ("RW-EXT-1",),
        sends(each(Join, lambda f: Unknown(0x0123, b"mine"), as_is)),
        only=("client/9.1/*",),
    ),
    ClientMutant(
        "critical-field-sent",
        "Sends a critical field of an extension that was not negotiated.",
        ("RW-EXT-1",),
        sends(each(Publish, lambda f: replace(f, fields=_CRITICAL))),
        only=("client/7.15/*",),
    ),
    ClientMutant(
        "unknown-extension-fatal",
        "Ends the connection over an extension that it does not know.",
        ("RW-EXT-3",),
        fatal_if(lambda f: isinstance(f, Welcome) and b"grease" in repr(f).encode(), UnknownField),
    ),
    ClientMutant(
        "reserved-frame-with-seq",
        "Sets SEQ in a frame of reserved type.",
        ("RW-GREASE-1",),
        sends(each(Join, as_is, lambda f: Unknown(0x8021, bytes(8), flags=Flag.SEQ))),
        only=("client/9.1/*",),
    ),
    ClientMutant(
        "reserved-type-fatal",
        "Ends the connection over a frame of reserved type.",
        ("RW-GREASE-2",),
        fatal_if(lambda f: isinstance(f, Unknown), UnknownType),
    ),
)
