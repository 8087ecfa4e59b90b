"""Rooms as applications use them: publish, read history, leave."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol, Self

from protocol.frames import Field
from protocol.registry import ContentType
from reference_client import events
from reference_client.errors import HistoryError
from reference_client.session.membership import Member
from reference_client.session.session import Session

Ask = Callable[..., Coroutine[Any, Any, events.HistoryPage]]
"""`Room._ask`: fetches one page."""


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
        self.claimed = False
        """Whether a call of `Client.join` has returned this room."""

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

    def history(
        self, start: int = 1, end: int = 0, *, newest: int | None = None, page: int = 100
    ) -> AsyncIterator[events.MessageReceived]:
        """The messages of [start, end) that the server still has, in ascending order; `end` 0 is the end of the log.

        With `newest`, only the last `newest` of them. Each request asks for `page` messages. Iterating raises
        HistoryError. An iteration that was cancelled may go on.
        """
        if newest is not None:
            return _Newest(self._ask, start, end, newest, page)
        return _Pages(self._ask, start, end, page)

    async def _ask(self, epoch: int, start: int, end: int, limit: int, *, newest: bool = False) -> events.HistoryPage:
        reply = await self._client.ask_history(self.name, start, end, limit, newest=newest)
        if epoch not in (0, reply.epoch):
            raise HistoryError("the room's log was reset")
        return reply

    async def leave(self) -> None:
        """Leave the room once all its publishes are answered. Does nothing if the room was left already."""
        await self._client.leave(self.name)


class _Messages(ABC):
    """An iteration over messages that `_fetch` gets from the server; it takes up nothing before its reply is there."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._epoch = 0
        self._more = True
        self._found: deque[events.MessageReceived] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> events.MessageReceived:
        try:
            await self._fetch()
        except HistoryError:
            self._more = False
            raise
        if not self._found:
            raise StopAsyncIteration
        return self._found.popleft()

    @abstractmethod
    async def _fetch(self) -> None:
        """Ask until there is a message to return, or there are no more."""


class _Pages(_Messages):
    """All messages of a range, one page at a time."""

    def __init__(self, ask: Ask, start: int, end: int, page: int) -> None:
        super().__init__(ask)
        self._start, self._end, self._page = start, end, page

    async def _fetch(self) -> None:
        if not self._found and self._more:
            reply = await self._ask(self._epoch, self._start, self._end, self._page)
            self._found.extend(reply.messages)
            self._epoch, self._start = reply.epoch, reply.end
            self._more = reply.more and bool(reply.messages)


class _Newest(_Messages):
    """The last messages of a range. Their pages arrive from the last one to the first."""

    def __init__(self, ask: Ask, start: int, end: int, newest: int, page: int) -> None:
        super().__init__(ask)
        self._start, self._end, self._newest, self._page = start, end, newest, page

    async def _fetch(self) -> None:
        while self._more and len(self._found) < self._newest:
            limit = min(self._newest - len(self._found), self._page)
            reply = await self._ask(self._epoch, self._start, self._end, limit, newest=True)
            self._found.extendleft(reversed(reply.messages))
            self._epoch, self._end = reply.epoch, reply.start
            self._more = reply.more and bool(reply.messages)
        self._more = False
