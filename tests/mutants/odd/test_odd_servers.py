"""Odd servers that keep every requirement pass the whole server role."""

import re

import pytest

from conformance.harness.verdicts import Result, Verdict
from conformance.server.cases import server_cases
from tests.mutants.odd import frames, limits, links, stores
from tests.mutants.odd.servers import OddServer, judged

ODD: dict[str, OddServer] = {odd.slug: odd for module in (limits, stores, frames, links) for odd in module.ODD}
FINE = (Verdict.PASS, Verdict.INFO, Verdict.UNSUPPORTED)


def _line(result: Result) -> str:
    said = f"{result.requirement}: expected {result.expected}, got {result.got}" if result.expected else result.reason
    return f"{result.verdict} {result.id}: {said}"


@pytest.mark.parametrize("slug", ODD)
def test_odd_server_passes_every_case(slug: str) -> None:
    cases = server_cases()
    results, errors = judged(ODD[slug], cases)
    assert [_line(result) for result in results if result.verdict not in FINE] == []
    assert [result.id for result in results] == [case.id for case in cases]
    assert errors == []


def test_slugs_and_descriptions() -> None:
    assert [slug for slug in ODD if len(slug) > 40 or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug)] == []
    assert [slug for slug, odd in ODD.items() if not re.fullmatch(r"[A-Z].*[^.]\.", odd.description)] == []
    assert [slug for slug, odd in ODD.items() if odd.breaks] == []
