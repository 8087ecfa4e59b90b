"""A headless Chromium, driven over chromedriver's HTTP interface (W3C WebDriver) with only the standard library."""

import base64
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError

from tests.support.tools import find

CHROMIUM = find("chromium")
DRIVER = find("chromedriver")

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--window-size=1280,900",
)
_DIRECT = request.build_opener(request.ProxyHandler({}))


class Browser:
    """One browser with one window; `base` is the address of its session."""

    def __init__(self, base: str) -> None:
        self.base = base

    def _call(self, path: str, **values: Any) -> Any:
        return call(f"{self.base}/{path}", values)

    def go(self, address: str) -> None:
        """Opens an address and waits until it is loaded."""
        self._call("url", url=address)

    def open(self, path: Path, fragment: str = "") -> None:
        """Opens or reloads a file. The fragment follows its address, and begins with #."""
        self.go("about:blank")
        self.go(path.resolve().as_uri() + fragment)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of `return ...` in the page."""
        return self._call("execute/sync", script=script, args=list(arguments))

    def run_until_done(self, script: str, *arguments: Any) -> Any:
        """The value that the script passes to its callback, the last of its `arguments`."""
        return self._call("execute/async", script=script, args=list(arguments))

    def type(self, keys: str) -> None:
        """Types keys, one after the other, into the element that has the focus."""
        pressed = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("actions", actions=[{"type": "key", "id": "keyboard", "actions": pressed}])

    def dark(self, dark: bool) -> None:
        """Tells the page that the system prefers a dark or a light scheme."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": features})

    def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Gives the window a size in pixels, of a phone if it is mobile."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self._call("goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=screen)

    def log(self, kind: str) -> list[dict[str, Any]]:
        """The entries of a log, "browser" or "performance", since the last call."""
        return list(self._call("se/log", type=kind))

    def requests(self) -> list[str]:
        """The addresses that were requested since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path: Path) -> None:
        """Writes a screenshot of the window as a PNG."""
        with request.urlopen(f"{self.base}/screenshot") as answer:
            path.write_bytes(base64.b64decode(json.load(answer)["value"]))


def call(address: str, values: dict[str, Any], method: str = "POST") -> Any:
    """The value of chromedriver's answer. Raises RuntimeError with its message."""
    body = json.dumps(values).encode() if method == "POST" else None
    sent = request.Request(address, body, {"Content-Type": "application/json"}, method=method)
    try:
        with _DIRECT.open(sent, timeout=60) as answer:
            return json.load(answer)["value"]
    except HTTPError as error:
        raise RuntimeError(error.read().decode(errors="replace")[:500]) from None


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a new profile in that folder, ended with the block."""
    assert CHROMIUM
    assert DRIVER
    process = subprocess.Popen(
        [DRIVER, "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "HOME": str(profile)},
    )
    try:
        assert process.stdout
        port = next(line.rstrip(".\n").rpartition(" ")[2] for line in process.stdout if "started successfully" in line)
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={profile / 'profile'}"]},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        origin = f"http://127.0.0.1:{port}/session"
        session = call(origin, {"capabilities": {"alwaysMatch": capabilities}})["sessionId"]
        try:
            yield Browser(f"{origin}/{session}")
        finally:
            call(f"{origin}/{session}", {}, "DELETE")
    finally:
        process.terminate()
        process.communicate()
