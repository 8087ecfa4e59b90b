"""What a peer sent, made safe to show on a terminal.

SPEC.md, "Security considerations". Names, messages and error texts are written by strangers: an escape
sequence in them would move the cursor, change the window's title or forge other people's lines, and a
bidirectional or invisible character would show something else than what is there.
"""

import re
import unicodedata

from protocol.names import DEFAULT_IGNORABLE

_ZWJ = "\u200d"
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)
"""Invisible by themselves, but what makes a heart red; a terminal without colour ignores them."""

_PLAIN = re.compile(r"[\x20-\x7e]*")


def harmless(text: str, *, multiline: bool = False) -> str:
    """`text` with everything that is not plainly visible written as an escape, such as \\x1b or \\u202e.

    Escaped are the categories Cc, Cf, Cs, Co, Cn, Zl and Zp and all characters without a shape of their own;
    what remains of them is U+200D inside a joined emoji. With `multiline`, line ends (LF, CRLF) stay as LF
    and tabs become four spaces; the caller indents the lines, or one could be forged to look like somebody
    else's.

    A backslash stays as it is: the result is for eyes, and cannot be turned back. It is plain text; where a
    library gives square brackets or the like a meaning, escaping those is the caller's.
    """
    if _PLAIN.fullmatch(text):
        return text
    if multiline:
        lines = text.replace("\r\n", "\n").replace("\t", "    ").split("\n")
        return "\n".join(_harmless_line(line) for line in lines)
    return _harmless_line(text)


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
    """Whether the character is the joiner in, say, woman + joiner + laptop: one picture, nothing hidden."""
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
