"""The invariants of a server's connections."""

from conformance.server.invariants import Invariants
from protocol.frames import Ack, Hello, Join, Joined, Leave, Message, Ok, Publish, Welcome
from protocol.registry import Flag


def test_message_of_an_earlier_membership() -> None:
    """A message may come back after its ACK, when the room has another ref, without breaking RW-PROMISE-11."""
    breaches: list[str] = []
    invariants = Invariants(lambda requirement, expected, got: breaches.append(requirement))
    id = bytes(16)
    invariants.sent(Hello("ada", "ANONYMOUS", b"", request=1))
    invariants.received(Welcome(9, "ada", 1, 65536, 30_000, 0, 32, 256, b"", request=1))
    for request, ref in ((2, 5), (5, 6)):
        invariants.sent(Join("x", 0, 9, request=request))
        invariants.received(Joined(7, request // 5, 1, 1, 1, "x", request=request, room=ref))
        if ref == 5:
            invariants.sent(Publish(id, 0, b"", request=3, room=5))
            invariants.received(Ack(1, 1, request=3, room=5))
        invariants.received(Message(1, 1, 9, id, 0, "ada", b"", flags=Flag.SEQ, room=ref))
        if ref == 5:
            invariants.sent(Leave(request=4, room=5))
            invariants.received(Ok(request=4, room=5))
    assert breaches == []
