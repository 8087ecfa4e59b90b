"""The script of --print-completion, as shells run it."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from conformance.cli import main

_BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "script"
    with pytest.MonkeyPatch.context() as patch, path.open("w", encoding="utf-8") as file:
        patch.setattr("sys.stdout", file)
        with pytest.raises(SystemExit) as caught:
            main(["--print-completion", "bash"])
    assert caught.value.code == 0
    return path


@pytest.mark.skipif(not _BASH, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("server --connect a:1 server/7.9/alr", {"server/7.9/already-joined", "server/7.9/already-joined-spelling"}),
        ("codec --exec x server/7.9/alr", set()),
        ("list server/7.9/fre", {"server/7.9/fresh"}),
        ("list --section 7.10", {"7.10"}),
        ("list --requirement RW-JOIN-1", {"RW-JOIN-1"}),
        ("explain RW-JOIN-1", {"RW-JOIN-1"}),
        ("explain server/7.9/fre", {"server/7.9/fresh"}),
        ("describe JOI", {"JOIN", "JOINED"}),
        ("expl", {"explain"}),
    ],
)
def test_completion_in_bash(words: str, found: set[str], script: Path) -> None:
    line = shlex.split(f"roomwire-check {words}")
    told = f"COMP_WORDS=({shlex.join(line)}); COMP_CWORD={len(line) - 1}; _shtab_roomwire_check"
    command = f'source {shlex.quote(str(script))}; {told}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    run = subprocess.run([str(_BASH), "-c", command], capture_output=True, text=True, timeout=60)
    assert set(run.stdout.split()) == found, run.stderr


def test_completion_in_zsh(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--print-completion", "zsh"])
    out = capsys.readouterr().out
    assert "_roomwire_check_subjects() {" in out
    assert ":_roomwire_check_subjects" in out
