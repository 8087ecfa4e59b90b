"""Whether a server's memory and descriptors grow without bound, by a rule that a finding quotes.

The second and the last quarter of the time that one process has been fuzzed are compared, so that what fills up once
does not count. A process that ran for less than `JUDGED_AFTER` is not judged, because it may still keep what it was
offered to keep for a while (`retention_ms`, `dedupe_ms`).
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

JUDGED_AFTER = 120.0
"""Seconds."""

FREE_OCTETS = 32 * 2**20
FREE_FILES = 64
OCTETS_A_MESSAGE = 512
"""Octets that a server may need to remember a message besides its content."""

RULE = (
    f"over {JUDGED_AFTER:.0f} s or more: descriptors at most twice those of the second quarter, and {FREE_FILES}; "
    f"memory at most 1.5 times that of the second quarter, {FREE_OCTETS >> 20} MiB, the octets sent since then, and "
    f"{OCTETS_A_MESSAGE} octets for each message acknowledged since then"
)
"""How much a server may use in the last quarter."""


@dataclass(frozen=True)
class Sample:
    """Resident memory in octets, descriptors, and the octets and messages sent up to then, at `seconds` of the run."""

    seconds: float
    memory: int
    files: int
    octets: int
    messages: int

    def __str__(self) -> str:
        return f"memory {self.memory / 2**20:.0f} MiB, descriptors {self.files}"


@dataclass
class Growth:
    """The samples of one process. A new process starts them again."""

    pid: int = 0
    samples: list[Sample] = field(default_factory=list)

    def watch(self, pid: int, seconds: float, octets: int, messages: int) -> None:
        """Takes a sample, if it is time for one and the system has the figures."""
        if pid != self.pid:
            self.pid, self.samples = pid, []
        if pid and (not self.samples or seconds - self.samples[-1].seconds >= 1):
            used = usage(pid)
            if used:
                self.samples.append(Sample(seconds, *used, octets, messages))

    @property
    def newest(self) -> str:
        """The newest sample as text, or ""."""
        return str(self.samples[-1]) if self.samples else ""

    def judge(self) -> tuple[str, bool]:
        """Returns how memory and descriptors stand, as text, and whether they grow against the rule."""
        if len(self.samples) < 8:
            return "", False
        quarter = len(self.samples) // 4
        second, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        memory = [max(sample.memory for sample in part) for part in (second, last)]
        files = [max(sample.files for sample in part) for part in (second, last)]
        told = last[-1].octets - second[-1].octets
        told += OCTETS_A_MESSAGE * (last[-1].messages - second[-1].messages)
        grows = files[1] > 2 * files[0] + FREE_FILES or memory[1] > 1.5 * memory[0] + FREE_OCTETS + told
        lasted = self.samples[-1].seconds - self.samples[0].seconds
        said = (
            f"memory {memory[0] / 2**20:.0f} MiB in the second quarter of {lasted:.0f} s, {memory[1] / 2**20:.0f} MiB "
            f"in the last one; descriptors {files[0]} and {files[1]}"
        )
        if lasted < JUDGED_AFTER:
            return f"{said}: too short to be judged", False
        return f"{said}: {'they grow' if grows else 'flat'}", grows


def usage(pid: int) -> tuple[int, int] | None:
    """Returns resident memory in octets and open descriptors of a process, where the system has the figures."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, ValueError, IndexError):
        return None
