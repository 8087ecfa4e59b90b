"""reference_client.chat.words: a message is sent or refused, whatever it looks like."""

import argparse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference_client.chat.cli import _parsed, parser
from reference_client.chat.words import with_command

PARSER = parser()
OPTIONS = (
    "-h",
    "--help",
    "--json",
    "--js",
    "-W",
    "-W5",
    "--tls",
    "--name",
    "--name=x",
    "--version",
    "-n",
    "-",
    "--",
    "-x",
)
words = st.one_of(st.sampled_from(OPTIONS), st.text("-hWjson =5.\n", min_size=1, max_size=6), st.text(max_size=8))


def parse(*line: str) -> argparse.Namespace:
    return _parsed(PARSER, with_command(line))


def parsed_or_refused(*line: str) -> argparse.Namespace | None:
    """What was parsed, or None if the line was refused as wrong usage."""
    try:
        return parse(*line)
    except SystemExit as ended:
        if ended.code != 2:
            raise AssertionError(f"status {ended.code}") from None
        return None


def refusal(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(*line)
    out, errors = capsys.readouterr()
    assert (ended.value.code, out, len(errors.splitlines())) == (2, "", 1)
    return errors


@given(words, words)
@example("r", "--")
@example("--", "-h")
@example("-room", "-")
def test_two_dashes_protect_everything(room: str, text: str) -> None:
    for line in (("send", "--json", "--", room, text), ("--json", "send", "--", room, text)):
        parsed = parse(*line)
        assert (parsed.room, parsed.text, parsed.expected, parsed.json) == (room, text, False, True)
    if not room.startswith("-"):
        assert parse("send", "a room", "--", text).text == text
    assert parse("tail", "--", room).room == room


@given(words)
@example("-h")
@example("-hello")
@example("--json")
@example("--")
def test_no_message_vanishes(text: str) -> None:
    """A message is sent as it is, or refused with status 2; only "-" is the standard input."""
    for line in (("send", "room", text), ("send", "room", "-W", "5", text), ("send", "--json", "room", text)):
        parsed = parsed_or_refused(*line)
        if parsed is None:
            assert text.startswith("-")
        else:
            assert parsed.room == "room"
            assert parsed.text == (None if text == "-" else text)
            assert not parsed.expected


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("send r -h", "found the option -h: to send it as a message, write roomwire-chat send r -- -h;"),
        ("send r --json", "roomwire-chat send r -- --json; to send the lines of the standard input, give - as"),
        ("send r --json -W 5", "found the option --json"),
        ("send r --", "roomwire-chat send r -- --;"),
        ("send chat.example:7117 r hi", "the server is an option: roomwire-chat send --server chat.example:7117 r hi;"),
        (
            "send chat r hi",
            "in quotes: roomwire-chat send chat 'r hi'; the server is an option: roomwire-chat send --server",
        ),
        ("send r good morning all", "in quotes: roomwire-chat send r 'good morning all';"),
        (
            "send localhost r",
            "roomwire-chat send --server localhost r; if it is a room, write roomwire-chat send -- localhost",
        ),
        ("send roomwires://h r", "roomwire-chat send --server roomwires://h r;"),
        (
            "tail localhost r",
            "found 2 words: the server is an option: roomwire-chat tail --server localhost r",
        ),
        (
            "tail 127.0.0.1",
            "roomwire-chat tail --server 127.0.0.1 ROOM; if it is a room, write roomwire-chat tail -- 127",
        ),
        ("send 192.0.2.7 hi", "roomwire-chat send --server 192.0.2.7 hi; if it is a room, write"),
        ("send ::1 r hi", "found 3 words: the server is an option: roomwire-chat send --server ::1 r hi"),
        ("tail ::1", "roomwire-chat tail --server ::1 ROOM;"),
        ("tail [::1]:7117", "roomwire-chat tail --server '[::1]:7117' ROOM"),
        ("send", "required: ROOM"),
        ("send r --js hi", "unrecognized arguments: --js"),
    ],
)
def test_refusals_say_what_to_do(line: str, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert advice in refusal(capsys, *line.split())


def test_usual_lines() -> None:
    parsed = parse("--name", "ada", "send", "r", "hi", "-W", "2", "--json")
    assert (parsed.name, parsed.room, parsed.text, parsed.seconds, parsed.json) == ("ada", "r", "hi", 2.0, True)
    assert parse("send", "--json", "r").expected  # the standard input, which must have lines
    assert not parse("send", "r", "-").expected
    assert (parse("send", "r", "").text, parse("send", "r", "- item").text, parse("send", "r", "-5").text) == (
        "", "- item", "-5",
    )  # fmt: skip
    assert parse("send", "--", "localhost", "hi").room == "localhost"
    assert parse("tail", "--", "127.0.0.1").room == "127.0.0.1"
    for room in ("issue:4711", "1.2.3", "10.0.0.0.1", "1.2.3.256", "chat.example"):
        assert parse("send", room, "hi").room == room
    assert parse("localhost", "lobby").words == ["localhost", "lobby"]
