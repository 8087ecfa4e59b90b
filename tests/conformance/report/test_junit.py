"""junit.xml and badge.json."""

from xml.etree import ElementTree

from conformance.harness.verdicts import Verdict
from conformance.report.junit import badge, junit
from tests.support.reports import EVERY, document, unsafe


def test_junit() -> None:
    found = document(EVERY)
    found["stale"] = ["server/1/gone"]
    root = ElementTree.fromstring(junit(found))
    suite = root[0]
    assert {name: int(root.get(name, "")) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": len(EVERY) + 1,
        "failures": 2,
        "errors": 5,
        "skipped": 2,
    }
    ends = {case.get("name"): [child.tag for child in case] for case in suite}
    verdicts = {result["id"]: result["verdict"] for result in found["results"]}
    assert {verdicts[name] for name, tags in ends.items() if tags == ["failure"]} == {"FAIL", "XPASS"}
    assert ends["run"] == ["error"]
    assert unsafe(junit(found)) == set()


def test_badge() -> None:
    found = document([Verdict.PASS] * 3)
    found["profile"] = {"shown": ["core", "history"], "missing": ["TLS"], "partial": ""}
    assert badge(found) == {
        "schemaVersion": 1,
        "label": "Roomwire server",
        "message": "core, history: 3 of 3 passed",
        "color": "brightgreen",
        "isError": False,
    }
    failing = badge(document([Verdict.PASS, Verdict.FAIL, Verdict.WARN]))
    assert (failing["message"], failing["color"]) == ("1 of 3 failed", "red")


def test_badge_of_a_partial_run() -> None:
    found = document([Verdict.PASS] * 3)
    found["known"] = 300
    part = badge(found)
    assert (part["message"], part["color"], part["isError"]) == ("partial, 3 of 300 passed", "yellow", False)
    del found["profile"]
    assert badge(found)["color"] == "yellow", "results without a profile claim nothing"
