"""The codec under test: one long-lived process that answers lines of JSON.

CONTRACT.md describes the lines.
"""

import asyncio
import contextlib
import json
from typing import Any

from conformance.harness.contract import greeting, parse, short
from conformance.harness.process import Program, Unreachable, arguments
from conformance.harness.verdicts import ContractBroken, Crashed, Failed, Unsupported
from conformance.wire.log import WireLog


class CodecTarget:
    """A running codec. `timeout` bounds each answer, in seconds."""

    def __init__(self, program: Program, timeout: float) -> None:
        self._program = program
        self._timeout = timeout
        self._id = 0
        self.greeting: dict[str, Any] = {}
        self.said: list[str] = []

    @classmethod
    async def start(cls, command: str, ready: float, timeout: float) -> "CodecTarget":
        """Starts a codec and waits `ready` seconds for its first line. Raises Unreachable or Unstartable."""
        program = await Program.start(arguments(command, {}), {}, pipes=True)
        codec = cls(program, ready)
        try:
            codec.greeting = greeting(await codec._line())
        except (ValueError, Failed, Crashed) as reason:
            await program.stop(kill=True)
            raise Unreachable(f"the codec did not get ready: {reason}", program.stderr) from None
        codec._timeout = timeout
        return codec

    @property
    def died(self) -> str:
        """How the program ended by itself, or "" while it runs."""
        return self._program.died

    @property
    def stderr(self) -> str:
        """The end of what the program wrote to its standard error."""
        return self._program.stderr

    async def stop(self) -> None:
        """Ends the program."""
        self._program.stdin.close()
        await self._program.stop(kill=True)

    async def ask(self, request: dict[str, Any], log: WireLog) -> dict[str, Any]:
        """The answer to a request. Raises Crashed, ContractBroken, or Unsupported for what the codec leaves out."""
        self._id += 1
        line = json.dumps({"id": self._id, **request})
        self.said = [f"-> {short(line)}"]
        log.said("codec", "C", line)
        with contextlib.suppress(OSError):
            self._program.stdin.write(line.encode() + b"\n")
            await self._program.stdin.drain()
        text = await self._line()
        self.said.append(f"<- {short(text)}")
        log.said("codec", "S", text)
        try:
            answer = parse(text)
        except ValueError:
            raise ContractBroken("a line of JSON", short(text)) from None
        if not isinstance(answer, dict) or answer.get("id") != self._id:
            raise ContractBroken(f"an object with id {self._id}", short(text))
        if "unsupported" in answer:
            raise Unsupported(f"the codec declares {request['op']} unsupported")
        return answer

    async def _line(self) -> str:
        try:
            line = await asyncio.wait_for(self._program.stdout.readline(), self._timeout)
        except TimeoutError:
            raise ContractBroken("an answer", f"nothing within {self._timeout:g} s") from None
        except ValueError:
            raise ContractBroken("a line", "more octets than any answer has, and no end of line") from None
        if not line.endswith(b"\n"):
            await self._program.wait(1.0)
            raise Crashed(f"the codec {self._program.died or 'closed its output'}")
        return line.decode(errors="replace")
