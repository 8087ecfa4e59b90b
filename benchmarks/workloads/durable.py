"""Durable publishes, compared with a loop that writes the same rows to SQLite."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.loadgen.generator import Generator
from benchmarks.servers.peers import JETSTREAM
from benchmarks.servers.targets import SQLITE
from benchmarks.settings import Settings, cores, pinned
from benchmarks.workloads import traffic

GROUP = "Durable publishes"
SHAPE = traffic.DURABLE
BATCHES = (256, SHAPE.publishers * SHAPE.window)
"""Messages a transaction: a medium number, and the most that can be under way at once."""

SCHEMA = (
    "CREATE TABLE messages (room INTEGER, seq INTEGER, time_ms INTEGER, sender INTEGER, id BLOB, ctype INTEGER,"
    " name TEXT, verified INTEGER, payload BLOB, fields BLOB, PRIMARY KEY (room, seq)) WITHOUT ROWID",
    "CREATE TABLE ids (room INTEGER, id BLOB, seq INTEGER, time_ms INTEGER, digest BLOB, PRIMARY KEY (room, id))"
    " WITHOUT ROWID",
)
"""The data of a durable room, without the checks that make it safe to read back."""


def run(generator: Generator, settings: Settings) -> Iterator[Figure]:
    """One pass of the server, one of JetStream, and one for each batch size on the server's core."""
    load = traffic.measure(SHAPE, SQLITE, generator, settings)
    acked = load.publishes / load.seconds
    yield Figure(GROUP, SHAPE.text, SQLITE.name, figures.ACKED, acked)
    yield Figure(GROUP, SHAPE.text, SQLITE.name, figures.BUSY, load.server_cpu / load.seconds)
    yield Figure(GROUP, SHAPE.text, SQLITE.name, figures.WAITED, load.server_waited / load.seconds)
    if not JETSTREAM.missing():
        peer = traffic.measure(SHAPE, JETSTREAM, generator, settings)
        yield Figure(GROUP, SHAPE.text, JETSTREAM.name, figures.ACKED, peer.publishes / peer.seconds)
        yield Figure(GROUP, SHAPE.text, JETSTREAM.name, figures.BUSY, peer.server_cpu / peer.seconds)
        yield Figure(
            GROUP, SHAPE.text, JETSTREAM.name, figures.SERVER_TO_THIS, acked * peer.seconds / max(peer.publishes, 1)
        )
    for size in BATCHES:
        with (
            tempfile.TemporaryDirectory(prefix="roomwire-bench-", dir=settings.directory) as directory,
            pinned(cores().server),
        ):
            rate, busy = write_directly(Path(directory) / "direct.db", size, settings.seconds)
        subject = f"SQLite alone, {size:,} a transaction"
        yield Figure(GROUP, SHAPE.text, subject, figures.ACKED, rate)
        yield Figure(GROUP, SHAPE.text, subject, figures.BUSY, busy)
        yield Figure(GROUP, SHAPE.text, subject, figures.SERVER_TO_THIS, acked / rate)


def write_directly(path: Path, size: int, seconds: float) -> tuple[float, float]:
    """Write transactions of `size` messages with synchronous=FULL. Returns messages a second and CPU s a second."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for statement in SCHEMA:
            connection.execute(statement)
        written, spent, cpu = 0, 0.0, 0.0
        while spent < seconds:
            messages, ids = _rows(written, size)
            start, start_cpu = time.perf_counter(), time.process_time()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", messages)
            connection.executemany("INSERT INTO ids VALUES (?, ?, ?, ?, ?)", ids)
            connection.execute("COMMIT")
            spent += time.perf_counter() - start
            cpu += time.process_time() - start_cpu
            written += size
        return written / spent, cpu / spent
    finally:
        connection.close()


def _rows(written: int, size: int) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """The rows of the next `size` messages, as the server's store has them."""
    now_ms, payload = time.time_ns() // 1_000_000, b"x" * traffic.PAYLOAD
    messages: list[tuple[object, ...]] = []
    ids: list[tuple[object, ...]] = []
    for seq in range(written + 1, written + size + 1):
        id = now_ms.to_bytes(6, "big") + os.urandom(10)
        messages.append((1, seq, now_ms, 1 << 62, id, 0, "load-1", 0, payload, b""))
        ids.append((1, id, seq, now_ms, os.urandom(16)))
    return messages, ids
