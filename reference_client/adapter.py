"""The adapter through which `roomwire-check client` drives the reference client, by lines of JSON.

    python -m reference_client.adapter HOST PORT

conformance/CONTRACT.md defines the lines. Octets are hexadecimal, 64-bit numbers are decimal strings.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from protocol.errors import LocalProtocolError
from reference_client import events
from reference_client.client import Client
from reference_client.errors import ClientError, OutcomeUnknown, TooManyPending
from reference_client.session.session import SOFTWARE
from reference_client.tls import client_context

CONTRACT = 1
FEATURES = ("accounts", "history", "ordered", "presence", "reconnect", "rejoin", "repeat", "tls")

Report = Callable[[str], None]


class Adapter:
    """Carries out commands with a Client, and passes reports to `write`, line by line."""

    def __init__(self, host: str, port: int, write: Report, *, make: Callable[..., Client] = Client) -> None:
        self._host = host
        self._port = port
        self._write = write
        self._make = make
        self._client: Client | None = None
        self._connecting: Any = None
        self._joining: dict[str, Any] = {}
        self._leaving: dict[str, Any] = {}
        self._talking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, lines: asyncio.StreamReader) -> None:
        """Carry out commands until `quit` or the end of the input."""
        software, _, version = SOFTWARE.partition("/")
        self.report(ready=True, contract=CONTRACT, name=software, version=version, features=FEATURES)
        try:
            while line := await lines.readline():
                command = json.loads(line)
                if command["op"] == "quit":
                    break
                self.execute(command)
            if self._client is not None and self._talking is not None:
                await self._client.close()
                await self._talking
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def report(self, **values: Any) -> None:
        """Write one report, without the values that are None."""
        self._write(json.dumps({name: value for name, value in values.items() if value is not None}))

    def execute(self, command: dict[str, Any]) -> None:
        """Start a command. Its report may come much later."""
        id, op, client = command.get("id"), command["op"], self._client
        if op == "connect":
            if client is None:
                self._connecting = id
                tls = client_context(Path(command["ca"])) if "ca" in command else None
                client = self._client = self._make(
                    self._host,
                    self._port,
                    name=command["name"],
                    password=command.get("password"),
                    tls=tls,
                    patient=True,
                )
                self._talking = self._begin(self._talk(client))
            else:
                self.report(event="error", id=id, text="already connected")
        elif op not in ("join", "publish", "leave", "history"):
            self.report(id=id, unsupported=op)
        elif client is None:
            self.report(event="error", id=id, text="not connected")
        elif (command["room"] in client.session.rooms()) == (op == "join"):
            self.report(event="error", id=id, room=command["room"], text="already in the room, or not in it")
        else:
            self._begin(self._call(client, id, command))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _talk(self, client: Client) -> None:
        entering = asyncio.get_running_loop().create_task(client.__aenter__())
        try:
            async for event in client:
                self._report_event(client, event)
        finally:
            entering.cancel()
            with contextlib.suppress(ClientError, asyncio.CancelledError):
                await entering

    async def _call(self, client: Client, id: Any, command: dict[str, Any]) -> None:
        room = command["room"]
        try:
            match command["op"]:
                case "join":
                    await self._join(client, id, command)
                case "leave":
                    self._leaving[room] = id
                    await client.leave(room)
                case "publish":
                    await self._publish(client, id, command)
                case "history":
                    await self._history(client, id, command)
        except OutcomeUnknown as error:
            self.report(event="error", id=id, room=room, code=error.code, text=str(error), unknown=True)
        except (ClientError, LocalProtocolError, TooManyPending) as error:
            # A JOIN that the server refused was reported with the event JoinFailed.
            if self._joining.pop(room, None) == id or command["op"] != "join":
                code = getattr(error, "code", None)
                self.report(event="error", id=id, room=room, code=code, text=str(error), unknown=False)

    async def _join(self, client: Client, id: Any, command: dict[str, Any]) -> None:
        cursor = (int(command["epoch"]), int(command["since"])) if "epoch" in command else None
        self._joining[command["room"]] = id
        await client.join(command["room"], history=command.get("newest", 0), cursor=cursor)

    async def _publish(self, client: Client, id: Any, command: dict[str, Any]) -> None:
        room, payload = command["room"], bytes.fromhex(command["payload"])
        receipt = await (await client.submit(room, payload, command.get("ctype", 0), ()))
        seq, time_ms = receipt
        self.report(event="published", id=id, room=room, epoch=str(receipt.epoch), seq=str(seq), time_ms=str(time_ms))

    async def _history(self, client: Client, id: Any, command: dict[str, Any]) -> None:
        start, end = int(command.get("start", 1)), int(command.get("end", 0))
        newest = command.get("newest", False)
        page = await client.ask_history(command["room"], start, end, command.get("limit", 0), newest=newest)
        self.report(
            event="history",
            id=id,
            room=page.room,
            messages=[_message(message) for message in page.messages],
            start=str(page.start),
            end=str(page.end),
            oldest=str(page.oldest),
            more=page.more,
        )

    def _report_event(self, client: Client, event: events.Event) -> None:
        match event:
            case events.Connected():
                self.report(event="connected", id=self._connecting, name=event.name, member=str(event.member))
                self._connecting = None
            case events.Disconnected():
                again = event.retry_in is not None
                self.report(event="disconnected", code=event.code, text=event.text, again=again)
            case events.Closed():
                self.report(event="closed", code=event.code, text=event.text)
            case events.Joined():
                self.report(
                    event="joined",
                    id=self._joining.pop(event.room, None),
                    room=event.room,
                    name=event.name,
                    epoch=str(event.epoch),
                    head=str(event.head),
                    start=str(event.start),
                    oldest=str(event.oldest),
                    members=event.members,
                    quiet=event.quiet,
                )
            case events.JoinFailed(retry_in=None):
                id = self._joining.pop(event.room, None)
                self.report(event="error", id=id, room=event.room, code=event.code, text=event.text)
            case events.Evicted():
                again = event.retry_in is not None
                self.report(event="evicted", room=event.room, code=event.code, text=event.text, again=again)
            case events.Left():
                self.report(event="left", id=self._leaving.pop(event.room, None), room=event.room)
            case events.MessageReceived():
                self.report(event="message", **_message(event))
            case events.Gap():
                self.report(event="gap", room=event.room, epoch=str(event.epoch), start=str(event.start))
            case events.RosterChanged() | events.RoomQuiet() | events.MemberJoined() | events.MemberLeft():
                self._report_presence(client, event)

    def _report_presence(
        self,
        client: Client,
        event: events.RosterChanged | events.RoomQuiet | events.MemberJoined | events.MemberLeft,
    ) -> None:
        room = client.rooms.get(event.room)
        members = room.roster if room else []
        roster = [{"member": str(m.member), "name": m.name, "verified": m.verified} for m in members]
        member = name = None
        match event:
            case events.RosterChanged():
                kind = "roster"
            case events.RoomQuiet():
                kind = "quiet"
            case events.MemberJoined():
                kind, member, name = "joined", str(event.member), event.name
            case events.MemberLeft():
                kind, member, name = "lost" if event.lost else "left", str(event.member), event.name
        self.report(event="presence", room=event.room, kind=kind, member=member, name=name, roster=roster)


def _message(event: events.MessageReceived) -> dict[str, Any]:
    return {
        "room": event.room,
        "epoch": str(event.epoch),
        "seq": str(event.seq),
        "time_ms": str(event.time_ms),
        "sender": str(event.sender),
        "name": event.name,
        "verified": event.verified,
        "ctype": event.ctype,
        "payload": event.payload.hex(),
    }


def _to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _main(host: str, port: int) -> None:
    lines = asyncio.StreamReader(limit=2**24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    await Adapter(host, port, _to_stdout).run(lines)


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal():
        sys.exit("usage: python -m reference_client.adapter HOST PORT")
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
