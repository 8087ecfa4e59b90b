"""The page of a report in use: in a real Chromium, which is driven by chromedriver."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.harness.verdicts import Verdict
from conformance.report import html
from conformance.report.results import mismatches
from tests.support.browser import Browser, browser
from tests.support.reports import SCHEMA, document
from tests.support.tools import needs

pytestmark = needs("chromium", "chromedriver")
SHOWN = "return [...document.querySelectorAll('.case')].filter(item => item.checkVisibility()).map(item => item.id)"
FRAME = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
DRAWN = """
const done = arguments[0], open = () => [...document.querySelectorAll('.trace[open]')];
const look = () => open().every((trace) => trace.querySelector('.steps')) ? done() : requestAnimationFrame(look);
requestAnimationFrame(() => requestAnimationFrame(look));
"""
"""Is done once every trace that is open is drawn."""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as driven:
        driven.go("about:blank")  # its own first page asks for much
        driven.requests()
        yield driven


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(html.render([document(list(Verdict))]), encoding="utf-8")
    return path


def write(window: Browser, words: str) -> None:
    window.run("document.getElementById('text').value = ''; document.getElementById('text').focus()")
    window.type(words)


def test_page_without_requests(window: Browser, file: Path) -> None:
    window.requests()
    window.open(file)
    window.run("for (const item of document.querySelectorAll('details')) item.open = true")
    window.run_until_done(DRAWN)
    window.run("for (const item of document.querySelectorAll('.step')) item.open = true")
    window.run_until_done(FRAME)
    assert window.run("return document.querySelectorAll('.inside').length") > 50
    assert {address for address in window.requests() if not address.startswith("data:")} == {file.resolve().as_uri()}
    assert window.log("browser") == []
    assert window.run("return document.title") == "Roomwire conformance: tidy/1.0"
    assert window.run("return document.querySelectorAll('img, iframe, object').length") == 0
    text = window.run("return document.body.innerText")
    assert "owned" in text
    assert not set(text) & {"\u202e", "\u2066", "\x1b", "\x85", "\u2028"}


def test_filter(window: Browser, file: Path) -> None:
    window.open(file)
    everything = window.run(SHOWN)
    assert len(everything) == len(Verdict)
    window.type("/")
    assert window.run("return document.activeElement.id") == "text"
    write(window, everything[2])
    assert window.run(SHOWN) == [everything[2]]
    assert window.run("return document.getElementById('shown').textContent") == f"1 of {len(everything)}"
    write(window, "no such words")
    assert window.run(SHOWN) == []
    window.type("\ue00c")  # Escape
    assert window.run(SHOWN) == everything
    window.run("document.querySelector('[data-verdict=CRASH]').click()")
    assert len(window.run(SHOWN)) == 1
    window.run("document.querySelector('[data-verdict=FAIL]').click()")
    assert len(window.run(SHOWN)) == 2
    window.run("for (const b of document.querySelectorAll('[aria-pressed=true]')) b.click()")
    window.run(
        "const list = document.getElementById('section'); list.value = arguments[0];"
        "list.dispatchEvent(new Event('input'))",
        everything[-1].split("/")[1],
    )
    section = window.run(SHOWN)
    assert everything[-1] in section
    assert {id.split("/")[1] for id in section} == {everything[-1].split("/")[1]}


def test_filter_by_requirement(window: Browser, file: Path) -> None:
    window.open(file)
    window.run("document.getElementById('requirements').open = true; document.querySelector('[data-find]').click()")
    requirement = window.run("return document.getElementById('text').value")
    shown = window.run(SHOWN)
    assert shown
    found = window.run("return document.getElementById(arguments[0]).textContent", shown[0])
    assert requirement in found


def test_trace_unfolded_by_keyboard(window: Browser, file: Path) -> None:
    window.open(file)
    window.run("document.querySelector('.case > summary').focus()")
    window.type("\ue007")  # Enter
    assert window.run("return document.querySelector('.case').open")
    assert window.run("return document.querySelectorAll('.steps').length") == 0
    window.run("document.querySelector('.case .trace > summary').focus()")
    window.type("\ue007")
    window.run_until_done(DRAWN)
    rows = window.run("return [...document.querySelectorAll('.case[open] .what')].map(item => item.textContent)")
    assert [row.split()[0] for row in rows[:4]] == ["preface", "preface", "HELLO", "WELCOME"]
    assert window.run("return document.querySelectorAll('.steps .arrow').length") >= 10
    window.run("document.querySelectorAll('.step > summary')[2].focus()")
    window.type("\ue007")
    window.run_until_done(FRAME)
    cells = (
        "return [...document.querySelectorAll('.inside tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    fields = window.run(cells)
    assert fields[1] == ["4", "00 01", "type", "0x0001"]
    assert fields[5][2] == "name"


def test_trace_of_a_failure(window: Browser, file: Path) -> None:
    failed = next(item["id"] for item in document(list(Verdict))["results"] if item["verdict"] == "FAIL")
    window.open(file, f"#{failed}")
    window.run_until_done(DRAWN)
    assert window.run("return document.getElementById(arguments[0]).querySelectorAll('.steps').length", failed) == 1


def test_light_and_dark(window: Browser, file: Path) -> None:
    def background() -> str:
        return str(window.run("return getComputedStyle(document.body).backgroundColor"))

    window.dark(False)
    window.open(file)
    light = background()
    window.dark(True)
    dark = background()
    assert dark != light
    window.run("document.getElementById('theme').click()")
    assert background() == light
    window.open(file)
    assert background() == light, "the choice is kept"
    window.run("document.getElementById('theme').click()")
    window.dark(False)
    assert background() == dark


def test_chips_in_line(window: Browser, file: Path) -> None:
    """The ids of all cases begin at one place, however long the word for the verdict is."""
    window.open(file)
    places = "return [...document.querySelectorAll('.case .id')].map(item => item.getBoundingClientRect().x)"
    assert len(set(window.run(places))) == 1
    wide = "return [...document.querySelectorAll('.case .chip')].filter(c => c.scrollWidth > c.clientWidth).length"
    assert window.run(wide) == 0


def test_names_above_the_chips(window: Browser, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text(html.render([document([Verdict.PASS], name=name) for name in ("one", "two")]), encoding="utf-8")
    window.open(path)
    middles = (
        "return [...document.querySelectorAll(arguments[0])].map(item => item.getBoundingClientRect())"
        ".map(box => Math.round(box.x + box.width / 2))"
    )
    assert window.run(middles, ".columns .column") == window.run(middles, ".case .chips .chip")


def test_frames_on_a_phone(window: Browser, file: Path) -> None:
    """Nothing stands beyond the edge, and no frame is cut off."""
    failed = next(item["id"] for item in document(list(Verdict))["results"] if item["verdict"] == "FAIL")
    window.size(390, 800, mobile=True)
    try:
        window.open(file, f"#{failed}")
        window.run_until_done(DRAWN)
        window.run("for (const item of document.querySelectorAll('.case[open] .step')) item.open = true")
        window.run_until_done(FRAME)
        assert window.run("return document.documentElement.scrollWidth") == 390
        beyond = (
            "return [...document.querySelectorAll('.case[open] .what, .case[open] .inside td')]"
            ".filter(item => item.scrollWidth > item.clientWidth + 1).map(item => item.textContent)"
        )
        assert window.run(beyond) == []
        ways = window.run("return [...document.querySelectorAll('.case[open] .way')].map(item => item.innerText)")
        assert ways[:2] == ["A \u2192", "A \u2190"]
    finally:
        window.size(1200, 900)


def test_page_of_many_cases(window: Browser, tmp_path: Path) -> None:
    """A page of 1,500 cases works: all their text is in it, and only unfolded traces are drawn."""
    found = document([Verdict.PASS, Verdict.FAIL, Verdict.WARN], frames=20)
    some = found["results"]
    found["results"] = [some[at % 3] | {"id": f"server/3/case-{at}"} for at in range(1500)]
    assert mismatches(found | {"results": found["results"][:3]}, SCHEMA) == []
    path = tmp_path / "index.html"
    path.write_text(html.render([found]), encoding="utf-8")
    window.open(path)
    assert window.run("return document.getElementById('shown').textContent") == "1500 cases"
    assert window.run("return document.querySelectorAll('.step').length") == 0
    write(window, "case-1499")
    assert window.run(SHOWN) == ["server/3/case-1499"]
