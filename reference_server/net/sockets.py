"""Sockets and descriptors: whether an address can be listened on, and how many connections fit."""

import errno
import resource
import socket

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


def port_is_free(host: str, port: int) -> str:
    """ "" if the port can be listened on, else the reason why not."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""
