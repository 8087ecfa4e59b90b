"""The changes that many client mutants are made of: frames on their way out and in, reports, methods.

Each makes the `patch` of a `ClientMutant`.
"""

from collections.abc import Callable
from typing import Any

from conformance.wire import octets
from conformance.wire.octets import HEADER, read_header, split_frames
from protocol import codec
from protocol.client import ClientConnection
from protocol.errors import RemoteProtocolError
from protocol.frames import Frame, Unknown
from protocol.registry import MAGIC, PREFACE_SIZE
from reference_client.adapter import Adapter
from tests.mutants.clients import Patch

Change = Callable[[Patch], None]
Sent = Frame | Unknown
_IGNORED = Unknown(0x8021)
"""What the client receives in place of a frame that it is to ignore."""


def sends(change: Callable[[Sent], list[Sent | bytes]]) -> Change:
    """Changes each frame on its way out."""

    def apply(patch: Patch) -> None:
        plain = ClientConnection.data_to_send

        def data_to_send(self: ClientConnection, now: float) -> bytes:
            data = plain(self, now)
            preface = data[:PREFACE_SIZE] if data.startswith(MAGIC) else b""
            frames, rest = split_frames(data[len(preface) :])
            changed: list[bytes] = []
            for frame in frames:
                sent = octets.decode(read_header(frame), frame[HEADER.size :], "C")
                for new in change(sent):
                    changed.append(new if isinstance(new, bytes) else octets.encode(new))
            return preface + b"".join(changed) + rest

        patch.setattr(ClientConnection, "data_to_send", data_to_send)

    return apply


def receives(change: Callable[[Any], Any]) -> Change:
    """Changes each frame on its way in; None makes the client ignore it."""

    def apply(patch: Patch) -> None:
        plain = codec.decode

        def decode(raw: Any, sender: Any) -> Any:
            changed = change(plain(raw, sender))
            return _IGNORED if changed is None else changed

        patch.setattr("protocol.client.decode", decode)

    return apply


def ignores(kind: type[RemoteProtocolError]) -> Change:
    """Ignores frames that break a rule, instead of ending the connection with this error."""

    def apply(patch: Patch) -> None:
        plain = codec.decode

        def decode(raw: Any, sender: Any) -> Any:
            try:
                return plain(raw, sender)
            except kind:
                return _IGNORED

        patch.setattr("protocol.client.decode", decode)

    return apply


def reports(change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Change:
    """Changes what the client reports; None leaves the report out."""

    def apply(patch: Patch) -> None:
        plain = Adapter.report

        def report(self: Adapter, **values: Any) -> None:
            changed = change(values)
            if changed is not None:
                plain(self, **changed)

        patch.setattr(Adapter, "report", report)

    return apply


def replaces(owner: Any, name: str, value: Any) -> Change:
    """Replaces a method."""
    return lambda patch: patch.setattr(owner, name, value)


def ignores_in(name: str, *kinds: type[Exception], states: tuple[str, ...] = ()) -> Change:
    """Ignores errors of one method of the connection, in these states or in all."""

    def apply(patch: Patch) -> None:
        plain = getattr(ClientConnection, name)

        def step(self: ClientConnection, *values: Any) -> Any:
            state = self.state
            try:
                return plain(self, *values)
            except kinds:
                if states and state not in states:
                    raise
                return None

        patch.setattr(ClientConnection, name, step)

    return apply


def fatal_if(test: Callable[[Any], bool], error: type[RemoteProtocolError]) -> Change:
    """Ends the connection with an error over frames that break no rule."""

    def change(frame: Any) -> Any:
        if test(frame):
            raise error("a frame", expected="something else")
        return frame

    return receives(change)


def each(kind: type, *frames: Callable[[Any], Any]) -> Callable[[Sent], list[Any]]:
    """For `sends`: replaces each frame of one kind by those that the functions make of it."""
    return lambda frame: [make(frame) for make in frames] if isinstance(frame, kind) else [frame]


def as_is(frame: Any) -> Any:
    """For `each`: the frame itself."""
    return frame


def changes(kind: type, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For `receives`: changes frames of one kind."""
    return lambda frame: change(frame) if isinstance(frame, kind) else frame
