"""What a codec case is given: the codec, and the usual requests."""

import json
import os
from typing import Any, NamedTuple

from conformance.codec.target import CodecTarget
from conformance.codec.values import differences
from conformance.harness.contract import short
from conformance.harness.verdicts import ContractBroken, Failed, Inconclusive, usual
from conformance.wire.log import WireLog


class PingVector(NamedTuple):
    """A PING with fresh octets, so that no constant answer fits."""

    octets: bytes
    value: dict[str, Any]


class Context:
    """One run of one case. `said` are the last lines of both sides."""

    def __init__(self, codec: CodecTarget) -> None:
        self._codec = codec
        self.said: list[str] = []
        self.log = WireLog()

    async def ask(self, op: str, sender: str = "", limit: int = 0, **values: Any) -> dict[str, Any]:
        """The answer to one request. Raises as `CodecTarget.ask`."""
        request = {"op": op, **({"from": sender} if sender else {}), **values}
        if limit:
            request["limit"] = limit
        try:
            return await self._codec.ask(request, self.log)
        finally:
            self.said = [*self.said[-4:], *self._codec.said]

    async def feed(self, sender: str, chunks: list[bytes], limit: int) -> dict[str, Any]:
        """The answer to a stream in pieces. Raises as `CodecTarget.ask`."""
        return await self.ask("feed", sender, limit, chunks=[chunk.hex() for chunk in chunks])

    def ping(self) -> PingVector:
        """A fresh PING."""
        opaque = os.urandom(8)
        octets = bytes.fromhex("00000008 0006 0000 00000000 00000000") + opaque
        return PingVector(octets, {"opaque": opaque.hex(), "fields": [], "flags": 0, "request": 0, "room": 0})

    def same_ping(self, ping: PingVector, answer: Any) -> None:
        """Raises Failed unless the answer is the PING."""
        shown = short(json.dumps(answer))
        if not isinstance(answer, dict) or answer.get("frame") != "PING":
            raise Failed("PING decoded", shown)
        if differences("PING", ping.value, answer.get("value")):
            raise Failed(f"PING {ping.value['opaque']}", shown)

    async def control(self) -> None:
        """Checks that the codec decodes a fresh PING. Raises Inconclusive."""
        try:
            await self.alive()
        except Failed as failure:
            if isinstance(failure, ContractBroken):
                raise
            raise Inconclusive(f"the control failed, a valid frame: {failure}", failure, failure.step) from None

    async def alive(self) -> None:
        """Checks that the codec decodes a fresh PING of each sender. Raises Failed."""
        for sender, who in ("C", "client"), ("S", "server"):
            ping = self.ping()
            with usual(f"codec/7.6/decode/ping-{who}"):
                self.same_ping(ping, await self.ask("decode", sender, hex=ping.octets.hex()))
