"""Test your own codec with the suite's strategies: import it in place of protocol.codec, and run pytest."""

from hypothesis import given

from conformance.fuzz.strategies import frames
from protocol.codec import RawFrame, decode, encode
from protocol.frames import RULES


@given(frames())
def test_encoded_frames_decode(frame):
    raw = RawFrame(frame.TYPE, frame.flags, frame.request, frame.room, encode(frame)[16:])
    assert decode(raw, RULES[frame.TYPE].sender[0]) == frame
