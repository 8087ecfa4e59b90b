"""Client mutants about the handshake, PING, ERROR, closing, draining and connecting again (SPEC.md, 7.1 to 7.8, 8)."""

import random
from dataclasses import replace
from typing import Any

from protocol.client import ClientConnection
from protocol.connection import Connection
from protocol.errors import (
    Malformed,
    RemoteProtocolError,
    Unexpected,
)
from protocol.frames import (
    Error,
    Goaway,
    Hello,
    Join,
    Ping,
    Pong,
)
from protocol.registry import CODES, Code
from reference_client.session.backoff import Backoff
from reference_client.session.outbox import Pace
from reference_client.session.session import Session
from reference_client.transport import Transport
from tests.mutants.client.changes import as_is, changes, each, fatal_if, receives, replaces, reports, sends
from tests.mutants.clients import ClientMutant, Patch


def _failure_without_goaway(patch: Patch) -> None:
    def fail(self: ClientConnection, error: RemoteProtocolError, now: float) -> None:
        self._move("fatal error")
        self._stop()

    patch.setattr(Connection, "_fail", fail)


def _retry_too_early(patch: Patch) -> None:
    def refused(self: Pace, retry_ms: int, now: float) -> float:
        self._limit = 1
        return 0.0

    patch.setattr(Pace, "refused", refused)


def _heartbeat_timeout_none(patch: Patch) -> None:
    def timeout(self: ClientConnection, now: float) -> None:
        if self.state in ("OPEN", "DRAINING"):
            self._keep_alive(now)

    patch.setattr(ClientConnection, "handle_timeout", timeout)


def _writing_stops_reading(patch: Patch) -> None:
    plain = Transport.write

    def write(self: Transport, data: bytes) -> None:
        plain(self, data)
        if self.unwritten:
            assert self._inner
            self._inner.pause_reading()

    patch.setattr(Transport, "write", write)


def _linger_none(patch: Patch) -> None:
    plain = Connection._begin_closing

    def begin(self: Connection, now: float) -> None:
        plain(self, now)
        self.should_close = True

    patch.setattr(Connection, "_begin_closing", begin)


_ignores_draining = receives(changes(Goaway, lambda f: None if f.code == Code.DRAINING else f))


def _heartbeat_short_segments_ignored(patch: Patch) -> None:
    plain = ClientConnection.receive_data

    def receive_data(self: ClientConnection, data: bytes, now: float) -> Any:
        before = self.last_received
        events = plain(self, data, now)
        if len(data) < 16:
            self.last_received = before
        return events

    patch.setattr(ClientConnection, "receive_data", receive_data)


def _reconnect_after_version_0(patch: Patch) -> None:
    plain = ClientConnection._receive_preface

    def receive(self: ClientConnection, data: bytes) -> bytes:
        rest = plain(self, data)
        self.version = self.version or None
        return rest

    patch.setattr(ClientConnection, "_receive_preface", receive)


MUTANTS: tuple[ClientMutant, ...] = (
    # 7.1 HELLO, 7.2 WELCOME, 8.1 Client connection
    ClientMutant("hello-twice", "Sends HELLO twice.", ("RW-HELLO-1",), sends(each(Hello, as_is, as_is))),
    ClientMutant(
        "join-before-welcome",
        "Sends JOIN before WELCOME.",
        ("RW-CONN-1",),
        sends(each(Hello, as_is, lambda f: Join("lobby", 0, 0, request=99))),
    ),
    ClientMutant(
        "mechanism-plain",
        "Uses the mechanism PLAIN.",
        ("RW-SASL-3",),
        sends(each(Hello, lambda f: replace(f, mechanism="PLAIN"))),
    ),
    ClientMutant(
        "own-name-kept",
        "Uses the name that it asked for, not that of WELCOME.",
        ("RW-WELCOME-6",),
        reports(lambda r: {**r, "name": "ada"} if r.get("event") == "connected" else r),
    ),
    ClientMutant(
        "own-name-case-folded",
        "Folds the case of its own name in HELLO.",
        ("RW-NAME-7",),
        sends(each(Hello, lambda f: replace(f, name=f.name.casefold()))),
    ),
    # 7.4 ERROR
    ClientMutant(
        "goaway-retry-flag-inverted",
        "Inverts the flag RETRY in GOAWAY.",
        ("RW-ERROR-1",),
        sends(each(Goaway, lambda f: replace(f, flags=f.flags ^ 1))),
        only=("client/8.5/quit",),
    ),
    ClientMutant(
        "goaway-code-out-of-place",
        "Sends GOAWAY with a code that GOAWAY does not carry.",
        ("RW-CODE-1",),
        sends(each(Goaway, lambda f: replace(f, code=Code.LAGGED, flags=1))),
        only=("client/8.5/quit",),
    ),
    ClientMutant(
        "unknown-code-fatal",
        "Ends the connection over an unknown code.",
        ("RW-CODE-2",),
        fatal_if(lambda f: isinstance(f, Error | Goaway) and f.code not in CODES, Malformed),
    ),
    ClientMutant(
        "forbidden-fatal",
        "Ends the connection over ERROR(FORBIDDEN).",
        ("RW-CODE-2",),
        fatal_if(lambda f: isinstance(f, Error) and f.code == Code.FORBIDDEN, Malformed),
    ),
    ClientMutant(
        "retry-too-early", "Repeats a refused request before retry_ms has passed.", ("RW-ERROR-2",), _retry_too_early
    ),
    ClientMutant(
        "every-error-retried",
        "Treats every ERROR as one with RETRY.",
        ("RW-ERROR-3",),
        receives(changes(Error, lambda f: replace(f, flags=1, retry_ms=20))),
    ),
    # 7.6 PING, 7.7 PONG, 8.4 Heartbeat
    ClientMutant("pong-missing", "Sends no PONG.", ("RW-PING-1",), sends(each(Pong))),
    ClientMutant(
        "pong-of-zeros",
        "Sends PONG with zeros in place of the octets of the PING.",
        ("RW-PING-1",),
        sends(each(Pong, lambda f: replace(f, opaque=bytes(8)))),
    ),
    ClientMutant(
        "pong-fatal",
        "Ends the connection over a PONG.",
        ("RW-PING-3",),
        fatal_if(lambda f: isinstance(f, Pong), Unexpected),
    ),
    ClientMutant(
        "ping-missing",
        "Sends no PING.",
        ("RW-HEARTBEAT-1",),
        replaces(Connection, "_keep_alive", lambda self, now: None),
    ),
    ClientMutant(
        "heartbeat-timeout-none",
        "Waits for a silent server without a time-out.",
        ("RW-HEARTBEAT-2",),
        _heartbeat_timeout_none,
    ),
    ClientMutant(
        "heartbeat-short-segments-ignored",
        "Does not count segments of fewer than 16 octets as a sign of life.",
        ("RW-HEARTBEAT-2",),
        _heartbeat_short_segments_ignored,
    ),
    ClientMutant(
        "writing-stops-reading",
        "Stops reading while it has something to write.",
        ("RW-HEARTBEAT-4",),
        _writing_stops_reading,
    ),
    # 8.5 Closing
    ClientMutant(
        "ping-after-goaway",
        "Sends PING after GOAWAY.",
        ("RW-CLOSE-1",),
        sends(each(Goaway, as_is, lambda f: Ping(bytes(8)))),
    ),
    ClientMutant(
        "failure-without-goaway",
        "Closes the connection after a fatal failure without GOAWAY.",
        ("RW-CLOSE-2",),
        _failure_without_goaway,
    ),
    ClientMutant("goaway-missing", "Sends no GOAWAY.", ("RW-CLOSE-4",), sends(each(Goaway))),
    ClientMutant("linger-none", "Closes at once after its GOAWAY.", ("RW-CLOSE-5",), _linger_none),
    # 8.6 Draining
    ClientMutant("drain-ignored", "Sends new requests after GOAWAY(DRAINING).", ("RW-DRAIN-1",), _ignores_draining),
    ClientMutant("drain-without-goaway", "Sends no GOAWAY after GOAWAY(DRAINING).", ("RW-DRAIN-4",), _ignores_draining),
    # 8.7 Connecting again
    ClientMutant(
        "reconnect-never",
        "Does not connect again.",
        ("RW-RECONNECT-1",),
        replaces(Session, "reconnect_at", property(lambda self: None if self._been_connected else 0.0)),
    ),
    ClientMutant(
        "reconnect-before-retry-ms",
        "Connects again before retry_ms has passed.",
        ("RW-RECONNECT-2",),
        replaces(Backoff, "ended", lambda self, farewell, **values: random.uniform(0, 0.2)),
    ),
    ClientMutant(
        "reconnect-without-backoff",
        "Connects again at once, however often it fails.",
        ("RW-RECONNECT-3",),
        replaces(Backoff, "ended", lambda self, farewell, **values: 0.0),
    ),
    ClientMutant(
        "reconnect-too-late",
        "Waits longer than the bound before it connects again.",
        ("RW-RECONNECT-3",),
        replaces(Backoff, "ended", lambda self, farewell, **values: 1.8),
    ),
    ClientMutant(
        "reconnect-after-final-code",
        "Connects again after a GOAWAY that forbids it.",
        ("RW-RECONNECT-4",),
        lambda patch: patch.setattr("reference_client.session.session._is_final", lambda farewell: False),
    ),
    ClientMutant(
        "reconnect-after-version-0", "Connects again after version 0.", ("RW-RECONNECT-4",), _reconnect_after_version_0
    ),
)
