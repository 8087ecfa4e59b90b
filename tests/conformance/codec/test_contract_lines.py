"""The lines of CONTRACT.md about codecs are those of the reference codec."""

import json
import re
from typing import Any

import pytest

from conformance.codec.reference import answer
from tests.support.places import ROOT


def _pairs() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """All requests in the section about codecs, each with the answer below it."""
    page = (ROOT / "conformance" / "CONTRACT.md").read_text(encoding="utf-8")
    section = page.split("\n## Codec\n")[1].split("\n## ")[0]
    found = re.findall(r"^in +(\{.*)\nout +(\{.*)$", section, re.MULTILINE)
    assert section.count('{"id"') == 2 * len(found)
    return [(json.loads(request), json.loads(reply)) for request, reply in found]


@pytest.mark.parametrize(("request_line", "reply"), _pairs(), ids=lambda line: f"{line['id']} {line.get('op', '')}")
def test_reference_codec_gives_the_answer(request_line: dict[str, Any], reply: dict[str, Any]) -> None:
    assert answer(request_line) == reply


def test_decoded_values_encode_to_the_same_octets() -> None:
    tried = set()
    for request, reply in _pairs():
        if request["op"] in ("decode", "preface") and "value" in reply:
            again = answer({"id": 1, "op": "encode", "frame": reply["frame"], "value": reply["value"]})
            assert again == {"id": 1, "hex": request["hex"]}
            tried.add(reply["frame"])
    assert tried == {"CLIENT_PREFACE", "SERVER_PREFACE", "HELLO", "ROSTER", "UNKNOWN"}


def test_page_shows_each_operation_and_outcome() -> None:
    shown = {(request["op"], "error" in reply) for request, reply in _pairs()}
    assert shown == {(op, refused) for op in ("preface", "decode", "encode", "feed") for refused in (False, True)}
