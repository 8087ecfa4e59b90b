"""reference_client.chat.show: lines for people and programs."""

import json
from typing import Any

import pytest

from protocol.registry import Code
from reference_client import events
from reference_client.chat.show import Show, json_message, missing
from reference_client.session.membership import Member

EVIL = "\x1b]0;x\x07\u202e"
PLAIN = Show(colour=False)


def message(**values: Any) -> events.MessageReceived:
    fields: dict[str, Any] = {
        "room": "lobby", "epoch": 2**64 - 1, "seq": 1, "time_ms": 0, "sender": 2**64 - 1, "name": "ada",
        "verified": False, "ctype": 0, "payload": b"hi", "own": False, "id": bytes(16), "fields": (),
    }  # fmt: skip
    return events.MessageReceived(**(fields | values))


@pytest.mark.parametrize(
    ("values", "room", "shown"),
    [
        ({}, None, "<ada> hi"),
        ({"verified": True}, "lobby", "lobby [ada] hi"),
        ({"payload": b"a\nb\r\n\tc"}, None, "<ada> a\n    b\n        c"),
        ({"payload": b"\xff"}, None, "<ada> \ufffd"),
        ({"ctype": 7, "payload": b"abc"}, None, "<ada> (3 octets of type 7)"),
        ({"time_ms": 2**53 - 1}, None, "--:--:-- <ada> hi"),
    ],
)
def test_message(values: dict[str, Any], room: str | None, shown: str) -> None:
    assert PLAIN.message(message(**values), room=room).endswith(shown)


def test_peer_text_is_escaped() -> None:
    lines = [
        PLAIN.message(message(name=EVIL, payload=EVIL.encode()), room=EVIL),
        PLAIN.roster(EVIL, [Member(1, EVIL, True)], 1),
    ]
    for event in (
        events.Connected(1, EVIL, False, False, None, None, True),
        events.Disconnected(999, EVIL, 1.0),
        events.Disconnected(None, EVIL, None),
        events.Draining(EVIL, 1.0),
        events.Joined(EVIL, EVIL, 1, 0, 1, 1, 1, False, False),
        events.Joined(EVIL, EVIL, 1, 0, 1, 1, 1, False, True),
        events.JoinFailed(EVIL, 301, EVIL),
        events.Evicted(EVIL, 602, EVIL, 2.0),
        events.Left(EVIL),
        events.Gap(EVIL, 1, 2, 1, 5),
        events.MemberJoined(EVIL, 1, EVIL, False),
        events.MemberLeft(EVIL, 1, EVIL, True, False),
        events.RoomQuiet(EVIL),
    ):
        line = PLAIN.event(event)
        assert line is not None
        lines.append(line)
    for line in lines:
        assert line.isprintable(), line


def test_colours_only_where_enabled() -> None:
    assert Show(colour=True).message(message(), room=None).count("\x1b[") == 4
    assert "\x1b" not in PLAIN.message(message(), room=None)


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (events.Gap("x", 1, 2, 1, 4), "1 message is missing"),
        (events.Gap("x", 1, 2, 1, 9), "6 messages are missing"),
        (events.Gap("x", 1, 2, 1, 2), "may be missing"),
        (events.Gap("x", 1, 2, 8, 4), "was reset"),
    ],
)
def test_gaps_in_words(gap: events.Gap, words: str) -> None:
    assert words in missing(gap)


def test_unknown_codes_are_numbers() -> None:
    assert "code 999: x" in str(PLAIN.event(events.Disconnected(999, "x", None)))
    assert "KICKED" in str(PLAIN.event(events.Evicted("lobby", Code.KICKED, "", None)))


def test_json() -> None:
    line = json_message(message(name=EVIL, payload=EVIL.encode()))
    assert line.isascii()
    assert line.isprintable()
    values = json.loads(line)
    assert (values["epoch"], values["text"]) == ("f" * 16, EVIL)
    assert json.loads(json_message(message(ctype=1, payload=b"\xff")))["base64"] == "/w=="
