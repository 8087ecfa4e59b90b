"""The page of a report as text: what it holds, and that nothing in it is as a peer sent it."""

import json
from base64 import b64encode
from hashlib import sha256

import pytest

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
        shown = json.loads(outline.data[str(script["id"])])
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
