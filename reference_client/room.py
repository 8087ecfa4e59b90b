"""A room of a Client, as applications use it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol, Self

from protocol.frames import Field
from protocol.registry import ContentType
from reference_client import events
from reference_client.errors import HistoryError
from reference_client.session.membership import Member
from reference_client.session.session import Session


class Receipt(tuple[int, int]):
    """(seq, time_ms) of a published message; also its `id`, and the `epoch` of the log."""

    id: bytes
    epoch: int

    @classmethod
    def of(cls, event: events.Published) -> Self:
        receipt = cls((event.seq, event.time_ms))
        receipt.id, receipt.epoch = event.id, event.epoch
        return receipt


class Caller(Protocol):
    """A Client, as far as its rooms need it: the session, and calls that wait for the server."""

    session: Session

    async def submit(self, room: str, payload: bytes, ctype: int, fields: tuple[Field, ...]) -> asyncio.Future[Receipt]:
        """Publish to `room`; wait only while too many messages are pending."""

    async def ask_history(self, room: str, start: int, end: int, limit: int, *, newest: bool) -> events.HistoryPage:
        """One page of the log of `room`."""

    async def leave(self, room: str) -> None:
        """Leave `room`."""


class Room:
    """A room that a Client is in, or is to be in again as soon as there is a connection."""

    def __init__(self, client: Caller, name: str) -> None:
        self._client = client
        self.name = name
        """The name by which it was joined."""
        self.joined: events.Joined | None = None
        """What the server said when it was joined last."""

    @property
    def title(self) -> str:
        """The name as the server spells it."""
        return self.joined.name if self.joined else self.name

    @property
    def roster(self) -> list[Member]:
        """Who is here, as far as is known; nobody in a quiet room. Raises LocalProtocolError once the room is left."""
        return self._client.session.roster(self.name)

    @property
    def members(self) -> int:
        """How many are here, as far as is known. Raises LocalProtocolError once the room is left."""
        return self._client.session.members(self.name)

    @property
    def cursor(self) -> tuple[int, int]:
        """(epoch, seq) of the last message received. Raises LocalProtocolError once the room is left."""
        return self._client.session.cursor(self.name)

    async def publish(
        self, content: str | bytes, *, ctype: int | None = None, fields: tuple[Field, ...] = ()
    ) -> Receipt:
        """Publish, and wait until it is acknowledged, over as many connections as that takes: (seq, time_ms).

        Raises PublishError, or OutcomeUnknown where nobody can tell. Whoever is cancelled stops waiting; that does
        not take the message back.
        """
        return await (await self.submit(content, ctype=ctype, fields=fields))

    async def submit(
        self, content: str | bytes, *, ctype: int | None = None, fields: tuple[Field, ...] = ()
    ) -> asyncio.Future[Receipt]:
        """Publish, and wait only while too many messages are pending; the future is what `publish` waits for.

        Messages get their places in the order of these calls. `ctype` is TEXT for a str and OCTETS for bytes, unless
        it is given. Raises PublishError if the client is not in the room.
        """
        payload = content.encode() if isinstance(content, str) else content
        if ctype is None:
            ctype = ContentType.TEXT if isinstance(content, str) else ContentType.OCTETS
        return await self._client.submit(self.name, payload, ctype, fields)

    async def history(
        self, start: int = 1, end: int = 0, *, newest: int | None = None, page: int = 100
    ) -> AsyncIterator[events.MessageReceived]:
        """The messages of [start, end) that the server still has, ascending; `end` 0 for all that are there.

        With `newest` the last so many of them. They are asked for `page` at a time. Raises HistoryError.
        """
        if newest is not None:
            for message in await self._newest(start, end, newest, page):
                yield message
            return
        epoch, more = 0, True
        while more:
            reply = await self._ask(epoch, start, end, page)
            for message in reply.messages:
                yield message
            epoch, start, more = reply.epoch, reply.end, reply.more and bool(reply.messages)

    async def _newest(self, start: int, end: int, newest: int, page: int) -> deque[events.MessageReceived]:
        found: deque[events.MessageReceived] = deque()
        epoch, more = 0, True
        while more and len(found) < newest:
            reply = await self._ask(epoch, start, end, min(newest - len(found), page), newest=True)
            found.extendleft(reversed(reply.messages))
            epoch, end, more = reply.epoch, reply.start, reply.more and bool(reply.messages)
        return found

    async def _ask(self, epoch: int, start: int, end: int, limit: int, *, newest: bool = False) -> events.HistoryPage:
        reply = await self._client.ask_history(self.name, start, end, limit, newest=newest)
        if epoch not in (0, reply.epoch):
            raise HistoryError("the log of the room began anew")
        return reply

    async def leave(self) -> None:
        """Leave, once all that was published is answered. Nothing happens if the room was left already."""
        await self._client.leave(self.name)
