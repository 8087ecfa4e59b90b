"""The Node.js example passes the conformance suite as its users would run it: server, codec and client."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.client.cases import client_cases
from conformance.harness.selection import Selection
from conformance.spec.tables import load
from tests.support.places import ROOT
from tests.support.suite import of_each_section
from tests.support.tools import needs

_EXAMPLE = ROOT / "examples" / "node"
_SECONDS = 600  # for a role on a busy machine; alone it takes 5 to 15

pytestmark = needs("node")

# Short time-outs, so that cases that wait for one end soon, and a rate that slows no case down.
_LIMITS = {
    "ROOMWIRE_PREFACE_MS": "3000",
    "ROOMWIRE_HANDSHAKE_MS": "4000",
    "ROOMWIRE_FRAME_MS": "3000",
    "ROOMWIRE_HEARTBEAT_MS": "2000",
    "ROOMWIRE_DRAIN_MS": "1000",
    "ROOMWIRE_PUBLISH_RATE": "1000",
}

_CLIENT_CASES = Selection(words="not (waits or malformed or bad-header or never)").of(client_cases(), load())

# Each case of a client starts a program, so there are two of each section, but none that waits for long. The number is
# the least number of cases that have to pass: a run of almost no cases proves nothing.
_ROLES = {
    "server": ("server.mjs {port}", [], 300),
    "codec": ("codec-adapter.mjs", [], 500),
    "client": ("adapter.mjs {host} {port}", of_each_section(_CLIENT_CASES, 2), 45),
}


@pytest.mark.parametrize("role", _ROLES)
def test_conforms(role: str, tmp_path: Path) -> None:
    program, selection, passes = _ROLES[role]
    target = f"node {shlex.quote(str(_EXAMPLE))}/{program}"
    command = [sys.executable, "-m", "conformance.cli", role, "--exec", target, *selection]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **_LIMITS, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    summary = run.stdout.strip().splitlines()[-1]
    assert ("passes a part of the suite" if selection else "conforms in core") in summary, summary
    assert int(summary.split(" PASS")[0].split()[-1]) >= passes, summary
