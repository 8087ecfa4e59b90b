"""Two runs compared."""

from conformance.harness.verdicts import Verdict
from conformance.report.compare import compare
from tests.support.reports import document


def test_compare() -> None:
    before = document([Verdict.PASS, Verdict.FAIL, Verdict.PASS, Verdict.XFAIL, Verdict.UNSUPPORTED, Verdict.PASS])
    after = document([Verdict.FAIL, Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.INFO])
    new = {**after["results"][0], "id": "server/3/new", "verdict": "UNHEARD_OF"}
    after["results"].append(new)
    ids = [result["id"] for result in before["results"]]
    assert [(item.case, item.change, item.before, item.after) for item in compare(before, after)] == [
        (ids[0], "worse", "PASS", "FAIL"),
        (ids[5], "gone", "PASS", ""),
        (ids[1], "better", "FAIL", "PASS"),
        (ids[3], "changed", "XFAIL", "FAIL"),
        (ids[4], "changed", "UNSUPPORTED", "INFO"),
        ("server/3/new", "new", "", "UNHEARD_OF"),
    ]
    assert compare(before, before) == []
