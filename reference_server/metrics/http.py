"""The HTTP port for monitoring: /metrics for Prometheus, /healthz for what restarts the server.

It has a thread and an event loop of its own, so that it can answer that the server's is stuck. It starts no thread for
a request, and clients that send nothing, or little at a time, keep nobody else out.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator
from threading import Thread
from typing import Any, Generic, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from reference_server.core.hub import Hub
from reference_server.lines import LineWriter
from reference_server.logs import log_fault
from reference_server.metrics import families
from reference_server.net.sockets import ListenError, address_text, reason_not_to_listen

log = logging.getLogger("roomwire.server")

T = TypeVar("T")

TEXT = "text/plain; charset=utf-8"

PATIENCE_SECONDS = 2.0
"""How long the event loop may take to answer before it counts as stuck."""

REQUEST_SECONDS = 5.0
"""How long a request and its answer may take, from the connection to its end."""

REQUEST_OCTETS = 8192

AT_ONCE = 16
"""Connections whose request is not complete, and connections that are answered: each holds a descriptor, and clients
need those. One more ends the oldest of its kind, so a request that is complete at once hardly meets those that drip."""


class MetricsServer(Collector):
    """Answers requests about the server that `loop` runs, and whose log is written to `lines`. Raises ListenError."""

    def __init__(
        self, hub: Hub, loop: asyncio.AbstractEventLoop, host: str, port: int, lines: LineWriter | None = None
    ) -> None:
        self._lines = lines
        self._hub = hub
        self._health = _Question(loop, self._ask_health)
        self._survey = _Question(loop, lambda: families.survey(hub))
        self._found: families.Survey | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._asking: dict[asyncio.Task[Any], None] = {}  # the oldest first
        self._answered: dict[asyncio.Task[Any], None] = {}
        self._socket = _listening(host, port)
        self.address = address_text(*self._socket.getsockname()[:2])
        self._closing = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and end all requests."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    async def _ask_health(self) -> str:
        return self._hub.health

    # --- on its own thread

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop.set_exception_handler(log_fault)
        server = await asyncio.start_server(self._connected, sock=self._socket, backlog=AT_ONCE, limit=REQUEST_OCTETS)
        await self._closing.wait()
        server.close()  # whoever runs the loop cancels the requests

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        _enter(self._asking, task)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await _head(reader)
                self._asking.pop(task, None)
                _enter(self._answered, task)
                writer.write(await self._reply(head))
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client has gone, or takes its time
        finally:
            writer.transport.abort()
            self._asking.pop(task, None)
            self._answered.pop(task, None)

    async def _reply(self, head: list[bytes]) -> bytes:
        method, target, *_ = *head, b"", b""
        try:
            status, kind, body = await self._response(method, target.partition(b"?")[0])
        except Exception:
            log.exception("a request was not answered", extra={"path": repr(target)})
            status, kind, body = "500 Internal Server Error", TEXT, b"see the log\n"
        fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close"
        return f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + (b"" if method == b"HEAD" else body)

    async def _response(self, method: bytes, path: bytes) -> tuple[str, str, bytes]:
        if not path.startswith(b"/"):
            return "400 Bad Request", TEXT, b"expected a request of HTTP/1.1\n"
        if method not in (b"GET", b"HEAD"):
            return "405 Method Not Allowed", TEXT, b"expected GET or HEAD\n"
        if path == b"/healthz":
            health = await self._health.answer() or "stuck"
            return "200 OK" if health == "serving" else "503 Service Unavailable", TEXT, f"{health}\n".encode()
        if path == b"/metrics":
            self._found = await self._survey.answer()
            if self._found is None:
                return "503 Service Unavailable", TEXT, b"stuck\n"
            return "200 OK", CONTENT_TYPE_LATEST, generate_latest(self._registry)
        return "404 Not Found", TEXT, b"there are /metrics and /healthz\n"

    # --- Collector

    def collect(self) -> Iterator[Metric]:
        """The metrics of the last survey, for `prometheus_client`."""
        if self._found is not None:
            yield from families.families(self._found)
        if self._lines is not None:
            text = "Lines of the log that were dropped, since they could not be written"
            yield CounterMetricFamily("roomwire_log_lines_dropped", text, self._lines.dropped)

    def describe(self) -> Iterable[Metric]:
        """Nothing: otherwise `prometheus_client` would call `collect` when this collector is registered."""
        return ()


class _Question(Generic[T]):
    """A question to the server's event loop. There is one at a time: all who ask meanwhile share its answer, so nothing
    piles up while the loop is stuck."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._loop = loop
        self._ask = ask
        self._asked: asyncio.Future[T] | None = None
        self._since = 0.0

    async def answer(self) -> T | None:
        """The answer, or None if the loop is stuck. Once it is, this does not wait any more."""
        now = asyncio.get_running_loop().time()
        if self._asked is None or self._asked.done():
            self._asked = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._ask(), self._loop))
            self._since = now
        asked = self._asked
        await asyncio.wait((asked,), timeout=max(0.0, self._since + PATIENCE_SECONDS - now))
        return asked.result() if asked.done() else None


def _enter(tasks: dict[asyncio.Task[Any], None], task: asyncio.Task[Any]) -> None:
    """Add a connection to those of its kind, and end the oldest one if there are too many."""
    tasks[task] = None
    if len(tasks) > AT_ONCE:
        oldest = next(iter(tasks))
        del tasks[oldest]
        oldest.cancel()


def _listening(host: str, port: int) -> socket.socket:
    """A socket that is bound. Raises ListenError."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, number)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(AT_ONCE)
        except OSError:
            listening.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        raise ListenError(f"cannot listen on {address_text(host, port)}: {reason_not_to_listen(error)}") from None
    return listening


async def _head(reader: asyncio.StreamReader) -> list[bytes]:
    """The words of a request's first line, after all lines of its head have come; [] if these are too many."""
    octets = b""
    while b"\n\r\n" not in octets and b"\n\n" not in octets:
        more = await reader.read(REQUEST_OCTETS)
        if not more:
            raise ConnectionError("the request is cut")
        octets += more
        if len(octets) > REQUEST_OCTETS:
            return []
    return octets.partition(b"\n")[0].split()
