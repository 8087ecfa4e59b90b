"""Watches both directions of a connection at the server, and checks the rules of SPEC.md on the order of frames."""

from collections import deque

from protocol.codec import decode
from protocol.frames import Ack, Goaway, Joined, Message, Unknown
from protocol.framing import FrameReader
from protocol.registry import PREFACE_SIZE, Code, Flag, FrameType

_NO_FINAL_REPLY = {FrameType.AUTH, FrameType.MESSAGE}


class WireTap:
    """Checks one connection. Raises AssertionError when the server's octets break a rule."""

    def __init__(self) -> None:
        self._server = FrameReader(2**24)
        self._client = FrameReader(2**24)
        self._skip = {"C": PREFACE_SIZE, "S": PREFACE_SIZE}
        self._requests: deque[int] = deque()
        self._echoed: set[tuple[int, int]] = set()  # (ref, seq) of the MESSAGEs written
        self._cursors: dict[int, int] = {}
        self._gone = False

    def from_client(self, octets: bytes) -> None:
        """Octets that the server is about to receive."""
        self._client.feed(self._after_preface("C", octets))
        while (raw := self._client.next_frame()) is not None:
            frame = decode(raw, "C")
            if frame.request:
                self._requests.append(frame.request)

    def from_server(self, octets: bytes) -> None:
        """Octets that the server has written."""
        self._server.feed(self._after_preface("S", octets))
        while (raw := self._server.next_frame()) is not None:
            frame = decode(raw, "S")
            assert not isinstance(frame, Unknown)
            assert not self._gone, "RW-CLOSE-1: a frame after GOAWAY"
            if frame.request:
                assert self._requests, "RW-REQUEST-2: a reply to no request"
                assert self._requests[0] == frame.request, "RW-REQUEST-3: replies in the order of requests"
                if frame.TYPE not in _NO_FINAL_REPLY:
                    self._requests.popleft()
            if isinstance(frame, Joined):
                self._cursors[frame.room] = frame.start - 1
            elif frame.TYPE in (FrameType.EVICTED, FrameType.OK) and frame.room:
                self._cursors.pop(frame.room, None)
            elif isinstance(frame, Ack):
                first = not frame.flags & Flag.DUPLICATE
                assert not first or (frame.room, frame.seq) not in self._echoed, "RW-PROMISE-11: ACK before echo"
            elif isinstance(frame, Message) and not frame.request:
                assert frame.room in self._cursors, "RW-LEAVE-2: the stream of a room that was left"
                assert frame.seq == self._cursors[frame.room] + 1, "RW-CURSOR-2: no hole, nothing twice"
                self._cursors[frame.room] = frame.seq
                self._echoed.add((frame.room, frame.seq))
            elif isinstance(frame, Goaway):
                self._gone = frame.code != Code.DRAINING

    def _after_preface(self, side: str, octets: bytes) -> bytes:
        skipped = octets[: self._skip[side]]
        self._skip[side] -= len(skipped)
        return octets[len(skipped) :]
