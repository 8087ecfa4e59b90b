"""Logs for people or for machines: one event, one line, whatever a peer put into it."""

import asyncio
import json
import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any, TextIO

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def _details(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _printable(text: str) -> str:
    """The text with everything that is not printable as an escape: no peer can begin a line of its own."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _value(value: object) -> str:
    """A value that ends where it seems to: no peer can begin a name of its own."""
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
    """One JSON object a line: time, level, message, and the event's own names."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {"time": _time(record), "level": record.levelname.lower()}
        event |= {"message": record.getMessage(), **_details(record)}
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str).replace("\x7f", "\\u007f")  # the one control character that JSON leaves


def log_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For `loop.set_exception_handler`: what went wrong in a callback is one event as well."""
    logging.getLogger("roomwire.server").error(context["message"], exc_info=context.get("exception"))


def log_end(error: Exception) -> None:
    """The last event of a server that ends by `error`."""
    logging.getLogger("roomwire.server").critical("the server ends", extra={"error": str(error)})


def configure(format: str, level: str, stream: TextIO | None = None) -> None:
    """Send the server's log to `stream`, standard error by default: its own, and what libraries and Python itself warn
    of or die of, so that nothing stands there in another form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    top = logging.getLogger()
    top.handlers = [handler]
    top.setLevel(logging.WARNING)
    logging.getLogger("roomwire").setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None:
        logging.getLogger("roomwire.server").critical("not foreseen", exc_info=(kind, error, trace))
