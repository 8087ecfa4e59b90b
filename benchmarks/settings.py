"""The settings of a run, and the machine that it runs on."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run.

    `seconds` is the length of one pass, `passes` the number of passes, `connections` the largest number that is tried;
    `directory` holds the stores.
    """

    seconds: float
    passes: int
    connections: int
    directory: Path


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores for the server and for the load generator; the same one if there is no other."""

    server: int
    generator: int

    @property
    def shared(self) -> bool:
        return self.server == self.generator


def cores() -> Cores:
    """The first and the last core that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1])


def compiler() -> str | None:
    """The C compiler, $CC or cc. None without one, or without Linux, whose epoll the load generator needs."""
    return shutil.which(os.environ.get("CC") or "cc") if sys.platform == "linux" else None


SPARE_DESCRIPTORS = 200


def possible(connections: int) -> bool:
    """Whether the limit of open descriptors allows so many connections."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard == resource.RLIM_INFINITY or connections + SPARE_DESCRIPTORS <= hard


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes that start in this context stay on `core`, with all their threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def environment(directory: Path) -> dict[str, str]:
    """Facts about the machine that readers need: figures of two machines cannot be compared."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))) if sys.platform == "linux" else str(os.cpu_count()),
        "file system of stores": _file_system(directory),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _file_system(directory: Path) -> str:
    """The type of the file system of `directory`: on tmpfs, a sync does nothing."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, point, name, *_ = line.split(" ")
        if directory.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, name
    return kind
