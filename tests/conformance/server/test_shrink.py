"""Replay files that are shrunk."""

from dataclasses import replace
from pathlib import Path

import pytest

from conformance.commands.selftest_server import Quirk, SmallServer, serving
from conformance.harness.verdicts import Verdict
from conformance.server import replay
from conformance.server.shrink import shrunk
from conformance.server.target import ServerTarget
from tests.support import virtual_time
from tests.support.suite import OPTIONS, run_at_small_server, select


@pytest.mark.parametrize(
    ("quirk", "id"),
    [
        ("loses-messages", "server/7.17/all-members"),
        ("echo-before-ack", "server/7.17/all-members"),
        ("wrong-code", "server/7.13/not-joined"),
    ],
)
def test_shrunk_failure(quirk: Quirk, id: str, tmp_path: Path) -> None:
    """The remaining steps fail in the same way, and a correct server passes them."""
    [failed] = run_at_small_server(quirk, select(id), replace(OPTIONS, replay_dir=tmp_path))
    script = replay.read(Path(failed.replay))
    quick = replace(OPTIONS, timeout=0.15)

    async def shrink() -> replay.Script:
        async with serving(SmallServer(quirk).connected) as port:
            return await shrunk(script, ServerTarget("127.0.0.1", port, 5.0), quick)

    shorter = virtual_time.run(shrink())
    assert len(shorter.steps) < len(script.steps)
    [again] = run_at_small_server(quirk, [shorter.case], quick)
    assert (again.verdict, again.requirement) == (Verdict.FAIL, failed.requirement)
    [other] = run_at_small_server("", [replace(shorter, compared=False).case], quick)
    assert other.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE), (other.expected, other.got)
