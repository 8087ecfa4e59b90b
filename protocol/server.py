"""The server's end of a connection (SPEC.md, sections 6 and 8.2)."""

import sys
from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cache
from math import inf

from protocol.codec import decode, encode
from protocol.connection import HEARTBEAT_SHARE, Connection, error_frame, require
from protocol.errors import BadHeader, LocalProtocolError, RemoteProtocolError, Unexpected, UnknownType
from protocol.events import ConnectionTerminated, RequestRefused, ServerEvent
from protocol.fields import extensions
from protocol.frames import RULES, Auth, Field, Frame, Goaway, Hello, Ping, Pong, Unknown, Welcome
from protocol.framing import RawFrame, frame_name
from protocol.registry import LIMITS, MAGIC, PREFACE_SIZE, VERSION, Code, FrameType, is_ignorable
from protocol.state import SERVER_ACCEPTS, SERVER_MACHINE, SERVER_REFUSES

DROPPED = 8
"""How many frames that are dropped unread count as one that is handled."""

_NOTHING: deque[int | bytes] = deque()
"""What an idle connection owes. All share one empty deque, since a deque of its own takes 600 octets."""


@cache
def _foreign_types(used: frozenset[str]) -> frozenset[int]:
    """Return the types that belong to extensions which are not in use."""
    return frozenset(type for type, rule in RULES.items() if rule.extension and rule.extension not in used)


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """The time-outs of SPEC.md, section 15, in seconds."""

    preface: float = LIMITS["preface_ms"].default / 1000
    handshake: float = LIMITS["handshake_ms"].default / 1000
    frame: float = LIMITS["frame_ms"].default / 1000
    linger: float = LIMITS["linger_ms"].default / 1000


class ServerConnection(Connection):
    """The server's end: octets of one client become requests, and replies become octets.

    The driver answers Hello and Auth by `welcome`, `challenge` or `refuse`, and each later request (a frame, or
    RequestRefused) with one final reply through `send`, in the order of the events. `events` yields no further request
    while `window` of them are unanswered. The driver calls it again after answering.

    `allowance` is how many more frames are handled. PING, PONG and ignored frames take 1 from it each, and so do
    DROPPED frames after a GOAWAY. A driver with several connections sets it, takes from it what an event costs, and
    calls `events` again after raising it.
    `unread` is whether `events` stopped before the end of the octets. Until it has read them, the connection wants no
    more: a client that ignores its window would fill the server's memory.
    """

    __slots__ = (
        "_auth_steps",
        "_comeback",
        "_foreign",
        "_goodbye",
        "_hello",
        "_opened",
        "_outstanding",
        "_peer_left",
        "_preface",
        "_reading",
        "_step_due",
        "_times",
        "credit",
        "unread",
        "window",
    )

    def __init__(self, now: float, times: ServerTimes) -> None:
        super().__init__(SERVER_MACHINE, "WAIT_PREFACE", now, times.linger)
        self._times = times
        self._opened = now
        self._preface: bytes | None = b""
        self._hello = 0  # HELLO's request number, once HELLO is read
        self._step_due = False  # HELLO or AUTH is reported, and not answered yet
        self._auth_steps = 0
        self._foreign: frozenset[int] = frozenset()  # types of extensions that are not in use
        self._reading = True
        self._outstanding = _NOTHING  # requests, and encoded PONGs that wait behind them
        self._goodbye: Code | None = None  # the code of the GOAWAY that follows the last reply
        self._comeback = (0, 0)  # retry_ms and jitter_ms of a drain
        self._peer_left = False
        self.window = 0
        self.credit = sys.maxsize
        self.unread = False

    # --- receiving

    def receive_data(self, data: bytes, now: float) -> Iterator[ServerEvent]:
        """Take octets and return their events. Iterate over all of them before the next call."""
        self._now = now
        self.last_received = now
        if self._deaf:
            return iter(())
        if self._preface is not None:
            data = self._receive_preface(data)
        self._reader.feed(data)
        return self.events()

    def _receive_preface(self, data: bytes) -> bytes:
        assert self._preface is not None
        preface = self._preface + data[: PREFACE_SIZE - len(self._preface)]
        rest = data[len(preface) - len(self._preface) :]
        if not MAGIC.startswith(preface[:4]):
            self._move("wrong preface")  # RW-PREFACE-5: nothing is sent, and the first octet that differs decides
            self._stop()
            return b""
        if len(preface) < PREFACE_SIZE:
            self._preface = preface
            return b""
        self._preface = None
        low, high = preface[4], preface[5]
        version = VERSION if low <= VERSION <= high else 0
        self._out.append(MAGIC + bytes((version, 0, 0, 0)))
        if version:
            self._move("preface")
            return rest
        self._move("no common version")  # RW-PREFACE-4
        self._stop()
        return b""

    def events(self) -> Iterator[ServerEvent]:
        """Yield the events of the octets received so far, as far as window and allowance permit."""
        while self._may_read():
            try:
                raw = self._reader.next_frame()
                if raw is None:
                    self.unread = False
                    if not self._reader.buffered:
                        self._frame_since = None
                    elif self._frame_since is None:
                        self._frame_since = self._now
                    return
                self._frame_since = None
                event = self._interpret(raw)
            except RemoteProtocolError as error:
                self._fail(error, self._now)
                yield ConnectionTerminated(error.code, False, str(error))
                break
            if event is None:
                self.credit -= 1
            else:
                yield event
        self.unread = True
        if self.state == "CLOSING" and not self._deaf:
            dropped = self._drop_input(DROPPED * self.credit)
            self.credit -= -(-dropped // DROPPED)

    @property
    def wants_data(self) -> bool:
        """Whether octets that arrive now would be read."""
        # RW-CLOSE-5: in CLOSING, octets are read to be dropped, or a reset of the transport would destroy the GOAWAY.
        if self.state == "CLOSING":
            return not self._peer_left and self.credit > 0
        return self._may_read() and not self.unread

    def _may_read(self) -> bool:
        if self._deaf:
            return False
        if self._preface is not None:
            return True
        if self.state in ("OPEN", "DRAINING"):
            return len(self._outstanding) < self.window and self.credit > 0  # RW-REQUEST-6, RW-PING-4
        # HELLO and AUTH are answered before the next frame is read, so that slicing makes no difference (RW-FRAME-4).
        return self.state in ("WAIT_HELLO", "AUTHENTICATING") and not self._step_due and self.credit > 0

    def _interpret(self, raw: RawFrame) -> ServerEvent | None:
        # RW-CHECK-1: length (the reader), state, type, header, structure, fields, values (decode).
        accepted = SERVER_ACCEPTS.get(self.state)
        if accepted is not None:
            if raw.type not in accepted and is_ignorable(raw.type) and not raw.request:
                return None
            self._check_handshake(raw, accepted)
        elif raw.type in SERVER_REFUSES[self.state]:
            raise Unexpected(frame_name(raw.type), expected="no handshake after WELCOME")  # RW-HELLO-6
        elif raw.type in self._foreign:
            return self._unknown(Unknown(raw.type, raw.body, raw.flags, raw.request, raw.room))
        try:
            frame = decode(raw, "C")
        except RemoteProtocolError as error:
            if error.code < 200 or not raw.request:
                raise  # RW-CHECK-2
            if accepted is not None:
                self._hello = self._hello or raw.request
                self.refuse(error.code, self._now, text=str(error)[:500])
                return ConnectionTerminated(error.code, False, str(error))
            self._owe(raw.request)
            return RequestRefused(raw.type, raw.request, raw.room, error.code, str(error)[:500])
        if isinstance(frame, Unknown):
            return self._unknown(frame)
        if frame.request:
            if isinstance(frame, Auth):
                self._step_due = True
            elif isinstance(frame, Hello):
                self._hello = frame.request
                self._step_due = True
            else:
                self._owe(frame.request)
            return frame
        if isinstance(frame, Ping):
            self._pong(frame)
        elif isinstance(frame, Goaway):
            return self._peer_leaves(frame)
        return None  # RW-PING-3: a PONG proves that the client is alive, and nothing else

    def _check_handshake(self, raw: RawFrame, accepted: Container[int]) -> None:
        if raw.type not in accepted:
            raise Unexpected(frame_name(raw.type), expected="AUTH" if self._hello else "HELLO")  # RW-HELLO-5
        if raw.type == FrameType.AUTH and raw.request != self._hello:  # RW-AUTH-2: a check of the header
            raise BadHeader("AUTH", "request", f"{self._hello}, that of HELLO", str(raw.request))

    def _unknown(self, frame: Unknown) -> ServerEvent | None:
        if frame.request:  # RW-TYPE-1: without a reply, the client would hang
            self._owe(frame.request)
            text = f"unknown request type 0x{frame.type:04X}"
            return RequestRefused(frame.type, frame.request, frame.room, Code.UNKNOWN_REQUEST, text)
        if is_ignorable(frame.type):
            return None  # RW-TYPE-2
        raise UnknownType(f"0x{frame.type:04X}", expected="a type that servers receive")  # RW-TYPE-3

    def _owe(self, what: int | bytes) -> None:
        if self._outstanding is _NOTHING:
            self._outstanding = deque()
        self._outstanding.append(what)

    def _pong(self, ping: Ping) -> None:
        pong = encode(Pong(ping.opaque))
        if self._outstanding:  # RW-PING-2; waiting PONGs count towards the window, which bounds their number
            self._owe(pong)
        else:
            self._out.append(pong)

    def _peer_leaves(self, goaway: Goaway) -> ConnectionTerminated:
        self._goodbye = Code.SHUTDOWN if self.state == "DRAINING" else Code.NONE
        self._move("GOAWAY")
        self._peer_left = self._deaf = True  # GOAWAY is its last frame (RW-CLOSE-1)
        self._begin_closing(self._now)
        self._say_goodbye_if_due()  # RW-CLOSE-3: after the replies that are owed
        return ConnectionTerminated(goaway.code, True, goaway.text, goaway)

    # --- sending

    def send(self, frame: Frame) -> None:
        """Send a frame that is not part of the handshake. After a GOAWAY it is dropped (RW-CLOSE-1).

        Raises LocalProtocolError for a reply that is not the next one due (RW-REQUEST-3).
        """
        if self._said_goaway():
            return
        request = frame.request
        if not request:
            self._out.append(encode(frame))
            return
        if frame.TYPE == FrameType.MESSAGE:
            self.send_part(request, encode(frame))
        else:
            self.reply(request, encode(frame))

    def send_part(self, request: int, octets: bytes) -> None:
        """Send encoded MESSAGEs of the reply to `request`. After a GOAWAY they are dropped (RW-CLOSE-1).

        Raises LocalProtocolError if that reply is not the next one due (RW-REQUEST-4).
        """
        if not self._said_goaway():
            self._due(request)
            self._out.append(octets)

    def reply(self, request: int, octets: bytes) -> None:
        """Send the encoded final reply to `request`. After a GOAWAY it is dropped (RW-CLOSE-1).

        Raises LocalProtocolError if that reply is not the next one due (RW-REQUEST-3).
        """
        if self._closing_since is not None and self._said_goaway():
            return
        outstanding = self._due(request)
        self._out.append(octets)
        outstanding.popleft()
        while outstanding and isinstance(outstanding[0], bytes):
            self._out.append(outstanding.popleft())  # type: ignore[arg-type]
        if not outstanding:
            self._outstanding = _NOTHING
        if self._goodbye is not None:
            self._say_goodbye_if_due()

    def _due(self, request: int) -> deque[int | bytes]:
        outstanding = self._outstanding
        if not outstanding or outstanding[0] != request:
            raise LocalProtocolError(f"the reply to request {request} is not the next one due")
        return outstanding

    def send_encoded(self, octets: bytes) -> None:
        """Send whole encoded frames with `request` 0: a part of a room's stream."""
        if self._closing_since is None or not self._said_goaway():
            self._out.append(octets)

    @property
    def answering(self) -> bool:
        """Whether replies are still sent. After the client's GOAWAY they are, until all its requests are answered."""
        return self.state != "CLOSED" and not self._said_goaway()

    def _said_goaway(self) -> bool:
        return self._closing_since is not None and self._goodbye is None

    def welcome(self, welcome: Welcome) -> None:
        """Accept the client: answer its HELLO, and read requests from now on."""
        self._move("AUTH, complete" if self.state == "AUTHENTICATING" else "HELLO, complete")
        self._step_due = False
        self._out.append(encode(welcome))
        self.window = welcome.window
        self.heartbeat = welcome.heartbeat_ms / 1000
        self._reader.max_body = welcome.max_body  # RW-FRAME-2
        self._foreign = _foreign_types(frozenset(extensions(welcome)))

    def challenge(self, data: bytes) -> None:
        """Ask for one more SASL step."""
        self._move("AUTH, needs more" if self.state == "AUTHENTICATING" else "HELLO, needs more")
        self._step_due = False
        self._auth_steps += 1
        require(self._auth_steps <= LIMITS["auth_steps"].high, "at most 4 AUTH frames may be sent")  # RW-AUTH-3
        self._out.append(encode(Auth(data, request=self._hello)))

    def refuse(
        self, code: Code, now: float, *, retry_ms: int = 0, text: str = "", fields: tuple[Field, ...] = ()
    ) -> None:
        """Refuse the client: ERROR to its HELLO, then GOAWAY with the same code (RW-HELLO-3)."""
        self._move("refused")
        self._step_due = False
        self._out.append(encode(error_frame(code, self._hello, retry_ms=retry_ms, text=text, fields=fields)))
        self._say_goaway(code, retry_ms, 0, text)
        self._begin_closing(now)

    def drain(self, retry_ms: int, jitter_ms: int, text: str = "") -> None:
        """Tell the client that the server is about to stop. Requests are still answered."""
        self._move("drain")
        self._comeback = (retry_ms, jitter_ms)
        self._say_goaway(Code.DRAINING, retry_ms, jitter_ms, text)

    def finish_drain(self, now: float) -> None:
        """End the drain: GOAWAY(SHUTDOWN) follows the replies that are owed."""
        self._move("drained")
        self._goodbye = Code.SHUTDOWN
        self._begin_closing(now)
        self._say_goodbye_if_due()

    def close(
        self, now: float, code: Code = Code.SHUTDOWN, *, retry_ms: int = 0, jitter_ms: int = 0, text: str = ""
    ) -> None:
        """End the connection, with a GOAWAY if the client can understand it."""
        if self.state == "WAIT_PREFACE":
            self._move("close")
            self._stop()
        elif self.state not in ("CLOSING", "CLOSED"):
            self.goaway(code, now, retry_ms=retry_ms, jitter_ms=jitter_ms, text=text)

    def _say_goodbye_if_due(self) -> None:
        if self._goodbye is None or self._outstanding:
            return
        code, self._goodbye = self._goodbye, None
        retry_ms, jitter_ms = self._comeback if code.retry else (0, 0)
        self._say_goaway(code, retry_ms, jitter_ms)
        if self._peer_left:
            self._stop()

    # --- time

    def accepted_at(self, since: float) -> None:
        """Count the times from `since`, when the transport was accepted: a TLS handshake is within them."""
        self._opened = since

    def pause_reading(self) -> None:
        """Note that the driver stops reading the transport."""
        self._reading = False

    def resume_reading(self, now: float) -> None:
        """RW-HEARTBEAT-3: time in which the server did not read does not count as the client's silence."""
        self._reading = True
        self.last_received = now
        if self._frame_since is not None:
            self._frame_since = now

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due next, unless something happens before."""
        times = self._times
        match self.state:
            case "WAIT_PREFACE":
                return self._opened + times.preface
            case "WAIT_HELLO" | "AUTHENTICATING":
                return min(self._opened + times.handshake, self._frame_due())
            case "OPEN" | "DRAINING":
                due = min(self.last_sent + HEARTBEAT_SHARE * self.heartbeat, self._frame_due())
                return min(due, self.last_received + 2 * self.heartbeat) if self._reading else due
            case "CLOSING" if self._closing_since is not None:
                return self._linger_due()
        return None

    def _linger_due(self) -> float:
        due = super()._linger_due()
        # RW-CLOSE-3: replies that are owed take their time, as long as the peer keeps reading them.
        return due if self._goodbye is None else max(due, self.last_sent + self.linger)

    def _frame_due(self) -> float:
        if self._frame_since is None or not self._reading:
            return inf
        return self._frame_since + self._times.frame

    def handle_timeout(self, now: float) -> ConnectionTerminated | None:
        """Do what is due at `now`: send a PING, or end the connection."""
        match self.state:
            case "WAIT_PREFACE":
                if now >= self._opened + self._times.preface:
                    self._move("time-out")  # RW-PREFACE-6
                    self._stop()
                    return ConnectionTerminated(None, False, "no preface in time")
            case "WAIT_HELLO" | "AUTHENTICATING":
                if now >= self._opened + self._times.handshake:
                    return self._time_out(now, "the handshake was not completed in time")  # RW-HELLO-4
                if now >= self._frame_due():
                    return self._time_out(now, "a frame was not completed in time")  # RW-FRAME-5
            case "OPEN" | "DRAINING":
                if now >= self._frame_due():
                    return self._time_out(now, "a frame was not completed in time")
                if self._reading and now >= self.last_received + 2 * self.heartbeat:
                    return self._time_out(now, "nothing received for two heartbeats")  # RW-HEARTBEAT-2
                self._keep_alive(now)
            case "CLOSING":
                if now >= self._linger_due():
                    self._move("time-out")
                    self._stop()
        return None

    def _time_out(self, now: float, text: str) -> ConnectionTerminated:
        self.goaway(Code.TIMEOUT, now, text=text, event="time-out")
        return ConnectionTerminated(Code.TIMEOUT, False, text)
