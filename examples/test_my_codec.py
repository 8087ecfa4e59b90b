"""Somebody else's codec under our strategies: put yours in the place of protocol.codec, and run it by pytest."""

from hypothesis import given

from conformance.fuzz.strategies import frames
from protocol.codec import RawFrame, decode, encode
from protocol.frames import RULES


@given(frames())
def test_what_is_written_is_read_again(frame):
    raw = RawFrame(frame.TYPE, frame.flags, frame.request, frame.room, encode(frame)[16:])
    assert decode(raw, RULES[frame.TYPE].sender[0]) == frame
