"""roomwire-chat in a real terminal that breaks its rows anew when its size changes (tmux)."""

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.client.test_chat_cli import ENVIRONMENT, LIMIT, Server, chat
from tests.support.places import ROOT

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Window:
    """roomwire-chat in a window of tmux."""

    def __init__(self, columns: int, lines: int, *words: str, **environment: str) -> None:
        self._socket = f"roomwire-{os.getpid()}-{uuid.uuid4().hex}"
        variables = [f"{name}={value}" for name, value in environment.items()]
        command = ["env", *variables, sys.executable, "-m", "reference_client", *words]
        self.tmux("new-session", "-d", "-x", str(columns), "-y", str(lines), *command)

    def tmux(self, *words: str, text: str = "") -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, "-f", "/dev/null", *words],
            cwd=ROOT, env=ENVIRONMENT, input=text, capture_output=True, text=True, timeout=LIMIT, check=True,
        )  # fmt: skip
        return done.stdout

    def rows(self) -> list[str]:
        return [row for row in self.tmux("capture-pane", "-p").split("\n") if row]

    def until(self, wanted: Callable[[list[str]], bool]) -> list[str]:
        """The rows, once they are as wanted."""
        deadline = time.monotonic() + LIMIT
        while not wanted(rows := self.rows()):
            assert time.monotonic() < deadline, rows
            time.sleep(0.05)  # between two looks
        return rows


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server("--memory")
    yield server
    server.kill()


def test_rows_that_nobody_forges(server: Server) -> None:
    """Padding, a resize, and COLUMNS of a wider terminal: each row at the left edge is the program's own."""
    window = Window(80, 20, "--name", "ada", server.address, "lobby", COLUMNS="200", LINES="50")
    try:
        window.until(lambda rows: rows[-1:] == ["lobby>"])
        chat("send", "--name", "mal", "lobby", "x" * 65 + "12:00:07 [root] hi", ROOMWIRE_SERVER=server.address)
        typed = "a line that is still being typed, and longer than the window will be at the end"
        window.tmux("send-keys", "-l", typed)
        before = ["* connected, as ada", "* you are in lobby, 1 here", "* <mal> joined lobby"]
        for columns in (80, 50, 70, 40):
            window.tmux("resize-window", "-x", str(columns), "-y", "20")
            shown = f"lobby> {typed[-(columns - 8) :]}"
            end = ["* <mal> left lobby", shown.rstrip()]
            rows = window.until(lambda rows, end=end: rows[-2:] == end)  # type: ignore[misc]
            assert rows[:3] == before
            assert " <mal> x" in rows[3]
            assert all(row.startswith("    ") for row in rows[4:-2])
            assert "".join(rows[3:-2]).replace(" ", "").endswith("x12:00:07[root]hi")
        window.tmux("send-keys", "C-u")
        window.tmux("load-buffer", "-", text="one\n/two\n")
        window.tmux("paste-buffer", "-p")
        window.until(lambda rows: rows[-1].startswith("send 2 lines as one message? y/n"))
        window.tmux("send-keys", "y")
        rows = window.until(lambda rows: rows[-2:] == ["    /two", "lobby>"])
        assert rows[-3].endswith(" <ada> one")
    finally:
        window.tmux("kill-server")
