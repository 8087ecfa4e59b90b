"""The events that an application has not taken yet, and their number, which is bounded."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from reference_client import events

_KEPT = (events.MessageReceived, events.Gap, events.Closed)


class EventQueue:
    """At most `limit` events, in order; iterating takes them, and ends after Closed.

    `taken` is called after the application has taken an event. An iteration that was cancelled may go on: no event is
    lost with it.

    Until the application iterates, only the newest events are kept. From then on messages and gaps stay until they
    are taken: whoever fills the queue looks at `free` first. Other events that do not fit are dropped, and Closed is
    one more than `limit` if it must.
    """

    def __init__(self, limit: int, taken: Callable[[], None]) -> None:
        self.limit = max(limit, 1)
        self.iterated = False
        self._taken = taken
        self._events: deque[events.Event] = deque()
        self._closed = False
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def free(self) -> int:
        """How many events may still be put."""
        return self.limit - len(self._events) if self.iterated else self.limit

    @property
    def half_empty(self) -> bool:
        """Whether so many events were taken that it is worth while to read on."""
        return len(self._events) <= self.limit // 2

    def put(self, event: events.Event) -> None:
        """Add an event."""
        self._closed = self._closed or isinstance(event, events.Closed)
        if len(self._events) >= self.limit and not self._make_room(event):
            return
        self._events.append(event)
        self._arrived.set()

    def _make_room(self, event: events.Event) -> bool:
        """Drop an event for another one. Returns False if the other is the one to drop."""
        if not self.iterated:
            self._events.popleft()
            return True
        if isinstance(event, events.Published | events.PublishFailed):
            return False  # its call was told
        for place, waiting in enumerate(self._events):
            if not isinstance(waiting, _KEPT):
                del self._events[place]
                return True
        return isinstance(event, _KEPT)

    def __aiter__(self) -> Self:
        self.iterated = True
        return self

    async def __anext__(self) -> events.Event:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        self._taken()
        return event
