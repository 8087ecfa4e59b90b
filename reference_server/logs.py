"""Logs for people or for machines: one event, one line, whatever a peer put into it."""

import asyncio
import json
import logging
import sys
import time
from typing import Any, TextIO

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def _details(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _printable(text: str) -> str:
    """The text with everything that is not printable as an escape: no peer can begin a line of its own."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class TextFormatter(logging.Formatter):
    """`TIME LEVEL message name=value ...`"""

    def format(self, record: logging.LogRecord) -> str:
        parts = [_time(record), f"{record.levelname:<7}", _printable(record.getMessage())]
        for name, value in _details(record).items():
            text = _printable(str(value))
            parts.append(f"{name}={json.dumps(text, ensure_ascii=False) if ' ' in text or not text else text}")
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
        return json.dumps(event, default=str)


def log_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For `loop.set_exception_handler`: what went wrong in a callback is one event as well."""
    logging.getLogger("roomwire.server").error(context["message"], exc_info=context.get("exception"))


def configure(format: str, level: str, stream: TextIO | None = None) -> None:
    """Send the server's log to `stream`, standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger("roomwire")
    root.handlers = [handler]
    root.setLevel(level.upper())
    root.propagate = False
