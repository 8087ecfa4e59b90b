"""SPEC.md against itself, and its reader against documents with errors.

These tests fail when a change is made in only one place: a section, flag, code or requirement is mentioned and not
defined, two tables contradict each other, or a key word stands outside a requirement.
"""

import re
from collections import Counter
from itertools import chain, pairwise

import pytest

from conformance.files import document
from conformance.spec.markdown import Heading, SpecError, plain
from conformance.spec.tables import KEY_WORD, REQUIREMENT_ID, load, parse

SPEC = load()
TEXT = document().read_text(encoding="utf-8")
DOCUMENT = SPEC.document
PROSE = [paragraph.text for paragraph in DOCUMENT.paragraphs]
CELLS = [cell for table in DOCUMENT.tables for row in table.rows for cell in row.values()]


# Tables that say the same


@pytest.mark.parametrize("flag", SPEC.flags)
def test_both_tables_give_a_flag_to_the_same_frames(flag: str) -> None:
    of_frames = {row.name for row in SPEC.frames.values() if flag in row.flags or (flag == "SEQ" and row.seq)}
    assert set(SPEC.flags[flag].frames) == of_frames


def test_flags_of_a_frame_do_not_share_bits() -> None:
    for row in SPEC.frames.values():
        values = [SPEC.flags[name].value for name in row.flags]
        assert len(values) == len(set(values)), row.name


@pytest.mark.parametrize("frame", SPEC.frames)
def test_section_of_a_frame_lists_its_fields(frame: str) -> None:
    section = next(heading.section for heading in DOCUMENT.headings if heading.title == frame)
    lists = [p.text for p in DOCUMENT.paragraphs if p.section == section and p.text.startswith("Extension fields:")]
    listed = {name for text in lists for name in SPEC.fields if re.search(rf"\b{name}\b", text)}
    assert listed == {name for name, row in SPEC.fields.items() if frame in row.frames}


@pytest.mark.parametrize("name", SPEC.transitions)
def test_transitions_are_complete(name: str) -> None:
    """Each state and event has one next state. Every state can be reached, and left unless it is the last."""
    rows = SPEC.transitions[name]
    assert max(Counter((row.state, row.event) for row in rows).values()) == 1
    first, reached, before = rows[0].state, {rows[0].state}, set[str]()
    while reached != before:
        before = set(reached)
        reached |= {row.next for row in rows if row.state in reached or row.state == "any"}
    assert reached == {first} | {row.next for row in rows}
    assert {row.state for row in rows} - {"any"} <= reached
    assert reached - {row.state for row in rows} <= {"CLOSED", "DONE"}


def test_own_checks_are_codes_that_error_can_carry() -> None:
    lists = [text for text in PROSE if re.match(r"Own checks?\b", text)]
    frames_with = {name for name, row in SPEC.frames.items() if row.sender == "C"}
    assert len(lists) == len(frames_with - {"STOP"})
    for text in lists:
        for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text):
            assert "E" in SPEC.codes[name].carriers, name


def test_extensions_of_frames_are_defined() -> None:
    """Section 17.3 names each extension with the first section of its frames."""
    defined = dict(re.findall(r"`(\w+)` \(section (7\.\d+)\)", " ".join(PROSE)))
    sections = {heading.title: heading.section for heading in DOCUMENT.headings}
    firsts = {row.extension: sections[row.name] for row in reversed(SPEC.frames.values()) if row.extension}
    assert defined == firsts


def test_codes_stand_in_frames_that_carry_them() -> None:
    for text in chain(PROSE, CELLS):
        for frame, name in re.findall(r"\b(ERROR|EVICTED|GOAWAY)\(([A-Z_]+)\)", text):
            assert {"ERROR": "E", "EVICTED": "V", "GOAWAY": "G"}[frame] in SPEC.codes[name].carriers, text


# References and words


def slug(heading: str) -> str:
    """The anchor that a Markdown renderer gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_contents_list_the_headings() -> None:
    """Down to 7.1 and 8.1: sections, then the subsections of each one."""
    lines = TEXT.partition("## Contents")[2].partition("\n## ")[0].split("\n")
    assert [line for line in lines if line] == [
        contents(heading) for heading in DOCUMENT.headings if heading.level > 1 and heading.title != "Contents"
    ]


def contents(heading: Heading) -> str:
    """The line of a heading in the contents."""
    if heading.section.isdecimal():
        return f"{heading.section}. [{heading.title}](#{slug(heading.text)})"
    link = f"- [{heading.text}](#{slug(heading.text)})"
    return link if heading.level == 2 else f"   {link}"


def test_sections_are_numbered_in_order() -> None:
    numbers = [heading.section for heading in DOCUMENT.headings if heading.section]
    for before, after in pairwise(numbers):
        head, _, last = before.rpartition(".")
        up = [str(int(part) + 1) for part in before.split(".")[:1] if part.isdecimal()]
        assert after in (
            f"{before}.1",
            f"{head}.{int(last) + 1}" if head else "",
            *up,
            "A",
            chr(ord(before[0]) + 1),
        )


def test_frames_have_sections_in_the_order_of_their_table() -> None:
    assert [h.title for h in DOCUMENT.headings if h.section.startswith("7.")] == list(SPEC.frames)


TARGETS = {heading.section: slug(heading.text) for heading in DOCUMENT.headings}
TARGETS |= {name: name.lower() for name in SPEC.requirements}
LINKED = re.sub(r"(?ms)^## (?:Contents|Appendix B).*?(?=^## )|^#[^\n]*$|^```.*?^```$|`[^`\n]*`", "", TEXT)
"""The text in which each reference is a link: all but headings, code, the contents and the test vectors."""


def test_links_lead_to_what_they_name() -> None:
    for text, target in re.findall(r"\[([^\[\]]*)\]\(#([^)]*)\)", LINKED):
        name = re.sub(r"^([Ss]ections?|[Aa]ppendix) ", "", text).split(" ")[0].rstrip(".")
        assert TARGETS.get(name) == target, f"[{text}](#{target})"


def test_references_are_links() -> None:
    """A requirement or a section that is named outside its own place is a link."""
    loose = re.sub(r"\[[^\[\]]*\]\(#[^)]*\)|\[RW-[A-Z]+-\d+\]$", "", LINKED, flags=re.M)
    assert re.findall(r"RW-[A-Z]+-\d+|[Ss]ections?\s+\d[\d.]*|[Aa]ppendix\s+[A-Z]\b", loose) == []


@pytest.mark.parametrize("name", SPEC.requirements)
def test_anchor_of_a_requirement(name: str) -> None:
    anchor = f'- <a id="{name.lower()}"></a>'
    assert TEXT.count(anchor) == 1
    item = TEXT.partition(anchor)[2].partition("\n- ")[0].partition("\n\n")[0]
    assert item.rstrip().endswith(f"[{name}]")


def test_references_to_sections_exist() -> None:
    sections = {heading.section for heading in DOCUMENT.headings}
    found = re.findall(r"\b[Ss]ections? ([\d.]*\d)(?:(?:,| to| and) ([\d.]*\d))*|\((\d+\.\d+)\)", plain(TEXT))
    assert found
    assert {number for match in found for number in match if number} <= sections


def test_references_to_requirements_exist() -> None:
    mentioned = set(REQUIREMENT_ID.findall(TEXT))
    assert mentioned == set(SPEC.requirements)


def test_every_key_word_stands_in_a_requirement() -> None:
    requirements = {requirement.text for requirement in SPEC.requirements.values()}
    loose = [
        paragraph.line
        for paragraph in DOCUMENT.paragraphs
        if KEY_WORD.search(paragraph.text)
        and not any(paragraph.text.startswith(text) for text in requirements)
        and not paragraph.text.startswith("The key words ")
    ]
    assert loose == []
    assert not any(KEY_WORD.search(cell) for cell in CELLS)
    assert not re.search(r"\b(SHALL|REQUIRED|RECOMMENDED|OPTIONAL)\b", TEXT)


# The requests of the protocol that Roomwire replaces: the first table of section 1.
BEFORE = {"HELO", "JOIN_CHATROOM", "CHAT", "LEAVE_CHATROOM", "DISCONNECT", "KILL_SERVICE"}
BEFORE |= {"ERROR_CODE", "ERROR_DESCRIPTION"}
OUTSIDE = {"ACK", "ALPN", "ANONYMOUS", "ASCII", "BCP", "HTTP", "JSON", "MUST", "MAY", "NFC", "NFD", "NFKD"}
OUTSIDE |= {"NOT", "RFC", "SASL", "SCRAM", "SHA", "SHOULD", "TCP", "TLS", "ULID", "UTF"}


def test_words_in_capitals_are_defined() -> None:
    states = {name for rows in SPEC.transitions.values() for row in rows for name in (row.state, row.next)}
    known = {*SPEC.frames, *SPEC.codes, *SPEC.flags, *SPEC.fields, *states, *BEFORE, *OUTSIDE}
    main = TEXT.partition("## Appendix B.")[0]
    plain = re.sub(r"`[^`\n]*`|RW-[A-Z]+-\d+|```.*?```", "", main, flags=re.S)
    words = set(re.findall(r"(?<!\+)\b[A-Z][A-Z_]{2,}\b", plain))
    assert words <= known


# The reader

ANSWER = '- <a id="rw-auth-1"></a>A client MUST answer AUTH'

ERRORS = {
    "twice": ("[RW-FRAME-2]", "[RW-FRAME-1]", r"RW-FRAME-1 stands in line \d+ already"),
    "no subject": (
        ANSWER,
        ANSWER.replace("A client", "It"),
        "not a requirement",
    ),
    "no key word": (
        ANSWER,
        ANSWER.replace("MUST answer", "answers"),
        "not a requirement",
    ),
    "not an item": (
        ANSWER,
        ANSWER.removeprefix("- "),
        "not a requirement",
    ),
    "bad id": ("[RW-FRAME-2]", "[RW-frame-2]", "not a requirement"),
    "short row": ("| 0x0005 | OK | S |", "| 0x0005 | OK |", "7 cells in a table of 8 columns"),
    "no number": ("| 0x0005 | OK |", "| five | OK |", "not a number: five"),
    "same row": (
        "| CLOSING | time-out | close |",
        "| CLOSING | GOAWAY | close |",
        "a row that the table has already",
    ),
    "no yes": ("| 106 | SEQUENCE | G | yes |", "| 106 | SEQUENCE | G | si |", "neither yes nor no: si"),
    "no range": ("| 1 to 65535 | requests |", "| some | requests |", "not a range: some"),
    "no name": ("| U+2460 |", "| one |", "not a name: one"),
    "no rule": ("| limit | default | range | unit |\n", "", r"section 15 has 0 tables|without a rule"),
    "no layout": (
        "| field | type | meaning |\n|---|---|---|\n| data |",
        "| what | type | meaning |\n|---|---|---|\n| data |",
        "has 0 layouts",
    ),
    "open code": (
        "0123 00 00000002 6869\n```\n",
        "0123 00 00000002 6869\n",
        "code that does not end|a second example",
    ),
}


@pytest.mark.parametrize(("old", "new", "problem"), ERRORS.values(), ids=ERRORS)
def test_reader_error_names_the_line(old: str, new: str, problem: str) -> None:
    assert old in TEXT
    changed = TEXT.replace(old, new, 1)
    with pytest.raises(SpecError, match=rf"SPEC\.md:\d+: .*({problem})") as caught:
        parse(changed)
    assert caught.value.line in range(1, changed.count("\n") + 2)
