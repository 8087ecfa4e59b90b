"""protocol.codec: frames survive encoding and decoding, and any octets give a frame or a documented error."""

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.fuzz.strategies import FRAMES, RAW, frames, payloads, texts, u16, u64, unknown_fields
from protocol import frames as f
from protocol.codec import RawFrame, check_header, decode, encode
from protocol.errors import (
    BadHeader,
    LocalProtocolError,
    Malformed,
    NameInvalid,
    RangeInvalid,
    RemoteProtocolError,
    UnknownField,
)
from protocol.fields import (
    agent,
    agent_of,
    extension,
    extensions,
    identity_of,
    mechanism,
    mechanisms_of,
    server_identity,
)
from protocol.frames import RULES
from protocol.framing import FrameReader
from protocol.registry import MAX_SAFE, FieldType, Flag, FrameType, Sender

TYPES = pytest.mark.parametrize("type", FrameType, ids=lambda type: type.name)
ID = bytes.fromhex("018BCFE568000123456789ABCDEF0123")


# The shortest body of each frame: all numbers 0, all lengths 0.
SHORTEST = {
    type: "00" * octets
    for type, octets in {
        FrameType.HELLO: 1 + 1 + 2,
        FrameType.WELCOME: 8 + 1 + 8 + 4 + 4 + 4 + 2 + 2 + 2,
        FrameType.AUTH: 2,
        FrameType.ERROR: 2 + 4 + 2,
        FrameType.OK: 0,
        FrameType.PING: 8,
        FrameType.PONG: 8,
        FrameType.GOAWAY: 2 + 4 + 4 + 2,
        FrameType.JOIN: 1 + 8 + 8,
        FrameType.JOINED: 8 + 8 + 8 + 8 + 4 + 1,
        FrameType.ROSTER: 2,
        FrameType.PRESENCE: 1 + 8 + 1,
        FrameType.LEAVE: 0,
        FrameType.EVICTED: 2 + 4 + 2,
        FrameType.PUBLISH: 16 + 1 + 4,
        FrameType.ACK: 8 + 8,
        FrameType.MESSAGE: 8 + 8 + 8 + 16 + 1 + 1 + 4,
        FrameType.HISTORY: 8 + 8 + 2,
        FrameType.HISTORY_END: 8 + 8 + 8,
        FrameType.STOP: 0,
    }.items()
}


def raw(octets: bytes) -> RawFrame:
    reader = FrameReader(2**32)
    reader.feed(octets)
    frame = reader.next_frame()
    assert frame
    assert reader.buffered == 0
    return frame


def sender_of(type: FrameType) -> Sender:
    return "C" if "C" in RULES[type].sender else "S"


def body(type: FrameType, hexadecimal: str, **header: int) -> RawFrame:
    """A raw frame with that body. Its header is as the rule requires, unless `header` says otherwise."""
    rule = RULES[type]
    values = {
        "flags": Flag.SEQ if rule.seq else 0,
        "request": 7 if rule.request == "nonzero" else 0,
        "room": 5 if rule.room == "nonzero" else 0,
    }
    return RawFrame(type, **{**values, **header}, body=bytes.fromhex(hexadecimal))


# --- Round trips


@TYPES
@given(data=st.data())
def test_round_trip(type: FrameType, data: st.DataObject) -> None:
    frame = data.draw(FRAMES[type])
    octets = encode(frame)
    decoded = decode(raw(octets), sender_of(type))
    assert decoded == frame
    assert decoded.__class__ is frame.__class__
    assert encode(decoded) == octets


@given(frames(), u16)
def test_unknown_flags_are_ignored(frame: f.Frame, noise: int) -> None:
    frame = replace(frame, flags=frame.flags | noise & ~Flag.SEQ)
    assert decode(raw(encode(frame)), sender_of(frame.TYPE)) == frame


def test_decoded_frame_is_a_whole_value() -> None:
    """Decoders do not call __init__, so this test looks at all that it provides."""
    frame = f.Roster((f.RosterEntry(1, 2, "ada"),), flags=Flag.RESET, room=5)
    decoded = decode(raw(encode(frame)), "S")
    assert isinstance(decoded, f.Roster)
    assert repr(decoded) == repr(frame)
    assert hash(decoded) == hash(frame)
    assert replace(decoded, room=6) == replace(frame, room=6)
    with pytest.raises(AttributeError):
        decoded.room = 6  # type: ignore[misc]
    with pytest.raises(AttributeError):
        decoded.entries[0].member = 6  # type: ignore[misc]
    assert not hasattr(decoded, "__dict__")


@pytest.mark.parametrize(
    ("frame", "octets"),
    [
        (
            f.Message(
                44,
                1700000000005,
                0x1122334455667788,
                ID,
                0,
                "ada",
                b"hi",
                fields=(f.Field(0xC001, b"\xff\x00"),),
                flags=Flag.SEQ | Flag.VERIFIED,
                request=0,
                room=5,
            ),
            "00000039 0022 8002 00000000 00000005"
            "000000000000002C 0000018BCFE56805 1122334455667788 018BCFE568000123456789ABCDEF0123"
            "00 03 616461 00000002 6869 C001 0002 FF00",
        ),
        (
            f.Roster((f.RosterEntry(1, 2, "\u00e9"), f.RosterEntry(2, 0, "")), flags=Flag.MORE, room=5),
            "00000018 0012 0004 00000000 00000005 0002 0000000000000001 02 02 C3A9 0000000000000002 00 00",
        ),
        (
            f.Error(202, 0, "no", fields=(mechanism("ANONYMOUS"), mechanism("SCRAM-SHA-256")), flags=0, request=1),
            "00000028 0004 0000 00000001 00000000 00CA 00000000 0002 6E6F"
            "8004 0009 414E4F4E594D4F5553 8004 000D 534352414D2D5348412D323536",
        ),
        (
            f.Hello("ada", "", b"\x00", fields=(extension("history"), agent("x/1")), request=1),
            "0000001B 0001 0000 00000001 00000000 03 616461 00 0001 000001 0008 07 686973746F7279 8002 0003 782F31",
        ),
        (f.Unknown(0x8021, b"\x01", 0x4000, 2, 3), "00000001 8021 4000 00000002 00000003 01"),
    ],
)
def test_octets(frame: f.Frame | f.Unknown, octets: str) -> None:
    assert encode(frame) == bytes.fromhex(octets)
    assert decode(raw(bytes.fromhex(octets)), "C" if isinstance(frame, f.Hello) else "S") == frame


# --- Known extension fields


def test_known_fields() -> None:
    welcome = f.Welcome(1, "ada", 0, 65536, 30000, 0, 32, 256, b"")
    assert extensions(welcome) == {}
    assert agent_of(welcome) is None
    assert identity_of(welcome) is None
    fields = (extension("b", b"\x00"), agent("\u20ac"), server_identity(2**64 - 1, "h:1"), extension("a"))
    welcome = replace(welcome, fields=(f.Field(0xC000), *fields), request=1)
    assert decode(raw(encode(welcome)), "S") == welcome
    assert extensions(welcome) == {"b": b"\x00", "a": b""}
    assert agent_of(welcome) == "\u20ac"
    assert identity_of(welcome) == (2**64 - 1, "h:1")
    assert mechanisms_of(f.Error(202, fields=(mechanism("B"), mechanism("A")))) == ["B", "A"]


@given(texts, payloads, u64)
def test_known_fields_keep_their_values(text: str, octets: bytes, number: int) -> None:
    hello = f.Hello("", "", b"", fields=(extension(text, octets), agent(text)))
    welcome = f.Welcome(0, "", 0, 0, 0, 0, 0, 0, b"", fields=(server_identity(number, text),))
    assert extensions(hello) == {text: octets}
    assert agent_of(hello) == text
    assert identity_of(welcome) == (number, text)


def test_ill_formed_text_in_a_field() -> None:
    assert agent_of(f.Hello("", "", b"", fields=(f.Field(FieldType.AGENT, b"a\xff"),))) == "a\ufffd"
    assert extensions(f.Hello("", "", b"", fields=(f.Field(FieldType.EXTENSION, b"\x01\xffx"),))) == {"\ufffd": b"x"}


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (extension, ("x" * 256,)),
        (extension, ("\ud800",)),
        (server_identity, (2**64, "")),
        (server_identity, (0, "x" * 256)),
        (agent, (None,)),
    ],
)
def test_values_that_do_not_fit_a_field(make: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(LocalProtocolError):
        make(*arguments)


@pytest.mark.parametrize(
    ("type", "tail", "field"),
    [
        (FrameType.HELLO, "8002 0001 61 8002 0001 62", "AGENT"),
        (FrameType.WELCOME, "8003 0009 0000000000000001 00 8003 0009 0000000000000002 00", "SERVER"),
        (FrameType.WELCOME, "8003 0008 0000000000000001", "SERVER.address"),
        (FrameType.WELCOME, "8003 0007 00000000000001", "SERVER.id"),
        (FrameType.WELCOME, "8003 000A 0000000000000001 02 61", "SERVER.address"),
        (FrameType.WELCOME, "8003 000A 0000000000000001 00 61", "SERVER"),
        (FrameType.HELLO, "0001 0000", "EXTENSION.name"),
        (FrameType.HELLO, "0001 0002 02 61", "EXTENSION.name"),
        (FrameType.PING, "F000", "fields"),
        (FrameType.PING, "F000 0001", "fields"),
        (FrameType.PING, "F000 0000 00", "fields"),
        # Structure comes before unknown critical fields, also when these stand first.
        (FrameType.PING, "7000 0000 F000 0001", "fields"),
        (FrameType.HELLO, "7000 0000 8002 0001 61 8002 0001 62", "AGENT"),
    ],
)
def test_malformed_fields(type: FrameType, tail: str, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode(body(type, SHORTEST[type] + tail), sender_of(type))
    assert (caught.value.frame, caught.value.field) == (type.name, field)


@TYPES
def test_unknown_critical_field(type: FrameType) -> None:
    octets = SHORTEST[type]
    decode(body(type, octets + "F000 0001 61 F000 0001 61 8002 0000"), sender_of(type))
    for number in ("0002", "7000", "7FFF"):
        with pytest.raises(UnknownField) as caught:
            decode(body(type, octets + "F000 0000" + number + "0000 F000 0000"), sender_of(type))
        assert (caught.value.frame, caught.value.field) == (type.name, f"field 0x{number.lower()}")


@TYPES
def test_field_of_another_frame(type: FrameType) -> None:
    if FieldType.EXTENSION not in RULES[type].fields:
        with pytest.raises(UnknownField):
            decode(body(type, SHORTEST[type] + "0001 0001 00"), sender_of(type))
    if FieldType.SERVER not in RULES[type].fields:
        decode(body(type, SHORTEST[type] + "8003 0001 00 8003 0000"), sender_of(type))


# --- Structure


@TYPES
def test_one_octet_less_or_more(type: FrameType) -> None:
    octets = SHORTEST[type]
    decode(body(type, octets), sender_of(type))
    for wrong in {octets[:-2], octets + "00"} - {octets}:
        with pytest.raises(Malformed) as caught:
            decode(body(type, wrong), sender_of(type))
        assert caught.value.frame == type.name


def test_error_has_expected_and_found() -> None:
    with pytest.raises(Malformed) as caught:
        decode(body(FrameType.JOIN, "05 6162"), "C")
    assert str(caught.value) == "MALFORMED: JOIN.name: expected 5 octets, found 2"
    with pytest.raises(Malformed) as caught:
        decode(body(FrameType.ROSTER, "0002" + "00" * 10 + "00" * 8 + "00 03 61"), "S")
    assert str(caught.value) == "MALFORMED: ROSTER.entries.name: expected 3 octets, found 1"


@pytest.mark.parametrize("held", [0, 1, 100])
def test_large_count_in_a_short_body(held: int) -> None:
    frame = body(FrameType.ROSTER, "FFFF" + "00" * 10 * held)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed) as caught:
            decode(frame, "S")
        assert tracemalloc.get_traced_memory()[1] < 65536
    finally:
        tracemalloc.stop()
    assert caught.value.field == "entries.member"


# --- Header


@TYPES
def test_header_rules(type: FrameType) -> None:
    rule, octets = RULES[type], SHORTEST[type]
    right = body(type, octets)
    check_header(right)
    wrong = {"request": int(not right.request), "room": int(not right.room), "flags": right.flags ^ Flag.SEQ}
    for field, value in wrong.items():
        frame = RawFrame(**{**right._asdict(), field: value})
        if {"request": rule.request, "room": rule.room}.get(field) == "any":
            decode(frame, sender_of(type))
            continue
        # The header is checked before the body.
        for broken in (frame, frame._replace(body=b"\xff")):
            with pytest.raises(BadHeader) as caught:
                decode(broken, sender_of(type))
            assert (caught.value.frame, caught.value.field) == (type.name, field)


@TYPES
def test_type_of_the_other_end_is_unknown(type: FrameType) -> None:
    for sender in ("C", "S"):
        frame = body(type, SHORTEST[type])
        decoded = decode(frame, sender)
        if sender in RULES[type].sender:
            assert isinstance(decoded, f.FRAMES[type])
        else:
            assert decoded == f.Unknown(frame.type, frame.body, frame.flags, frame.request, frame.room)


def test_unknown_types() -> None:
    for number in (0x0000, 0x0009, 0x7FFF, 0x8021, 0xFFFF):
        frame = RawFrame(number, 0x4000, 1, 2, b"abc")
        check_header(frame)
        for sender in ("C", "S"):
            assert decode(frame, sender) == f.Unknown(number, b"abc", 0x4000, 1, 2)


def test_unknown_frame_with_seq() -> None:
    frame = RawFrame(0xF000, Flag.SEQ, 0, 5, bytes.fromhex("000000000000002C 61"))
    decoded = decode(frame, "S")
    assert isinstance(decoded, f.Unknown)
    assert decoded.seq == 44
    assert f.Unknown(0xF000).seq is None
    for octets in ("", "00" * 7, "0020000000000000"):
        wrong = frame._replace(body=bytes.fromhex(octets))
        with pytest.raises(Malformed):
            decode(wrong, "S")
        assert isinstance(decode(wrong, "C"), f.Unknown)
        assert isinstance(decode(wrong._replace(type=0x7000), "S"), f.Unknown)


# --- Values


@pytest.mark.parametrize(
    ("type", "octets", "field", "error"),
    [
        (FrameType.HELLO, "01 FF 00 0000", "name", NameInvalid),
        (FrameType.JOIN, "02 C3 28" + "00" * 16, "name", NameInvalid),
        (FrameType.JOIN, "03 ED A0 80" + "00" * 16, "name", NameInvalid),
        (FrameType.WELCOME, "00" * 8 + "01 FF" + "00" * 26, "name", Malformed),
        (FrameType.JOINED, "00" * 36 + "01 FF", "name", Malformed),
        (FrameType.ROSTER, "0002" + "00" * 10 + "00" * 9 + "01 FF", "entries.name", Malformed),
        (FrameType.PRESENCE, "00" * 9 + "01 FF", "name", Malformed),
        (FrameType.MESSAGE, "00" * 41 + "01 FF 00000000", "name", Malformed),
        (FrameType.JOIN, "00" + "00" * 8 + "0020000000000000", "since", RangeInvalid),
        (FrameType.HISTORY, "0020000000000000" + "00" * 10, "start", RangeInvalid),
        (FrameType.HISTORY, "00" * 8 + "FFFFFFFFFFFFFFFF 0000", "end", RangeInvalid),
        (FrameType.WELCOME, "00" * 9 + "0020000000000000" + "00" * 18, "now_ms", Malformed),
        (FrameType.ACK, "0020000000000000" + "00" * 8, "seq", Malformed),
        (FrameType.ACK, "00" * 8 + "0020000000000000", "time_ms", Malformed),
        (FrameType.MESSAGE, "0020000000000000" + "00" * 38, "seq", Malformed),
        (FrameType.MESSAGE, "00" * 8 + "0020000000000000" + "00" * 30, "time_ms", Malformed),
        (FrameType.JOINED, "00" * 8 + "0020000000000000" + "00" * 21, "head", Malformed),
        (FrameType.JOINED, "00" * 16 + "0020000000000000" + "00" * 13, "start", Malformed),
        (FrameType.JOINED, "00" * 24 + "0020000000000000" + "00" * 5, "oldest", Malformed),
        (FrameType.HISTORY_END, "00" * 16 + "0020000000000000", "oldest", Malformed),
        # If several are wrong, the first on the wire counts.
        (FrameType.JOIN, "01 FF" + "FF" * 16, "name", NameInvalid),
        (FrameType.HISTORY, "FF" * 16 + "0000", "start", RangeInvalid),
    ],
)
def test_values(type: FrameType, octets: str, field: str, error: type[RemoteProtocolError]) -> None:
    with pytest.raises(error) as caught:
        decode(body(type, octets), sender_of(type))
    assert caught.value.__class__ is error
    assert (caught.value.frame, caught.value.field) == (type.name, field)
    # Structure comes first, then unknown critical fields, then values.
    with pytest.raises(UnknownField):
        decode(body(type, octets + "7000 0000"), sender_of(type))
    with pytest.raises(Malformed):
        decode(body(type, octets + "7000 0001"), sender_of(type))


def test_greatest_values() -> None:
    frame = f.Message(MAX_SAFE, MAX_SAFE, 2**64 - 1, b"\xff" * 16, 255, "x" * 255, b"", request=2**32 - 1, room=1)
    assert decode(raw(encode(frame)), "S") == frame


@pytest.mark.parametrize(
    ("type", "octets"),
    [
        (FrameType.ERROR, "0000 00000000 0003 61FF62"),
        (FrameType.EVICTED, "0000 00000000 0003 61FF62"),
        (FrameType.GOAWAY, "0000 00000000 00000000 0003 61FF62"),
    ],
)
def test_ill_formed_text(type: FrameType, octets: str) -> None:
    decoded = decode(body(type, octets), "S")
    assert isinstance(decoded, f.Error | f.Evicted | f.Goaway)
    assert decoded.text == "a\ufffdb"


def test_ill_formed_mechanism() -> None:
    decoded = decode(body(FrameType.HELLO, "00 01 FF 0000"), "C")
    assert isinstance(decoded, f.Hello)
    assert decoded.mechanism == "\ufffd"


@given(RAW, st.sampled_from(["C", "S"]))
def test_any_octets_give_a_frame_or_an_error(frame: RawFrame, sender: Sender) -> None:
    refused = None
    try:
        decoded = decode(frame, sender)
    except (BadHeader, Malformed, UnknownField, NameInvalid, RangeInvalid) as error:
        refused = error
    if refused:
        assert refused.frame
        assert refused.field
        assert str(refused).startswith(refused.code.name)
    else:
        assert (decoded.flags, decoded.request, decoded.room) == frame[1:4]


@given(frames(), st.lists(unknown_fields, max_size=2), st.binary(max_size=3))
def test_any_tail_gives_a_frame_or_an_error(frame: f.Frame, fields: list[f.Field], tail: bytes) -> None:
    octets = raw(encode(replace(frame, fields=(*frame.fields, *fields))))
    if tail:
        with pytest.raises(Malformed):
            decode(octets._replace(body=octets.body + tail), sender_of(frame.TYPE))
    else:
        decode(octets, sender_of(frame.TYPE))


# --- What can't be encoded


@pytest.mark.parametrize(
    ("frame", "place"),
    [
        (f.Hello("x" * 256, "", b""), "HELLO.name"),
        (f.Hello("\u00e9" * 128, "", b""), "HELLO.name"),
        (f.Hello("", "\ud800", b""), "HELLO.mechanism"),
        (f.Hello("", "", bytes(65536)), "HELLO.auth"),
        (f.Hello("", "", b"", fields=(f.Field(65536),)), "HELLO"),
        (f.Hello("", "", b"", fields=(f.Field(1, bytes(65536)),)), "HELLO"),
        (f.Join("", 2**64, 0), "JOIN.epoch"),
        (f.Join("", 0, MAX_SAFE + 1), "JOIN.since"),
        (f.Join("", 0, -1), "JOIN.since"),
        (f.Ping(b"1234567"), "PING.opaque"),
        (f.Ping(b"123456789"), "PING.opaque"),
        (f.Publish(bytes(15), 0, b""), "PUBLISH.id"),
        (f.Publish(bytes(16), 256, b""), "PUBLISH.ctype"),
        (f.Ack(MAX_SAFE + 1, 0), "ACK.seq"),
        (f.Roster((f.RosterEntry(0, 256, ""),)), "ROSTER.entries.mflags"),
        (f.Roster((f.RosterEntry(0, 0, "x" * 256),)), "ROSTER.entries.name"),
        (f.Roster((f.RosterEntry(0, 0, ""),) * 65536), "ROSTER.entries"),
        (f.Ok(request=2**32), "OK"),
        (f.Ok(room=-1), "OK"),
        (f.Ok(flags=65536), "OK"),
        (f.Unknown(65536), "Unknown"),
        (f.Error("x"), "ERROR.code"),  # type: ignore[arg-type]
        (f.Error(1, 0, b"octets"), "ERROR.text"),  # type: ignore[arg-type]
        (f.Publish("x" * 16, 0, b""), "PUBLISH.id"),  # type: ignore[arg-type]
        (f.Publish(None, 0, b""), "PUBLISH.id"),  # type: ignore[arg-type]
        (f.Publish(bytes(16), 0, "text"), "PUBLISH.payload"),  # type: ignore[arg-type]
        (f.Ack(None, 0), "ACK.seq"),  # type: ignore[arg-type]
        (f.Ack(1.5, 0), "ACK.seq"),  # type: ignore[arg-type]
        (f.Roster(None), "ROSTER"),  # type: ignore[arg-type]
        (f.Roster((None,)), "ROSTER"),  # type: ignore[arg-type]
        (f.Roster(iter(())), "ROSTER"),  # type: ignore[arg-type]
        (f.Ok(fields=(None,)), "OK"),  # type: ignore[arg-type]
        (f.Unknown(1, None), "Unknown"),  # type: ignore[arg-type]
        (None, "None"),
    ],
)
def test_values_that_do_not_fit(frame: Any, place: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        encode(frame)
    assert str(caught.value).startswith(place), str(caught.value)
