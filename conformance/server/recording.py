"""What a case did, step by step, as a replay file (`harness/replay_file.py`). `replay` can take the steps again.

The header says what failed:

    {"roomwire_replay": 1, "case": ID, "requirement": ID, "expected": TEXT, "got": TEXT, "seed": N, "names": HEX}

Each further line is a step. `peer` names the connection:

    {"do": "connect", "peer": "A", "buffer": OCTETS}              {"do": "close", "peer": "A", "abort": BOOL}
    {"do": "preface", "peer": "A", "hex": HEX, "breaks": ID}      {"do": "eof", "peer": "A"}
    {"do": "send", "peer": "A", "hex": HEX, "breaks": ID, "slices": [LENGTH, ...]}
    {"do": "write", "peer": "A", "hex": HEX}                      {"do": "pause", "peer": "A", "paused": BOOL}
    {"do": "receive", "peer": "A", "hex": HEX}                    a frame that came
    {"do": "expect", "peer": "A", WHAT: ..., "requirement": ID, "within": SECONDS}
    {"do": "server", "limits": {NAME: N}}  {"do": "restart", "limits": {NAME: N}}  {"do": "drain"}

WHAT is one of "preface", "reply" (a request, with "frame" or "code" and perhaps "room"), "goaway" (a code, with
"closed"), "closed", "silent", "frame" (a name), "message" (an id in hexadecimal, with "room").
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.harness import replay_file
from conformance.harness.connection import F
from conformance.harness.verdicts import Result
from conformance.server.raw_client import RawClient
from conformance.wire.octets import HEADER, Header, read_header
from protocol.frames import Error, Frame, Goaway, Message
from protocol.registry import Code, FrameType

_MOST = 4 * 2**20  # characters of hexadecimal that a file may have


@dataclass
class Recording:
    """The steps of one case. A recording that grows too long is given up, and has none."""

    names: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    _size: int = 0

    def add(self, do: str, **values: Any) -> None:
        """Adds a step."""
        self._size += len(values.get("hex", "")) + 50
        if self._size > _MOST:
            self.steps.clear()
        else:
            self.steps.append({"do": do, **values})

    def give_up(self) -> None:
        """Removes all steps, now and later, because the case cannot be repeated with the same octets."""
        self._size = _MOST
        self.steps.clear()

    def write(self, directory: Path, result: Result, seed: int) -> Path | None:
        """Writes the file for a result. Returns its path, or None if the recording was given up. Raises OSError."""
        if not self.steps:
            return None
        header = {
            "case": result.id,
            "requirement": result.requirement,
            "expected": result.expected or result.reason,
            "got": result.got,
            "seed": seed,
            "names": self.names,
        }
        path = directory / (result.id.replace("/", "-") + ".jsonl")
        replay_file.write(path, header, self.steps)
        return path


class RecordingClient(RawClient):
    """A client that records what it is told to do, and what comes."""

    recording: Recording
    _depth = 0

    @contextlib.contextmanager
    def _outermost(self, do: str, **values: Any) -> Iterator[None]:
        """Records a step unless it is part of another one."""
        if not self._depth:
            self.recording.add(do, peer=self.label, **{name: value for name, value in values.items() if value != ""})
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def _send(self, frames: Sequence[bytes], rest: bytes, breaks: str, slices: Iterable[bytes] = ()) -> None:
        if any(read_header(frame).type == FrameType.AUTH for frame in frames):
            self.recording.give_up()  # a proof is for a nonce that the server gives only once
        pieces = list(slices)
        lengths = [len(piece) for piece in pieces]
        with self._outermost("send", hex=b"".join((*frames, rest)).hex(), breaks=breaks, slices=lengths):
            super()._send(frames, rest, breaks, pieces)

    def send_preface(self, octets: bytes = b"", *, breaks: str = "") -> None:
        values = {"octets": octets} if octets else {}
        with self._outermost("preface", hex=octets.hex(), breaks=breaks):
            super().send_preface(breaks=breaks, **values)

    def write(self, octets: bytes) -> None:
        with self._outermost("write", hex=octets.hex()):
            super().write(octets)

    def pause(self, paused: bool = True) -> None:
        with self._outermost("pause", paused=paused):
            super().pause(paused)

    def send_eof(self) -> None:
        with self._outermost("eof"):
            super().send_eof()

    async def close(self, *, abort: bool = False) -> None:
        with self._outermost("close", abort=abort):
            await super().close(abort=abort)

    def _frame(self, header: Header, body: bytes) -> None:
        self.recording.add("receive", peer=self.label, hex=(HEADER.pack(*header) + body).hex())
        super()._frame(header, body)

    # Expectations. Frames that come during the wait are recorded behind the step, as a replay sees them.

    async def expect_preface(self, requirement: str = "RW-PREFACE-2") -> bytes:
        with self._outermost("expect", preface=True, requirement=requirement):
            return await super().expect_preface(requirement)

    async def reply(self, request: int, requirement: str = "", within: float | None = None) -> Frame:
        with self._outermost("expect", reply=request, requirement=requirement, within=within):
            return await super().reply(request, requirement, within)

    async def expect(self, request: int, kind: type[F], requirement: str = "") -> F:
        with self._outermost("expect", reply=request, frame=kind.TYPE.name, requirement=requirement):
            return await super().expect(request, kind, requirement)

    async def expect_error(self, request: int, code: Code, requirement: str = "", room: int | None = None) -> Error:
        with self._outermost("expect", reply=request, code=int(code), requirement=requirement, room=room):
            return await super().expect_error(request, code, requirement, room)

    async def expect_goaway(
        self, code: Code, requirement: str = "", within: float | None = None, *, closed: bool = True
    ) -> Goaway:
        with self._outermost("expect", goaway=int(code), closed=closed, requirement=requirement, within=within):
            return await super().expect_goaway(code, requirement, within, closed=closed)

    async def expect_closed(self, requirement: str = "", within: float | None = None) -> None:
        with self._outermost("expect", closed=True, requirement=requirement, within=within):
            await super().expect_closed(requirement, within)

    async def expect_silent_close(self, requirement: str, within: float | None = None) -> None:
        with self._outermost("expect", silent=True, requirement=requirement, within=within):
            await super().expect_silent_close(requirement, within)

    async def expect_frame(
        self,
        kind: type[F],
        test: Callable[[F], bool] = lambda frame: True,
        what: str = "",
        requirement: str = "",
        within: float | None = None,
    ) -> F:
        with self._outermost("expect", frame=kind.TYPE.name, requirement=requirement, within=within):
            return await super().expect_frame(kind, test, what, requirement, within)

    async def until(self, room: int, id: bytes, requirement: str = "") -> list[Message]:
        with self._outermost("expect", message=id.hex(), room=room, requirement=requirement):
            return await super().until(room, id, requirement)
