"""protocol.names: which names are allowed, and which are the same."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import NameInvalid
from protocol.names import DEFAULT_IGNORABLE, MAX_OCTETS, key, normalise

IGNORABLE = [chr(point) for first, last in DEFAULT_IGNORABLE for point in range(first, last + 1)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Stra\u00dfe", "STRASSE"),
        ("\ufb01", "fi"),
        ("\u2460", "1"),
        ("e\u0301", "\u00c9"),
        ("\u03bf\u03b4\u03bf\u03c2", "\u039f\u0394\u039f\u03a3"),  # final sigma
        ("\uff32\uff4f\uff4f\uff4d", "room"),  # fullwidth
        ("\u3392", "mhz"),  # folded only by the second round
        ("\u1fb3\u0301", "\u03b1\u0301\u0345"),  # U+0345 last in canonical order
        ("ro\u00adom", "room"),
        ("ro\ufe0fom", "room"),
        ("\u3164room", "room"),
    ],
)
def test_same_name(one: str, other: str) -> None:
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("\u0130", "i"), ("\u0131", "i"), ("a", "\u0430"), ("a b", "ab"), ("room1", "room2")],
)
def test_different_name(one: str, other: str) -> None:
    assert key(one) != key(other)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Stra\u00dfe", "strasse"),
        ("\ufb01", "fi"),
        ("\u2460", "1"),
        ("\u00c9", "e\u0301"),
        ("\u0130", "i\u0307"),
        ("Caf\u00e9 No 1", "cafe\u0301 no 1"),
    ],
)
def test_key_itself(name: str, expected: str) -> None:
    assert key(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a"),
        ("Stra\u00dfe 7", "Stra\u00dfe 7"),
        ("e\u0301", "\u00e9"),
        ("\ufb01", "\ufb01"),  # NFC, not NFKC: shown as written
        ("\u212b", "\u00c5"),
        ("~guest", "~guest"),
        ("a" * 64, "a" * 64),
        ("\u00e9" * 32, "\u00e9" * 32),
        ("e\u0301" * 32, "\u00e9" * 32),  # 96 octets before NFC, 64 after
    ],
)
def test_allowed(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 65,
        "\u00e9" * 33,
        "\U0001f600" * 17,
        " ",
        " a",
        "a ",
        "a  b",
        "a\u00a0b",
        "a\u3000b",
        "a\tb",
        "a\nb",
        "a\x00",
        "a\x7f",
        "a\x9b",
        "a\u200bb",
        "a\u200db",
        "a\u202eb",
        "a\u00adb",
        "\ufeffa",
        "a\u2028b",
        "a\u2029b",
        "a\ud800b",
        "a\ue000b",
        "a\U0010fffdb",
        "a\u0378b",
        "a\uffffb",
        "\u0301a",
        "\u20dda",
        "\u0903a",
        "\u3164",
        "\u115f\u1160",
        "\u2800",
        "ada\u2800",
        "\U0001d159",
        "\U00013441",
        "\u3164 \u3164",
        "a \u3164",
        "\u3164\u0301",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(NameInvalid):
        normalise(text)


@pytest.mark.parametrize("text", ["", "\u200b", "\u00ad\u034f", "\u3164\ufe0f"])
def test_nothing_left_to_compare(text: str) -> None:
    with pytest.raises(NameInvalid):
        key(text)


def test_refusal_has_the_character() -> None:
    with pytest.raises(NameInvalid) as refused:
        normalise("a\u202eb")
    assert (refused.value.field, refused.value.found) == ("name", "U+202E (Cf)")
    assert str(refused.value).isascii()


def test_ignorable_ranges() -> None:
    """The ranges are sorted, include every format character that is invisible, and do not change a key."""
    bounds = [point for pair in DEFAULT_IGNORABLE for point in pair]
    assert bounds == sorted(bounds)
    # Prepended concatenation marks, interlinear annotation and hieroglyph controls are Cf, and not ignorable.
    shown = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\ufff9\ufffa\ufffb"
    formats = {chr(point) for point in range(0x110000) if unicodedata.category(chr(point)) == "Cf"}
    others = formats - set(IGNORABLE) - set(shown)
    assert {f"{ord(character):04X}"[:-1] for character in others} <= {"110B", "110C", "1343", "1344"}
    assert all(key(f"a{character}b") == "ab" for character in IGNORABLE)


def test_every_code_point() -> None:
    """A second round changes the key of no code point."""
    for character in map(chr, range(0x110000)):
        folded = key("#" + character)
        assert key(folded) == folded
        assert key("#" + unicodedata.normalize("NFC", character)) == folded


# Letters and marks that fold, compose, decompose, reorder or vanish.
tricky = st.sampled_from("aAiI\u0130\u0131\u00df\u1e9e\u03a3\u03c3\u03c2\u0345\u0301\u0307\u0323\u1fb3\ufb01\u3392 ")
anything = st.characters(exclude_categories=())
texts = st.text(st.one_of(anything, tricky, st.sampled_from(IGNORABLE)), max_size=80)
# Without letters whose capital belongs to another letter, like U+0131, and marks that casing turns into letters.
cased = anything.filter(lambda c: c.upper().casefold() == c.casefold() and not unicodedata.combining(c))


@given(texts)
def test_key_is_its_own_key(text: str) -> None:
    try:
        folded = key(text)
    except NameInvalid:
        return
    assert key(folded) == folded


@given(texts)
def test_canonical_equivalents_have_one_key(text: str) -> None:
    variants = ["#" + unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert {key(variant) for variant in variants} == {key("#" + text)}


@given(st.text(cased, max_size=20).map("#".__add__))
def test_case_is_ignored(text: str) -> None:
    assert key(text.upper()) == key(text.lower()) == key(text.casefold()) == key(text)


@given(texts)
def test_allowed_names_are_stable(text: str) -> None:
    """normalise raises only NameInvalid. Its result is stable, and has the same key."""
    try:
        name = normalise(text)
    except NameInvalid:
        return
    assert normalise(name) == name
    assert key(name) == key(text)
    assert unicodedata.is_normalized("NFC", name)
    assert 1 <= len(name.encode()) <= MAX_OCTETS
