"""What the line "again:" of a failure names: the options that bear on one case."""

from pathlib import Path

import pytest

from conformance import cli
from conformance.commands import arguments
from conformance.harness.options import Options

_PLAIN = ("server", "--connect", "127.0.0.1:7117")
_GIVEN = (
    *("--declare", "ascii-names", "--tls", "--tls-insecure", "--room-prefix", "ci_"),
    *("--seed", "12", "--timeout", "0.25", "--patience", "9"),
)


def _options(*argv: str) -> Options:
    parsed = cli._parsed(argv)
    return arguments.options(parsed, argv[0], argv[1:3])


def test_defaults_are_not_repeated() -> None:
    assert _options(*_PLAIN).command == ("roomwire-check", *_PLAIN)
    client = ("client", "--exec", "./cli {host} {port}")
    assert _options(*client, "--timeout", "20").command == ("roomwire-check", *client, "--timeout", "20")


def test_given_options_are_repeated(tmp_path: Path) -> None:
    config = tmp_path / "roomwire-server.toml"
    config.write_text("[limits]\nmax_rooms = 4\n")
    given = _options(*_PLAIN, *_GIVEN, "--config", str(config))
    assert _options(*given.command[1:]) == given
    assert (given.timeout, given.patience, given.seed, given.limits) == (0.25, 9, 12, {"max_rooms": 4})


@pytest.mark.parametrize("name", ["--connect", "--config", "--baseline", "--report"])
def test_options_that_a_run_takes_once(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second of two servers, baselines or reports would silently take the place of the first."""
    one, two = ("localhost:1", "localhost:2") if name == "--connect" else (str(tmp_path), str(tmp_path / "two"))
    target = () if name == "--connect" else ("--connect", "localhost:1")
    cli._parsed(("server", *target, name, one, name, one))
    with pytest.raises(SystemExit):
        cli._parsed(("server", *target, name, one, name, two))
    assert f"argument {name}: given twice, and a run takes one" in capsys.readouterr().err


def test_abbreviations_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """--time would be taken for --timeout, where --max-time is meant."""
    with pytest.raises(SystemExit):
        cli._parsed(("fuzz", "codec", "--time", "60"))
    assert "unrecognized arguments: --time" in capsys.readouterr().err
