"""protocol.framing: the same frames however the octets are cut, at a cost that is linear in the octets."""

from itertools import pairwise
from typing import Any, ClassVar, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.fuzz.strategies import RAW
from protocol import framing
from protocol.errors import FrameTooLarge
from protocol.framing import FrameReader, RawFrame, frame_name
from protocol.registry import HEADER_SIZE, HELLO_MAX_BODY


def octets(frame: RawFrame) -> bytes:
    numbers = (frame.type, 2), (frame.flags, 2), (frame.request, 4), (frame.room, 4)
    header = len(frame.body).to_bytes(4, "big") + b"".join(n.to_bytes(size, "big") for n, size in numbers)
    return header + frame.body


def drain(reader: FrameReader) -> list[RawFrame]:
    return list(iter(reader.next_frame, None))


SAMPLES = [
    RawFrame(1, 2, 3, 4, b""),
    RawFrame(0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, bytes(range(256))),
    RawFrame(0x22, 0x8000, 0, 5, b"x"),
]
STREAM = b"".join(map(octets, SAMPLES))


@given(st.lists(RAW, max_size=5), st.data())
def test_any_slicing_gives_the_same_frames(frames: list[RawFrame], data: st.DataObject) -> None:
    stream = b"".join(map(octets, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, found = FrameReader(), []
    for start, end in pairwise([0, *cuts, len(stream)]):
        kind = data.draw(st.sampled_from([bytes, bytearray, memoryview]))
        reader.feed(kind(stream[start:end]))
        # A caller may take all frames that are there, or one now and then.
        if data.draw(st.booleans()):
            found += drain(reader)
        elif frame := reader.next_frame():
            found.append(frame)
        assert reader.buffered == len(stream[:end]) - sum(len(octets(frame)) for frame in found)
    found += drain(reader)
    assert found == frames
    assert reader.buffered == 0


def test_single_octets_give_the_same_frames() -> None:
    reader, found = FrameReader(), []
    for octet in STREAM:
        reader.feed(bytes([octet]))
        found += drain(reader)
    assert found == SAMPLES


def test_every_cut_in_two_gives_the_same_frames() -> None:
    for cut in range(len(STREAM) + 1):
        reader = FrameReader()
        reader.feed(STREAM[:cut])
        found = drain(reader)
        reader.feed(STREAM[cut:])
        assert found + drain(reader) == SAMPLES


def test_bodies_are_copies() -> None:
    """The octets that were fed may change later, for example in a reused buffer."""
    for cut in (0, 20, 40):
        data = bytearray(STREAM)
        reader = FrameReader()
        reader.feed(memoryview(data)[:cut])
        reader.feed(memoryview(data)[cut:])
        data[:] = bytes(len(data))
        frames = drain(reader)
        assert frames == SAMPLES
        assert {type(frame.body) for frame in frames} == {bytes}


@pytest.mark.parametrize("length", [HELLO_MAX_BODY + 1, 2**24, 2**32 - 1])
def test_body_above_the_limit_is_refused_at_its_header(length: int) -> None:
    reader = FrameReader()
    header = length.to_bytes(4, "big") + octets(SAMPLES[0])[4:]
    reader.feed(STREAM + header[:-1])
    assert drain(reader) == SAMPLES
    reader.feed(header[-1:] + bytes(1000))
    for _ in range(2):
        with pytest.raises(FrameTooLarge) as caught:
            reader.next_frame()
        assert caught.value.args == ("HELLO", "length", f"at most {HELLO_MAX_BODY}", str(length))
        assert reader.buffered == 0
        reader.feed(bytes(1000))
        assert reader.buffered == 0


def test_body_at_a_limit_that_is_raised() -> None:
    reader = FrameReader(10)
    reader.feed(octets(RawFrame(6, 0, 0, 0, bytes(10))) + octets(RawFrame(6, 0, 0, 0, bytes(11))))
    assert drain_one(reader) == 10
    reader.max_body = 11
    assert drain_one(reader) == 11
    reader.feed(octets(RawFrame(6, 0, 0, 0, bytes(12)))[:20])
    with pytest.raises(FrameTooLarge):
        reader.next_frame()


def test_limit_lowered_within_a_frame() -> None:
    reader = FrameReader(10)
    whole = octets(RawFrame(6, 0, 0, 0, bytes(10)))
    reader.feed(whole[:20])
    assert reader.next_frame() is None
    reader.max_body = 5
    reader.feed(whole[20:])
    assert drain_one(reader) == 10


def drain_one(reader: FrameReader) -> int:
    frame = reader.next_frame()
    assert frame
    return len(frame.body)


def test_returned_octets_are_released() -> None:
    reader = FrameReader(2**20)
    reader.feed(octets(RawFrame(6, 0, 0, 0, bytes(2**20))) + b"\x00")
    assert len(drain(reader)) == 1
    assert len(reader._buffer) == reader.buffered == 1
    reader.feed(octets(RawFrame(6, 0, 0, 0, bytes(2**20)))[1:])
    assert len(drain(reader)) == 1
    assert len(reader._buffer) == reader.buffered == 0


class Counted(bytearray):
    """A bytearray that counts the octets that it moves."""

    moved: ClassVar[int] = 0

    def __init__(self, source: Any = b"") -> None:
        super().__init__(source)
        Counted.moved += len(self)

    def __iadd__(self, other: Any) -> "Counted":  # type: ignore[misc]
        Counted.moved += len(other)
        super().__iadd__(other)
        return self

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        Counted.moved += len(found) if isinstance(key, slice) else 1
        return found

    def __delitem__(self, key: SupportsIndex | slice) -> None:
        # When the front of a bytearray is deleted, CPython moves its start, and moves octets only now and then.
        if not isinstance(key, slice) or key.start or key.step:
            Counted.moved += len(self)
        super().__delitem__(key)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 300])
@pytest.mark.parametrize("body", [0, 1, 4000, 60000])
def test_work_is_linear_in_octets(size: int, body: int, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = 0

    def read_header(*arguments: Any) -> Any:
        nonlocal headers
        headers += 1
        return read(*arguments)

    read = framing._read_header
    monkeypatch.setattr(framing, "_read_header", read_header)
    monkeypatch.setattr(framing, "bytearray", Counted, raising=False)
    Counted.moved = 0
    count = 3 if body > 1000 else 200
    stream = octets(RawFrame(6, 0, 0, 0, bytes(body))) * count
    reader, found = FrameReader(body), 0
    for start in range(0, len(stream), size):
        reader.feed(stream[start : start + size])
        found += len(drain(reader))
    assert found == count
    assert headers <= 2 * count
    assert Counted.moved <= 2 * len(stream)


def test_names_of_frames() -> None:
    assert frame_name(0x10) == "JOIN"
    assert frame_name(0x8021) == "frame 0x8021"


def test_header_has_its_size() -> None:
    assert len(octets(SAMPLES[0])) == HEADER_SIZE
