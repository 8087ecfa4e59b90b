"""The table of failures in SPEC.md, section 6.3, against the registry of codes and both ends of a connection."""

import json
import re
from typing import Any

import pytest

from conformance.spec.tables import load
from protocol import frames
from protocol.client import ClientConnection
from protocol.codec import encode
from protocol.events import ClientEvent, ConnectionTerminated, RequestRefused, ServerEvent
from protocol.fields import extension
from protocol.registry import MAGIC, Code, FrameType
from protocol.server import ServerConnection, ServerTimes
from tests.support.places import ROOT

SPEC = load()
AT_SERVER = ("a request, at a server", "another frame, at a server")
AT_CLIENT = "a frame, at a client"
BY_FRAME = SPEC.document.table("6.3", "what fails in a frame", *AT_SERVER, AT_CLIENT, "requirements").rows
OTHERWISE = SPEC.document.table("6.3", "what fails otherwise", "at a server", "at a client", "requirements").rows
CARRIERS = {"ERROR": "E", "EVICTED": "V", "GOAWAY": "G"}
PREFACE = MAGIC + bytes((1, 0, 0, 0))
HELLO = frames.Hello("ada", "ANONYMOUS", b"", request=1)


def malformed() -> list[dict[str, Any]]:
    lines = (ROOT / "conformance" / "vectors" / "malformed.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


VECTORS = malformed()


EXTENSIONS = tuple(map(extension, ("admin", "history")))


def welcome(vector: dict[str, Any]) -> frames.Welcome:
    return frames.Welcome(1, "ada", 0, vector.get("limit", 65536), 30000, 0, 9, 9, b"", fields=EXTENSIONS, request=1)


def at_server(vector: dict[str, Any], octets: bytes, type: int) -> ServerEvent:
    """What a server reports of the octets: before WELCOME if they are HELLO's, otherwise after it."""
    server = ServerConnection(0.0, ServerTimes())
    list(server.receive_data(MAGIC + bytes((1, 1, 0, 0)), 0.0))
    if type not in (FrameType.HELLO, FrameType.AUTH):
        list(server.receive_data(encode(HELLO), 0.0))
        server.welcome(welcome(vector))
    elif type == FrameType.AUTH:
        list(server.receive_data(encode(HELLO), 0.0))
        server.challenge(b"")
    (event,) = server.receive_data(octets, 0.0)
    return event


def at_client(vector: dict[str, Any], octets: bytes, type: int) -> ClientEvent:
    """What a client reports of the octets: before WELCOME if they are WELCOME or AUTH, otherwise after it."""
    client = ClientConnection(HELLO, 0.0)
    client.transport_up(0.0)
    list(client.receive_data(PREFACE, 0.0))
    if type not in (FrameType.WELCOME, FrameType.AUTH):
        list(client.receive_data(encode(welcome(vector)), 0.0))
    (event,) = client.receive_data(octets, 0.0)
    return event


def cell(event: ServerEvent | ClientEvent) -> str:
    """The event as the table writes it."""
    if isinstance(event, RequestRefused):
        return f"ERROR({event.code.name})"
    assert isinstance(event, ConnectionTerminated)
    assert event.code is not None
    return f"GOAWAY({Code(event.code).name})"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_failure_of_a_vector_is_in_the_table(vector: dict[str, Any]) -> None:
    octets = bytes.fromhex(vector["hex"])
    type, request = int.from_bytes(octets[4:6]), int.from_bytes(octets[8:12])
    if vector["from"] == "S":
        column, found = AT_CLIENT, cell(at_client(vector, octets, type))
    else:
        column, found = AT_SERVER[not request], cell(at_server(vector, octets, type))
    if type == FrameType.HELLO or (type == FrameType.AUTH and vector["from"] == "C"):
        found = found.replace("GOAWAY", "ERROR") if vector["error"] in ("UNKNOWN_FIELD", "NAME_INVALID") else found
    assert found in {row[column] for row in BY_FRAME}
    assert found.endswith(f"({vector['error']})")


def test_vectors_reach_the_whole_table() -> None:
    """Each failure of a frame that a decoder can see has a vector; those of the state have none."""
    codes = {vector["error"] for vector in VECTORS}
    named = {code for row in BY_FRAME for code in re.findall(r"\((\w+)\)", " ".join(row.values()))}
    assert named - codes == {"UNEXPECTED"}


def test_frames_of_the_table_carry_their_codes() -> None:
    for row in (*BY_FRAME, *OTHERWISE):
        for frame, code in re.findall(r"(\w+)\((\w+)\)", " ".join(row.values())):
            assert CARRIERS[frame] in SPEC.codes[code].carriers, row


def test_framing_codes_stand_in_the_table() -> None:
    """Every code of the classes 1xx, and each that a check before the frame's own checks earns."""
    text = " ".join(" ".join(row.values()) for row in (*BY_FRAME, *OTHERWISE))
    assert {name for name, row in SPEC.codes.items() if 100 <= row.number < 200} <= set(re.findall(r"\((\w+)\)", text))
