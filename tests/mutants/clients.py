"""Clients that break one requirement each: the reference client with one behaviour overridden.

`BROKEN` holds them. A `Break` changes classes of the reference client for as long as a test's monkeypatch lasts; the
suite shares none of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from conformance.wire.octets import decode as decode_octets
from conformance.wire.octets import encode as encode_octets
from conformance.wire.octets import frame, read_header, split_frames
from protocol import client as client_module
from protocol import codec
from protocol.client import ClientConnection
from protocol.connection import Connection
from protocol.errors import (
    BadHeader,
    Malformed,
    RemoteProtocolError,
    Unexpected,
    UnknownField,
    UnknownType,
)
from protocol.frames import (
    Auth,
    Error,
    Field,
    Frame,
    Goaway,
    Hello,
    Join,
    Joined,
    Leave,
    Message,
    Pong,
    Publish,
    Unknown,
    Welcome,
)
from protocol.framing import FrameReader
from protocol.registry import CODES, MAGIC, Code, Flag
from reference_client.adapter import Adapter
from reference_client.session import requests
from reference_client.session.outbox import Pace

Patch = pytest.MonkeyPatch
Sent = Frame | Unknown


@dataclass(frozen=True)
class Break:
    """`requirement` is what the client breaks; cases that cite it, or else those of `cases`, notice."""

    name: str
    requirement: str
    apply: Callable[[Patch], None]
    cases: tuple[str, ...] = ()


BROKEN: list[Break] = []


def breaks(requirement: str, *cases: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Registers the function that breaks a requirement."""

    def register(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
        BROKEN.append(Break(f"{requirement}-{apply.__name__.strip('_')}", requirement, apply, cases))
        return apply

    return register


def add(name: str, requirement: str, apply: Callable[[Patch], None], *cases: str) -> None:
    BROKEN.append(Break(f"{requirement}-{name}", requirement, apply, cases))


# What the client sends, hears and reports, changed.


def sends(change: Callable[[Sent], list[Sent | bytes]]) -> Callable[[Patch], None]:
    """Changes each frame on its way out."""

    def apply(patch: Patch) -> None:
        plain = ClientConnection.data_to_send

        def data_to_send(self: ClientConnection, now: float) -> bytes:
            data = plain(self, now)
            preface = data[:8] if data.startswith(MAGIC) else b""
            frames, rest = split_frames(data[len(preface) :])
            changed: list[bytes] = []
            for octets in frames:
                frame = decode_octets(read_header(octets), octets[16:], "C")
                for new in change(frame):
                    changed.append(new if isinstance(new, bytes) else encode_octets(new))
            return preface + b"".join(changed) + rest

        patch.setattr(ClientConnection, "data_to_send", data_to_send)

    return apply


def hears(change: Callable[[Any], Any]) -> Callable[[Patch], None]:
    """Changes what the decoder gives; None is a frame that is not heard."""

    def apply(patch: Patch) -> None:
        plain = codec.decode

        def decode(raw: Any, sender: Any) -> Any:
            changed = change(plain(raw, sender))
            return Unknown(0x8021) if changed is None else changed

        patch.setattr(client_module, "decode", decode)

    return apply


def overlooks(kind: type[RemoteProtocolError]) -> Callable[[Patch], None]:
    """Ignores frames that are wrong in one way."""

    def apply(patch: Patch) -> None:
        plain = codec.decode

        def decode(raw: Any, sender: Any) -> Any:
            try:
                return plain(raw, sender)
            except kind:
                return Unknown(0x8021)

        patch.setattr(client_module, "decode", decode)

    return apply


def reports(change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Callable[[Patch], None]:
    """Changes reports; None is one that is not made."""

    def apply(patch: Patch) -> None:
        plain = Adapter.report

        def report(self: Adapter, **values: Any) -> None:
            changed = change(values)
            if changed is not None:
                plain(self, **changed)

        patch.setattr(Adapter, "report", report)

    return apply


def replaces(owner: Any, name: str, value: Any) -> Callable[[Patch], None]:
    """Puts something else in the place of a method."""
    return lambda patch: patch.setattr(owner, name, value)


def swallows(name: str, *kinds: type[Exception], states: tuple[str, ...] = ()) -> Callable[[Patch], None]:
    """Makes a step of the connection overlook failures."""

    def apply(patch: Patch) -> None:
        plain = getattr(ClientConnection, name)

        def step(self: ClientConnection, *values: Any) -> Any:
            state = self.state
            try:
                return plain(self, *values)
            except kinds:
                if states and state not in states:
                    raise
                return None

        patch.setattr(ClientConnection, name, step)

    return apply


def refuses(test: Callable[[Any], bool], error: type[RemoteProtocolError]) -> Callable[[Patch], None]:
    """Treats well-formed frames as wrong."""

    def change(frame: Any) -> Any:
        if test(frame):
            raise error("a frame", expected="something else")
        return frame

    return hears(change)


def each(kind: type, *frames: Callable[[Any], Any]) -> Callable[[Sent], list[Any]]:
    """For `sends`: frames of a kind become those that the functions make of it."""
    return lambda frame: [make(frame) for make in frames] if isinstance(frame, kind) else [frame]


def as_is(frame: Any) -> Any:
    return frame


def only(kind: type, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For `hears`: changes frames of one kind."""
    return lambda frame: change(frame) if isinstance(frame, kind) else frame


# Sections 5 and 6.


@breaks("RW-PREFACE-1")
def hello_at_once(patch: Patch) -> None:
    plain = ClientConnection.transport_up

    def transport_up(self: ClientConnection, now: float) -> None:
        plain(self, now)
        self._out.append(encode_octets(self._hello))

    patch.setattr(ClientConnection, "transport_up", transport_up)


@breaks("RW-PREFACE-5")
def waits_for_all_of_a_wrong_preface(patch: Patch) -> None:
    plain = ClientConnection._receive_preface
    held: dict[int, bytes] = {}

    def receive(self: ClientConnection, data: bytes) -> bytes:
        held[id(self)] = held.get(id(self), b"") + data
        return plain(self, held.pop(id(self))) if len(held[id(self)]) >= 8 else b""

    patch.setattr(ClientConnection, "_receive_preface", receive)


def _sees_preface(change: Callable[[bytes], bytes]) -> Callable[[Patch], None]:
    def apply(patch: Patch) -> None:
        plain = ClientConnection._receive_preface
        patch.setattr(ClientConnection, "_receive_preface", lambda self, data: plain(self, change(data)))

    return apply


add("strict", "RW-PREFACE-7", _sees_preface(lambda d: d if d[5:8] in (b"", bytes(3)) else b"\0" * 8))
add("any_version", "RW-PREFACE-8", _sees_preface(lambda d: d[:4] + b"\x01" + d[5:] if len(d) >= 8 else d))
add("twice", "RW-HELLO-1", sends(each(Hello, as_is, as_is)))
add("join_at_once", "RW-CONN-1", sends(each(Hello, as_is, lambda f: Join("lobby", 0, 0, request=99))))
add("plain", "RW-SASL-3", sends(each(Hello, lambda f: replace(f, mechanism="PLAIN"))))
add("folds", "RW-NAME-7", sends(each(Join, lambda f: replace(f, name=f.name.casefold()))))
add("own_name", "RW-WELCOME-6", reports(lambda r: {**r, "name": "ada"} if r.get("event") == "connected" else r))
add("deaf_to_auth", "RW-AUTH-1", hears(only(Auth, lambda f: None)))
add("strict", "RW-EXT-3", refuses(lambda f: isinstance(f, Welcome) and b"grease" in repr(f).encode(), UnknownField))
add("critical_frame", "RW-EXT-1", sends(each(Join, lambda f: Unknown(0x0123, b"mine"), as_is)), "client/9.1/*")
_CRITICAL = (Field(0x0003, b"mine"),)
add("critical_field", "RW-EXT-1", sends(each(Publish, lambda f: replace(f, fields=_CRITICAL))), "client/7.15/*")
add(
    "left_over",
    "RW-FRAME-7",
    sends(each(Leave, lambda f: frame(0x14, b"!", request=f.request, room=f.room))),
    "client/7.13/*",
)
add(
    "sequenced",
    "RW-GREASE-1",
    sends(each(Join, as_is, lambda f: Unknown(0x8021, bytes(8), flags=Flag.SEQ))),
    "client/9.1/*",
)


add(
    "may_be_dropped",
    "RW-FLAG-2",
    sends(each(Join, as_is, lambda f: Unknown(0xF001, bytes(8), flags=Flag.SEQ | Flag.EPHEMERAL))),
    "client/9.1/*",
)


@breaks("RW-FRAME-1")
def no_limit(patch: Patch) -> None:
    plain = FrameReader.next_frame

    def next_frame(self: FrameReader) -> Any:
        self.max_body = 2**33
        return plain(self)

    patch.setattr(FrameReader, "next_frame", next_frame)


@breaks("RW-FRAME-2")
def limit_stays_small(patch: Patch) -> None:
    plain = FrameReader.next_frame

    def next_frame(self: FrameReader) -> Any:
        self.max_body = min(self.max_body, 4095)
        return plain(self)

    patch.setattr(FrameReader, "next_frame", next_frame)


@breaks("RW-FRAME-4")
def loses_single_octets(patch: Patch) -> None:
    plain = ClientConnection.receive_data
    patch.setattr(
        ClientConnection,
        "receive_data",
        lambda self, data, now: iter(()) if len(data) == 1 and self.state != "PREFACE" else plain(self, data, now),
    )


@breaks("RW-CLOSE-2")
def dies_without_a_word(patch: Patch) -> None:
    def fail(self: ClientConnection, error: RemoteProtocolError, now: float) -> None:
        self._move("fatal error")
        self._stop()

    patch.setattr(Connection, "_fail", fail)


add("sends_too_much", "RW-FRAME-3", replaces(requests, "CONTENT_RESERVE", -(10**6)))
add("overlooked", "RW-FRAME-6", overlooks(BadHeader))
for _requirement in ("RW-FRAME-7", "RW-FIELD-4", "RW-FIELD-3", "RW-CHECK-4", "RW-CHECK-6"):
    add("overlooked", _requirement, overlooks(Malformed))
add("overlooked", "RW-FIELD-2", overlooks(UnknownField))
_KNOWN_FIELDS = (0x0001, 0x8002, 0x8003, 0x8004)
add(
    "strict",
    "RW-FIELD-1",
    refuses(lambda f: any(x.type not in _KNOWN_FIELDS for x in getattr(f, "fields", ())), UnknownField),
)
add("strict", "RW-FLAG-1", refuses(lambda f: bool(f.flags & 0x3F40) and not isinstance(f, Unknown), BadHeader))
add("unknown_flag", "RW-FLAG-1", sends(each(Publish, lambda f: replace(f, flags=f.flags | 0x40))), "client/7.15/*")
add("one_number", "RW-REQUEST-1", replaces(ClientConnection, "_number", lambda self: 7))
add(
    "no_window",
    "RW-REQUEST-5",
    replaces(ClientConnection, "can_request", property(lambda self: self.state == "OPEN" and self.welcome is not None)),
)


@breaks("RW-REQUEST-7")
def late_ack_is_an_error(patch: Patch) -> None:
    plain = ClientConnection._replied

    def replied(self: ClientConnection, frame: Frame) -> Any:
        if frame.room and frame.room not in self.memberships and not isinstance(frame, Joined):
            raise Unexpected("a reply", "room", "a room that this client is in")
        return plain(self, frame)

    patch.setattr(ClientConnection, "_replied", replied)


add("overlooked", "RW-REQUEST-8", swallows("_replied", Unexpected))
add("overlooked", "RW-REQUEST-9", swallows("_membership_replied", Unexpected))
add("strict", "RW-TYPE-4", refuses(lambda f: isinstance(f, Unknown), UnknownType))
add("overlooked", "RW-TYPE-4", swallows("_unknown", UnknownType))
add("strict", "RW-GREASE-2", refuses(lambda f: isinstance(f, Unknown), UnknownType))
add("cursor_stays", "RW-TYPE-5", hears(lambda f: Unknown(0x8021) if isinstance(f, Unknown) else f))
add("overlooked", "RW-TYPE-6", overlooks(Malformed))
add("overlooked", "RW-CHECK-3", swallows("_interpret", Unexpected, states=("HELLO_SENT",)))
add(
    "strict",
    "RW-CHECK-5",
    refuses(lambda f: "\ufffd" in repr(f) or (isinstance(f, Message) and b"\xff" in f.payload), Malformed),
)
add("fatal", "RW-CODE-2", refuses(lambda f: isinstance(f, Error | Goaway) and f.code not in CODES, Malformed))
add("flag", "RW-ERROR-1", sends(each(Goaway, lambda f: replace(f, flags=f.flags ^ 1))), "client/8.5/quit")
add("carrier", "RW-CODE-1", sends(each(Goaway, lambda f: replace(f, code=Code.LAGGED, flags=1))), "client/8.5/quit")


@breaks("RW-ERROR-2")
def impatient(patch: Patch) -> None:
    def refused(self: Pace, retry_ms: int, now: float) -> float:
        self._limit = 1
        return 0.0

    patch.setattr(Pace, "refused", refused)


add("always_again", "RW-ERROR-3", hears(only(Error, lambda f: replace(f, flags=1, retry_ms=20))))
add("silent", "RW-PING-1", sends(each(Pong)))
add("constant", "RW-PING-1", sends(each(Pong, lambda f: replace(f, opaque=bytes(8)))))
add("fatal", "RW-PING-3", refuses(lambda f: isinstance(f, Pong), Unexpected))

add("first_of_many", "RW-REQUEST-7", reports(lambda r: {**r, "seq": "31"} if r.get("event") == "published" else r))
add("overlooked_when_open", "RW-CHECK-3", swallows("_interpret", Unexpected, states=("OPEN",)))
add("forbidden_is_fatal", "RW-CODE-2", refuses(lambda f: isinstance(f, Error) and f.code == Code.FORBIDDEN, Malformed))
add(
    "server",
    "RW-FIELD-1",
    refuses(lambda f: isinstance(f, Welcome) and any(x.type == 0x8003 for x in f.fields), UnknownField),
)
add("folds_people", "RW-NAME-7", sends(each(Hello, lambda f: replace(f, name=f.name.casefold()))))
add("own_rules", "RW-NAME-7", refuses(lambda f: isinstance(f, Joined) and not f.name.isprintable(), Malformed))


@breaks("RW-PREFACE-5")
def complains(patch: Patch) -> None:
    plain = ClientConnection._receive_preface

    def receive(self: ClientConnection, data: bytes) -> bytes:
        rest = plain(self, data)
        if self.state == "CLOSED":
            self._out.append(encode_octets(Goaway(Code.MALFORMED)))
        return rest

    patch.setattr(ClientConnection, "_receive_preface", receive)


@breaks("RW-FRAME-4")
def loses_what_comes_at_once(patch: Patch) -> None:
    plain = ClientConnection.receive_data
    patch.setattr(ClientConnection, "receive_data", lambda self, data, now: plain(self, data[:9000], now))


@breaks("RW-TYPE-5")
def every_unknown_moves(patch: Patch) -> None:
    plain = ClientConnection._unknown

    def unknown(self: ClientConnection, frame: Unknown) -> None:
        if frame.request and frame.seq is not None and frame.room in self.memberships:
            self.memberships[frame.room].cursor = frame.seq
        plain(self, frame)

    patch.setattr(ClientConnection, "_unknown", unknown)
