"""The model of a room: what a client may ask for, and what it has to report."""

from dataclasses import replace

import pytest

from conformance.fuzz.client.model import ClientRoom
from conformance.harness.verdicts import Failed
from protocol.frames import Join

_SENDER = {"ctype": 1, "name": "b\u00f6b", "sender": "77"}


def _room() -> ClientRoom:
    room = ClientRoom("lobby", 7, wanted=True)
    for number in range(3):
        room.append(bytes([number]) * 16, 77, 1, b"%d" % number)
    joined = room.answer(Join("lobby", 0, 0, request=2), 5)
    room.told_joined({name: str(getattr(joined, name)) for name in ("epoch", "head", "start", "oldest")})
    return room


def _message(room: ClientRoom, seq: int, **other: object) -> dict[str, object]:
    entry = room.at(seq)
    assert entry
    return {"epoch": str(room.epoch), "seq": str(seq), "payload": entry.payload.hex(), **_SENDER, **other}


def test_reports_that_break_the_promise() -> None:
    room = _room()
    for number in (3, 4, 5):
        room.append(bytes([number]) * 16, 77, 1, b"%d" % number)
    room.sent = room.head
    assert room.owed == "RW-PROMISE-10 message 4 of 'lobby'"
    room.told_message(_message(room, 4))
    for report, rule in (
        (_message(room, 4), "RW-RECOVER-3"),
        (_message(room, 6), "RW-PROMISE-10"),
        (_message(room, 5, payload="00"), "RW-MODEL-10"),
        (_message(room, 5, epoch="8"), "RW-MODEL-10"),
    ):
        with pytest.raises(Failed) as failed:
            room.told_message(report)
        assert failed.value.requirement == rule
    room.told_message(_message(room, 5))
    room.told_message(_message(room, 6))
    assert room.owed == ""
    with pytest.raises(Failed, match="no gap"):
        room.told_gap({"epoch": "7", "start": "9"})


def test_trimmed_frames_of_extensions() -> None:
    room = _room()
    for _ in range(2):
        room.append(b"", 0, 0, b"extension", ignorable=True)
    room.append(bytes(16), 77, 1, b"a message")
    room.sent = room.head
    room.trim(1)
    assert room.owed == "RW-PROMISE-10 message 6 of 'lobby'"
    room.told_message(_message(room, 6))
    assert room.owed == ""


def test_cursors_and_gaps() -> None:
    room = _room()
    room.reached[7] = 3
    back = Join("lobby", 7, 3, request=3)
    for wrong in (replace(back, since=2), replace(back, since=4), replace(back, epoch=8), replace(back, epoch=0)):
        with pytest.raises(Failed) as failed:
            room.answer(wrong, 6)
        assert failed.value.requirement == "RW-RECOVER-1"
    for number in (3, 4, 5):
        room.append(bytes([number]) * 16, 77, 1, b"%d" % number)
    room.trim(1)
    joined = room.answer(back, 6)
    assert joined.start == 6
    assert room.gap == (7, 6)
    room.told_joined({"epoch": "7", "head": "6", "start": "6", "oldest": "6"})
    assert room.owed.startswith("RW-PROMISE-10 `gap`")
    with pytest.raises(Failed, match="a gap up to 6"):
        room.told_message(_message(room, 6))
    room.told_gap({"epoch": "7", "start": "6"})
    room.sent = 6
    room.told_message(_message(room, 6))
    assert room.owed == ""
