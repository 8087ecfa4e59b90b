"""The client's end of a connection (SPEC.md, sections 6, 8.1 and 9)."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.codec import decode, encode
from protocol.connection import HEARTBEAT_SHARE, Connection, require
from protocol.errors import Malformed, RemoteProtocolError, SequenceBroken, Unexpected, UnknownType
from protocol.events import (
    Challenged,
    ClientEvent,
    Connected,
    ConnectionTerminated,
    DrainStarted,
    Received,
    Replied,
)
from protocol.frames import (
    REPLIES,
    RULES,
    Auth,
    Error,
    Evicted,
    Field,
    Frame,
    Goaway,
    Hello,
    History,
    Join,
    Joined,
    Leave,
    Message,
    Ping,
    Pong,
    Publish,
    Stop,
    Unknown,
    Welcome,
)
from protocol.framing import RawFrame, frame_name
from protocol.registry import LIMITS, MAGIC, PREFACE_SIZE, VERSION, Code, Flag, FrameType, is_ignorable
from protocol.state import CLIENT_ACCEPTS, CLIENT_MACHINE, CLIENT_REFUSES, MEMBERSHIP_MACHINE, advance

_PREFACE = MAGIC + bytes((VERSION, VERSION, 0, 0))


@dataclass(slots=True)
class Membership:
    """A room that this connection is in, is joining or is leaving (SPEC.md, section 9).

    `cursor` is the seq of the last message received, in the log `epoch`. From JOINED on, `name` is as the server spells
    it.
    """

    name: str
    ref: int = 0
    epoch: int = 0
    cursor: int = 0
    state: str = "OUT"

    def move(self, event: str) -> None:
        self.state = advance(MEMBERSHIP_MACHINE, self.state, event)


class ClientConnection(Connection):
    """The client's end: requests become octets, and octets of the server become events.

    It sends `hello` as soon as the prefaces are exchanged. `memberships` maps room refs to rooms.
    """

    __slots__ = (
        "_handshake",
        "_hello",
        "_next_request",
        "_opened",
        "_outstanding",
        "_preface",
        "_reading",
        "_refused",
        "memberships",
        "version",
        "welcome",
    )

    def __init__(
        self,
        hello: Hello,
        now: float,
        *,
        handshake: float = LIMITS["handshake_ms"].default / 1000,
        linger: float = LIMITS["linger_ms"].default / 1000,
    ) -> None:
        super().__init__(CLIENT_MACHINE, "CONNECTING", now, linger)
        require(hello.request != 0, "HELLO is a request: its number is not 0")
        self._hello = hello
        self._handshake = handshake
        self._opened = now
        self._preface = b""
        self._next_request = hello.request
        self._outstanding: deque[tuple[int, Frame, Membership | None]] = deque()
        self._reading = True
        self._refused = False  # HELLO was answered with ERROR
        self.memberships: dict[int, Membership] = {}
        self.version: int | None = None  # the server's choice; 0: none in common
        self.welcome: Welcome | None = None

    # --- requests

    @property
    def can_request(self) -> bool:
        """Whether the state and the window allow one more request now (RW-REQUEST-5, RW-DRAIN-1)."""
        return self.state == "OPEN" and self.welcome is not None and len(self._outstanding) < self.welcome.window

    @property
    def outstanding(self) -> int:
        """The number of unanswered requests."""
        return len(self._outstanding)

    def transport_up(self, now: float) -> None:
        """Send the preface: the transport is connected."""
        self._move("transport up")
        self._opened = self.last_received = self._now = now
        self._out.append(_PREFACE)

    def authenticate(self, data: bytes) -> None:
        """Answer a Challenged with AUTH."""
        require(self.state == "HELLO_SENT", "there is no handshake under way")
        self._out.append(encode(Auth(data, request=self._hello.request)))

    def join(self, name: str, epoch: int = 0, since: int = 0, *, roster: bool = True) -> int:
        """Send JOIN and return its number. Raises LocalProtocolError, as all requests do, if it is not allowed."""
        flags = Flag.ROSTER if roster else 0
        membership = Membership(name, epoch=epoch)
        membership.move("send JOIN")
        return self._request(Join(name, epoch, since, flags=flags, request=self._number()), membership)

    def leave(self, ref: int) -> int:
        """Send LEAVE. The room's stream continues until the reply."""
        membership = self.memberships.get(ref)
        require(membership is not None and membership.state == "IN", f"not in the room {ref}")
        number = self._request(Leave(request=self._number(), room=ref), membership)
        assert membership is not None
        membership.move("send LEAVE")
        return number

    def publish(
        self, ref: int, id: bytes, ctype: int, payload: bytes, *, ordered: bool = False, fields: tuple[Field, ...] = ()
    ) -> int:
        """Send PUBLISH."""
        require(ref in self.memberships, f"not in the room {ref}")  # RW-MODEL-8
        flags = Flag.ORDERED if ordered else 0
        return self._request(Publish(id, ctype, payload, fields=fields, flags=flags, request=self._number(), room=ref))

    def history(self, ref: int, start: int, end: int = 0, limit: int = 0, *, newest: bool = False) -> int:
        """Send HISTORY."""
        require(ref in self.memberships, f"not in the room {ref}")
        flags = Flag.NEWEST if newest else 0
        return self._request(History(start, end, limit, flags=flags, request=self._number(), room=ref))

    def stop(self) -> int:
        """Send STOP."""
        return self._request(Stop(request=self._number()))

    def ping(self, opaque: bytes = bytes(8)) -> None:
        """Send PING."""
        require(self.state in ("OPEN", "DRAINING"), f"no PING in the state {self.state}")
        self._out.append(encode(Ping(opaque)))

    def close(self, now: float, code: Code = Code.NONE, text: str = "") -> None:
        """End the connection, with a GOAWAY if the peer can understand it."""
        if self.state in ("HELLO_SENT", "OPEN", "DRAINING"):
            self.goaway(code, now, text=text)
        elif self.state in ("CONNECTING", "PREFACE"):
            self._move("close")
            self._stop()

    def _number(self) -> int:
        """RW-REQUEST-1: the next number, of 32 bits, never 0, and far from those that are unanswered."""
        self._next_request = self._next_request % 0xFFFFFFFF + 1
        return self._next_request

    def _request(self, frame: Frame, membership: Membership | None = None) -> int:
        require(
            self.can_request, "the window is full" if self.state == "OPEN" else f"no requests in the state {self.state}"
        )
        self._out.append(encode(frame))
        self._outstanding.append((frame.request, frame, membership))
        return frame.request

    # --- receiving

    def receive_data(self, data: bytes, now: float) -> Iterator[ClientEvent]:
        """Take octets and return their events. Iterate over all of them before the next call."""
        self._now = now
        self.last_received = now
        if self._deaf:
            return iter(())
        if self.state == "PREFACE":
            data = self._receive_preface(data)
            if self.state == "CLOSED":
                wrong = "speak Roomwire" if self.version is None else f"speak version {VERSION} of Roomwire"
                return iter((ConnectionTerminated(None, True, f"the other end does not {wrong}"),))
        self._reader.feed(data)
        return self._events()

    def _events(self) -> Iterator[ClientEvent]:
        now = self._now
        while self.state in ("HELLO_SENT", "OPEN", "DRAINING"):
            try:
                raw = self._reader.next_frame()
                if raw is None:
                    break
                event = self._interpret(raw)
            except RemoteProtocolError as error:
                self._fail(error, now)  # RW-CHECK-3
                yield ConnectionTerminated(error.code, False, str(error))
                break
            if event is not None:
                yield event
            if self.state == "DRAINING" and not self._outstanding:
                self.goaway(Code.NONE, now, event="all replied")  # RW-DRAIN-4
        if self.state == "CLOSING" and not self._deaf:
            if self._refused:
                yield from self._after_refusal()
            else:
                self._drop_input()

    def _after_refusal(self) -> Iterator[ClientEvent]:
        """Report the GOAWAY after an ERROR to HELLO: it says when to come back (RW-HELLO-3, RW-RECONNECT-2)."""
        try:
            while (raw := self._reader.next_frame()) is not None:
                frame = decode(raw, "S") if raw.type == FrameType.GOAWAY else None
                if isinstance(frame, Goaway):
                    self._move("GOAWAY")
                    self._stop()
                    yield ConnectionTerminated(frame.code, True, frame.text, frame)
                    return
        except RemoteProtocolError:
            self._deaf = True  # wait for the end of the stream only

    def _receive_preface(self, data: bytes) -> bytes:
        preface = self._preface + data[: PREFACE_SIZE - len(self._preface)]
        rest = data[len(preface) - len(self._preface) :]
        self._preface = preface
        if len(preface) > 4 and preface.startswith(MAGIC):
            self.version = preface[4]
        wrong = not MAGIC.startswith(preface[:4]) or (len(preface) > 4 and preface[4] != VERSION)
        if wrong:
            self._move("wrong preface")  # RW-PREFACE-5, RW-PREFACE-8
            self._stop()
        elif len(preface) == PREFACE_SIZE:
            self._move("preface")
            self._out.append(encode(self._hello))
        return rest

    def _interpret(self, raw: RawFrame) -> ClientEvent | None:
        if self.state == "HELLO_SENT" and raw.type not in CLIENT_ACCEPTS and not is_ignorable(raw.type):
            raise Unexpected(frame_name(raw.type), expected="WELCOME, AUTH, ERROR or GOAWAY")
        frame = decode(raw, "S")
        if isinstance(frame, Unknown):
            self._unknown(frame)
            return None
        if isinstance(frame, Message) and not frame.request:
            return Received(frame) if self._sequenced(frame.room, frame.seq, "MESSAGE") else None
        if isinstance(frame, Goaway):
            return self._goaway_received(frame)
        if self.state == "HELLO_SENT":
            return self._handshake_step(frame)
        if frame.TYPE in CLIENT_REFUSES:
            raise Unexpected(frame.TYPE.name, expected="no handshake after WELCOME")
        if isinstance(frame, Ping):
            self._out.append(encode(Pong(frame.opaque)))  # RW-PING-1
            return None
        if isinstance(frame, Pong):
            return None
        if frame.request:
            return self._replied(frame)
        membership = self._member(frame.room, frame.TYPE.name)
        if isinstance(frame, Evicted):
            membership.move("EVICTED")
            del self.memberships[frame.room]
        return Received(frame)

    def _unknown(self, frame: Unknown) -> None:
        if not is_ignorable(frame.type):
            raise UnknownType(f"0x{frame.type:04X}", expected="a type that clients receive")  # RW-TYPE-4
        seq = frame.seq
        if seq is not None and not frame.request and frame.room in self.memberships:
            self._sequenced(frame.room, seq, f"0x{frame.type:04X}")  # RW-TYPE-5

    def _member(self, ref: int, frame: str) -> Membership:
        membership = self.memberships.get(ref)
        if membership is None:  # RW-STREAM-3
            raise Unexpected(frame, "room", "a room that this client is in", str(ref))
        return membership

    def _sequenced(self, ref: int, seq: int, frame: str) -> bool:
        """Move the cursor. Return whether the frame is new."""
        membership = self._member(ref, frame)
        if seq <= membership.cursor:
            return False  # RW-STREAM-1
        if seq > membership.cursor + 1:  # RW-STREAM-2
            raise SequenceBroken(frame, "seq", str(membership.cursor + 1), str(seq))
        membership.cursor = seq
        return True

    def _handshake_step(self, frame: Frame) -> ClientEvent | None:
        if frame.request != self._hello.request:
            raise Unexpected(frame.TYPE.name, "request", str(self._hello.request), str(frame.request))
        if isinstance(frame, Auth):
            self._move("AUTH")
            return Challenged(frame.data)
        if isinstance(frame, Error):
            self._move("ERROR")
            self._refused = True
            self._begin_closing(self._now)
            return Replied(self._hello, frame)
        if not isinstance(frame, Welcome):
            raise Unexpected(frame.TYPE.name, expected="WELCOME, AUTH or ERROR")
        for name in ("max_body", "heartbeat_ms", "window", "max_rooms"):
            limit, found = LIMITS[name], getattr(frame, name)
            if not limit.low <= found <= limit.high:  # RW-WELCOME-7
                raise Malformed("WELCOME", name, f"{limit.low} to {limit.high}", str(found))
        self._move("WELCOME")
        self.welcome = frame
        self.heartbeat = frame.heartbeat_ms / 1000
        self._reader.max_body = frame.max_body
        return Connected(frame)

    def _replied(self, frame: Frame) -> ClientEvent:
        if not self._outstanding or self._outstanding[0][0] != frame.request:  # RW-REQUEST-8
            due = str(self._outstanding[0][0]) if self._outstanding else "no reply"
            raise Unexpected(frame.TYPE.name, "request", due, str(frame.request))
        _, request, membership = self._outstanding[0]
        if frame.TYPE is RULES[request.TYPE].part:
            return Received(frame)  # RW-HISTORY-3: the cursor stays
        if frame.TYPE not in REPLIES[request.TYPE]:
            raise Unexpected(frame.TYPE.name, expected=f"a reply to {request.TYPE.name}")
        self._outstanding.popleft()
        if membership is not None:
            self._membership_replied(membership, frame)
        return Replied(request, frame)

    def _membership_replied(self, membership: Membership, frame: Frame) -> None:
        if membership.state == "OUT":
            return  # RW-REQUEST-7: EVICTED arrived before the reply to LEAVE
        refused = membership.state == "LEAVING" and isinstance(frame, Error) and frame.code == Code.NOT_JOINED
        membership.move("ERROR(NOT_JOINED)" if refused else frame.TYPE.name)
        if isinstance(frame, Joined):
            for name in ("epoch", "start"):
                if not getattr(frame, name):  # RW-CURSOR-6
                    raise Malformed("JOINED", name, "other than 0", "0")
            if frame.room in self.memberships:
                raise Unexpected("JOINED", "room", "a room that this client is not in", str(frame.room))
            membership.ref, membership.name = frame.room, frame.name
            membership.epoch, membership.cursor = frame.epoch, frame.start - 1  # RW-CURSOR-4
            self.memberships[frame.room] = membership
        elif membership.state == "OUT" and membership.ref:
            del self.memberships[membership.ref]

    def _goaway_received(self, frame: Goaway) -> ClientEvent:
        if frame.code == Code.DRAINING and self.state == "OPEN":
            self._move("GOAWAY(DRAINING)")
            return DrainStarted(frame)
        self._move("GOAWAY")
        self._say_goaway(Code.NONE)  # RW-CLOSE-4
        self._stop()
        return ConnectionTerminated(frame.code, True, frame.text, frame)

    # --- time

    def pause_reading(self) -> None:
        """Note that the driver stops reading the transport."""
        self._reading = False

    def resume_reading(self, now: float) -> None:
        """RW-HEARTBEAT-3: time in which the client did not read does not count as the server's silence."""
        self._reading = True
        self.last_received = now

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due next, unless something happens before."""
        match self.state:
            case "CONNECTING" | "PREFACE" | "HELLO_SENT":
                return self._opened + self._handshake
            case "OPEN" | "DRAINING":
                due = self.last_sent + HEARTBEAT_SHARE * self.heartbeat
                return min(due, self.last_received + 2 * self.heartbeat) if self._reading else due
            case "CLOSING" if self._closing_since is not None:
                return self._closing_since + self.linger
        return None

    def handle_timeout(self, now: float) -> ConnectionTerminated | None:
        """Do what is due at `now`: send a PING, or end the connection."""
        match self.state:
            case "CONNECTING" | "PREFACE":
                if now >= self._opened + self._handshake:
                    self._move("time-out")
                    self._stop()
                    return ConnectionTerminated(None, False, "the server did not answer in time")
            case "HELLO_SENT":
                if now >= self._opened + self._handshake:
                    return self._time_out(now, "no WELCOME in time")
            case "OPEN" | "DRAINING":
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
