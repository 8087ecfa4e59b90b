"""What both ends of a connection have in common: sending, time, and closing (SPEC.md, section 8).

Neither end does I/O or reads a clock. Its driver calls

- `receive_data(data, now)` with the octets that arrived, and iterates over the events that it returns;
- `receive_eof(now)` at the end of the stream;
- `handle_timeout(now)` at `next_timeout()`, or at any other time.

After each of these calls, and after each call that sends, the driver writes `data_to_send(now)` to the transport. It
closes the transport when `should_close` is true and all is written.

`now` is the time in seconds, by any clock that never goes back.
"""

import sys
from math import inf

from protocol.codec import encode
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import Error, Field, Goaway, Ping
from protocol.framing import FrameReader
from protocol.registry import HELLO_MAX_BODY, Code, Flag, FrameType
from protocol.state import Machine, advance

HEARTBEAT_SHARE = 0.75
"""An endpoint that has sent nothing for this share of H sends a PING (RW-HEARTBEAT-1, with a margin for delays)."""

_PING = encode(Ping(bytes(8)))


class Connection:
    """Base of ClientConnection and ServerConnection."""

    __slots__ = (
        "_closing_since",
        "_deaf",
        "_frame_since",
        "_now",
        "_out",
        "_reader",
        "_table",
        "heartbeat",
        "last_received",
        "last_sent",
        "linger",
        "should_close",
        "state",
    )

    def __init__(self, table: Machine, state: str, now: float, linger: float) -> None:
        self._table = table
        self.state = state
        self.linger = linger
        self.heartbeat = 0.0  # H in seconds; 0 until WELCOME
        self.should_close = False
        self.last_received = now
        self.last_sent = now
        self._now = now
        self._reader = FrameReader(HELLO_MAX_BODY)
        self._deaf = False  # input is dropped unread
        self._out: list[bytes] = []
        self._frame_since: float | None = None  # when the first octet of an incomplete frame arrived
        self._closing_since: float | None = None

    def data_to_send(self, now: float) -> bytes:
        """Return all octets that are to be written now. Each is returned once."""
        out = self._out
        if not out:
            return b""
        self.last_sent = now
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    @property
    def has_data_to_send(self) -> bool:
        return bool(self._out)

    def goaway(
        self, code: Code, now: float, *, retry_ms: int = 0, jitter_ms: int = 0, text: str = "", event: str = "close"
    ) -> None:
        """End the connection with a GOAWAY of `code`, by the transition for `event`.

        Raises LocalProtocolError if the state has no such transition.
        """
        self._move(event)
        self._say_goaway(code, retry_ms, jitter_ms, text)
        self._begin_closing(now)

    def receive_eof(self, now: float) -> None:
        """Take the end of the stream. No event follows."""
        self._move("end of stream")
        self._stop()

    def _move(self, event: str) -> None:
        self.state = advance(self._table, self.state, event)

    def _say_goaway(self, code: Code, retry_ms: int = 0, jitter_ms: int = 0, text: str = "") -> None:
        self._out.append(encode(Goaway(code, retry_ms, jitter_ms, text, flags=retry_flag(code))))

    def _begin_closing(self, now: float) -> None:
        # RW-CLOSE-5: keep reading for the linger time, so that no reset destroys the GOAWAY.
        self._closing_since = now
        self._frame_since = None

    def _stop(self) -> None:
        """Ignore all further input, and close as soon as all is written."""
        self.should_close = True
        self._deaf = True

    def _fail(self, error: RemoteProtocolError, now: float) -> None:
        """RW-CLOSE-2: answer a fatal failure with a GOAWAY of its code."""
        self.goaway(error.code, now, text=str(error)[:500], event="fatal error")

    def _drop_input(self, most: int = sys.maxsize) -> int:
        """RW-CLOSE-5: in CLOSING, drop at most `most` frames, up to GOAWAY, the peer's last. Return how many."""
        dropped = 0
        try:
            while dropped < most and (raw := self._reader.next_frame()) is not None:
                dropped += 1
                if raw.type == FrameType.GOAWAY:
                    self._move("GOAWAY")
                    self._stop()
                    break
        except RemoteProtocolError:
            self._deaf = True  # where the next frame begins is unknown: only the end of the stream is left
        return dropped

    def _linger_due(self) -> float:
        return inf if self._closing_since is None else self._closing_since + self.linger

    def _keep_alive(self, now: float) -> None:
        if now >= self.last_sent + HEARTBEAT_SHARE * self.heartbeat:
            self._out.append(_PING)  # RW-HEARTBEAT-1


def retry_flag(code: Code) -> int:
    """Return RETRY exactly for the codes that section 16 marks so (RW-ERROR-1)."""
    return Flag.RETRY if code.retry else 0


def error_frame(
    code: Code, request: int, room: int = 0, *, retry_ms: int = 0, text: str = "", fields: tuple[Field, ...] = ()
) -> Error:
    """Return the final reply ERROR to `request`, with the flag RETRY if the code has it."""
    return Error(code, retry_ms, text, fields=fields, flags=retry_flag(code), request=request, room=room)


def require(condition: bool, what: str) -> None:
    """Raise LocalProtocolError unless `condition` holds."""
    if not condition:
        raise LocalProtocolError(what)
