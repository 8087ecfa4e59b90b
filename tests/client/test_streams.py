"""reference_client.chat.streams: the standard input and its end."""

import asyncio
import errno
import os
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference_client.chat import streams
from reference_client.chat.streams import InputError, stdin_lines

MARK = b"\xef\xbb\xbf"


def taken(pieces: Iterable[bytes | OSError]) -> tuple[list[bytes], str]:
    """The lines of an input that arrives in these pieces, and the error at its end."""
    left = [*pieces, b""]

    def read(_: int, __: int) -> bytes:
        piece = left.pop(0)
        if isinstance(piece, OSError):
            raise piece
        return piece

    async def take() -> tuple[list[bytes], str]:
        lines: list[bytes] = []
        try:
            async for line in stdin_lines():
                lines.append(line)
        except InputError as error:
            return lines, str(error)
        return lines, ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "os", type("Os", (), {"read": staticmethod(read)}))
        return asyncio.run(take())


def test_error_is_not_the_end() -> None:
    failed = OSError(errno.EIO, os.strerror(errno.EIO))
    assert taken([b"a\nb\npa", failed]) == ([b"a", b"b"], "input/output error")
    assert taken([b"a\nb\npa"]) == ([b"a", b"b", b"pa"], "")


@given(st.binary(max_size=20), st.lists(st.integers(1, 5), max_size=8), st.booleans())
@example(b"\r", [], False)
def test_byte_order_mark_is_no_part_of_the_first_line(text: bytes, sizes: list[int], marked: bool) -> None:
    """However the input is cut into pieces."""
    whole, pieces = (MARK if marked else b"") + text, []
    for size in sizes:
        pieces.append(whole[:size])
        whole = whole[size:]
    pieces.append(whole)
    plain = text if marked else text.removeprefix(MARK)
    expected = [line.removesuffix(b"\r") for line in plain.split(b"\n")]
    assert taken([piece for piece in pieces if piece]) == (expected if plain.split(b"\n")[-1] else expected[:-1], "")
