"""The targets of fuzzing guided by coverage: functions of octets that raise if the octets show a fault.

They need only this repository. `tests.fuzz.guided` hands them to atheris.
"""

from collections.abc import Callable

from conformance.fuzz.codec import compare
from conformance.fuzz.server.mutations import judge
from conformance.fuzz.stats import Stats
from conformance.wire.octets import CLIENT_PREFACE, HEADER, encode, frame
from protocol.events import ServerEvent
from protocol.frames import Hello, Join, Ping, Publish, Unknown, Welcome
from protocol.registry import GREASE, Sender
from protocol.server import ServerConnection, ServerTimes
from tests.support.hub_network import HubNetwork

_ROOM = "guided"
_TIMES = ServerTimes(5.0, 10.0, 30.0, 2.0)


def decoder(octets: bytes) -> None:
    """The first octet says which end sends the frame, the rest is the frame, whose length is corrected.

    The code made of the declarations has to read it as construct does, and to write it again.
    """
    if len(octets) <= HEADER.size:
        return
    sender: Sender = "C" if octets[0] & 1 else "S"
    whole = (len(octets) - 1 - HEADER.size).to_bytes(4, "big") + octets[5:]
    differs = compare(whole, sender, written=True)
    assert differs is None, differs


def connection(octets: bytes) -> None:
    """Two ServerConnections that answer only HELLO receive the octets, one in pieces and one at once.

    Both have the same events and send the same, and what they send is well-formed (RW-FRAME-4).
    """
    if not octets:
        return
    at_once = _heard(octets[1:], len(octets))
    in_pieces = _heard(octets[1:], 1 + octets[0] % 40)
    assert at_once == in_pieces, (at_once, in_pieces)


def _heard(octets: bytes, size: int) -> tuple[list[ServerEvent], bytes, str]:
    """Returns the events of a connection that receives octets in pieces, what it sends, and its state."""
    conn = ServerConnection(0.0, _TIMES)
    heard: list[ServerEvent] = []
    for at in range(0, len(octets), size):
        events = conn.receive_data(octets[at : at + size], 0.0)
        before = -1
        while before < len(heard):
            before = len(heard)
            for event in events:
                heard.append(event)
                if isinstance(event, Hello):
                    conn.welcome(Welcome(7, "ada", 1, 65_536, 30_000, 0, 32, 256, b"", request=event.request))
            events = conn.events()
    said = conn.data_to_send(0.0)
    judge(said, Stats())
    return heard, said, conn.state


def server(octets: bytes) -> None:
    """A client sends the octets behind HELLO and JOIN to the whole server without I/O, in pieces; another is served.

    What the first client receives is well-formed, and the PING of the other one is answered.
    """
    if not octets:
        return
    network = HubNetwork(1)
    other, wire = network.connect(), network.connect()
    begin = CLIENT_PREFACE + encode(Hello("ada", "ANONYMOUS", b"", request=1)) + encode(Join(_ROOM, 0, 0, request=2))
    for one in (other, wire):
        one.write(begin)
    size = 1 + octets[0] % 60
    for at in range(1, len(octets), size):
        wire.write(octets[at : at + size])
    wire.eof()
    other.write(encode(Ping(b"still on")))
    network.wait(0)
    judge(wire.read(), Stats())
    assert b"still on" in other.read()


TARGETS: dict[str, Callable[[bytes], None]] = {"decoder": decoder, "connection": connection, "server": server}
"""By name."""


def seeds(target: str) -> list[bytes]:
    """Returns the octets that fuzzing starts with."""
    frames = [
        encode(Hello("ada", "ANONYMOUS", b"", request=1)),
        encode(Join(_ROOM, 0, 0, request=3)),
        encode(Publish(bytes(16), 0, b"hello", request=4, room=1)),
        encode(Ping(b"12345678")),
        encode(Unknown(GREASE[0], b"grease")),
        frame(0x14, b"", request=5, room=1),
        frame(0x40, bytes(18), request=6, room=1),
        frame(0x08, bytes(12)),
    ]
    if target == "decoder":
        return [first + one for one in frames for first in (b"\0", b"\1")]
    if target == "connection":
        return [b"\7" + CLIENT_PREFACE + b"".join(frames[:count]) for count in range(len(frames))]
    return [b"\7" + b"".join(frames[1:count]) for count in range(2, len(frames))]
