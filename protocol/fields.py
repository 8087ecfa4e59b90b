"""The extension fields of SPEC.md, section 5.3: make them for a frame, and read them from one."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from protocol.frames import Error, Field, Frame, Hello, Welcome
from protocol.registry import FieldType
from protocol.wire import decode_field, encode_field


@lru_cache(maxsize=64)
def extension(name: str, data: bytes = b"") -> Field:
    """Return EXTENSION: an extension that HELLO offers or WELCOME accepts, with its data.

    Raises LocalProtocolError if the name is longer than 255 octets, or the whole longer than 65,535.
    """
    return _field(FieldType.EXTENSION, name=name, data=data)


@lru_cache(maxsize=64)
def agent(text: str) -> Field:
    """Return AGENT: the program's name and version, for people."""
    return _field(FieldType.AGENT, text=text)


@lru_cache(maxsize=64)
def server_identity(id: int, address: str) -> Field:
    """Return SERVER: the server's id, and the address at which it is reached."""
    return _field(FieldType.SERVER, id=id, address=address)


def mechanism(text: str) -> Field:
    """Return MECHANISM: a SASL mechanism that the server offers."""
    return _field(FieldType.MECHANISM, text=text)


def extensions(frame: Hello | Welcome) -> dict[str, bytes]:
    """Return the data of each extension, by name. Of several with one name the first counts (SPEC.md, section 17.3)."""
    by_name: dict[str, bytes] = {}
    for values in _values(frame, FieldType.EXTENSION):
        by_name.setdefault(values["name"], values["data"])
    return by_name


def agent_of(frame: Hello | Welcome) -> str | None:
    """Return the text of AGENT, or None."""
    return next((values["text"] for values in _values(frame, FieldType.AGENT)), None)


def identity_of(frame: Welcome) -> tuple[int, str] | None:
    """Return the id and the address in SERVER, or None."""
    return next(((values["id"], values["address"]) for values in _values(frame, FieldType.SERVER)), None)


def mechanisms_of(frame: Error) -> list[str]:
    """Return the mechanisms that the server offers, in its order."""
    return [values["text"] for values in _values(frame, FieldType.MECHANISM)]


def _field(type: FieldType, **values: Any) -> Field:
    return Field(type, encode_field(type, values))


def _values(frame: Frame, type: FieldType) -> Iterator[dict[str, Any]]:
    return (decode_field(frame.TYPE, field.type, field.value) for field in frame.fields if field.type == type)
