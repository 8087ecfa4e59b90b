"""The test vectors say the same in their files and in appendix B of SPEC.md, and cover what they must.

These tests use no codec: they add up lengths, and compare the rest as text.
"""

import json
import re
from collections import Counter
from typing import Any

import pytest

from conformance.spec import tables as tables_of_spec
from tests.support.places import ROOT

SPEC = (ROOT / "SPEC.md").read_text(encoding="utf-8")
LONGEST_SHOWN = 160
"""Octets. For a longer vector the appendix refers to the file."""


def load(name: str) -> list[dict[str, Any]]:
    lines = (ROOT / "conformance" / "vectors" / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


VALID = load("valid.jsonl")
MALFORMED = load("malformed.jsonl")
NAMES = load("names.jsonl")
FRAMES = [vector for vector in VALID if not vector["frame"].endswith("_PREFACE")]
FIELDS = [field for vector in FRAMES for field in vector["value"].get("fields", [])]


def ids(vectors: list[dict[str, Any]]) -> list[str]:
    return [vector["id"] for vector in vectors]


def octets(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["hex"])


def header(vector: dict[str, Any]) -> list[int]:
    """length, type, flags, request, room."""
    return [int(group, 16) for group in vector["hex"].split()[:5]]


def tables(heading: str) -> list[list[list[str]]]:
    """The tables below a heading of SPEC.md, as cells of rows, without the head."""
    match = re.search(rf"^(#+) {re.escape(heading)}\n", SPEC, re.MULTILINE)
    assert match, f"SPEC.md has no heading {heading!r}"
    text = SPEC[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", text, re.MULTILINE)
    blocks = re.findall(r"(?:^\|.*\|\n)+", text[: end.start()] if end else text, re.MULTILINE)
    return [[[cell.strip() for cell in row[1:-1].split("|")] for row in block.splitlines()[2:]] for block in blocks]


def shown(vector: dict[str, Any]) -> str:
    """The octets as the appendix shows them: the five groups of the header, then those of the body."""
    groups = vector["hex"].split()
    if len(octets(vector)) > LONGEST_SHOWN:
        return "the octets are in the file"
    parts = [groups] if len(octets(vector)) < 16 else [groups[:5], groups[5:]]
    return " ".join(f"`{' '.join(part)}`" for part in parts if part)


def requirements() -> set[str]:
    return set(tables_of_spec.load().requirements)


def test_number_of_vectors() -> None:
    assert len(VALID) >= 60
    assert len(MALFORMED) >= 60
    assert len(NAMES) >= 40


@pytest.mark.parametrize("vectors", [VALID + MALFORMED, NAMES], ids=["frames", "names"])
def test_ids_are_unique(vectors: list[dict[str, Any]]) -> None:
    assert [name for name, count in Counter(ids(vectors)).items() if count > 1] == []


def test_octets_are_unique() -> None:
    # The same octets make two vectors when both sides send them, or under two limits.
    keys = Counter((vector["from"], vector.get("limit"), octets(vector)) for vector in (*VALID, *MALFORMED))
    assert [key for key, count in keys.items() if count > 1] == []


def frame_name(vector: dict[str, Any]) -> str:
    """The frame in the appendix. The files name prefaces as if they were frames."""
    return "preface" if vector["frame"].endswith("_PREFACE") else vector["frame"]


def test_appendix_has_the_valid_vectors() -> None:
    rows = [
        [f"`{vector['id']}`", vector["from"], frame_name(vector), shown(vector), vector["note"]] for vector in VALID
    ]
    assert tables("B.1 Valid") == [rows]


def test_appendix_has_the_malformed_vectors() -> None:
    rows = [
        [
            f"`{vector['id']}`",
            vector["from"],
            shown(vector),
            vector["error"],
            vector["requirement"],
            vector["note"],
        ]
        for vector in MALFORMED
    ]
    assert tables("B.2 Malformed") == [rows]


@pytest.mark.parametrize("vector", FRAMES, ids=ids(FRAMES))
def test_lengths_are_those_of_the_bodies(vector: dict[str, Any]) -> None:
    length, _, flags, request, room = header(vector)
    assert length == len(octets(vector)) - 16
    value = vector["value"]
    assert (flags, request, room) == (value["flags"], value["request"], value["room"])


@pytest.mark.parametrize("vector", MALFORMED, ids=ids(MALFORMED))
def test_malformed_frames_are_complete(vector: dict[str, Any]) -> None:
    # An incomplete frame is no error: its reader waits for the rest.
    length, limit = header(vector)[0], vector.get("limit", 65536)
    if vector["error"] == "FRAME_TOO_LARGE":
        assert length > limit
        assert len(octets(vector)) == 16
    else:
        assert length <= limit
        assert length == len(octets(vector)) - 16


def test_headers_are_in_five_groups() -> None:
    for vector in (*FRAMES, *MALFORMED):
        assert [len(group) for group in vector["hex"].split()[:5]] == [8, 4, 4, 8, 8], vector["id"]


def test_every_frame_occurs_twice_with_each_of_its_flags() -> None:
    table = tables("7. Frames")[0]
    assert len(table) == 20
    flags = {(flag, where): int(value, 16) for flag, value, where in flag_places()}
    for number, frame, senders, _, _, _, names, _ in table:
        mine = [vector for vector in FRAMES if vector["frame"] == frame]
        assert len(mine) >= 2, frame
        assert {header(vector)[1] for vector in mine} == {int(number, 16)}
        assert {vector["from"] for vector in mine} == set(senders.split(", "))
        for name in filter(None, names.split(", ")):
            assert any(header(vector)[2] & flags[name, frame] for vector in mine), (frame, name)
            assert any(not header(vector)[2] & flags[name, frame] for vector in mine), (frame, name)


def flag_places() -> list[tuple[str, str, str]]:
    """Each flag of section 5.4 with its value, once for each frame that it is in."""
    table = tables("5.4 Flags")[0]
    return [(name, value, frame) for name, value, where, _ in table for frame in where.split(", ")]


def test_every_known_field_occurs() -> None:
    known = {int(row[0], 16) for row in tables("5.3 Extension fields")[1]}
    assert known <= {field["type"] for field in FIELDS}


def test_unknown_frames_and_both_prefaces_occur() -> None:
    counts = Counter((vector["frame"], vector["from"]) for vector in VALID)
    for place in (("UNKNOWN", "C"), ("UNKNOWN", "S"), ("CLIENT_PREFACE", "C"), ("SERVER_PREFACE", "S")):
        assert counts[place] >= 2, place


def test_requirements_and_codes_exist() -> None:
    codes = {row[1] for row in tables("16. Errors")[0]}
    known = requirements()
    for vector in MALFORMED:
        assert vector["requirement"] in known, vector["id"]
        assert vector["error"] in codes, vector["id"]


def test_sections_exist() -> None:
    sections = set(re.findall(r"^#+ (\d+(?:\.\d+)?)\.? ", SPEC, re.MULTILINE))
    assert {vector["section"] for vector in (*VALID, *MALFORMED)} <= sections


def test_name_vectors_are_consistent() -> None:
    for vector in NAMES:
        assert (vector["normalised"] is not None) == vector["valid"], vector["id"]
        assert vector["valid"] or not (vector["same_as"] or vector["differs_from"]), vector["id"]
