"""Made-up runs for tests of reports: results with traces in which everything that a peer sent is hostile."""

import json
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

from conformance.files import DATA
from conformance.harness.verdicts import Result, Verdict
from conformance.report.results import About, Summary, build
from conformance.server.cases import server_cases
from conformance.spec.tables import load
from conformance.wire.log import WireLog
from conformance.wire.octets import CLIENT_PREFACE, encode, field, frame, u16
from protocol.fields import agent
from protocol.frames import Hello, Join, Welcome
from protocol.registry import FrameType

EVERY = list(Verdict)
SCHEMA = json.loads((DATA / "results.schema.json").read_text(encoding="utf-8"))
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "\u202eright to left\u2066\u2069\u200f\x1b[31m\x07\x00\x7f\x85\u2028\ud800'\"`{{ 7 * 7 }}]]>&amp;<!--"
)
"""HTML, script, template, XML, terminal and bidirectional tricks, with a lone surrogate."""

SENT = HOSTILE.encode("utf-8", "replace")
WELCOME = Welcome(7, "ada", 1, 65536, 30000, 600000, 32, 256, b"", fields=(agent("tidy/1.0"),), request=1)


def log(frames: int = 0) -> WireLog:
    """A trace of a connection: hostile names and payloads, a frame that breaks a rule, octets that are not a frame."""
    log = WireLog()
    log.add("A", "C", CLIENT_PREFACE, "preface", framed=False)
    log.add("A", "S", CLIENT_PREFACE, "preface", framed=False)
    log.add("A", "C", encode(Hello(HOSTILE[:20], "ANONYMOUS", b"", request=1)))
    log.add("A", "S", encode(WELCOME))
    for number in range(frames):
        log.add("B", "C", encode(Join(f"room {number}", 0, 0, request=number + 1)))
    said = u16(0x0065) + bytes(4) + u16(len(SENT)) + SENT
    log.add("A", "S", frame(FrameType.ERROR, said, request=2))
    log.add("A", "S", frame(0x8ABC, SENT) + frame(FrameType.JOIN, b"\x05ab", request=3))
    log.add("A", "S", frame(FrameType.WELCOME, bytes(8) + b"\x00" + field(0x8002, SENT) * 3, request=1))
    log.add("A", "C", frame(FrameType.PUBLISH, bytes(3000), request=4, room=1), "breaks RW-FRAME-7")
    log.add("A", "S", SENT, "and no more", framed=False)
    log.said("A", "S", f'{{"id": 1, "error": "{HOSTILE}"}}')
    log.event("A", f"connection {HOSTILE} by the server")
    return log


def results(verdicts: list[Verdict], *, frames: int = 0) -> list[Result]:
    """A result of one of the first server cases for each verdict; everything that the peer sent is hostile."""
    found = []
    for case, verdict in zip(server_cases(), verdicts, strict=False):
        requirement = load().requirements[case.requirements[0]]
        result = Result(
            case.id, case.section, case.requirements, requirement.level, case.summary, verdict, 0.25, requirement.id
        )
        result = replace(result, sentence=requirement.text, trace=log(frames).newest(), command="again")
        if verdict is not Verdict.PASS:
            said = f"one\n{HOSTILE}"
            result = replace(result, expected="a reply", got=HOSTILE, reason=said, stderr=HOSTILE)
        found.append(result)
    return found


def document(verdicts: list[Verdict], *, frames: int = 0, **about: Any) -> dict[str, Any]:
    """results.json of a run with these verdicts."""
    summary = Summary("server", HOSTILE, results(verdicts, frames=frames), selected=len(verdicts))
    summary.status = int(any(verdict is not Verdict.PASS for verdict in verdicts))
    began = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return build(summary, About(**{"command": ("roomwire-check", "server", HOSTILE), "began": began, **about}), load())


class Outline(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self._in: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._in = tag if tag in ("script", "style") else None
        self._id = dict(attributes).get("id") or tag

    def handle_data(self, data: str) -> None:
        if self._in:
            self.data[self._id] = self.data.get(self._id, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def unsafe(text: str) -> set[str]:
    """The control, format and unassigned characters in a text, without line feeds."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")} - {"\n"}
