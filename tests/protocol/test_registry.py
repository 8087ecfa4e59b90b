"""protocol.registry: its tables fit together. tests/documents compares them with SPEC.md."""

import pytest

from protocol.errors import (
    BadHeader,
    FrameTooLarge,
    Malformed,
    NameInvalid,
    RangeInvalid,
    RemoteProtocolError,
    SequenceBroken,
    TimedOut,
    Unexpected,
    UnknownField,
    UnknownType,
)
from protocol.layout import CLIENT_PREFACE, HEADER, SERVER_PREFACE, VALUES
from protocol.registry import (
    CODES,
    GREASE,
    HEADER_SIZE,
    LIMITS,
    MAGIC,
    PREFACE_SIZE,
    Code,
    FieldType,
    FrameType,
    is_ignorable,
    is_private,
    is_relayed,
)


def test_every_number_has_its_rows() -> None:
    assert set(CODES) == set(Code)
    assert set(VALUES) == set(FieldType)


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_codes(code: Code) -> None:
    assert code.carriers == CODES[code].carriers
    assert code.retry == CODES[code].retry
    assert code.carriers
    assert set(code.carriers) <= set("EVG")


def test_framing_errors_are_fatal() -> None:
    assert all(code.carriers == "G" for code in Code if code < 200)


@pytest.mark.parametrize("name", LIMITS)
def test_defaults_are_within_their_ranges(name: str) -> None:
    limit = LIMITS[name]
    assert 0 <= limit.low <= limit.default <= limit.high


def test_announced_limits_fit_their_fields() -> None:
    sizes = {"max_body": 4, "heartbeat_ms": 4, "dedupe_ms": 4, "window": 2, "max_rooms": 2}
    assert all(LIMITS[name].high < 256**size for name, size in sizes.items())


def test_sizes() -> None:
    assert HEADER.sizeof() == HEADER_SIZE == 16
    assert CLIENT_PREFACE.sizeof() == SERVER_PREFACE.sizeof() == PREFACE_SIZE == 8


def test_prefaces() -> None:
    numbers = {"magic": int.from_bytes(MAGIC, "big"), "zero": 0, "zero1": 0, "zero2": 0}
    client = CLIENT_PREFACE.build({**numbers, "version_min": 1, "version_max": 2})
    assert client == bytes.fromhex("F5525750 01 02 0000")
    assert SERVER_PREFACE.build({**numbers, "version": 1}) == bytes.fromhex("F5525750 01 00 0000")


@pytest.mark.parametrize(
    ("number", "ignorable", "relayed", "private"),
    [
        (0x0001, False, False, False),
        (0x6FFF, False, False, False),
        (0x7000, False, False, True),
        (0x7FFF, False, False, True),
        (0x8000, True, False, False),
        (0xBFFF, True, False, False),
        (0xC000, True, True, False),
        (0xEFFF, True, True, False),
        (0xF000, True, True, True),
        (0xFFFF, True, True, True),
    ],
)
def test_ranges_of_numbers(number: int, ignorable: bool, relayed: bool, private: bool) -> None:
    assert (is_ignorable(number), is_relayed(number), is_private(number)) == (ignorable, relayed, private)


def test_grease() -> None:
    assert len(GREASE) == 528
    assert list(GREASE[:3]) == [0x8021, 0x8040, 0x805F]
    assert GREASE[-1] == 0x8000 + 0x1F * 527 + 0x21
    assert all(is_ignorable(number) and not is_relayed(number) for number in GREASE)
    assert not set(GREASE) & {*FrameType, *FieldType}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Malformed, Code.MALFORMED),
        (FrameTooLarge, Code.FRAME_TOO_LARGE),
        (UnknownType, Code.UNKNOWN_TYPE),
        (BadHeader, Code.BAD_HEADER),
        (Unexpected, Code.UNEXPECTED),
        (SequenceBroken, Code.SEQUENCE),
        (TimedOut, Code.TIMEOUT),
        (NameInvalid, Code.NAME_INVALID),
        (UnknownField, Code.UNKNOWN_FIELD),
        (RangeInvalid, Code.RANGE_INVALID),
    ],
)
def test_error_codes(error: type[RemoteProtocolError], code: Code) -> None:
    assert error.code is code
    assert str(error()) == code.name


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("JOIN", "name", "5 octets", "2"), "MALFORMED: JOIN.name: expected 5 octets, found 2"),
        (("JOIN", "", "5 octets"), "MALFORMED: JOIN: expected 5 octets"),
        (("JOIN", "name", "", "2"), "MALFORMED: JOIN.name: found 2"),
        (("JOIN",), "MALFORMED: JOIN"),
    ],
)
def test_error_texts(arguments: tuple[str, ...], text: str) -> None:
    error = Malformed(*arguments)
    assert str(error) == text
    assert (error.frame, error.field, error.expected, error.found) == (*arguments, "", "", "")[:4]
