"""Programs that some tests need and that pip does not install: where one is missing, its tests are skipped by name."""

import os
import shutil

import pytest

PACKAGES = {
    "cc": "gcc libc6-dev",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "mosquitto": "mosquitto",
    "ngircd": "ngircd",
    "node": "nodejs",
    "redis-server": "redis-server",
    "shellcheck": "shellcheck",
    "spin": "spin",
    "systemd-analyze": "systemd",
    "unshare": "util-linux",
}
"""The package of Debian and Ubuntu that has each program. `.ci/run` installs all of them."""


_OTHER_NAMES = {"chromium": ("chromium-browser",), "cc": (os.environ.get("CC") or "cc",)}


def find(program: str) -> str | None:
    """The path of a program that is installed, or None."""
    return next(filter(None, map(shutil.which, (program, *_OTHER_NAMES.get(program, ())))), None)


def lacking(*programs: str) -> str:
    """Which of these are missing, and how to get them; "" if none is."""
    missing = [program for program in programs if not find(program)]
    packages = " ".join(dict.fromkeys(PACKAGES[program] for program in missing))
    return f"{' and '.join(missing)} not installed (Debian, Ubuntu: apt-get install {packages})" if missing else ""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where one of these programs is missing."""
    return pytest.mark.skipif(bool(lacking(*programs)), reason=lacking(*programs))
