"""The command: selection, baseline, forms of output, exit statuses, and what it says of frames."""

import io
import json
import shlex
import sys
from pathlib import Path

import pytest

from conformance import cli
from conformance.commands.cases import all_cases
from conformance.harness.baseline import BaselineError, read
from conformance.harness.case import Case, check
from conformance.harness.exit_status import CONFORMS, FAILS, NOTHING, UNREACHABLE, USAGE
from conformance.harness.selection import Selection, SelectionError
from conformance.spec.tables import load

_CODEC = f"{shlex.quote(sys.executable)} -m conformance.codec.reference"
_ALL = all_cases()


def _ids(**parts: object) -> list[str]:
    return [case.id for case in Selection(**parts).of(_ALL, load())]  # type: ignore[arg-type]


def test_cases_fit_the_document() -> None:
    check(_ALL, load())
    assert len([case for case in _ALL if case.role == "server"]) > 300
    for case in _ALL:
        others = {"server": "client", "client": "server"}.get(case.role)
        about = [load().requirements[name] for name in case.requirements]
        assert [r.id for r in about if r.binds == others and f"a {case.role}" not in r.text] == [], case.id


def test_selection() -> None:
    assert _ids(patterns=["server/7.9/already-joined"]) == ["server/7.9/already-joined"]
    assert _ids(patterns=["server/7.9/already*"]) == ["server/7.9/already-joined", "server/7.9/already-joined-spelling"]
    assert _ids(patterns=["server/7.9"]) == _ids(patterns=["server/7.9/*"])
    assert _ids(patterns=["server/7"]) == [id for id in _ids(sections=["7"]) if id.startswith("server/")]
    assert set(_ids(sections=["7"])) > set(_ids(sections=["7.9"]))
    assert not any(id.startswith(("server/7.1/", "server/7.10/")) for id in _ids(sections=["7.9"]))
    assert all("RW-JOIN-1" in case.requirements for case in Selection(requirements=["RW-JOIN-1"]).of(_ALL, load()))
    assert _ids(requirements=["RW-JOIN-2"]) == ["server/7.9/too-many-rooms"]
    assert _ids(patterns=["server"], levels=["SHOULD"]) == [
        "server/8.6/refuses-new",
        "server/13/account-full",
        "server/15/rates-outlive-connections",
    ]
    assert _ids(words="waits and not (8.4 or 5.1)", patterns=["server/5.2", "server/8.4"])
    assert set(_ids(words="process")) == {case.id for case in _ALL if "process" in case.tags}
    assert _ids(patterns=["server/7.9"], words="spelling or fresh") != []


@pytest.mark.parametrize("words", ["and", "a and", "(a", "a)", "not", "a b", "or b"])
def test_words_that_mean_nothing(words: str) -> None:
    with pytest.raises(SelectionError):
        Selection(words=words).of(_ALL, load())


def test_selection_of_what_does_not_exist() -> None:
    with pytest.raises(SelectionError):
        Selection(requirements=["RW-NONE-1"]).of(_ALL, load())
    with pytest.raises(SelectionError):
        Selection(sections=["99"]).of(_ALL, load())


def test_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["codec", "--exec", _CODEC, "codec/7.6"]) == CONFORMS
    assert cli.main(["codec", "--exec", _CODEC, "no-such-case"]) == NOTHING
    assert cli.main(["codec", "--exec", _CODEC, "--section", "99"]) == USAGE
    assert cli.main(["server", "--connect", "127.0.0.1:1"]) == UNREACHABLE
    assert cli.main(["server", "--connect", "127.0.0.1"]) == USAGE
    assert cli.main(["explain", "nothing"]) == USAGE
    for wrong in (["server"], ["--no-such-option"], ["server", "--connect", "a:1", "--jobs", "0"], []):
        with pytest.raises(SystemExit) as caught:
            cli.main(wrong)
        assert caught.value.code == USAGE
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("server {prot}", "unknown placeholder {prot}, known are dir, host, port"),
        ("server {cert}", "placeholder {cert}, known are dir, host, port; a server has {cert} and {key} with --tls"),
    ],
)
def test_placeholders_that_are_not_known(template: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["server", "--exec", template]) == USAGE
    assert capsys.readouterr().err.endswith(f"{told}\n")


def test_program_that_dies_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    source = "import sys; print('no port for me', file=sys.stderr); sys.exit(7)"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(source)}"
    assert cli.main(["server", "--exec", command]) == UNREACHABLE
    out, err = capsys.readouterr()
    assert "ended with status 7" in out
    assert "no port for me" in err


def test_fault_of_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(context: object) -> None:
        """Never comes to run."""

    wrong = Case("codec/7.6/wrong", "7.6", ("RW-NOT-1",), "Names what does not exist.", run)
    monkeypatch.setattr("conformance.commands.run_codec.codec_cases", lambda: (wrong,))
    assert cli.main(["codec", "--exec", _CODEC]) == 4


def _baseline(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    return ["codec", "--exec", _CODEC, "codec/7.6", "--format", "json", "--baseline", str(path)]


def test_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "baseline.toml"
    arguments = _baseline(path, '[expected-failures]\n"codec/7.6/decode/ping-client" = "ticket 1"\n')
    assert cli.main(arguments) == FAILS
    document = json.loads(capsys.readouterr().out)
    assert document["counts"]["XPASS"] == 1
    arguments = _baseline(path, '[expected-failures]\n"codec/7.6/decode/was-renamed" = "ticket 2"\n')
    assert cli.main(arguments) == FAILS
    assert json.loads(capsys.readouterr().out)["stale"] == ["codec/7.6/decode/was-renamed"]
    assert cli.main(_baseline(path, '[expected-failures]\n"server/7.9/gone" = "another role"\n')) == CONFORMS
    assert cli.main(_baseline(path, "expected-failures = 3")) == USAGE
    assert cli.main(_baseline(path, "not toml")) == USAGE


def test_baseline_wants_reasons(tmp_path: Path) -> None:
    path = tmp_path / "baseline.toml"
    path.write_text('[expected-failures]\n"codec/7.6/decode/ping-client" = ""\n', encoding="utf-8")
    with pytest.raises(BaselineError):
        read(path)
    with pytest.raises(BaselineError):
        read(tmp_path / "absent.toml")


def test_expected_failures_do_not_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (
        'import json, sys\nprint(\'{"ready": true, "contract": 1}\', flush=True)\n'
        "for line in sys.stdin: print(json.dumps({'id': json.loads(line)['id'], 'error': 'X'}), flush=True)"
    )
    program = tmp_path / "codec.py"
    program.write_text(source, encoding="utf-8")
    path = tmp_path / "baseline.toml"
    path.write_text('[expected-failures]\n"codec/7.6/decode/ping-client" = "ticket 1"\n', encoding="utf-8")
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(program))}"
    arguments = ["codec", "--exec", command, "codec/7.6/decode/ping-client", "--baseline", str(path)]
    assert cli.main(arguments) == CONFORMS
    assert "XFAIL" in capsys.readouterr().out


def test_outputs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["codec", "--exec", _CODEC, "codec/7.6"]
    monkeypatch.setenv("NO_COLOR", "1")
    assert cli.main([*arguments, "-v"]) == CONFORMS
    out, err = capsys.readouterr()
    assert "PASS" in out
    assert "\x1b" not in out
    assert err == ""
    cli.main([*arguments, "--format", "ndjson"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["type"] == "summary"
    assert len(lines) == lines[-1]["selected"] + 1
    assert {line["verdict"] for line in lines[:-1]} == {"PASS"}


def test_list_and_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "server/7.9", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["section"] for row in rows} == {"7.9"}
    assert cli.main(["explain", "server/7.9/already-joined"]) == 0
    out = capsys.readouterr().out
    assert load().requirements["RW-JOIN-1"].text in out
    assert cli.main(["explain", "RW-JOIN-1"]) == 0
    assert "server/7.9/already-joined" in capsys.readouterr().out


@pytest.mark.parametrize("role", ["server", "client", "codec"])
def test_explain_shows_what_tries_a_case(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    for case in [case for case in _ALL if case.role == role][::25]:
        assert cli.main(["explain", case.id]) == 0
        out = capsys.readouterr().out
        assert "async def " in out
        assert "await " in out or "Context" in out


@pytest.mark.parametrize("name", load().frames)
def test_describe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", name.lower()]) == 0
    out = capsys.readouterr().out
    assert all(part.name in out for part in load().bodies[name])
    assert "MALFORMED" not in out or "requirement" in out or name not in ("PING", "OK")


@pytest.mark.parametrize("annotate", [[], ["--annotate"]])
def test_decode(annotate: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "frames.hex"
    path.write_text("F5525750 01 01 0000 # preface\n" + load().examples["JOIN"].hex(), encoding="ascii")
    assert cli.main(["decode", str(path), *annotate]) == 0
    assert '"lobby"' in capsys.readouterr().out
    path.write_bytes(load().examples["PUBLISH"] + b"\x00")
    assert cli.main(["decode", str(path), *annotate]) == 0
    assert "PUBLISH" in capsys.readouterr().out
    assert cli.main(["decode", str(tmp_path / "absent")]) == USAGE


def test_decode_shows_nothing_as_it_came(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Control and bidirectional characters of a peer do not reach the terminal."""
    name = "\x1b[31m\u202eevil".encode()
    octets = bytes([0, 0, 0, 17 + len(name)]) + bytes.fromhex("0010 0000 00000001 00000000")
    octets += bytes([len(name)]) + name + bytes(16)
    for arguments in (["decode", "-"], ["decode", "-", "--annotate"]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(octets)))
        assert cli.main(arguments) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "evil" in out
