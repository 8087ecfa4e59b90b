"""Memory and descriptors of a server that is fuzzed."""

import os
import sys

from conformance.fuzz.server import growth
from conformance.fuzz.server.growth import FREE_FILES, FREE_OCTETS, Growth, Sample


def _grown(memory: list[int], files: list[int], messages: int = 0, seconds: float = 200.0) -> tuple[str, bool]:
    pairs = list(zip(memory, files, strict=True))
    step = seconds / (len(pairs) - 1)
    samples = [Sample(at * step, *pair, 0, at * messages) for at, pair in enumerate(pairs)]
    return Growth(1, samples).judge()


def test_growth_rule() -> None:
    flat = [2**26] * 40
    few = [20] * 40
    assert _grown(flat, few) == (_grown(flat, few)[0], False)
    assert "flat" in _grown(flat, few)[0]
    leak = [2**26 + at * FREE_OCTETS // 4 for at in range(40)]
    assert _grown(leak, few)[1]
    assert not _grown(leak, few, messages=10_000)[1], "it may keep the messages"
    assert not _grown(leak, few, seconds=growth.JUDGED_AFTER - 1)[1]
    assert "too short" in _grown(leak, few, seconds=growth.JUDGED_AFTER - 1)[0]
    assert _grown(flat, [20] * 25 + [41 + FREE_FILES] * 15)[1]
    assert not _grown(flat, [20] * 25 + [40 + FREE_FILES] * 15)[1]
    filled = [2**24] * 5 + [2**28] * 35
    assert not _grown(filled, few)[1], "what fills up once does not count"
    assert Growth().judge() == ("", False)


def test_samples_of_another_process() -> None:
    watched = Growth()
    pid = os.getpid()
    watched.watch(pid, 1.0, 0, 0)
    watched.watch(pid, 1.5, 0, 0)
    assert [sample.seconds for sample in watched.samples] == ([1.0] if sys.platform == "linux" else [])
    watched.watch(0, 3.0, 0, 0)
    assert watched.samples == []
