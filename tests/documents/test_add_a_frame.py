"""CONTRIBUTING.md, "Add a frame": its example, declared in a copy of the packages, is a frame for all of them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.places import ROOT

SECTION = re.search(r"^## Add a frame\n.*?(?=^## )", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M | re.S)
PLACES = {
    "registry.py": re.compile(r"(?<=    STOP = 0x0048\n)"),
    "frames.py": re.compile(r"(?=@dataclass\(frozen=True, slots=True\)\nclass Unknown:)"),
}
"""Where a frame is declared in each of the two files: after the last one."""

PREAMBLE = """
    from protocol.codec import RawFrame, decode, encode
    from protocol.errors import RemoteProtocolError
    from protocol.frames import Ack, Hello, Ok, Topic, Unknown, Welcome
    from protocol.fields import extension
    from protocol.registry import Code, FrameType

    TOPIC = Topic("tea", 2**40, request=7, room=5)
    BODY = bytes.fromhex("03 746561 0000010000000000")
    OCTETS = bytes.fromhex("0000000C 0050 0000 00000007 00000005") + BODY
    RAW = RawFrame(0x50, 0, 7, 5, BODY)

    def refusal(raw):
        try:
            decode(raw, "C")
        except RemoteProtocolError as error:
            return error.code.name
"""

CHECKS = {
    "is-encoded-and-decoded": """
        from protocol.wire import decode_body
        assert encode(TOPIC) == OCTETS
        assert decode(RAW, "C") == TOPIC
        assert decode(RAW, "S") == Unknown(0x50, BODY, 0, 7, 5)
        assert decode_body(FrameType.TOPIC, BODY)["until_ms"] == 2**40
        from conformance.wire import octets
        assert octets.encode(TOPIC) == OCTETS
        assert octets.decode(octets.read_header(OCTETS), BODY, "C") == TOPIC
    """,
    "is-refused-where-its-rule-says": """
        assert refusal(RAW) is None
        assert refusal(RAW._replace(request=0)) == "BAD_HEADER"
        assert refusal(RAW._replace(room=0)) == "BAD_HEADER"
        assert refusal(RAW._replace(flags=0x8000)) == "BAD_HEADER"
        assert refusal(RAW._replace(body=BODY[:-1])) == "MALFORMED"
        assert refusal(RAW._replace(body=BODY + bytes(4))) == "UNKNOWN_FIELD"
        assert refusal(RAW._replace(body=BODY[:4] + b"\\x00\\x20" + BODY[6:])) == "RANGE_INVALID"
    """,
    "is-an-event-where-state-and-extension-allow-it": """
        from protocol.events import ConnectionTerminated, RequestRefused
        from protocol.server import ServerConnection, ServerTimes

        def heard(*names, handshake=True):
            server = ServerConnection(0.0, ServerTimes())
            list(server.receive_data(bytes.fromhex("F5525750 01010000"), 0.0))
            if handshake:
                list(server.receive_data(encode(Hello("ada", "ANONYMOUS", b"", request=1)), 0.0))
                fields = tuple(map(extension, names))
                server.welcome(Welcome(1, "ada", 0, 65536, 30000, 0, 9, 9, b"", fields=fields, request=1))
            return list(server.receive_data(OCTETS, 0.0))

        assert heard("topic") == [TOPIC]
        (refused,) = heard("history")
        assert isinstance(refused, RequestRefused) and refused.code == Code.UNKNOWN_REQUEST
        (ended,) = heard(handshake=False)
        assert isinstance(ended, ConnectionTerminated) and ended.code == Code.UNEXPECTED
    """,
    "is-drawn-by-the-fuzzer": """
        from hypothesis import HealthCheck, Phase, find, given, settings
        from conformance.fuzz.strategies import FRAMES, frames

        # The same on each machine, however busy.
        busy = settings(
            deadline=None, derandomize=True, database=None, max_examples=1000, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )

        @settings(busy, max_examples=100)
        @given(FRAMES[FrameType.TOPIC])
        def drawn(frame):
            raw = RawFrame(0x50, frame.flags, frame.request, frame.room, encode(frame)[16:])
            assert isinstance(frame, Topic) and frame.request and frame.room and decode(raw, "C") == frame

        drawn()
        find(frames("C"), lambda frame: frame.TYPE == FrameType.TOPIC, settings=busy)
    """,
    "is-awaited-by-the-suite": """
        from conformance.server.invariants import Invariants

        def breaches(reply):
            found = []
            invariants = Invariants(lambda requirement, expected, got: found.append(requirement))
            invariants.welcome = Welcome(1, "ada", 0, 65536, 30000, 0, 9, 9, b"", request=1)
            invariants.sent(TOPIC)
            invariants.received(reply)
            return found

        assert breaches(Ok(request=7, room=5)) == []
        assert breaches(Ack(1, 2, request=7, room=5)) == ["RW-REQUEST-2"]
        assert breaches(Ok(request=8, room=5)) == ["RW-REQUEST-2"]
    """,
    "needs-its-extension-for-the-suite": """
        from conformance.client.invariants import CaseInvariants, Invariants

        def breaches(*names):
            found = []
            invariants = Invariants(lambda requirement, expected, got: found.append(requirement), CaseInvariants())
            invariants.hello = Hello("ada", "ANONYMOUS", b"", request=1)
            invariants.refs.add(5)
            fields = tuple(map(extension, names))
            invariants.sent(Welcome(1, "ada", 0, 65536, 30000, 0, 9, 9, b"", fields=fields, request=1))
            invariants.received(TOPIC)
            return found

        assert breaches("topic") == []
        assert breaches("history") == ["RW-EXT-1"]
    """,
}


def declaration() -> dict[str, str]:
    """What CONTRIBUTING.md declares, by the file that it goes to."""
    assert SECTION
    number, cls = (dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```", SECTION[0], re.M | re.S))
    return {"registry.py": f"    {number}", "frames.py": f"{cls}\n\n"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages in which the frame of CONTRIBUTING.md is declared."""
    root = tmp_path_factory.mktemp("packages")
    for package in ("protocol", "conformance"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "SPEC.md", root)
    for name, added in declaration().items():
        path = root / "protocol" / name
        before, after = PLACES[name].split(path.read_text("utf-8"))
        path.write_text(before + added + after, "utf-8")
    return root


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)


def test_two_places_are_named() -> None:
    assert SECTION
    (step,) = re.findall(r"^\d\. \*\*Declaration\.\*\*.*?(?=^\d\. )", SECTION[0], re.M | re.S)
    assert "Two places in `protocol/`" in step
    assert set(declaration()) == set(PLACES)


@pytest.mark.parametrize("check", CHECKS)
def test_added_frame(copy: Path, check: str) -> None:
    done = run(copy, "-c", dedent(PREAMBLE) + dedent(CHECKS[check]))
    assert done.returncode == 0, done.stderr


def test_added_frame_is_missing_in_the_document(copy: Path) -> None:
    """The document comes first: its test fails in the copy, where only the code has the frame."""
    script = "from conformance.spec.tables import load; from protocol.registry import FrameType; " + (
        "print({type.name for type in FrameType} - load().frames.keys())"
    )
    assert run(copy, "-c", script).stdout.strip() == "{'TOPIC'}"
