"""What the server waits for never comes: a reader of its log, its disk, the end of a handshake or of a request."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from fcntl import F_SETPIPE_SZ, fcntl

from benchmarks.faults.stage import ledger, library
from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import STORE, Family, Run, Scene, wait_until
from benchmarks.servers.targets import ROOT
from protocol.codec import encode
from protocol.frames import Hello
from protocol.registry import MAGIC, PREFACE_SIZE

ENDS_SECONDS = 5.0
"""How long a server may take to end after a second SIGTERM."""

STUCK_SECONDS = 10.0
"""How long /healthz may take to tell that the disk does not answer."""

ANSWER_SECONDS = 2.0
"""How long /healthz may take to answer while others drip."""

MEMORY_MIB = 16
"""MiB by which the server may grow."""

LOGS = ("unread", "stopped terminal", "gone", "full")
VISITS = 60
"""Connections that are logged: more than a pipe of one page takes."""

DRIPS = 64


# --- a log that nobody reads


async def unread(run: Run, outcome: Outcome) -> None:
    """Nobody reads the log, or it cannot be written: publishes are acknowledged, and SIGTERM drains."""
    rng = run.rng("unread")
    for round_ in range(run.either(40, 1)):
        kind = LOGS[round_ % len(LOGS)]
        held, server = _unread_log(kind), Server(run.directory / f"unread-{round_}")
        server.errors, server.level = held.pop(0), "info"
        try:
            async with (scene := Scene(server, rng, window=64)):
                os.close(server.errors)
                if kind == "gone":
                    os.close(held.pop())
                memory = server.resident_octets()
                for _ in range(VISITS):
                    await _visit(server.port)
                outcome.faults += 1
                run.progress(f"unread {outcome.faults}")
                scene.publish()
                await scene.recovered(outcome, time.monotonic())
                await asyncio.sleep(rng.uniform(0.05, 0.3))
                grown = (server.resident_octets() - memory) / 2**20
                if grown > MEMORY_MIB + len(scene.members):
                    outcome.breach("memory", f"{kind}: {grown:.0f} MiB more")
                await scene.quiet(outcome)
                status = await server.end()
                if status != 0:
                    outcome.breach("recovery", f"{kind}: exit status {status} after SIGTERM")
                scene.audit(outcome, ended=True)
                ledger.count(outcome, scene.members)
        finally:
            for each in held:
                os.close(each)


def _unread_log(kind: str) -> list[int]:
    """A descriptor for the server's standard error, and those that the caller holds."""
    if kind == "full":
        return [os.open("/dev/full", os.O_WRONLY)]
    if kind == "stopped terminal":
        ours, theirs = os.openpty()
        os.write(ours, b"\x13")  # Ctrl-S
        return [theirs, ours]
    ours, theirs = os.pipe()
    fcntl(theirs, F_SETPIPE_SZ, 4096)
    return [theirs, ours]


async def _visit(port: int) -> None:
    """Connect, say HELLO, and leave after WELCOME."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(MAGIC + bytes((1, 1, 0, 0)) + encode(Hello("visitor", "ANONYMOUS", b"", request=1)))
    await reader.readexactly(PREFACE_SIZE + 4)
    writer.transport.abort()


# --- a disk that hangs


async def hung(run: Run, outcome: Outcome) -> None:
    """A sync does not return: /healthz and the metrics tell, and then the disk goes on, or SIGTERM comes twice."""
    rng = run.rng("hung")
    for round_ in range(run.either(20, 1)):
        data = run.directory / f"hung-{round_}"
        hang = data.with_suffix(".hang")
        server = Server(data, {"metrics_port": 0})
        server.environment, server.level = library.environment(run.directory, data, hang=hang), "info"
        async with (scene := Scene(server, rng, window=rng.choice((16, 128)))):
            metrics = await server.metrics_port()
            scene.publish()
            await asyncio.sleep(rng.uniform(0.1, 0.3))
            hang.touch()
            outcome.faults += 1
            run.progress(f"hung {outcome.faults}")
            await _told(run, outcome, metrics)
            if round_ % 2:
                hang.unlink()
                await scene.recovered(outcome, time.monotonic())
                await _told_by(outcome, metrics, "/healthz", "serving")
            else:
                await _ended(outcome, server)
                hang.unlink()
                await scene.revive(outcome)
            await scene.finish(outcome)


async def _told(run: Run, outcome: Outcome, metrics: int) -> None:
    """Wait until the disk's trouble is told, in the short form by the metrics alone: that is sooner."""
    begun = time.monotonic()
    while _gauge(await _get(metrics, "/metrics"), "roomwire_commit_oldest_seconds") < 0.1:
        if time.monotonic() - begun > STUCK_SECONDS:
            outcome.breach("told", "no metric of the oldest commit")
            return
    if run.long:
        await _told_by(outcome, metrics, "/healthz", "stuck")
        taken = round(time.monotonic() - begun, 1)
        outcome.notes["slowest to tell, s"] = max(taken, float(outcome.notes.get("slowest to tell, s", 0)))


async def _told_by(outcome: Outcome, metrics: int, path: str, word: str) -> None:
    begun = time.monotonic()
    while not (said := await _get(metrics, path)).endswith(f"{word}\n"):
        if time.monotonic() - begun > STUCK_SECONDS:
            outcome.breach("told", f"{path} says {said[-40:]!r}, not {word}")
            return
        await asyncio.sleep(0.05)


async def _ended(outcome: Outcome, server: Server) -> None:
    """SIGTERM twice: the server ends although its disk hangs."""
    await server.signal(signal.SIGTERM)
    if not await wait_until(lambda: "draining" in server.log()):  # else the system might make one of the two
        outcome.breach("told", "the log does not tell of the first SIGTERM")
    await server.signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(ENDS_SECONDS):
            status = await server.wait()
    except TimeoutError:
        outcome.breach("recovery", "two SIGTERMs did not end the server")
        await server.kill()
        return
    if status != 1:
        outcome.breach("recovery", f"exit status {status} after two SIGTERMs with a hung disk")


def _gauge(text: str, name: str) -> float:
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


async def _get(port: int, path: str) -> str:
    """The answer to GET, or "" if there is none."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(STUCK_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                return (await reader.read(-1)).decode()
            finally:
                writer.transport.abort()
    return ""


# --- TLS handshakes that are cut


async def cut(run: Run, outcome: Outcome) -> None:
    """TLS handshakes are cut anywhere, and by rubbish; members publish over TLS meanwhile."""
    rng, wanted = run.rng("cut"), run.either(24_000, 400)
    made = run.directory / "cut-certificates"
    command = [sys.executable, "-m", "reference_server", "cert", "--output", str(made)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    context = ssl.create_default_context(cafile=str(made / "ca.pem"))
    context.set_alpn_protocols(["roomwire/1"])
    environment = {f"ROOMWIRE_TLS_{name.upper()}": str(made / f"{name}.pem") for name in ("cert", "key")}
    server = Server(run.directory / "cut", environment=environment)
    async with _relay(server, context) as port, (scene := Scene(server, rng, window=16, port=lambda: port)):
        scene.publish(200)
        await scene.quiet(outcome)
        memory, descriptors = server.resident_octets(), server.descriptors()
        for _ in range(wanted):
            _cut(server.port, _hello(context), rng)
            outcome.faults += 1
            if outcome.faults % 200 == 0:
                run.progress(f"cut {outcome.faults} of {wanted}")
                scene.publish(5)
                await asyncio.sleep(0)
        await _taken_up(server, context, descriptors)
        await scene.quiet(outcome)
        grown = (server.resident_octets() - memory) / 2**20
        outcome.notes["growth, MiB"] = round(grown, 1)
        if grown > MEMORY_MIB:
            outcome.breach("memory", f"{grown:.0f} MiB more")
        await scene.finish(outcome)


async def _taken_up(server: Server, context: ssl.SSLContext, descriptors: int) -> None:
    """Wait until the server has accepted all connections so far, which it does in their order, and closed them."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="localhost")
    writer.transport.abort()
    await wait_until(lambda: server.descriptors() <= descriptors)


def _hello(context: ssl.SSLContext) -> bytes:
    """What a client of TLS sends first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def _cut(port: int, hello: bytes, rng: random.Random) -> None:
    with socket.create_connection(("127.0.0.1", port)) as raw:
        sent = rng.choice((51, 0, len(hello), rng.randrange(len(hello))))
        raw.sendall(hello[:sent] if rng.random() < 0.8 else rng.randbytes(100))
        if rng.random() < 0.3:  # reset
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def _relay(server: Server, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port for members in clear text, which speaks TLS to the server."""
    tasks: set[asyncio.Task[None]] = set()

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while octets := await reader.read(65536):
                writer.write(octets)
                await writer.drain()
        writer.transport.abort()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="localhost")
        except OSError:
            writer.transport.abort()
            return
        for one in (passed_on(reader, there[1]), passed_on(there[0], writer)):
            tasks.add(task := asyncio.ensure_future(one))
            task.add_done_callback(tasks.discard)

    relay = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield int(relay.sockets[0].getsockname()[1])
    finally:
        relay.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- requests that drip


async def drip(run: Run, outcome: Outcome) -> None:
    """Clients send the octets of a request one at a time; /healthz answers others, and members publish."""
    rng = run.rng("drip")
    server = Server(run.directory / "drip", {"metrics_port": 0})
    async with (scene := Scene(server, rng, window=64)):
        metrics = await server.metrics_port()
        dripping = [asyncio.ensure_future(_drip(metrics, outcome, random.Random(rng.random()))) for _ in range(DRIPS)]
        await wait_until(lambda: outcome.faults >= DRIPS)
        slowest, again, end = 0.0, 0, time.monotonic() + run.either(60, 1)
        while (begun := time.monotonic()) < end:
            scene.publish(20)
            while not (said := await _get(metrics, "/healthz")) and time.monotonic() < begun + ANSWER_SECONDS:
                again += 1
            slowest = max(slowest, time.monotonic() - begun)
            if not said.endswith("serving\n"):
                outcome.breach("told", f"/healthz says {said[-40:]!r} after {time.monotonic() - begun:.1f} s")
            run.progress(f"drip: {outcome.faults} requests")
            await asyncio.sleep(0.05)
        outcome.notes["slowest answer of /healthz, s; asked again"] = f"{slowest:.3f}; {again}"
        for task in dripping:
            task.cancel()
        await asyncio.gather(*dripping, return_exceptions=True)
        await scene.finish(outcome)


async def _drip(port: int, outcome: Outcome, rng: random.Random) -> None:
    """Send requests for ever, each an octet at a time."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            outcome.faults += 1
            ended = asyncio.ensure_future(reader.read())
            try:
                while not ended.done():
                    writer.write(b"G")
                    await asyncio.wait((ended,), timeout=rng.uniform(0.2, 2.0))
                ended.exception()
            finally:
                ended.cancel()
                writer.transport.abort()
        await asyncio.sleep(rng.uniform(0.05, 0.5))


FAMILIES = (
    Family("unread", "a log that nobody reads, or that cannot be written", (*STORE, "recovery", "memory"), unread),
    Family("hung", "a disk that hangs", (*STORE, "recovery", "told"), hung),
    Family("cut", "TLS handshakes that are cut short", (*STORE, "recovery", "memory"), cut),
    Family("drip", "requests for /healthz that never end", (*STORE, "told"), drip),
)
