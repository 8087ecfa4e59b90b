"""reference_client.chat.render: text of peers cannot control the terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.names import DEFAULT_IGNORABLE
from reference_client.chat.render import harmless, place_of

BAD = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
texts = st.text(
    st.one_of(
        st.characters(exclude_categories=()),
        st.characters(categories=("Cc", "Cf", "Zl", "Zp", "So")),
        st.sampled_from("\r\n\t\u200d\ufe0f\U0001f469\U0001f4bb\U0001f3fd\x1b["),
    )
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hello", "hello"),
        ("", ""),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\x00\x7f\x80", "\\x00\\x7f\\x80"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("a\r\nb", "a\\r\\nb"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("ad\u200bmin", "ad\\u200bmin"),
        ("ad\u00admin", "ad\\xadmin"),
        ("\ufeff", "\\ufeff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\u3164\u115f\u034f", "\\u3164\\u115f\\u034f"),
        ("\ud83d\ude00", "\\ud83d\\ude00"),
        ("\ue000\U0010fffd", "\\ue000\\U0010fffd"),
        ("\u0378\U000e0041\U000e0100", "\\u0378\\U000e0041\\U000e0100"),
        (
            "Stra\u00dfe \u4e2d\u6587 \u05e9\u05dc\u05d5\u05dd e\u0301",
            "Stra\u00dfe \u4e2d\u6587 \u05e9\u05dc\u05d5\u05dd e\u0301",
        ),
        ("C:\\x1b [bold]", "C:\\x1b [bold]"),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert harmless(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\n", "a\nb\n"),
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\\rb"),
        ("\tx", "    x"),
        ("a\u2028b\x0bc\x0cd\x85e", "a\\u2028b\\x0bc\\x0cd\\x85e"),
        ("\x1b[1A\nx", "\\x1b[1A\nx"),
    ],
)
def test_several_lines(text: str, shown: str) -> None:
    assert harmless(text, multiline=True) == shown


@pytest.mark.parametrize(
    "emoji",
    [
        "\U0001f469\u200d\U0001f4bb",
        "\U0001f469\U0001f3fd\u200d\U0001f4bb",
        "\u2764\ufe0f\u200d\U0001f525",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    ],
)
def test_joined_emoji_stay_whole(emoji: str) -> None:
    assert harmless(f"so {emoji}!") == f"so {emoji}!"


@pytest.mark.parametrize(
    "text",
    [
        "a\u200db",
        "\u200d\U0001f4bb",
        "\U0001f469\u200d",
        "\U0001f469\u200d\u200d\U0001f4bb",
        "\U0001f469\u200d\nx",
    ],
)
def test_other_joiners_are_shown(text: str) -> None:
    assert "\\u200d" in harmless(text)
    assert "\u200d" not in harmless(text)
    assert "\u200d" not in harmless(text, multiline=True)


@given(texts)
def test_nothing_unsafe_is_left(text: str) -> None:
    shown = harmless(text)
    left = {character for character in shown if unicodedata.category(character) in BAD}
    assert left <= {"\u200d"}
    assert len(shown.splitlines()) <= 1


@given(texts)
def test_multiline_keeps_only_line_ends(text: str) -> None:
    shown = harmless(text, multiline=True)
    assert shown.split("\n") == [harmless(line) for line in shown.split("\n")]
    assert shown.count("\n") == text.count("\n")


@given(texts)
def test_harmless_text_is_unchanged(text: str) -> None:
    assert harmless(harmless(text)) == harmless(text)


def test_ipv6_addresses_are_in_brackets() -> None:
    assert [place_of(host, 7117) for host in ("::1", "chat.example", "\x1b")] == [
        "[::1]:7117", "chat.example:7117", "\\x1b:7117",
    ]  # fmt: skip


def test_every_code_point() -> None:
    """Each one, alone, is shown unchanged or as an ASCII escape; invisible ones are always escaped."""
    invisible = {point for first, last in DEFAULT_IGNORABLE for point in range(first, last + 1)}
    invisible -= set(range(0xFE00, 0xFE10))  # variation selectors
    for point in range(0x110000):
        character = chr(point)
        shown = harmless(character)
        if unicodedata.category(character) in BAD or point in invisible:
            assert shown.startswith("\\")
            assert shown.isascii()
            assert shown.isprintable()
        else:
            assert shown == character
