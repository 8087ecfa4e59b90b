"""The fuzzer of codecs."""

import subprocess
import sys
from dataclasses import replace

import pytest

from conformance.codec import reference
from conformance.fuzz import codec
from conformance.fuzz.options import Options
from conformance.wire.octets import encode, frame
from protocol.codec import RawFrame, decode
from protocol.frames import Join, Joined
from protocol.registry import Sender
from tests.support.places import ROOT


def test_codecs_that_agree() -> None:
    fuzz = codec.CodecFuzz(Options(seed=5, max_time=0, max_examples=3000))
    assert fuzz.run() == 0
    assert fuzz.stats.scripts >= 3000


def test_codec_that_differs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(raw: RawFrame, sender: Sender) -> object:
        value = decode(raw, sender)
        return replace(value, since=value.since ^ 1) if isinstance(value, Join) else value

    monkeypatch.setattr(codec, "decode", wrong)
    assert codec.CodecFuzz(Options(max_time=0, max_examples=20_000)).run() == 1
    assert "does not agree" in capsys.readouterr().out


def test_text_that_grows_when_read() -> None:
    """255 octets that are not UTF-8 are read as 765, which no text8 can hold."""
    hello = frame(0x01, b"\x03ada\xff" + b"\xff" * 255 + b"\0\0", request=1)
    assert codec.compare(hello, "C", written=True) is None


def test_program_that_differs() -> None:
    right = {"id": 1, "frame": "PING", "value": {"opaque": "00" * 8, "fields": [], "flags": 0, "request": 0, "room": 0}}
    assert codec.disagree("C", b"", right, right) is None
    assert codec.disagree("C", b"", right, {**right, "value": {**right["value"], "opaque": "11" * 8}})  # type: ignore[dict-item]
    assert codec.disagree("C", b"", right, {"error": "MALFORMED"})
    assert codec.disagree("C", b"", {"error": "MALFORMED"}, {"error": "BAD_HEADER"})


@pytest.mark.parametrize(("epoch", "start", "refused"), [(7, 0, True), (0, 1, True), (7, 1, False)])
def test_program_that_refuses_joined(epoch: int, start: int, refused: bool) -> None:
    """A codec may leave JOINED with an epoch or `start` of 0 to the client, or refuse it (RW-CURSOR-6)."""
    octets = encode(Joined(epoch, 3, start, 1, 1, "lobby", request=1, room=5))
    read = reference.answer({"id": 0, "op": "decode", "from": "S", "hex": octets.hex()})
    assert read["frame"] == "JOINED"
    assert (codec.disagree("S", octets, read, {"error": "MALFORMED"}) is None) == refused
    assert codec.disagree("S", octets, read, {"error": "BAD_HEADER"})


def test_example_for_a_codec() -> None:
    """examples/test_my_codec.py runs as it is."""
    example = ROOT / "examples" / "test_my_codec.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(example)]
    done = subprocess.run(command, cwd=example.parent.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
