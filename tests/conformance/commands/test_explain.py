"""The commands explain and describe."""

import pytest

from conformance.cli import main
from conformance.commands.cases import all_cases
from conformance.harness.exit_status import USAGE
from conformance.spec.tables import load


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "server/7.9/already-joined"]) == 0
    out = capsys.readouterr().out
    assert load().requirements["RW-JOIN-1"].text in out
    assert main(["explain", "RW-JOIN-1"]) == 0
    assert "server/7.9/already-joined" in capsys.readouterr().out


@pytest.mark.parametrize("role", ["server", "client", "codec"])
def test_explain_of_a_case(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    for case in [case for case in all_cases() if case.role == role][::25]:
        assert main(["explain", case.id]) == 0
        told = capsys.readouterr().out
        assert case.summary in told
        assert "async def " not in told
        assert "await " not in told
        assert main(["explain", "--source", case.id]) == 0
        out = capsys.readouterr().out
        assert out.startswith(told)
        assert "async def " in out
        assert "await " in out or "Context" in out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["RW-JOIN-*"], ["RW-JOIN-1", "RW-JOIN-2"]),
        (["rw-join-?"], ["RW-JOIN-1", "RW-JOIN-2"]),
        (["server/7.9/*"], ["server/7.9/fresh", "server/7.9/already-joined"]),
        (["server/7.9"], ["server/7.9/fresh", "server/7.9/already-joined"]),
        (["7.9"], ["RW-JOIN-1", "server/7.9/fresh"]),
        (["JOIN"], ["RW-JOIN-1", "RW-JOIN-2"]),
        (["already-joined"], ["server/7.9/already-joined", "server/7.9/already-joined-spelling"]),
        (["hello-name-255"], ["codec/5/decode/hello-name-255", "codec/5/feed/hello-name-255"]),
        (["codec/5/hello-name-255"], ["codec/5/decode/hello-name-255", "codec/5/feed/hello-name-255"]),
        (["codec/5/*/hello-name-255"], ["codec/5/decode/hello-name-255", "codec/5/feed/hello-name-255"]),
        (["takes nothing goaway"], ["server/9.4/slow"]),
        (["second", "JOIN", "its", "ref"], ["server/7.9/already-joined"]),
        (["RW-JOIN-1", "server/7.9/fresh"], ["RW-JOIN-1", "server/7.9/fresh"]),
    ],
    ids=" ".join,
)
def test_explain_of_what_is_meant(words: list[str], found: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *words]) == 0
    ids = [line.split()[0].rstrip(",") for line in capsys.readouterr().out.splitlines() if line]
    assert set(found) <= set(ids)


@pytest.mark.parametrize(
    ("section", "first", "found"),
    [
        ("10.5", "has no requirement and no case of its own; it explains these", ["RW-ORDER-3", "RW-DEDUPE-8"]),
        ("17.6", "has no requirement and no case of its own; it explains these", ["RW-PROMISE-1", "RW-WELCOME-5"]),
        ("B.1", "has no requirement and no case of its own; it names none either", []),
        ("10", "RW-ID-1  ", ["RW-DEDUPE-1", "server/10.1/expired"]),
    ],
)
def test_explain_of_a_section(section: str, first: str, found: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", section]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert first in lines[0]
    ids = [line.split()[0] for line in lines]
    assert set(found) <= set(ids)
    assert len(ids) == len(set(ids))


def test_explain_of_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(main(["explain", heading.section]) == 0 for heading in load().document.headings if heading.section)


def test_explain_of_a_part_of_an_id(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "JOIN-1"]) == 0
    assert capsys.readouterr().out.startswith("RW-JOIN-1, SPEC.md section")


@pytest.mark.parametrize("words", [["zzzz"], ["rw-jon-1"], ["server/7.9/alredy-joined"]])
def test_explain_of_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["explain", *words])
    out, err = capsys.readouterr()
    assert (status, out) == (USAGE, "")
    assert ("did you mean RW-JOIN-1 or" in err) == (words == ["rw-jon-1"])


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], list(load().frames)),
        (["J*"], ["JOIN", "JOINED", "join_rate"]),
        (["joi"], ["JOIN", "JOINED", "NOT_JOINED"]),
        (["303"], ["NOT_JOINED"]),
        (["0x8002"], ["AGENT"]),
        (["max_rooms"], ["max_rooms"]),
        (["code", "layout"], []),
        (["not", "laid", "out"], ["MALFORMED"]),
        (["JOIN", "303"], ["JOIN", "NOT_JOINED"]),
    ],
    ids=" ".join,
)
def test_describe_of_what_is_meant(words: list[str], found: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", *words]) == (0 if found else USAGE)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert set(found) <= set(names)


@pytest.mark.parametrize("name", ["16", "0x10", "0X0010"])
def test_describe_by_number(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The frame is told in full, and what else has the number after it."""
    assert main(["describe", name]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("JOIN  type 0x0010")
    assert any(line.startswith("GAP ") and "JOINED" in line for line in others)


def test_describe_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "JION"]) == USAGE
    assert "no frame JION; did you mean JOIN?" in capsys.readouterr().err


@pytest.mark.parametrize("name", load().frames)
def test_describe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", name.lower()]) == 0
    out = capsys.readouterr().out
    assert all(part.name in out for part in load().bodies[name])
    assert "MALFORMED" not in out or "requirement" in out or name not in ("PING", "OK")
