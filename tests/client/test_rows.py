"""reference_client.chat.rows and show: what a peer sent cannot be taken for what it is not (RW-NAME-9)."""

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reference_client import events
from reference_client.chat.rows import INDENT, MARGIN, again, rows, width_of
from reference_client.chat.show import Show
from reference_client.session.membership import Member

PLAIN, COLOURED = Show(colour=False), Show(colour=True)
COLOUR = re.compile(r"\x1b\[\d*m")

names = st.text(
    st.one_of(
        st.sampled_from("<>[](), \u2800\u3164\u3000\u0301\u0338:;*!|~\x1b\n0127"),
        st.characters(codec="utf-8"),
    ),
    min_size=1,
    max_size=12,
)
texts = st.one_of(
    st.text(st.sampled_from("ab \n\r\t[]<>:\u4e2d\u0301\U0001f469\u200d0127*|"), max_size=80), st.text(max_size=40)
)


def message(name: str, text: str, verified: bool) -> events.MessageReceived:
    return events.MessageReceived(
        "lobby", 1, 1, 0, 9, name, verified, 0, text.encode("utf-8", "replace"), False, bytes(16), ()
    )


@given(names, texts, st.booleans(), st.none() | names, st.integers(1, 90), st.booleans())
@example("mal", "x" * 64 + "12:00:07 [root] your password, please", False, None, 80, False)
@example("mal", "hi\n12:00:07 [root] x", False, None, 80, True)
@example("0", "|\n\t", False, None, 1, False)
def test_only_the_first_row_of_a_message_begins_at_the_edge(
    name: str, text: str, verified: bool, room: str | None, columns: int, shown_again: bool
) -> None:
    line = COLOURED.message(message(name, text, verified), room=room)
    margin = MARGIN if shown_again else ""
    found = rows(again(line) if shown_again else line, columns)
    assert all(row.startswith(margin + INDENT) for row in found[1:])
    assert found[0].startswith(margin)
    assert all(width_of(row) < max(columns, 16) for row in found)
    # Nothing was lost or added but the breaks and the margins.
    kept = "".join(row.removeprefix(margin + INDENT) if place else row for place, row in enumerate(found))
    assert re.sub(r"[\n |]", "", kept) == re.sub(r"[\n |]", "", line)


@given(names, texts, st.booleans(), st.none() | names)
@example("ada> hi <bob", "x", False, None)
@example("zed] says", "x", True, None)
@example("mal", "x", False, "[root] hi")
def test_the_author_is_what_the_first_brackets_hold(name: str, text: str, verified: bool, room: str | None) -> None:
    """The first brackets are around the author, and tell accounts from guests."""
    head = PLAIN.message(message(name, text, verified), room=room).split("\n")[0]
    match = re.fullmatch(r"[\d :-]{8,19} ([^<>\[\]]* )?([<\[])([^<>\[\]]*)([>\]])( .*)?", head)
    assert match is not None, head
    assert match[2] + match[4] == ("[]" if verified else "<>")
    assert (match[1] is None) == (room is None)
    shown = match[3]
    assert shown.strip(" ") or set(name) == {" "}
    assert not unicodedata.category(shown[0]).startswith("M")
    for line in (
        PLAIN.event(events.MemberJoined("lobby", 1, name, verified)),
        PLAIN.event(events.MemberLeft("lobby", 1, name, False, verified)),
    ):
        assert line is not None
        opening, closing = ("[", "]") if verified else ("<", ">")
        assert line.startswith(f"* {opening}{shown}{closing} ")


@given(st.lists(st.tuples(names, st.booleans()), min_size=1, max_size=5))
@example([("zed, [root]", False)])
@example([("a>, <b", False), ("c], [d", True)])
def test_rosters_have_as_many_names_as_members(members: list[tuple[str, bool]]) -> None:
    line = PLAIN.roster("lobby", [Member(number, *who) for number, who in enumerate(members)], 9)
    found = re.fullmatch(r"\* lobby: (.*)", line)
    assert found is not None
    shown = re.findall(r"<[^<>\[\]]*>|\[[^<>\[\]]*\]", found[1])
    assert ", ".join(shown) == found[1]
    assert [name[0] for name in shown].count("[") == [verified for _, verified in members].count(True)
    assert len(shown) == len(members)


@pytest.mark.parametrize(
    ("line", "columns", "shown"),
    [
        ("12:00:07 <ada> one two three", 20, ["12:00:07 <ada> one ", "    two three"]),
        ("12:00 xxxxxxxxxxxxxxxxxxxx", 20, ["12:00 xxxxxxxxxxxxx", "    xxxxxxx"]),
        ("a\n    b", 20, ["a", "    b"]),
        ("\u4e2d" * 10, 20, ["\u4e2d" * 9, "    \u4e2d"]),
        ("| " + "x" * 18, 20, ["| " + "x" * 17, "|     x"]),
        ("", 20, [""]),
    ],
)
def test_rows(line: str, columns: int, shown: list[str]) -> None:
    assert rows(line, columns) == shown


@given(texts)
def test_colours_take_no_column(text: str) -> None:
    line: Any = COLOURED.note(re.sub(r"[\n\r\x1b]", "", text))
    assert [COLOUR.sub("", row) for row in rows(line, 30)] == rows(COLOUR.sub("", line), 30)
