"""The HTTP port for monitoring: /metrics for Prometheus, /healthz for what restarts the server.

It runs on threads of its own, so that it can answer that the event loop is stuck.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Iterable, Iterator
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Any, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from reference_server.core.hub import Hub
from reference_server.metrics import families
from reference_server.net.sockets import ListenError, reason_not_to_listen

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger("roomwire.server")

T = TypeVar("T")

TEXT = "text/plain; charset=utf-8"

PATIENCE_SECONDS = 2.0
"""How long the event loop may take to answer before it counts as stuck."""

AT_ONCE = 8
"""How many requests are answered at once: each holds a descriptor, and clients need those."""


class MetricsServer(Collector):
    """Answers requests about the server that `loop` runs. Raises ListenError."""

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        self._hub = hub
        self._loop = loop
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        try:
            self._server = _Server(host, port, self._answer)
        except (OSError, OverflowError, UnicodeError) as error:
            raise ListenError(f"cannot listen on {host}:{port}: {reason_not_to_listen(error)}") from None
        self.address = "{}:{}".format(*self._server.server_address[:2])
        Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    # --- on its own threads

    def collect(self) -> Iterator[Metric]:
        """The metrics, for `prometheus_client`. Raises TimeoutError if the event loop is stuck."""
        return families.families(self._ask(families.survey(self._hub)))

    def describe(self) -> Iterable[Metric]:
        """Nothing: otherwise `prometheus_client` would call `collect` when this collector is registered."""
        return ()

    def _health(self) -> str:
        """ "serving", "draining", "failed" or "stuck"."""

        async def health() -> str:
            return self._hub.health

        try:
            return self._ask(health())
        except TimeoutError:
            return "stuck"

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        """Run the question on the event loop. Raises TimeoutError."""
        answer = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            return answer.result(PATIENCE_SECONDS)
        finally:
            answer.cancel()  # otherwise questions would pile up while the loop is stuck

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        try:
            status, kind, body = self._response(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        except Exception:  # wsgiref would print it on many lines
            log.exception("a request was not answered", extra={"path": environ["PATH_INFO"]})
            status, kind, body = "500 Internal Server Error", TEXT, b"see the log\n"
        start(status, [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _response(self, method: str, path: str) -> tuple[str, str, bytes]:
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", TEXT, b"expected GET or HEAD\n"
        if path == "/healthz":
            health = self._health()
            return "200 OK" if health == "serving" else "503 Service Unavailable", TEXT, f"{health}\n".encode()
        if path == "/metrics":
            try:
                return "200 OK", CONTENT_TYPE_LATEST, generate_latest(self._registry)
            except TimeoutError:
                return "503 Service Unavailable", TEXT, b"stuck\n"
        return "404 Not Found", TEXT, b"there are /metrics and /healthz\n"


class _Server(ThreadingMixIn, WSGIServer):
    """wsgiref's server on at most AT_ONCE daemon threads."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, application: Any) -> None:
        self._places = BoundedSemaphore(AT_ONCE)
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]
        self.set_app(application)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for the name of this host.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client has gone, or does not speak HTTP: no fault of the server."""


class _Handler(WSGIRequestHandler):
    timeout = 5  # seconds for a request

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
