"""The steps of a client's script, and the frames that break a rule."""

from random import Random

import pytest

from conformance.fuzz.client.broken_frames import BROKEN, ClientBench
from conformance.fuzz.client.player import AT_HELLO, STEPS
from conformance.fuzz.client.player import HANDSHAKES as NEVER_OPEN
from conformance.fuzz.client.steps import COMMANDS, HANDSHAKES, SERVER, ClientStep, script
from conformance.spec.tables import load
from conformance.wire.octets import HEADER, decode, read_header
from protocol.errors import RemoteProtocolError
from protocol.registry import Code


def test_steps_as_json() -> None:
    steps = [step for seed in range(300) for step in script(Random(seed), 3)]
    assert [ClientStep.from_json(step.to_json()) for step in steps] == steps
    assert {step.do for step in steps} == {*COMMANDS, *SERVER}
    assert all(simpler != step for step in steps for simpler in step.simpler())
    with pytest.raises(ValueError, match="dance"):
        ClientStep.from_json({"do": "dance"})


def test_functions_for_all_steps_and_handshakes() -> None:
    assert set(STEPS) == {*COMMANDS, *SERVER}
    assert AT_HELLO.keys().isdisjoint(NEVER_OPEN)
    assert {*AT_HELLO, *NEVER_OPEN} == set(HANDSHAKES)


def test_broken_frames() -> None:
    """The decoder refuses a frame with one of its codes, or accepts it where only the client can tell."""
    known = load().requirements
    for seed in range(20):
        bench = ClientBench(Random(seed), 5, 4, 0x7000_0000, 65_536)
        for name, breakage in BROKEN.items():
            assert breakage.requirement in known
            octets = breakage.make(bench)
            header = read_header(octets)
            if Code.FRAME_TOO_LARGE in breakage.codes:
                assert header.length > 65_536
                continue
            assert header.length == len(octets) - HEADER.size
            code: Code | None = None
            try:
                decode(header, octets[HEADER.size :], "S")
            except RemoteProtocolError as error:
                code = error.code
            assert code is None or code in breakage.codes, name
