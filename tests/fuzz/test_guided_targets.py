"""The targets of `tests.fuzz.guided` without atheris: they pass with octets of all kinds, and fail for faults."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from conformance.fuzz import codec
from conformance.fuzz.server.mutations import mutated
from protocol.codec import RawFrame, decode
from protocol.frames import Ping
from protocol.registry import Sender
from protocol.server import ServerConnection
from tests.fuzz import guided
from tests.fuzz.guided_targets import TARGETS, seeds
from tests.support.places import ROOT


@pytest.mark.parametrize("name", list(TARGETS))
def test_targets_with_octets_of_all_kinds(name: str) -> None:
    random, target = Random(1), TARGETS[name]
    for octets in (b"", b"\0", bytes(17), *seeds(name)):
        target(octets)
    for _ in range(150):
        target(mutated(random, random.choice(seeds(name)), random.choice(seeds(name))))
        target(random.randbytes(random.randrange(80)))


def test_choices_of_the_command() -> None:
    assert tuple(TARGETS) == guided.TARGETS


def test_decoders_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(raw: RawFrame, sender: Sender) -> object:
        value = decode(raw, sender)
        return Ping(b"wrong...") if isinstance(value, Ping) else value

    monkeypatch.setattr(codec, "decode", wrong)
    with pytest.raises(AssertionError):
        _all_seeds("decoder")


@pytest.mark.parametrize("name", ["connection", "server"])
def test_connection_that_minds_its_slicing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ServerConnection.receive_data

    def receive_data(self: ServerConnection, data: bytes, now: float) -> object:
        if len(data) == 8 and self.state == "OPEN":
            raise RuntimeError("eight octets")
        return plain(self, data, now)

    monkeypatch.setattr(ServerConnection, "receive_data", receive_data)
    with pytest.raises(RuntimeError, match="eight octets"):
        _all_seeds(name)


def _all_seeds(name: str) -> None:
    for octets in seeds(name):
        TARGETS[name](octets)


def test_command_without_atheris(tmp_path: Path) -> None:
    (tmp_path / "atheris.py").write_text("raise ImportError('no wheel')\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", "decoder"],
        cwd=ROOT,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "needs atheris" in done.stderr
