"""What a run may claim: the parts of the protocol that it has shown."""

import io
import json

import pytest

from conformance.cli import main
from conformance.commands.cases import all_cases
from conformance.harness.verdicts import ACCEPTED, Verdict
from conformance.report.html import render
from conformance.report.profile import CORE_KEYS, PARTS, headline, profile
from conformance.report.results import Summary
from conformance.report.terminal import Reporter
from tests.support.reports import document, results

IDS = {role: [case.id for case in all_cases() if case.role == role] for role in ("server", "client", "codec")}
ALL = {
    "server": ("core", "history", "accounts", "TLS", "durable"),
    "client": ("core", "recovery", "history", "accounts", "TLS"),
    "codec": ("core",),
}


def _passed(role: str, **others: Verdict) -> dict[str, str]:
    return {id: others.get(id, Verdict.PASS).value for id in IDS[role]}


@pytest.mark.parametrize("role", IDS)
def test_ids_and_names(role: str) -> None:
    assert set(CORE_KEYS[role]) <= set(IDS[role])
    for part in PARTS[role]:
        assert set(part.keys) <= set(IDS[role])
        assert all(any(id.startswith(start) for id in IDS[role]) for start in part.cases)
        assert all(key.startswith(part.cases) for key in part.keys)


@pytest.mark.parametrize("role", IDS)
def test_whole_run_shows_all(role: str) -> None:
    found = profile(role, _passed(role), len(IDS[role]))
    assert (found.shown, found.missing, found.partial) == (ALL[role], (), "")
    assert headline(0, found.as_json()) == f"conforms in {', '.join(ALL[role])}"
    assert headline(1, found.as_json()) == ""


@pytest.mark.parametrize("role", ["server", "client"])
def test_part_that_was_left_out(role: str) -> None:
    """The part of a case that was unsupported is not shown; the core still is."""
    for part in PARTS[role]:
        verdicts = {id: "UNSUPPORTED" if id.startswith(part.cases) else "PASS" for id in IDS[role]}
        found = profile(role, verdicts, len(IDS[role]))
        assert (found.missing, found.partial) == ((part.name,), "")
        last = [id for id in IDS[role] if id.startswith(part.cases)][-1]
        assert part.name in profile(role, _passed(role, **{last: Verdict.UNSUPPORTED}), len(IDS[role])).missing


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict not in ACCEPTED])
def test_failure_anywhere_leaves_no_core(verdict: Verdict) -> None:
    found = profile("server", _passed("server", **{IDS["server"][0]: verdict}), len(IDS["server"]))
    assert "core" not in found.shown
    assert found.partial == f"1 of {len(IDS['server'])} cases failed"


def test_partial_runs() -> None:
    server, codec = len(IDS["server"]), len(IDS["codec"])
    five = dict.fromkeys(IDS["server"][:5], "PASS")
    assert profile("server", five, server).partial == f"5 of {server} cases ran"
    expected = _passed("server", **{"server/6/replies-in-order": Verdict.XFAIL})
    assert profile("server", expected, server).partial == f"1 of {server} cases are expected to fail"
    untold = _passed("server", **{"server/7.15/echo": Verdict.INFO})
    assert profile("server", untold, server).partial == "server/7.15/echo did not pass"
    skeleton = {id: "PASS" if at < 70 else "UNSUPPORTED" for at, id in enumerate(IDS["codec"])}
    found = profile("codec", skeleton, codec)
    assert (found.shown, found.partial) == ((), f"{codec - 70} of {codec} cases are unsupported")


def test_verdict_in_the_terminal() -> None:
    """The last line claims no more than the profile."""

    def last(summary: Summary) -> str:
        out = io.StringIO()
        Reporter("human", summary.selected, out=out).end(summary)
        return out.getvalue()

    five = results([Verdict.PASS] * 5)
    part = last(Summary("server", "./target", five, selected=5, known=300))
    assert part.splitlines()[-1].startswith("./target passes a part of the suite (5 of 300 cases ran): 5 PASS")
    assert "conforms" not in part


def test_page() -> None:
    found = document([Verdict.PASS] * 3)
    page = render([found])
    assert '<p class="ending part">Passes a part of the suite (' in page
    found["profile"] = {"shown": ["core"], "missing": ["TLS"], "partial": ""}
    page = render([found])
    assert '<p class="ending ok">Conforms in core</p>' in page
    assert '<span class="dim">TLS not shown</span>' in page
    del found["profile"]
    assert '<p class="ending part">' in render([found]), "results without a profile claim nothing"


def test_selection_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """An untouched skeleton or a selection passes, with status 0, and does not conform."""
    command = "python3 -m conformance.skeletons.codec_adapter"
    status = main(["codec", "--exec", command, "--format", "json", "codec/7.6/decode/*"])
    said = json.loads(capsys.readouterr().out)
    assert said["known"] == len(IDS["codec"])
    assert said["profile"]["shown"] == []
    assert (status == 0) is (said["counts"].get("PASS", 0) > 0)
