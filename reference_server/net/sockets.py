"""Sockets and descriptors: whether an address can be listened on, and how many connections fit."""

import errno
import resource

RESERVED_DESCRIPTORS = 128
"""Descriptors that are kept for the store, the listener, and connections that are accepted only to be refused."""


class ListenError(Exception):
    """The address cannot be listened on. `str()` is one line."""


def allow_connections(wanted: int) -> int:
    """Raise the limit of open descriptors as far as is allowed; how many connections fit below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - RESERVED_DESCRIPTORS))


def address_text(host: str, port: int) -> str:
    """Host and port in one word, with brackets around an address of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reason_not_to_listen(error: Exception) -> str:
    """Why an address cannot be listened on, in a few words."""
    if isinstance(error, OSError):
        return "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return str(error)
