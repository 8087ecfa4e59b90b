"""Servers that the suite starts."""

import asyncio
import json
import shlex
from pathlib import Path

import pytest

from conformance.harness.process import Unreachable
from conformance.server.target import OFFERED, LaunchedServer
from tests.support.suite import PYTHON


def test_limits_in_the_environment(tmp_path: Path) -> None:
    source = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    path = tmp_path / "seen.json"
    server = LaunchedServer(f"{PYTHON} -c {shlex.quote(source)} {shlex.quote(str(path))} {{port}}", 5.0)
    own = server.another(max_rooms=4)

    async def start() -> None:
        try:
            with pytest.raises(Unreachable):
                await own.start()
        finally:
            await own.stop()

    asyncio.run(start())
    seen = json.loads(path.read_text())
    assert seen["ROOMWIRE_MAX_ROOMS"] == "4"
    assert int(seen["ROOMWIRE_PUBLISH_RATE"]) == OFFERED["publish_rate"]
    assert server.limits == OFFERED
    assert "preface_ms" not in own.limits  # no case waits for it at that server
