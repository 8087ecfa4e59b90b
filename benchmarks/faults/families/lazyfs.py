"""Power is lost on LazyFS, a file system that keeps unsynced writes in memory and forgets them on command.

LazyFS is not part of Roomwire: the family uses the program `lazyfs` on PATH, or the one that the variable LAZYFS names.
Unlike with `power`, files are created and removed at once, and the server's calls go through the kernel.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from benchmarks.faults.families.crash import CYCLES_A_STORE
from benchmarks.faults.stage.ledger import DATABASE
from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import STORE, Family, Missing, Run, Scene, wait_until

CACHE = "256MB"
"""More than a store grows to in its cycles: LazyFS writes through what does not fit."""

START_SECONDS = 10.0
PAGE = 4096
UNSYNCED = "pages not synced when the server was killed"
CLEAR = b"lazyfs::clear-cache\n"
LOG = f"{DATABASE}-wal"


class MountFailed(Exception):
    """LazyFS did not start. `str()` has its last line."""


def find() -> tuple[str, str]:
    """The programs lazyfs and fusermount3. Raises Missing."""
    wanted = os.environ.get("LAZYFS") or "lazyfs"
    program, unmount = shutil.which(wanted), shutil.which("fusermount3")
    if program is None:
        raise Missing(f"no program {wanted} (LazyFS, on PATH or named by $LAZYFS)")
    if unmount is None:
        raise Missing("no program fusermount3 (FUSE)")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Missing("no access to /dev/fuse")
    return str(Path(program).absolute()), unmount


def config(commands: Path, done: Path) -> str:
    """The settings of LazyFS, with the FIFOs for commands and for their completion."""
    return f"""\
[faults]
fifo_path = {json.dumps(str(commands))}
fifo_path_completed = {json.dumps(str(done))}

[cache]
apply_eviction = false

[cache.simple]
custom_size = "{CACHE}"
blocks_per_page = 1
"""


def crash(rng: random.Random) -> bytes:
    """The command that makes LazyFS die at the next write or sync of the log or of the database."""
    timing, operation = rng.choice(("before", "after")), rng.choice(("write", "fsync"))
    return f"lazyfs::crash::timing={timing}::op={operation}::from_rgx={rng.choice((LOG, DATABASE + '$'))}\n".encode()


def tear(rng: random.Random, stable: str) -> bytes:
    """The command that makes LazyFS die with parts of the next write to the log, or with one of the next two."""
    file = f"file={stable}/{LOG}"
    if rng.random() < 0.5:
        return f"lazyfs::torn-seq::op=write::{file}::persist={rng.choice((1, 2))}\n".encode()
    parts = rng.randrange(2, 5)
    kept = sorted(rng.sample(range(1, parts + 1), rng.randrange(1, parts)))
    return f"lazyfs::torn-op::{file}::parts={parts}::persist={','.join(map(str, kept))}\n".encode()


class Mount:
    """The directory `point` on LazyFS. `start` mounts it, again and again; leaving the context unmounts it."""

    def __init__(self, point: Path) -> None:
        """Raises Missing."""
        self._program, self._unmount = find()
        self.point = point.absolute()
        self.stable, self._commands, self._done, self._settings, self._log = (
            self.point.with_name(f"{point.name}.{name}")
            for name in ("stable", "commands", "done", "toml", "lazyfs.log")
        )
        self._pipes: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        for directory in (self.point, self.stable):
            directory.mkdir(mode=0o700)
        self._directory = os.open(self.stable, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> Mount:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        os.close(self._directory)

    @property
    def root(self) -> str:
        """A short name of the stable directory for commands: LazyFS reads only 100 octets of a command."""
        return f"/proc/self/fd/{self._directory}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Mount the stable directory with an empty cache, after unmounting it. Raises MountFailed."""
        self.stop()
        for pipe in (self._commands, self._done):
            os.mkfifo(pipe)
            self._pipes.append(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))  # both ends, so that no open waits
        self._settings.write_text(config(self._commands, self._done), encoding="utf-8")
        # Only the file's name, since LazyFS takes a path that contains "-o" for an option.
        command = [self._program, str(self.point), "--config-path", self._settings.name, "-f"]
        command += ["-o", "modules=subdir", "-o", f"subdir={self.root}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._settings.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._directory],
                start_new_session=True,
            )
        await wait_until(lambda: os.path.ismount(self.point) or not self.alive, START_SECONDS)
        if not os.path.ismount(self.point):
            words = self._log.read_text("utf-8", "replace").strip().rpartition("\n")[2]
            raise MountFailed(f"{self._program} does not mount: {words}")

    def tell(self, command: bytes) -> None:
        """Send a command, which LazyFS carries out soon."""
        os.write(self._pipes[0], command)

    async def clear(self) -> None:
        """Lose unsynced writes. Raises TimeoutError."""
        self.tell(CLEAR)
        if not await wait_until(self._finished, START_SECONDS):
            raise TimeoutError("LazyFS does not report that it cleared its cache")

    def _finished(self) -> bool:
        with suppress(BlockingIOError):
            return bool(os.read(self._pipes[1], 100))
        return False

    def unsynced(self) -> int:
        """The number of the store's pages that are not on disk as LazyFS shows them."""
        pages = 0
        for name in (DATABASE, LOG):
            with (self.point / name).open("rb") as shown, (self.stable / name).open("rb") as kept:
                while octets := shown.read(PAGE):
                    pages += octets != kept.read(PAGE)
        return pages

    def stop(self) -> None:
        """Lose unsynced writes, and unmount."""
        if self._process is not None:
            self._process.kill()  # without it, LazyFS aborts at its end
            self._process.wait()
            self._process = None
            subprocess.run([self._unmount, "-u", "-z", str(self.point)], capture_output=True)
        for descriptor in self._pipes:
            os.close(descriptor)
        self._pipes.clear()
        for pipe in (self._commands, self._done):
            pipe.unlink(missing_ok=True)


WAYS = ("killed", "crashed", "torn")
"""The server is killed and the cache cleared; LazyFS dies under it at a write or sync; it dies and a write is torn."""


async def lazyfs(run: Run, outcome: Outcome) -> None:
    """Power is lost in each of the WAYS in turn; a server that survives must end, and acknowledge nothing more."""
    rng, cycles = run.rng("lazyfs"), run.either(50, len(WAYS))
    ways = [WAYS[index % len(WAYS)] for index in range(cycles)]
    rng.shuffle(ways)
    outcome.notes |= dict.fromkeys(WAYS, 0)
    while ways:
        with Mount(run.directory / f"lazyfs-{outcome.faults}") as mount:
            await mount.start()
            async with (scene := Scene(Server(mount.point), rng, window=rng.choice((16, 64, 256)))):
                for _ in range(min(CYCLES_A_STORE, len(ways))):
                    way = ways.pop()
                    await _lose_power(scene, mount, rng, way, outcome)
                    outcome.notes[way] = int(outcome.notes[way]) + 1
                    run.progress(f"lazyfs {outcome.faults} of {cycles}")
                    if way != "killed":
                        await mount.start()
                    await scene.revive(outcome)
                await scene.finish(outcome)


async def _lose_power(scene: Scene, mount: Mount, rng: random.Random, way: str, outcome: Outcome) -> None:
    moment = rng.uniform(0.05, 0.5)
    if way == "killed":
        await scene.kill(outcome, moment)
        outcome.notes[UNSYNCED] = int(outcome.notes.get(UNSYNCED, 0)) + mount.unsynced()
        await mount.clear()
        return
    scene.publish()
    await asyncio.sleep(moment)
    mount.tell(crash(rng) if way == "crashed" else tear(rng, mount.root))
    await scene.fail(outcome)


FAMILIES = (
    Family(
        "lazyfs", "loss of power on LazyFS, which forgets what was not synced", (*STORE, "recovery", "served"), lazyfs
    ),
)
