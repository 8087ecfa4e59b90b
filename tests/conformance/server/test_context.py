"""How long the suite waits for a target's time-outs."""

import pytest

from conformance.harness.options import Options
from conformance.harness.verdicts import Informative
from conformance.server.context import Context
from conformance.server.target import ServerTarget


def test_time_outs_that_are_declared() -> None:
    options = Options(timeout=1.0, patience=10.0, limits={"frame_ms": 4_000, "drain_ms": 60_000})
    t = Context(ServerTarget("127.0.0.1", 1, 1.0), options)
    assert t.time_out("preface_ms") == 10.0
    assert t.time_out("frame_ms") == 5.0
    with pytest.raises(Informative):
        t.time_out("drain_ms")
