"""Make text that a peer sent safe to show on a terminal (SPEC.md, "Security considerations").

Names, messages and error texts come from strangers. An escape sequence in them could move the cursor, change the
window's title or forge other people's lines; a bidirectional or invisible character could hide what is there.
"""

import re
import unicodedata

from protocol.names import BLANK, DEFAULT_IGNORABLE

_ZWJ = "\u200d"
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)
"""Invisible by themselves; they choose between emoji and text style, and terminals may ignore them."""

_PLAIN = re.compile(r"[\x20-\x7e]*")


def harmless(text: str, *, multiline: bool = False) -> str:
    """Return `text` with everything that is not plainly visible escaped, like \\x1b or \\u202e.

    Escaped are the categories Cc, Cf, Cs, Co, Cn, Zl and Zp and all default-ignorable characters, except for U+200D
    inside a joined emoji. With `multiline`, line ends (LF, CRLF) stay as LF and tabs become four spaces; the caller
    must indent the lines, or a peer could forge the line of somebody else.

    A backslash stays as it is, so the result is for people and cannot be decoded. If a library gives meaning to
    square brackets or other characters, the caller must escape those.
    """
    if _PLAIN.fullmatch(text):
        return text
    if multiline:
        lines = text.replace("\r\n", "\n").replace("\t", "    ").split("\n")
        return "\n".join(_harmless_line(line) for line in lines)
    return _harmless_line(text)


def plain(name: str, more: str = "") -> str:
    """A name, harmless and without what gives a line its form: brackets, the characters of `more`, odd spaces.

    A server should refuse names that look empty, but a client must not rely on it (RW-NAME-9).
    """
    shown = "".join(_escape(each) if _has_form(each) or each in more else each for each in harmless(name))
    return _escape(shown[0]) + shown[1:] if shown and unicodedata.category(shown[0]).startswith("M") else shown


def named(name: str, verified: bool) -> str:
    """The name of a person: in square brackets if it is an account's, otherwise in angle brackets."""
    return f"[{plain(name)}]" if verified else f"<{plain(name)}>"


def _has_form(character: str) -> bool:
    return character in "<>[]" or character in BLANK or (character != " " and unicodedata.category(character) == "Zs")


def place_of(host: str, port: int) -> str:
    """HOST:PORT, harmless; an IPv6 address is in brackets."""
    return f"[{harmless(host)}]:{port}" if ":" in host else f"{harmless(host)}:{port}"


def _harmless_line(line: str) -> str:
    return "".join(
        character if _is_visible(character) or _joins_emoji(line, index) else _escape(character)
        for index, character in enumerate(line)
    )


def _is_visible(character: str) -> bool:
    if character.isascii():
        return character.isprintable()
    if unicodedata.category(character) in _UNSAFE:
        return False
    point = ord(character)
    return point in _VARIATION_SELECTORS or not any(first <= point <= last for first, last in DEFAULT_IGNORABLE)


def _joins_emoji(line: str, index: int) -> bool:
    """Whether the character joins two emoji into one picture, so that it hides nothing (woman + U+200D + laptop)."""
    if line[index] != _ZWJ or not 0 < index < len(line) - 1:
        return False
    before = line[index - 1]
    is_emoji = _is_symbol(before) or before == "\ufe0f" or "\U0001f3fb" <= before <= "\U0001f3ff"
    return is_emoji and _is_symbol(line[index + 1])


def _is_symbol(character: str) -> bool:
    return unicodedata.category(character) == "So"


def _escape(character: str) -> str:
    point = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
