"""Mutated octets, and what a server may say to them."""

from random import Random

import pytest

from conformance.fuzz.server import mutations
from conformance.fuzz.stats import Stats
from conformance.harness.verdicts import Failed
from conformance.wire.octets import CLIENT_PREFACE, encode, frame
from protocol.frames import Error, Goaway, Hello, Join, Pong
from tests.support.hub_network import HubNetwork

SERVER_PREFACE = bytes.fromhex("F5525750 01000000")


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        (b"HTTP/1.1 400", "RW-PREFACE-2"),
        (SERVER_PREFACE[:4] + bytes(4) + b"x", "RW-PREFACE-4"),
        (SERVER_PREFACE + encode(Goaway(101)) + encode(Pong(bytes(8))), "RW-CLOSE-1"),
        (SERVER_PREFACE + frame(0x07, b"1234567"), "RW-FRAME-7"),
        (SERVER_PREFACE + encode(Error(101, request=1)), "RW-CODE-1"),
        (SERVER_PREFACE + encode(Goaway(999)), "RW-CODE-1"),
        (SERVER_PREFACE + frame(0x07, length=2**31), "RW-FRAME-3"),
    ],
)  # fmt: skip
def test_octets_that_no_server_may_send(said: bytes, rule: str) -> None:
    with pytest.raises(Failed) as failed:
        mutations.judge(said, Stats())
    assert failed.value.requirement == rule


def test_mutations_of_the_same_seed() -> None:
    said = CLIENT_PREFACE + encode(Hello("ada", "ANONYMOUS", b"", request=1)) + encode(Join("x", 0, 0, request=2))
    made = [[mutations.mutated(random, said, said[::-1]) for _ in range(200)] for random in (Random(1), Random(1))]
    assert made[0] == made[1]
    assert len(set(made[0])) > 150


def test_server_that_hangs() -> None:
    class Hung:
        ended = False

        def write(self, octets: bytes) -> None: ...

        def read(self) -> bytes:
            return b""

        def pause(self, paused: bool) -> None: ...

        def eof(self) -> None: ...

        def close(self, *, abort: bool = False) -> None: ...

    network = HubNetwork()
    network.connect = Hung  # type: ignore[method-assign,assignment]
    steps = mutations.burst_steps(Random(1), [CLIENT_PREFACE + frame(0x06, bytes(8))], 3)
    failure = mutations.burst(network, steps, Stats(), 1.0)
    assert failure is not None
    assert failure.requirement == "RW-CLOSE-2"
