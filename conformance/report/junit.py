"""A run in the formats of other programs: junit.xml for CI, badge.json for shields.io.

Text is escaped, so that it holds no character that XML forbids.
"""

from typing import Any
from xml.etree import ElementTree

from conformance.harness.verdicts import ACCEPTED, Verdict
from conformance.report.profile import UNKNOWN
from conformance.wire.text import escape

_SKIPPED = {Verdict.UNSUPPORTED, Verdict.XFAIL}
_FAILURES = {Verdict.FAIL, Verdict.XPASS}


def junit(document: dict[str, Any]) -> str:
    """The XML. A problem of the run itself, for example a stale baseline, is a test case of its own."""
    suite = ElementTree.Element("testsuite", name=escape(f"roomwire-check {document['role']}"))
    for result in document["results"]:
        _case(suite, result)
    problems = [f"stale baseline entry: {name}" for name in document["stale"]]
    problems += [document["error"]] if document["error"] else []
    for problem in problems:
        case = ElementTree.SubElement(suite, "testcase", classname="roomwire-check", name="run", time="0")
        ElementTree.SubElement(case, "error", message=escape(problem))
    tests = list(suite)
    totals = {
        "tests": str(len(tests)),
        "failures": str(sum(case.find("failure") is not None for case in tests)),
        "errors": str(sum(case.find("error") is not None for case in tests)),
        "skipped": str(sum(case.find("skipped") is not None for case in tests)),
        "time": str(document["run"]["seconds"]),
    }
    suite.attrib.update(totals, timestamp=escape(document["run"]["date"]))
    root = ElementTree.Element("testsuites", totals)
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, result: dict[str, Any]) -> None:
    verdict = result["verdict"]
    path = f"roomwire.{_role(result)}.{result['section']}"
    attributes = {"classname": escape(path), "name": escape(result["id"]), "time": str(result["seconds"])}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    reason = result["reason"].strip()
    if verdict in _SKIPPED:
        ElementTree.SubElement(case, "skipped", message=escape(f"{verdict}: {reason}"))
    elif verdict not in ACCEPTED:
        kind = "failure" if verdict in _FAILURES else "error"
        got = f"expected {result['expected']}, got {result['got']}" if result["expected"] else reason
        element = ElementTree.SubElement(case, kind, type=escape(verdict), message=escape(got))
        element.text = _lines(f"{result['requirement']}: {result['sentence']}", reason, f"again: {result['command']}")
    elif verdict in (Verdict.WARN, Verdict.INFO):
        said = ElementTree.SubElement(case, "system-out")
        said.text = _lines(f"{verdict} {result['requirement']}", result["expected"], result["got"], reason)


def _role(result: dict[str, Any]) -> str:
    """The role in a case's id."""
    return str(result["id"]).split("/", 1)[0]


def _lines(*texts: str) -> str:
    return "\n".join(escape(line) for text in texts for line in text.splitlines())


def badge(document: dict[str, Any]) -> dict[str, Any]:
    """An endpoint badge of shields.io."""
    verdicts = [result["verdict"] for result in document["results"]]
    wrong = sum(verdict not in ACCEPTED for verdict in verdicts)
    found = document.get("profile", UNKNOWN)
    passed = f"{verdicts.count(Verdict.PASS)} of {document.get('known', len(verdicts))} passed"
    if document["exit"] == 0 and found["partial"]:
        message, color = f"partial, {passed}", "yellow"
    elif document["exit"] == 0:
        message, color = f"{', '.join(found['shown'])}: {passed}", "brightgreen"
    elif wrong:
        message, color = f"{wrong} of {len(verdicts)} failed", "red"
    else:
        message, color = "not tested" if not verdicts else "does not pass", "lightgrey" if not verdicts else "red"
    label = f"Roomwire {escape(document['role'])}"
    return {"schemaVersion": 1, "label": label, "message": message, "color": color, "isError": document["exit"] != 0}
