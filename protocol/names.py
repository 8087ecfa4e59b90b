"""Names of people and rooms: which are allowed, and which are the same (SPEC.md, "Names").

A name is shown as its owner wrote it, in form NFC. Two names are the same exactly if their keys are equal. Only a
server compares names, so only a server needs `key`.
"""

import re
import unicodedata

from protocol.errors import NameInvalid

MAX_OCTETS = 64
"""The greatest length of a name in form NFC, in octets of UTF-8."""

UNICODE_VERSION = unicodedata.unidata_version
"""The Unicode version of `normalise` and `key`. Stores keep it with their keys, since a newer version allows more."""

# Default_Ignorable_Code_Point, from DerivedCoreProperties.txt of the Unicode Character Database, version 14.0:
# unicodedata does not have it. Whole blocks are reserved ahead, so later versions have the same ranges.
DEFAULT_IGNORABLE = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x061C, 0x061C),  # Arabic letter mark
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian variation selectors and vowel separator
    (0x200B, 0x200F),  # zero width space to right-to-left mark
    (0x202A, 0x202E),  # bidirectional embeddings and overrides
    (0x2060, 0x206F),  # word joiner to nominal digit shapes
    (0x3164, 0x3164),  # Hangul filler
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # zero width no-break space
    (0xFFA0, 0xFFA0),  # halfwidth Hangul filler
    (0xFFF0, 0xFFF8),  # unassigned specials
    (0x1BCA0, 0x1BCA3),  # shorthand format controls
    (0x1D173, 0x1D17A),  # musical format controls
    (0xE0000, 0xE0FFF),  # tags and supplementary variation selectors
)
"""The first and last code point of each range of characters that are invisible."""

BLANK = "\u2800\U0001d159\U00013441\U00013442"
"""Characters that are no spaces to Unicode, and are shown as nothing: of Braille, music and hieroglyphs."""

_IGNORABLE = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in DEFAULT_IGNORABLE) + "]")
_REFUSED = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"))


def normalise(text: str) -> str:
    """Return the name that `text` asks for: the text in form NFC, if it is allowed.

    Raises NameInvalid if it is empty or longer than MAX_OCTETS; if it has a control, format, surrogate, private or
    unassigned character, a blank one, a separator other than a single U+0020 between other characters, or a combining
    mark at its start, also once invisible characters are removed; or if no character of it is visible.
    """
    # [RW-NAME-1]
    name = unicodedata.normalize("NFC", text)
    # [RW-NAME-3] Its rules about places follow after the length.
    for character in name:
        if character != " " and unicodedata.category(character) in _REFUSED:
            raise _invalid("only visible characters and U+0020", _described(character))
        # [RW-NAME-8]
        if character in BLANK:
            raise _invalid("only visible characters and U+0020", _described(character))
    # [RW-NAME-2]
    octets = len(name.encode())
    if not 1 <= octets <= MAX_OCTETS:
        raise _invalid(f"1 to {MAX_OCTETS} octets of UTF-8", str(octets))
    _require_edges(name)
    # [RW-NAME-4]
    key(name)
    # [RW-NAME-8]
    _require_edges(_IGNORABLE.sub("", name))
    return name


def _require_edges(text: str) -> None:
    """Raise NameInvalid if a space or a combining mark stands where it would not be seen."""
    if text.startswith(" ") or text.endswith(" ") or "  " in text:
        raise _invalid("single spaces, and none at either end", "another space")
    if unicodedata.category(text[0]).startswith("M"):
        raise _invalid("no combining mark at the start", _described(text[0]))


def key(text: str) -> str:
    """Return what is compared instead of the name: without case, compatibility variants and invisible characters.

    This is the compatibility caseless match of the Unicode Standard (section 3.13, D146), after default-ignorable
    characters are removed. A key may be longer than the name, may have spaces that a name may not have, and is never
    shown. A key is its own key. Raises NameInvalid if nothing is left.
    """
    visible = _IGNORABLE.sub("", text)
    # The inner NFD orders U+0345 before folding makes it a letter. The second round folds what the compatibility
    # decomposition produced, such as the capitals inside U+3392.
    once = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", visible).casefold())
    folded = unicodedata.normalize("NFKD", once.casefold())
    if not folded:
        raise _invalid("a visible character", "none")
    return folded


def _invalid(expected: str, found: str) -> NameInvalid:
    return NameInvalid(field="name", expected=expected, found=found)


def _described(character: str) -> str:
    return f"U+{ord(character):04X} ({unicodedata.category(character)})"
