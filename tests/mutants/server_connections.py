"""Servers that break one rule about the handshake, PING, ERROR and the end of connections (SPEC.md, 7.1 to 7.8, 8)."""

from dataclasses import replace
from typing import Any

from conformance.wire.octets import frame
from protocol.fields import extension, extensions
from protocol.frames import Ack, Error, Field, Goaway, Hello, Message, Ok, Ping, Pong, Unknown, Welcome
from protocol.registry import (
    MAGIC,
    Code,
    Flag,
    FrameType,
    is_ignorable,
)
from tests.mutants.server_changes import broken, fatal_if, never, of, recoded, unchanged, without
from tests.mutants.servers import Alteration, Heard, Piece, Says, Wrong

# --- the handshake


def _once(kind: type) -> Says:
    """Says the first frame of a kind alone."""

    def says(a: Alteration, said: Piece) -> list[Piece]:
        if isinstance(said, kind):
            if a.notes.get("said"):
                return []
            a.notes["said"] = True
        return [said]

    return says


def _unasked(said: Welcome) -> Welcome:
    return replace(said, fields=(*said.fields, extension("org.example.unasked")))


def _echo_extensions(a: Alteration, heard: Heard) -> list[Piece]:
    if isinstance(heard, Hello):
        a.notes["names"] = list(extensions(heard))
    return [heard]


def _all_extensions(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, Welcome):
        return [replace(said, fields=tuple(extension(name) for name in a.notes["names"]))]
    return [said]


_AT_HELLO = (Code.UNKNOWN_FIELD, Code.NAME_INVALID, Code.UNSUPPORTED_MECHANISM)

broken("has no WELCOME", "RW-HELLO-2", "RW-SASL-3", says=of(Welcome, never))
broken(
    "gives another reason in GOAWAY", "RW-HELLO-3",
    says=recoded(dict.fromkeys(_AT_HELLO, Code.AUTH_FAILED), Goaway),
)  # fmt: skip
broken(
    "expects everything", "RW-HELLO-5", "RW-HELLO-6", "RW-AUTH-2", "RW-CHECK-1",
    says=recoded({Code.UNEXPECTED: Code.MALFORMED}),
)  # fmt: skip
broken("numbers all connections alike", "RW-WELCOME-1", says=of(Welcome, lambda f: replace(f, member=7)))
broken(
    "lets everybody stop it", "RW-STOP-1",
    hears=_echo_extensions,
    says=lambda a, f: [replace(f, fields=tuple(map(extension, a.notes["names"])))] if isinstance(f, Welcome)
    else [Ok(request=f.request)] if isinstance(f, Error) and f.code == Code.UNKNOWN_REQUEST else [f],
)  # fmt: skip
broken("names extensions unasked", "RW-WELCOME-2", says=of(Welcome, _unasked))
broken("knows all extensions", "RW-EXT-3", "RW-WELCOME-2", hears=_echo_extensions, says=_all_extensions)
broken(
    "refuses extensions that it does not know", "RW-EXT-3",
    hears=fatal_if(lambda a, f: isinstance(f, Hello) and not extensions(f).keys() <= {"history"}),
)  # fmt: skip
broken("announces strange limits", "RW-WELCOME-4", says=of(Welcome, lambda f: replace(f, max_body=4095)))
broken(
    "sends frames of extensions",
    "RW-EXT-1",
    says=lambda a, f: [f, Unknown(0x0030, b"")] if isinstance(f, Welcome) else [f],
)
broken(
    "sends critical frames to a room", "RW-EXT-2",
    says=lambda a, f: [Unknown(0x0030, b"", room=f.room), f] if isinstance(f, Message) else [f],
)  # fmt: skip
broken(
    "sends critical fields to a room", "RW-EXT-2",
    says=of(Message, lambda f: replace(f, fields=(*f.fields, Field(0x0003)))),
)  # fmt: skip
broken(
    "counts what may be dropped", "RW-FLAG-2",
    says=lambda a, f: [Unknown(0xF001, bytes(8), Flag.SEQ | Flag.EPHEMERAL), f] if isinstance(f, Message) else [f],
)  # fmt: skip
broken(
    "counts reserved frames", "RW-GREASE-1",
    says=lambda a, f: [Unknown(0x8021, bytes(8), Flag.SEQ), f] if isinstance(f, Message) else [f],
)  # fmt: skip
broken("does not say what it offers", "RW-SASL-1", says=of(Error, lambda f: replace(f, fields=())))
broken(
    "calls a mechanism malformed", "RW-SASL-1", "RW-CHECK-5", "RW-HELLO-3",
    says=recoded({Code.UNSUPPORTED_MECHANISM: Code.AUTH_FAILED}),
)  # fmt: skip
broken("verifies everybody", "RW-SASL-4", says=of(Welcome, lambda f: replace(f, flags=f.flags | Flag.VERIFIED)))
broken("verifies all messages", "RW-MESSAGE-2", says=of(Message, lambda f: replace(f, flags=f.flags | Flag.VERIFIED)))
broken("reads ANONYMOUS' response", "RW-SASL-7", hears=fatal_if(lambda a, f: isinstance(f, Hello) and bool(f.auth)))

# --- PING, ERROR, the end


def _fence_stop(a: Alteration, said: list[Piece]) -> list[Piece]:
    return sorted(said, key=lambda f: not isinstance(f, Pong))


class OnlyRequests(Alteration):
    """Counts requests alone as signs of life."""

    def hear(self, data: bytes) -> bytes:
        return b"" if data.startswith(frame(FrameType.PONG, b"I live..")) else super().hear(data)


class Curt(Alteration):
    """Does not linger."""

    def say(self, data: bytes) -> bytes:
        if self.conn.state == "CLOSING":
            self.conn._stop()
        return super().say(data)


class Clinging(Alteration):
    """Lingers for ever."""

    def say(self, data: bytes) -> bytes:
        self.conn.linger = 1e9
        return super().say(data)


def _late_publish(a: Alteration, heard: Heard) -> list[Piece]:
    """GOAWAY behind what came behind it."""
    if isinstance(heard, Goaway) and a.more:
        a.notes["held"] = heard
        return []
    held = a.notes.pop("held", None)
    return [heard, held] if held else [heard]


def _no_replies_at_the_end(a: Alteration, said: list[Piece]) -> list[Piece]:
    gone = any(isinstance(f, Goaway) for f in said)
    return [f for f in said if not (gone and isinstance(f, Ack))]


class Frail(Alteration):
    """One connection that fails takes all others with it."""

    def hear(self, data: bytes) -> bytes:
        if not self._greeted_out and not MAGIC.startswith(data[:4]):
            self.world["ill"] = True
        return super().hear(data)

    def say(self, data: bytes) -> bytes:
        return b"" if self.world.get("ill") else super().say(data)


class Stuck(Frail):
    """Half a frame on one connection holds up all others."""

    def hear(self, data: bytes) -> bytes:
        heard = super().hear(data)
        if (self._unread and len(self._unread) < 100) or not data:
            self.world["ill"] = True
        return heard


def _falls_ill(a: Alteration, heard: Heard) -> list[Piece]:
    if isinstance(heard, Wrong) or (isinstance(heard, Unknown) and not is_ignorable(heard.type)):
        a.world["ill"] = True
    return [heard]


broken("says what has no meaning here", "RW-CODE-1", says=recoded({Code.UNKNOWN_FIELD: Code.NOT_JOINED}, Goaway))
broken("forgets RETRY", "RW-ERROR-1", says=of(Error, lambda f: replace(f, flags=0)))
broken("forgets the room in ERROR", "RW-ERROR-4", says=of(Error, lambda f: replace(f, room=0)))
broken("forgets the room in OK", "RW-ERROR-4", says=of(Ok, lambda f: replace(f, room=0)))
broken("answers PING with zeros", "RW-PING-1", says=of(Pong, lambda f: replace(f, opaque=bytes(8))))
broken("answers PING at once", "RW-PING-2", batch=_fence_stop)
broken("minds a PONG", "RW-PING-3", hears=fatal_if(lambda a, f: isinstance(f, Pong)))
broken("sends no PING", "RW-HEARTBEAT-1", says=of(Ping, never))
broken("waits for requests", "RW-HEARTBEAT-2", make=OnlyRequests)
broken("talks on behind GOAWAY", "RW-CLOSE-1", says=lambda a, f: [f, Pong(bytes(8))] if isinstance(f, Goaway) else [f])
broken("listens on behind GOAWAY", "RW-CLOSE-1", hears=_late_publish)
broken(
    "closes without a word", "RW-CLOSE-2", "RW-CLOSE-5", "RW-CHECK-2", "RW-FIELD-2",
    says=without(Goaway, lambda f: f.code not in (Code.NONE, Code.TIMEOUT)),
)  # fmt: skip
broken(
    "does not answer GOAWAY", "RW-CLOSE-3", "RW-FIELD-1", "RW-FLAG-1", "RW-CHECK-5",
    says=without(Goaway, lambda f: f.code == Code.NONE),
)  # fmt: skip
broken("forgets replies at the end", "RW-CLOSE-3", "RW-REQUEST-2", batch=_no_replies_at_the_end)
broken("does not linger", "RW-CLOSE-5", make=Curt)
broken("lingers for ever", "RW-CLOSE-5", make=Clinging)
broken("falls ill with one connection", "RW-CLOSE-7", "RW-PREFACE-5", make=Frail, hears=_falls_ill)


class Crowded(Alteration):
    """Has places for a few connections, and gives none free."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.world["places"] = self.world.get("places", 7) - 1
        self.notes["no place"] = self.world["places"] < 0

    def say(self, data: bytes) -> bytes:
        return b"" if self.notes["no place"] else super().say(data)


broken("keeps places for those who have gone", "RW-CLOSE-7", make=Crowded, only=("server/8.3/abandoned",))
broken(
    "stops streams when a connection fails", "RW-CLOSE-7", hears=_falls_ill,
    says=lambda a, f: [] if isinstance(f, Message) and a.world.get("ill") else [f],
)  # fmt: skip
broken("is held up by half a frame", "RW-CLOSE-7", "RW-FRAME-5", make=Stuck, hears=unchanged)
