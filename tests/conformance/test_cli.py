"""Exit statuses of the command."""

import pytest

from conformance.cli import main
from conformance.harness.exit_status import CONFORMS, NOTHING, UNREACHABLE, USAGE
from tests.support.suite import CODEC


def test_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["codec", "--exec", CODEC, "codec/7.6"]) == CONFORMS
    assert main(["codec", "--exec", CODEC, "no-such-case"]) == NOTHING
    assert main(["codec", "--exec", CODEC, "--section", "99"]) == USAGE
    assert main(["server", "--connect", "127.0.0.1:1"]) == UNREACHABLE
    assert main(["server", "--connect", "127.0.0.1"]) == USAGE
    assert main(["explain", "nothing"]) == USAGE
    for wrong in (["server"], ["--no-such-option"], ["server", "--connect", "a:1", "--jobs", "0"], []):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == USAGE
    assert "Traceback" not in "".join(capsys.readouterr())
