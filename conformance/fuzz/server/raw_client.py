"""A client made of octets: one connection of a script, whose frames are judged as they come.

It decodes with the code that is made of the declarations (`protocol.codec`), because ten thousand frames a second count
here. The codec fuzzer compares that code with construct.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from conformance.fuzz.failure import Said, fail
from conformance.fuzz.server.model import Model, Stream
from conformance.fuzz.server.network import Wire
from conformance.fuzz.stats import Stats
from conformance.server.invariants import Invariants
from conformance.wire.octets import HEADER, Header, read_header, split_frames
from conformance.wire.text import code_name, frame_line
from protocol.codec import RawFrame, decode, encode
from protocol.errors import RemoteProtocolError
from protocol.frames import (
    Ack,
    Auth,
    Error,
    Evicted,
    Frame,
    Goaway,
    Message,
    Ping,
    Pong,
    Presence,
    Roster,
    Unknown,
    Welcome,
)
from protocol.registry import HELLO_MAX_BODY, MAGIC, PREFACE_SIZE, Code, Flag, PresenceKind, Sender

_BROKEN_BY = {Code.MALFORMED: "RW-FRAME-7", Code.BAD_HEADER: "RW-FRAME-6", Code.UNKNOWN_FIELD: "RW-EXT-1"}


@dataclass
class Due:
    """A request whose reply has not come. `judge` is called with the final reply, `lost` if there will be none.

    `messages` are those that HISTORY has brought so far.
    """

    request: int
    judge: Callable[[Frame], None]
    lost: Callable[[], None]
    messages: list[Message] = field(default_factory=list)


class RawClient:
    """One connection to a server. `log` is that of the whole script."""

    def __init__(self, label: str, wire: Wire, model: Model, stats: Stats, log: list[Said], now: float) -> None:
        self.label = label
        self.wire = wire
        self.model = model
        self.stats = stats
        self.log = log
        self.opened = now
        self.welcomed = now
        self.beat = now  # when it last sent something only to be alive
        self.preface = b""
        self.welcome: Welcome | None = None
        self.goaway: Goaway | None = None
        self.said_goaway = False
        self.half = False  # this side has sent a part of a frame: it can say nothing more
        self.aside = False  # it is in no room and waits for its end: no other client is told of it
        self.intact = True  # the server still knows where a frame begins
        self.paused = False
        self.slow = False  # it has been paused: the server may end the connection for that
        self.extended = False  # HISTORY may be used
        self.due: deque[Due] = deque()
        self.streams: dict[int, Stream] = {}
        self.leaving: set[int] = set()  # refs of rooms for which LEAVE is under way
        self.cursors: dict[int, tuple[int, int]] = {}  # by room number: epoch, seq
        self.pongs: dict[bytes, int] = {}  # PINGs that are not answered, with the request before each
        self.inbox = bytearray()  # what has come and is not judged yet
        self.errors: list[Error] = []  # to requests that have no judge
        self.challenges: list[Auth] = []
        self.nonce = b""  # of this side, where it logs in
        self.expects_end = False
        self.octets = 0  # received
        self.invariants = Invariants(fail)
        self._buffer = bytearray()
        self._request = 0

    # --- what others know of it: model.Member

    @property
    def member(self) -> int:
        return self.welcome.member if self.welcome else 0

    @property
    def granted(self) -> str:
        return self.welcome.name if self.welcome else ""

    @property
    def limit(self) -> int:
        """The limit for bodies that is in force, in octets."""
        return self.welcome.max_body if self.welcome else HELLO_MAX_BODY

    @property
    def open(self) -> bool:
        """Whether requests may be sent."""
        return self.welcome is not None and not (self.said_goaway or self.goaway or self.half or self.wire.ended)

    @property
    def busy(self) -> bool:
        """Whether something is due on this connection that others may be told of as well."""
        return not (self.paused or self.aside) and bool(self.due or self.pongs or self.expects_end)

    @property
    def state(self) -> str:
        """The server's state of this connection, as far as the wire tells."""
        if self.goaway_ends:
            return "CLOSING"
        if self.welcome:
            return "DRAINING" if self.goaway else "OPEN"
        return "WAIT_HELLO" if self.preface else "WAIT_PREFACE"

    @property
    def goaway_ends(self) -> bool:
        """Whether the server has sent its last frame."""
        return self.goaway is not None and self.goaway.code != Code.DRAINING

    # --- sending

    def next_request(self) -> int:
        """A request number that was not used on this connection."""
        self._request += 1
        return self._request

    def ping(self, opaque: bytes) -> bytes:
        """The octets of a PING, whose PONG is expected behind the replies to all requests before it."""
        self.pongs[opaque] = self._request
        return self.note(Ping(opaque))

    def note(self, frame: Frame | Unknown) -> bytes:
        """The octets of a frame that is about to be sent, of which the invariants are told."""
        self.invariants.sent(frame)
        if isinstance(frame, Goaway):
            self.said_goaway = True
        self.stats.sent += 1
        if self.welcome and not isinstance(frame, Goaway):
            self.stats.visit("server", self.state, "frame")
        return encode(frame)

    def note_octets(self, octets: bytes) -> None:
        """Tells the invariants of frames that may be broken."""
        frames, rest = split_frames(octets)
        for one in frames:
            header = read_header(one)
            try:
                frame = _decode(header, one[HEADER.size :], "C")
            except RemoteProtocolError:
                frame = Unknown(header.type, b"", flags=header.flags, request=header.request, room=header.room)
            self.invariants.sent(frame)
        self.stats.sent += len(frames) + bool(rest)
        self.half = self.half or bool(rest)

    def write(self, octets: bytes, cut: int = 0) -> None:
        """Sends octets in `cut` pieces; 0 and 1 stand for one."""
        self.log.append(Said(self.label, "C", octets))
        self.stats.told += len(octets)
        size = max(1, -(-len(octets) // max(1, cut)))
        for at in range(0, len(octets), size):
            self.wire.write(octets[at : at + size])

    def keep_alive(self, now: float) -> None:
        """Sends an octet in every H (RW-HEARTBEAT-1), also while the script reads nothing or only waits."""
        if self.open and not self.aside and self.welcome and now - self.beat > self.welcome.heartbeat_ms / 3000:
            self.beat = now
            self.write(self.note(Pong(b"I live..")))

    def ask(self, request: int, judge: Callable[[Frame], None], lost: Callable[[], None] = lambda: None) -> None:
        """Has the final reply to a request judged when it comes; `lost` is called if it never will."""
        self.due.append(Due(request, judge, lost))

    def pause(self, paused: bool) -> None:
        """Stops reading, or reads again. A server may leave things out for a client that has not read."""
        self.paused = paused
        if paused:
            self.slow = True
            for stream in self.streams.values():
                stream.slow = True
        self.wire.pause(paused)

    # --- receiving

    def take_in(self, data: bytes) -> None:
        """Judges octets of the server. Raises Failed."""
        self._buffer += data
        self.stats.octets += len(data)
        self.octets += len(data)
        buffer = self._buffer
        if not self.preface:
            if not MAGIC.startswith(buffer[:4]):
                self.log.append(Said(self.label, "S", bytes(buffer[:64])))
                fail("RW-PREFACE-2", f"a preface that begins with {MAGIC.hex()}", buffer[:8].hex())
            if len(buffer) < PREFACE_SIZE:
                return
            self.preface = bytes(buffer[:PREFACE_SIZE])
            self.log.append(Said(self.label, "S", self.preface))
            del buffer[:PREFACE_SIZE]
        at = 0
        while len(buffer) - at >= HEADER.size:
            header = Header(*HEADER.unpack_from(buffer, at))
            if header.length > self.limit:
                fail("RW-FRAME-3", f"a body of at most {self.limit} octets", f"a length of {header.length}")
            end = at + HEADER.size + header.length
            if end > len(buffer):
                break
            octets = bytes(buffer[at:end])
            at = end
            self.log.append(Said(self.label, "S", octets))
            self.stats.received += 1
            self._frame(_decoded(header, octets))
        del buffer[:at]

    def _frame(self, frame: Frame | Unknown) -> None:
        self.invariants.received(frame)
        match frame:
            case Message() if not frame.request:
                stream = self._stream(frame.room)
                self.stats.visit("membership", self._membership(frame.room), "stream frame")
                self.model.streamed(stream, frame)
                self.cursors[stream.room.number] = (stream.room.epoch, frame.seq)
            case Message():
                if self.due:
                    self.due[0].messages.append(frame)
            case Ping():
                if not (self.half or self.said_goaway or self.paused or self.goaway_ends):
                    self.write(self.note(Pong(frame.opaque)))
            case Pong():
                self._pong(frame)
            case Presence():
                self.model.presence(self, self._stream(frame.room), frame)
            case Roster():
                entries = [(entry.member, entry.name) for entry in frame.entries]
                reset, more = bool(frame.flags & Flag.RESET), bool(frame.flags & Flag.MORE)
                self.model.rostered(self, self._stream(frame.room), entries, reset=reset, more=more)
            case Evicted():
                self._evicted(frame)
            case Goaway():
                self._goaway(frame)
            case Auth():
                self.challenges.append(frame)
            case Unknown():
                pass
            case _ if frame.request:
                self._reply(frame)

    def _membership(self, ref: int) -> str:
        return "LEAVING" if ref in self.leaving else "IN"

    def _stream(self, ref: int) -> Stream:
        stream = self.streams.get(ref)
        if stream is None:  # the invariants fail first, except for frames that they do not know
            fail("RW-LEAVE-2", "no frame of a stream outside of a membership", f"room {ref}")
        return stream

    def _pong(self, frame: Pong) -> None:
        if frame.opaque not in self.pongs:
            fail("RW-PING-1", f"a PONG with one of {[p.hex() for p in self.pongs]}", frame_line(frame))
        before = self.pongs.pop(frame.opaque)
        if self.due and self.due[0].request <= before:
            fail("RW-PING-2", f"the reply to request {self.due[0].request} before the PONG", frame_line(frame))

    def _reply(self, frame: Frame) -> None:
        if isinstance(frame, Error):
            self.stats.codes["E", frame.code] += 1
        self.stats.acknowledged += isinstance(frame, Ack)
        if self.due and self.due[0].request == frame.request:
            due = self.due[0]
            due.judge(frame)
            self.due.popleft()
        elif isinstance(frame, Error):
            self.errors.append(frame)

    def _evicted(self, frame: Evicted) -> None:
        self.stats.codes["V", frame.code] += 1
        self.stats.visit("membership", self._membership(frame.room), "EVICTED")
        stream = self.streams.pop(frame.room, None)
        if stream is None:
            fail("RW-LEAVE-2", "no EVICTED outside of a membership", frame_line(frame))
        room = stream.room
        if frame.code == Code.LAGGED and stream.next > room.head + room.unknown:
            fail("RW-LAG-3", "no LAGGED for a member that was sent everything", frame_line(frame))
        if frame.code not in (Code.LAGGED, Code.ROOM_CLOSED, Code.KICKED, Code.BANNED, Code.LOG_RESET):
            fail("RW-CODE-1", "a code of class 6xx", frame_line(frame))
        if frame.code != Code.LAGGED and stream.slow:
            fail("RW-LAG-3", "LAGGED for a member that did not read", frame_line(frame))
        if stream.departed not in (0, PresenceKind.LEFT):
            fail("RW-PRESENCE-3", "PRESENCE(left) of a member that was evicted", "PRESENCE(lost)")
        self.model.gone(self, room, PresenceKind.LEFT, seen=True)

    def _goaway(self, frame: Goaway) -> None:
        self.stats.codes["G", frame.code] += 1
        if frame.code not in Code._value2member_map_:
            fail("RW-CODE-1", "a code of section 16", frame_line(frame))
        self.goaway = frame

    # --- the end

    def ended(self, kind: PresenceKind, *, seen: bool) -> None:
        """The connection is over: requests without a reply will get none, and it has left its rooms.

        `kind` is what PRESENCE tells the other members. `seen` says whether the server is known to have noticed.
        """
        while self.due:
            self.due.popleft().lost()
        for stream in self.streams.values():
            self.stats.visit("membership", "any", "end of stream")
            self.model.gone(self, stream.room, kind, seen=seen)
        self.streams.clear()
        self.stats.visit("server", "any", "end of stream")

    def last_words(self) -> str:
        """How the connection stands, for people."""
        goaway = f"GOAWAY({code_name(self.goaway.code)}) {self.goaway.text!r}, " if self.goaway else ""
        return f"{goaway}connection {'closed' if self.wire.ended else 'open'}"


def _decoded(header: Header, octets: bytes) -> Frame | Unknown:
    """Decodes a whole frame of the server. Raises Failed."""
    try:
        return _decode(header, octets[HEADER.size :], "S")
    except RemoteProtocolError as error:
        requirement = _BROKEN_BY.get(error.code, "RW-FRAME-7")
        fail(requirement, "a well-formed frame", f"{error} in {octets[:64].hex()}")


def _decode(header: Header, body: bytes, sender: Sender) -> Frame | Unknown:
    return decode(RawFrame(header.type, header.flags, header.request, header.room, body), sender)
