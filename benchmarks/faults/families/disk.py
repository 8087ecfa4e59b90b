"""The disk fails: power is lost between any two writes, the disk is full, or a sync fails."""

from __future__ import annotations

import random
from pathlib import Path
from struct import Struct

from benchmarks.faults.stage import library
from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import STORE, Family, Run, Scene

_RECORD = Struct("=IIQ24s")
WRITE, TRUNCATE, SYNC, CREATE, UNLINK, SYNC_NAMES = range(1, 7)
SECTOR = 512
"""Octets that a disk writes as a whole."""

SYNC_US = 3_000
"""Microseconds that a sync takes, so that power is often lost during one."""


class Disk:
    """The content of the disk after a loss of power, from the journal of faultlib.c.

    Synced writes are there. Of the later writes, a random part is, in any order, and perhaps only some sectors of a
    write. A sync of the file or of the directory makes a file's name durable.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = {name: bytearray(octets) for name, octets in files.items()}
        self._pending: dict[str, list[tuple[int, int, bytes]]] = {}
        self._names: list[tuple[int, str]] = []
        self.unsynced = 0

    def replay(self, journal: Path) -> None:
        """Apply the whole journal."""
        raw = journal.read_bytes() if journal.exists() else b""
        at = 0
        while at + _RECORD.size <= len(raw):
            operation, length, offset, name = _RECORD.unpack_from(raw, at)
            at += _RECORD.size
            if at + length > len(raw):
                break  # the server was killed while it wrote the record
            self._take(operation, name.rstrip(b"\0").decode(), offset, raw[at : at + length])
            at += length

    def _take(self, operation: int, name: str, offset: int, data: bytes) -> None:
        if operation in (WRITE, TRUNCATE):
            self._pending.setdefault(name, []).append((operation, offset, data))
        elif operation == SYNC:
            file = self._files.setdefault(name, bytearray())
            for change in self._pending.pop(name, ()):
                _apply(file, *change)
            self._names = [entry for entry in self._names if entry != (CREATE, name)]
        elif operation == SYNC_NAMES:
            for change_of_name, which in self._names:
                self._rename(change_of_name, which)
            self._names.clear()
        else:
            self._names.append((operation, name))
            if operation == UNLINK:
                self._pending.pop(name, None)

    def _rename(self, operation: int, name: str) -> None:
        if operation == UNLINK:
            self._files.pop(name, None)
        else:
            self._files.setdefault(name, bytearray())

    def cut(self, rng: random.Random, target: Path) -> None:
        """Lose power, and write the files that are left into `target`."""
        for operation, name in self._names:
            if rng.random() < 0.5:
                self._rename(operation, name)
        keep = rng.choice((0.0, 0.5, 0.9, 1.0))
        for name, changes in self._pending.items():
            file = self._files.get(name)
            if file is None:
                continue
            self.unsynced += len(changes)
            kept = [change for change in changes if rng.random() < keep]
            rng.shuffle(kept) if rng.random() < 0.3 else None
            for operation, offset, data in kept:
                if operation == WRITE and rng.random() < 0.2:
                    for start in range(0, len(data), SECTOR):
                        if rng.random() < 0.5:
                            _apply(file, WRITE, offset + start, data[start : start + SECTOR])
                else:
                    _apply(file, operation, offset, data)
        target.mkdir(mode=0o700)
        for name, octets in self._files.items():
            (target / name).write_bytes(octets)


def _apply(file: bytearray, operation: int, offset: int, data: bytes) -> None:
    if operation == TRUNCATE:
        del file[offset:]
        file.extend(bytes(offset - len(file)))
    else:
        file.extend(bytes(max(0, offset - len(file))))
        file[offset : offset + len(data)] = data


async def power(run: Run, outcome: Outcome) -> None:
    """Power is lost during publishing; the server starts again with the synced writes and some of the others."""
    rng, cycles, lives = run.rng("power"), run.either(60, 2), 5
    while outcome.faults < cycles:
        data = run.directory / f"power-{outcome.faults}"
        server = Server(data)
        journal = data.with_suffix(".journal")
        server.environment = library.environment(run.directory, data, journal=journal, sync_us=SYNC_US)
        async with (scene := Scene(server, rng, window=rng.choice((16, 128)))):
            files: dict[str, bytes] = {}
            for life in range(min(lives, cycles - outcome.faults)):
                await scene.kill(outcome, rng.uniform(0.02, 0.5))
                run.progress(f"power {outcome.faults} of {cycles}")
                disk = Disk(files)
                disk.replay(journal)
                server.data = data.with_name(f"{data.name}-{life}")
                disk.cut(rng, server.data)
                unsynced = int(outcome.notes.get("writes not synced when the power went", 0)) + disk.unsynced
                outcome.notes["writes not synced when the power went"] = unsynced
                files = {file.name: file.read_bytes() for file in server.data.iterdir()}
                journal = server.data.with_suffix(".journal")
                server.environment = library.environment(run.directory, server.data, journal=journal, sync_us=SYNC_US)
                await scene.revive(outcome)
            await scene.finish(outcome)


async def full(run: Run, outcome: Outcome) -> None:
    """The disk is full, or a sync fails: the server ends with GOAWAY(INTERNAL), and keeps what it acknowledged."""
    rng, cycles = run.rng("full"), run.either(40, 2)
    for cycle in range(cycles):
        data = run.directory / f"full-{cycle}"
        server = Server(data)
        if cycle % 2:
            failing = library.environment(run.directory, data, syncs=rng.randrange(12, 200))
        else:
            failing = library.environment(run.directory, data, space=rng.randrange(200_000, 3_000_000))
        server.environment = failing
        async with (scene := Scene(server, rng, window=64)):
            await scene.fail(outcome)
            run.progress(f"full {outcome.faults} of {cycles}")
            server.environment = {}
            await scene.revive(outcome)
            await scene.finish(outcome)


FAMILIES = (
    Family("power", "loss of power: what was not synced is lost, torn or reordered", (*STORE, "recovery"), power),
    Family("full", "a full disk, a sync that fails", (*STORE, "recovery", "served"), full),
)
