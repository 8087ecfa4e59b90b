"""The codec under test: one long-lived process that answers JSON lines.

First line: {"ready": true, "contract": 1, "name": .., "version": .., "features": [..]}. Then an answer to each
request, with its id:

    {"id": 1, "op": "decode", "from": "C", "hex": .., "limit": 65536}  {"id": 1, "frame": "PING", "value": {..}}
    {"id": 2, "op": "preface", "from": "S", "hex": ..}  {"id": 2, "frame": "SERVER_PREFACE", "value": {..}}
    {"id": 3, "op": "encode", "frame": "PING", "value": {..}}          {"id": 3, "hex": ..}
    {"id": 4, "op": "feed", "from": "C", "chunks": [..], "limit": ..}  {"id": 4, "frames": [..], "need_more": false}

or {"id": .., "error": "MALFORMED"}, to feed with the frames before it, or {"id": .., "unsupported": op}.
Values are as in appendix B of SPEC.md; each feed begins a new stream behind the prefaces.
"""

import asyncio
import contextlib
import json
import os
from typing import Any, NamedTuple

from conformance.codec.values import differences
from conformance.harness.process import Program, Unreachable, arguments
from conformance.harness.verdicts import Crashed, Failed, Inconclusive, Unsupported
from conformance.wire.log import WireLog

CONTRACT = 1
_SHOWN = 300  # characters of an answer that a report shows
_LOGGED = 8000  # characters of a line that a trace keeps


class Broken(Failed):
    """The program did not answer as agreed, so that it cannot be used any further."""


class PingVector(NamedTuple):
    """A PING with octets of its own, so that no constant answer fits."""

    octets: bytes
    value: dict[str, Any]


class CodecProgram:
    """A codec that is running."""

    def __init__(self, program: Program, timeout: float) -> None:
        self._program = program
        self._timeout = timeout
        self._id = 0
        self.greeting: dict[str, Any] = {}
        self.said: list[str] = []

    @classmethod
    async def start(cls, command: str, ready: float, timeout: float) -> "CodecProgram":
        """Starts a codec and waits until it is ready. Raises Unreachable or Unstartable."""
        program = await Program.start(arguments(command, {}), {}, pipes=True)
        codec = cls(program, ready)
        try:
            line = await codec._line()
            greeting = json.loads(line)
            if not isinstance(greeting, dict) or greeting.get("ready") is not True:
                raise Unreachable(f"its first line is not a greeting: {line[:_SHOWN]!r}", program.stderr)
            if greeting.get("contract") != CONTRACT:
                raise Unreachable(f"it speaks contract {greeting.get('contract')!r}, not {CONTRACT}", program.stderr)
        except (ValueError, Failed, Crashed, Unreachable) as reason:
            await program.stop(kill=True)
            if isinstance(reason, Unreachable):
                raise
            raise Unreachable(f"the codec did not get ready: {reason}", program.stderr) from None
        codec._timeout, codec.greeting = timeout, greeting
        return codec

    @property
    def died(self) -> str:
        """How it ended by itself, or "" while it runs."""
        return self._program.died

    @property
    def stderr(self) -> str:
        """The end of what it wrote to its standard error."""
        return self._program.stderr

    async def stop(self) -> None:
        """Ends the program."""
        self._program.stdin.close()
        await self._program.stop(kill=True)

    async def ask(self, request: dict[str, Any], log: WireLog) -> dict[str, Any]:
        """Its answer. Raises Crashed when it has died, Broken when the answer is none, Unsupported."""
        self._id += 1
        line = json.dumps({"id": self._id, **request})
        self.said = [f"-> {_short(line)}"]
        log.said("codec", "C", line[:_LOGGED])
        with contextlib.suppress(OSError):
            self._program.stdin.write(line.encode() + b"\n")
            await self._program.stdin.drain()
        text = await self._line()
        self.said.append(f"<- {_short(text)}")
        log.said("codec", "S", text[:_LOGGED])
        try:
            answer = json.loads(text)
        except ValueError:
            raise Broken("a line of JSON", repr(text[:_SHOWN])) from None
        if not isinstance(answer, dict) or answer.get("id") != self._id:
            raise Broken(f"an object with id {self._id}", text[:_SHOWN])
        if "unsupported" in answer:
            raise Unsupported(f"the codec declares {request['op']} unsupported")
        return answer

    async def _line(self) -> str:
        try:
            line = await asyncio.wait_for(self._program.stdout.readline(), self._timeout)
        except TimeoutError:
            raise Broken("an answer", f"nothing within {self._timeout:g} s") from None
        except ValueError:
            raise Broken("a line", "more octets than any answer has, without an end of line") from None
        if not line.endswith(b"\n"):
            await self._program.wait(1.0)
            raise Crashed(f"the codec {self._program.died or 'closed its output'}")
        return line.decode(errors="replace")


class CodecContext:
    """One codec case under way."""

    def __init__(self, codec: CodecProgram) -> None:
        self._codec = codec
        self.said: list[str] = []
        self.log = WireLog()

    async def ask(self, op: str, sender: str = "", limit: int = 0, **values: Any) -> dict[str, Any]:
        """The answer to one request."""
        request = {"op": op, **({"from": sender} if sender else {}), **values}
        if limit:
            request["limit"] = limit
        try:
            return await self._codec.ask(request, self.log)
        finally:
            self.said = [*self.said[-4:], *self._codec.said]

    async def feed(self, sender: str, chunks: list[bytes], limit: int) -> dict[str, Any]:
        """The answer to one stream in pieces."""
        return await self.ask("feed", sender, limit, chunks=[chunk.hex() for chunk in chunks])

    def ping(self) -> PingVector:
        """A PING that was never sent before."""
        opaque = os.urandom(8)
        octets = bytes.fromhex("00000008 0006 0000 00000000 00000000") + opaque
        return PingVector(octets, {"opaque": opaque.hex(), "fields": [], "flags": 0, "request": 0, "room": 0})

    def same_ping(self, ping: PingVector, answer: Any) -> None:
        """Raises Failed unless the answer is the PING."""
        shown = _short(json.dumps(answer))
        if not isinstance(answer, dict) or answer.get("frame") != "PING":
            raise Failed("PING decoded", shown)
        if differences("PING", ping.value, answer.get("value")):
            raise Failed(f"PING {ping.value['opaque']}", shown)

    async def control(self) -> None:
        """A fresh PING is decoded. Raises Inconclusive."""
        try:
            await self.alive()
        except Failed as failure:
            if isinstance(failure, Broken):
                raise
            raise Inconclusive(f"a valid frame: {failure}") from None

    async def alive(self) -> None:
        """A fresh PING is decoded. Raises Failed."""
        for sender in "CS":
            ping = self.ping()
            self.same_ping(ping, await self.ask("decode", sender, hex=ping.octets.hex()))


def _short(text: str) -> str:
    text = text.rstrip("\n")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... {len(text)} characters"
