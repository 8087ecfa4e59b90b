"""The page of a report as text: what it holds, and that nothing in it is as a peer sent it."""

import json
from base64 import b64decode, b64encode
from hashlib import sha256
from zlib import decompress

import pytest

from conformance.harness.verdicts import Verdict
from conformance.report import html
from tests.support.reports import EVERY, HOSTILE, Outline, document, unsafe


def test_page_of_hostile_peers() -> None:
    text = html.render([document(EVERY, name=HOSTILE), document(EVERY[:3], name=HOSTILE[::-1])])
    assert unsafe(text) == set()
    outline = Outline(text)
    assert "owned" in text
    assert outline.all("img") == []
    assert not [name for _, attributes in outline.elements for name in attributes if name.startswith("on")]
    scripts = outline.all("script")
    assert [script for script in scripts if script.get("type") != "application/json"] == [{}]
    for script in scripts[:-1]:
        shown = json.loads(decompress(b64decode(json.loads(outline.data[str(script["id"])]))))
        assert shown
        assert unsafe("".join(str(value) for item in shown for value in item)) == set()
    links = [
        attributes[name] or "" for _, attributes in outline.elements for name in ("href", "src") if name in attributes
    ]
    assert {link[:5] for link in links if not link.startswith("#")} == {"data:"}


def test_policy_of_the_page() -> None:
    outline = Outline(html.render([document(EVERY)]))
    (policy,) = (meta["content"] for meta in outline.all("meta") if meta.get("http-equiv"))
    assert policy
    assert policy.startswith("default-src 'none'")
    for tag in ("script", "style"):
        digest = b64encode(sha256(outline.data[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not [name for _, attributes in outline.elements for name in attributes if name == "style"]


def test_content_of_the_page() -> None:
    found = document(EVERY, seed=4711)
    found["results"][0]["kills"] = ["counts-from-zero"]
    text = html.render([found])
    outline = Outline(text)
    ids = {attributes.get("id") for _, attributes in outline.elements}
    assert {result["id"] for result in found["results"]} <= ids
    assert found["requirements"].keys() <= ids
    for expected in ("4711", "Does not conform", "counts-from-zero", "2026-01-02T03:04:05+00:00", "tidy/1.0"):
        assert expected in text
    with pytest.raises(ValueError, match="at least one"):
        html.render([])


def test_clean() -> None:
    assert html.clean({"a\u202e": ["x\ny\x1b", 3, None, 0.5]}) == {"a\\u202e": ["x\ny\\x1b", 3, None, 0.5]}
    assert html.clean(html.clean(HOSTILE)) == html.clean(HOSTILE)


def test_causes_on_the_page() -> None:
    """Failures stand at the top by cause, and the rest by reason, each with a link to its case."""
    found = document([Verdict.FAIL] * 4 + [Verdict.CRASH, Verdict.UNSUPPORTED, Verdict.UNSUPPORTED, Verdict.PASS])
    for at, result in enumerate(found["results"]):
        result.update(requirement="RW-JOIN-1", reason="", expected="OK", got="nothing within 2 s")
        if result["verdict"] != "FAIL":
            result.update(expected="", got="", reason=f"{result['verdict']}: so")
        if at == 2:
            result["got"] = "ERROR(FORBIDDEN)"
    text = html.render([found])
    assert "5 cases do not pass, for 3 causes" in text
    assert "2 cases have nothing to judge" in text
    groups = [part.split("</details>")[0] for part in text.split('<details class="cause">')[1:]]
    ids = [result["id"] for result in found["results"]]
    linked = [[id for id in ids if f">{id}</a>" in group] for group in groups]
    assert linked == [[ids[0], ids[1], ids[3]], [ids[2]], [ids[4]], ids[5:7]]
    assert [group.split("<b>")[1].split("</b>")[0] for group in groups] == ["3", "1", "1", "2"]


def test_names_beside_each_other() -> None:
    text = html.render([document([Verdict.PASS], name=name) for name in ("ours", "theirs", "another")])
    for number, name in enumerate(("ours", "theirs", "another"), 1):
        assert text.count(f'<bdi class="column" title="{name}">{number} {name}</bdi>') == 2
    assert 'class="column"' not in html.render([document([Verdict.PASS])])


def test_size_of_a_page() -> None:
    """A run of 500 failures with long traces makes a page below 3 MB."""
    found = document([Verdict.FAIL], frames=20)
    [one] = found["results"]
    plain = html.render([found])
    found["results"] = []
    for at in range(500):
        trace = [
            item | {"hex": (at * 7919 + 1).to_bytes(3, "big").hex() + item.get("hex", "")} for item in one["trace"]
        ]
        found["results"].append({**one, "id": f"server/3/case-{at}", "trace": trace, "kills": [], "stderr": ""})
    assert len(plain) < len(html.render([found])) < 3_000_000
    assert len(json.dumps(found["results"])) > 3_000_000


def test_trace_in_the_page() -> None:
    found = document([Verdict.FAIL])
    [data] = [text for id, text in Outline(html.render([found])).data.items() if id.startswith("t0")]
    rows = json.loads(decompress(b64decode(json.loads(data))))
    assert [row[4] for row in rows] == [html.clean(item["name"]) for item in found["results"][0]["trace"]]
