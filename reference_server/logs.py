"""Logs for people or for machines: one line for each event, also if it contains text of a peer."""

import asyncio
import json
import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any, Protocol

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def _details(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _printable(text: str) -> str:
    """The text with escapes for what is not printable, so that a peer's text cannot begin a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _value(value: object) -> str:
    """A value, quoted where necessary, so that a peer's text cannot look like another `name=value`."""
    text = str(value)
    if text.isprintable() and not set(text) & set(' "=\\') and text:
        return text
    return '"' + _printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


class TextFormatter(logging.Formatter):
    """`TIME LEVEL message name=value ...`"""

    def format(self, record: logging.LogRecord) -> str:
        parts = [_time(record), f"{record.levelname:<7}", _printable(record.getMessage())]
        parts += [f"{name}={_value(value)}" for name, value in _details(record).items()]
        if record.exc_info:
            parts.append(_printable(self.formatException(record.exc_info)))
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """One JSON object for each line: time, level, message, and the event's own details."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {"time": _time(record), "level": record.levelname.lower()}
        event |= {"message": record.getMessage(), **_details(record)}
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str).replace("\x7f", "\\u007f")  # json leaves this control character


def log_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For `loop.set_exception_handler`: log an exception in a callback as one event."""
    logging.getLogger("roomwire.server").error(context["message"], exc_info=context.get("exception"))


def log_end(error: Exception) -> None:
    """Log the error that ends the server."""
    logging.getLogger("roomwire.server").critical("the server ends", extra={"error": str(error)})


def log_output_error(error: OSError) -> None:
    """Log that standard output cannot be written, which does not keep a server from running."""
    log = logging.getLogger("roomwire.server")
    log.warning("standard output cannot be written", extra={"error": error.strerror or str(error)})


class Lines(Protocol):
    """Where the log goes: a LineWriter."""

    def put(self, line: str) -> None:
        """Write a line, without waiting for its reader."""


class LineHandler(logging.Handler):
    """Hands each event to a LineWriter: no caller waits for the reader of the log."""

    def __init__(self, lines: Lines, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # logging would write a traceback to standard error, and wait for its reader
            line = self._own("an event could not be logged", place=f"{record.pathname}:{record.lineno}")
        self._lines.put(line)

    def tell(self, count: int) -> str:
        """The line that says how many lines were dropped."""
        return self._own("lines of the log were dropped, since they could not be written", count=count)

    def _own(self, text: str, **details: object) -> str:
        level = {"name": "roomwire.server", "levelno": logging.WARNING, "levelname": "WARNING"}
        return self.format(logging.makeLogRecord({**level, "msg": text, **details}))


def configure(format: str, level: str, lines: Lines) -> LineHandler:
    """Write the server's log to `lines`. Warnings of libraries and of Python, and uncaught exceptions, are written in
    the same format."""
    handler = LineHandler(lines, JsonFormatter() if format == "json" else TextFormatter())
    top = logging.getLogger()
    top.handlers = [handler]
    top.setLevel(logging.WARNING)
    logging.getLogger("roomwire").setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    return handler


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None:
        logging.getLogger("roomwire.server").critical("not foreseen", exc_info=(kind, error, trace))
