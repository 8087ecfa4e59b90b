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
    assert badge(document([Verdict.PASS] * 3)) == {
        "schemaVersion": 1,
        "label": "Roomwire server",
        "message": "conforms, 3 of 3 passed",
        "color": "brightgreen",
        "isError": False,
    }
    failing = badge(document([Verdict.PASS, Verdict.FAIL, Verdict.WARN]))
    assert (failing["message"], failing["color"]) == ("1 of 3 failed", "red")
