"""Rooms as applications use them: publish, read history, leave."""

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
    """(seq, time_ms) of a published message, with its `id` and the `epoch` of the log as attributes."""

    id: bytes
    epoch: int

    @classmethod
    def of(cls, event: events.Published) -> Self:
        receipt = cls((event.seq, event.time_ms))
        receipt.id, receipt.epoch = event.id, event.epoch
        return receipt


class Caller(Protocol):
    """What a Room needs of its Client: the session, and calls that wait for the server."""

    session: Session

    async def submit(self, room: str, payload: bytes, ctype: int, fields: tuple[Field, ...]) -> asyncio.Future[Receipt]:
        """Publish to `room`; wait only while too many publishes are pending."""

    async def ask_history(self, room: str, start: int, end: int, limit: int, *, newest: bool) -> events.HistoryPage:
        """Fetch one page of the log of `room`."""

    async def leave(self, room: str) -> None:
        """Leave `room`."""


class Room:
    """A room that a Client has joined. The client joins it again after each reconnection."""

    def __init__(self, client: Caller, name: str) -> None:
        self._client = client
        self.name = name
        """The name that `Client.join` was called with."""
        self.joined: events.Joined | None = None
        """The most recent Joined event of the room."""

    @property
    def title(self) -> str:
        """The name as the server spells it."""
        return self.joined.name if self.joined else self.name

    @property
    def roster(self) -> list[Member]:
        """The members that are known; empty in a quiet room. Raises LocalProtocolError after the room was left."""
        return self._client.session.roster(self.name)

    @property
    def members(self) -> int:
        """The number of members that is known. Raises LocalProtocolError after the room was left."""
        return self._client.session.members(self.name)

    @property
    def cursor(self) -> tuple[int, int]:
        """(epoch, seq) of the last message received. Raises LocalProtocolError after the room was left."""
        return self._client.session.cursor(self.name)

    async def publish(
        self, content: str | bytes, *, ctype: int | None = None, fields: tuple[Field, ...] = ()
    ) -> Receipt:
        """Publish, and wait for the acknowledgement, over as many connections as that takes: (seq, time_ms).

        Raises PublishError, or OutcomeUnknown if the reply is lost for good. Cancelling the call ends the wait; it
        does not take the message back.
        """
        return await (await self.submit(content, ctype=ctype, fields=fields))

    async def submit(
        self, content: str | bytes, *, ctype: int | None = None, fields: tuple[Field, ...] = ()
    ) -> asyncio.Future[Receipt]:
        """Publish, and wait only while too many publishes are pending. The future is the one `publish` awaits.

        The messages are published in the order of these calls. `ctype` defaults to TEXT for a str and to OCTETS for
        bytes. Raises PublishError if the client is not in the room.
        """
        payload = content.encode() if isinstance(content, str) else content
        if ctype is None:
            ctype = ContentType.TEXT if isinstance(content, str) else ContentType.OCTETS
        return await self._client.submit(self.name, payload, ctype, fields)

    async def history(
        self, start: int = 1, end: int = 0, *, newest: int | None = None, page: int = 100
    ) -> AsyncIterator[events.MessageReceived]:
        """The messages of [start, end) that the server still has, in ascending order; `end` 0 is the end of the log.

        With `newest`, only the last `newest` of them. Each request asks for `page` messages. Raises HistoryError.
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
            raise HistoryError("the room's log was reset")
        return reply

    async def leave(self) -> None:
        """Leave the room once all its publishes are answered. Does nothing if the room was left already."""
        await self._client.leave(self.name)
