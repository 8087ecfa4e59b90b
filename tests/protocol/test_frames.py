"""protocol.frames: its declarations fit together. tests/documents compares them with SPEC.md."""

from dataclasses import FrozenInstanceError
from inspect import Parameter, signature
from typing import Any

import pytest

from protocol.frames import ESTABLISHED, FRAMES, HANDSHAKE, HEADER_MEMBERS, REPLIES, RULES, Join, Ok
from protocol.registry import FieldType, Flag, FrameType
from protocol.state import CLIENT, CLIENT_REFUSES, SERVER, SERVER_REFUSES
from protocol.wire import BODIES

TYPES = pytest.mark.parametrize("type", FrameType, ids=lambda type: type.name)


def test_every_number_has_its_class() -> None:
    assert set(FRAMES) == set(RULES) == set(BODIES) == set(FrameType)
    assert [cls.TYPE for cls in FRAMES.values()] == list(FrameType)


@TYPES
def test_rule_is_written_in_known_words(type: FrameType) -> None:
    rule = RULES[type]
    assert rule.sender in ("C", "S", "CS")
    assert {rule.request, rule.room} <= {"nonzero", "zero", "any"}
    assert rule.flags & Flag.EPHEMERAL == 0
    assert set(rule.fields) <= set(FieldType)
    assert set(rule.states) <= {*HANDSHAKE, *ESTABLISHED} <= {row.state for row in (*CLIENT, *SERVER)}


@TYPES
def test_members_of_the_header_are_keyword_only(type: FrameType) -> None:
    parameters = signature(FRAMES[type]).parameters
    keywords = [name for name, parameter in parameters.items() if parameter.kind is Parameter.KEYWORD_ONLY]
    assert tuple(keywords) == HEADER_MEMBERS == ("fields", "flags", "request", "room")
    assert parameters["flags"].default == (Flag.SEQ if RULES[type].seq else 0)


@TYPES
def test_request_of_a_client_has_a_reply(type: FrameType) -> None:
    rule = RULES[type]
    if rule.sender == "C":
        assert rule.request == "nonzero"
    assert (rule.reply is not None) == (rule.sender == "C")
    for answer in (rule.reply, rule.part):
        assert answer is None or ("S" in RULES[answer].sender and RULES[answer].request != "zero")


def test_error_replies_to_every_request() -> None:
    assert set(REPLIES) == {type for type in FrameType if RULES[type].sender == "C"}
    assert REPLIES[FrameType.JOIN] == {FrameType.JOINED, FrameType.ERROR}
    assert all(FrameType.ERROR in replies for replies in REPLIES.values())


def test_handshake_is_refused_after_welcome() -> None:
    assert set(SERVER_REFUSES) == set(ESTABLISHED)
    assert set(SERVER_REFUSES.values()) == {frozenset({FrameType.HELLO, FrameType.AUTH})}
    assert set(CLIENT_REFUSES) == {FrameType.WELCOME, FrameType.AUTH}


def test_frame_is_frozen() -> None:
    frame: Any = Join("lobby", 1, 2)
    for name in ("name", "flags", "other"):
        with pytest.raises((FrozenInstanceError, TypeError)):
            setattr(frame, name, 3)


def test_repr_is_the_call() -> None:
    assert repr(Join("lobby", 1, 2, request=3)) == (
        "Join(name='lobby', epoch=1, since=2, fields=(), flags=0, request=3, room=0)"
    )
    assert repr(Ok(request=3)) == "Ok(fields=(), flags=0, request=3, room=0)"
