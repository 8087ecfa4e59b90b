"""The port for whoever watches the server: /metrics for Prometheus, /healthz for whatever restarts it.

Runs on threads of its own, so that it answers when the event loop does not, and says so.
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
"""How long the event loop may take to answer before it is called stuck."""

AT_ONCE = 8
"""How many questions are answered at once: each holds a descriptor, and somebody else needs those."""


class MetricsServer(Collector):
    """Answers questions about the server that `loop` runs. Raises ListenError."""

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
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    # --- on its own threads

    def collect(self) -> Iterator[Metric]:
        """`prometheus_client` asks. Raises TimeoutError if the event loop is stuck."""
        return families.families(self._ask(families.survey(self._hub)))

    def describe(self) -> Iterable[Metric]:
        """Nothing: `prometheus_client` would ask the loop when this collector is registered."""
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
        """Have the event loop answer. Raises TimeoutError."""
        answer = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            return answer.result(PATIENCE_SECONDS)
        finally:
            answer.cancel()  # or questions would heap up while it is stuck

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        try:
            status, kind, body = self._response(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        except Exception:  # wsgiref would print it, on many lines
            log.exception("a question was not answered", extra={"path": environ["PATH_INFO"]})
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
    """wsgiref's server on threads that do not keep the process, and not more than `AT_ONCE` of them."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, application: Any) -> None:
        self._places = BoundedSemaphore(AT_ONCE)
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]
        self.set_app(application)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service for the name of this host.
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
        """Whoever asked has gone, or does not speak HTTP: nothing to do with the server."""


class _Handler(WSGIRequestHandler):
    timeout = 5  # seconds for a request

    def log_message(self, format: str, *args: Any) -> None:
        """Not the log's matter."""
