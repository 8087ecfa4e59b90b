"""reference_client.chat.line_editor: keys in, text and its picture out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_client.chat.line_editor import Ended, Entered, LineEditor, cells


def typed(keys: str | bytes) -> LineEditor:
    editor = LineEditor()
    editor.feed(keys if isinstance(keys, bytes) else keys.encode())
    return editor


@pytest.mark.parametrize(
    ("keys", "text", "cursor"),
    [
        ("abc", "abc", 3),
        ("abc\x7f\x08", "a", 1),
        ("\x7f", "", 0),
        ("abc\x1b[D\x1b[Dx", "axbc", 2),
        ("abc\x01x\x05y", "xabcy", 5),
        ("abc\x1b[H\x1b[3~", "bc", 0),
        ("abc\x1bOH\x04", "bc", 0),
        ("abc\x02\x02\x06\x0b", "ab", 2),
        ("one two \x17x", "one x", 5),
        ("one two\x1b[D\x15", "o", 0),
        ("a\x1b[99;5~b\x1bxc", "abc", 3),
        ("a\x00\x1f\tb", "ab", 2),
        ("gr\u00fc\u00df dich \U0001f600", "gr\u00fc\u00df dich \U0001f600", 11),
        ("first\rsecond\r\x10\x10", "first", 5),
        ("first\rdraft\x10\x0e", "draft", 5),
        ("first\r\x1b[A\x1b[A\x1b[B\x1b[B", "", 0),
    ],
)
def test_keys(keys: str, text: str, cursor: int) -> None:
    editor = typed(keys)
    assert (editor.text, editor.cursor) == (text, cursor)


def test_entered_and_ended() -> None:
    editor = LineEditor()
    assert editor.feed(b"one\rtwo\nthree") == [Entered("one"), Entered("two")]
    assert editor.feed(b"\x04") == []  # deletes, since the line is not empty
    assert editor.feed(b"\x15\x04") == [Ended()]


def test_characters_split_between_reads() -> None:
    editor = LineEditor()
    for octet in "\u00e4\x1b[D\U0001f600".encode():
        editor.feed(bytes((octet,)))
    assert editor.text == "\U0001f600\u00e4"


def test_ill_formed_octets() -> None:
    assert typed(b"a\xffb").text == "a\ufffdb"


@pytest.mark.parametrize(
    ("keys", "columns", "picture", "cursor"),
    [
        ("abc", 20, "> abc", 5),
        ("abc\x01", 20, "> abc", 2),
        ("abcdefghij", 8, "> fghij", 7),
        ("abcdefghij\x01", 8, "> abcde", 2),
        ("\u65e5\u672c", 20, "> \u65e5\u672c", 6),
        ("\u202ex", 20, "> \\u202ex", 9),
    ],
)
def test_picture(keys: str, columns: int, picture: str, cursor: int) -> None:
    assert typed(keys).picture("> ", columns) == (picture, cursor)


def paste(text: str) -> bytes:
    return f"\x1b[200~{text}\x1b[201~".encode()


def test_pasted_lines_are_one_message_after_a_question() -> None:
    editor = LineEditor()
    editor.feed(b"ab\x02")
    assert editor.feed(paste("one\r/two\r\n\tthree\n\n") + b"\r\x7f\x1b[A") == []  # nothing but an answer counts
    assert editor.picture("> ", 80) == ("send 3 lines as one message? y/n ", 33)
    assert editor.feed(b"y") == [Entered("aone\n/two\n\tthreeb")]
    assert (editor.text, editor.picture("> ", 80)) == ("", ("> ", 2))
    assert editor.feed(paste("/quit\nnow") + b"y") == [Entered("//quit\nnow")]  # a text, and no command


@pytest.mark.parametrize("no", ["n", "\x03", "\x04", "\x15"])
def test_pasted_lines_are_dropped_unless_wanted(no: str) -> None:
    editor = typed("draft")
    assert editor.feed(paste("one\ntwo") + no.encode()) == []
    assert (editor.text, editor.cursor) == ("draft", 5)
    assert editor.feed(b"!\r") == [Entered("draft!")]


def test_pasted_line_is_typed() -> None:
    editor = typed(b"a" + paste("/b\tc\x07\r\n") + b"d")
    assert editor.text == "a/b    cd"


@given(st.text(st.sampled_from("ab\n\r\t/\x1b[201~"), max_size=30), st.lists(st.integers(1, 9), max_size=9))
def test_paste_enters_nothing_by_itself(text: str, sizes: list[int]) -> None:
    """Wherever the octets are cut, and whatever was pasted."""
    editor, octets = LineEditor(), paste(text.replace("\x1b[201~", ""))
    for size in sizes:
        assert editor.feed(octets[:size]) == []
        octets = octets[size:]
    assert editor.feed(octets) == []
    answered = editor.feed(b"y")
    assert len(answered) <= 1
    lines = text.replace("\x1b[201~", "").replace("\r\n", "\n").replace("\r", "\n").strip("\n").count("\n")
    assert bool(answered) == bool(lines)


@given(st.binary(max_size=60), st.text(max_size=20), st.integers(0, 40))
def test_picture_fits(keys: bytes, prompt: str, columns: int) -> None:
    picture, cursor = typed(keys).picture(prompt, columns)
    width = sum(map(cells, picture))
    assert width <= max(columns - 1, 1)
    assert 0 <= cursor <= width


@given(st.lists(st.binary(max_size=8)))
def test_input_split_anywhere(pieces: list[bytes]) -> None:
    editor = LineEditor()
    done = [event for piece in pieces for event in editor.feed(piece)]
    whole = LineEditor()
    assert whole.feed(b"".join(pieces)) == done
    assert (whole.text, whole.cursor) == (editor.text, editor.cursor)
