"""roomwire-chat send, tail and stop, for scripts."""

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from reference_client import events
from reference_client.chat.render import harmless, place_of, plain
from reference_client.chat.rows import write_line
from reference_client.chat.show import Show, described, json_gap, json_line, json_message, missing, wants_colour
from reference_client.chat.streams import InputError, ending_unread, stdin_lines
from reference_client.client import Client
from reference_client.errors import ClientError, OutcomeUnknown, code_name
from reference_client.room import Receipt

OK = 0
FAILED = 1
UNKNOWN = 4
TIMED_OUT = 5


@dataclass(frozen=True, slots=True)
class SendOptions:
    """Publish `text`, or each line of the standard input if it is None. `deadline` is in the loop's time.

    With `expected`, a standard input without a line is an error.
    """

    room: str
    text: str | None
    expected: bool
    json: bool
    deadline: float | None


@dataclass(frozen=True, slots=True)
class TailOptions:
    """Print `count` messages, beginning with `history` old ones or after `since`: (epoch, seq), epoch 0 if not given.

    `deadline` is in the loop's time.
    """

    room: str
    count: int | None
    deadline: float | None
    history: int
    since: tuple[int, int] | None
    json: bool


def warn(text: str) -> None:
    """Print one line to the standard error; `text` must be harmless."""
    with contextlib.suppress(OSError):
        write_line(sys.stderr, f"roomwire-chat: {text}")


class Sender:
    """Publishes messages, and reports the outcome of each, in order."""

    def __init__(self, client: Client, options: SendOptions) -> None:
        self._client = client
        self._options = options
        self._under_way: deque[asyncio.Future[Receipt]] = deque()
        self._number = 0
        self._status = OK

    async def run(self) -> int:
        """Publish everything, and return the exit status."""
        overdue = False
        try:
            async with asyncio.timeout_at(self._options.deadline):
                await self._send()
        except TimeoutError:
            overdue = True
            await self._client.close()  # settles what is under way
        await self._account(len(self._under_way))
        return TIMED_OUT if overdue and self._status != UNKNOWN else self._status

    async def _send(self) -> None:
        room = await self._client.join(self._options.room)
        count = 0
        try:
            async for payload in self._payloads():
                count += 1
                self._under_way.append(await room.submit(payload, ctype=0))
                while self._under_way and self._under_way[0].done():
                    await self._account(1)
        except InputError as error:
            self._status = max(self._status, FAILED)
            warn(f"the standard input cannot be read after {count} messages: {error}; the rest is not sent")
        while self._under_way:
            await asyncio.wait((self._under_way[0],))
            await self._account(1)
        if not count and self._options.expected and self._status == OK:
            self._status = FAILED
            warn("nothing is sent: expected TEXT, or lines on the standard input, found neither")

    async def _payloads(self) -> AsyncIterator[bytes]:
        if self._options.text is not None:
            yield os.fsencode(self._options.text)
            return
        async for line in stdin_lines():
            yield line

    async def _account(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            try:
                self._succeeded(await self._under_way.popleft())
            except ClientError as error:
                self._failed(error)

    def _succeeded(self, receipt: Receipt) -> None:
        if self._options.json:
            seq, time_ms = receipt
            print(
                json_line(
                    "published",
                    room=self._options.room,
                    id=receipt.id.hex(),
                    epoch=f"{receipt.epoch:016x}",
                    seq=seq,
                    time_ms=time_ms,
                ),
                flush=True,
            )

    def _failed(self, error: ClientError) -> None:
        unknown = isinstance(error, OutcomeUnknown)
        self._status = UNKNOWN if unknown else max(self._status, FAILED)
        what = "outcome unknown" if unknown else "not sent"
        warn(f"message {self._number}: {what}: {described(error.code, error.text)}")
        if self._options.json:
            print(
                json_line("failed", room=self._options.room, unknown=unknown, code=_name(error.code), text=error.text),
                flush=True,
            )


class Tailer:
    """Prints the messages of a room."""

    def __init__(self, client: Client, options: TailOptions) -> None:
        self._client = client
        self._options = options
        self._show = Show(colour=wants_colour(sys.stdout))
        self._printed = 0

    async def run(self) -> int:
        """Print until there are enough messages or the time is over, and return the exit status."""
        options = self._options
        try:
            with ending_unread(sys.stdout):
                async with asyncio.timeout_at(options.deadline):
                    return await self._tail()
        except TimeoutError:
            enough = self._printed >= (options.count or 1)
            return OK if enough else TIMED_OUT

    async def _tail(self) -> int:
        options = self._options
        stream = aiter(self._client)
        epoch, seq = options.since or (0, 0)
        cursor = (epoch, seq) if epoch else None
        room = await self._client.join(options.room, history=0 if options.since else options.history, cursor=cursor)
        assert room.joined is not None
        warn(f"in {plain(room.title)}, which has {room.joined.head} messages")
        if options.since and not epoch and seq < room.joined.head:
            async for message in room.history(seq + 1, room.joined.head + 1):
                if message.seq > seq + 1:
                    self._gap(events.Gap(options.room, message.epoch, seq, message.epoch, message.seq))
                seq = message.seq
                if self._message(message):
                    return OK
        async for event in stream:
            if isinstance(event, events.MessageReceived):
                if self._message(event):
                    return OK
            elif isinstance(event, events.Gap):
                self._gap(event)
            elif isinstance(event, events.Evicted | events.JoinFailed | events.Disconnected):
                self._trouble(event)
                if event.retry_in is None:
                    break
            elif isinstance(event, events.Joined) and event.again:
                warn(f"back in {plain(room.title)}")
        return FAILED

    def _message(self, message: events.MessageReceived) -> bool:
        """Print a message. Returns whether it was the last one wanted."""
        if self._options.json:
            print(json_message(message), flush=True)
        else:
            write_line(sys.stdout, self._show.message(message, room=None))
        self._printed += 1
        return self._printed == self._options.count

    def _gap(self, gap: events.Gap) -> None:
        if self._options.json:
            print(json_gap(gap), flush=True)
        warn(missing(gap))

    def _trouble(self, event: events.Evicted | events.JoinFailed | events.Disconnected) -> None:
        what = "not connected" if isinstance(event, events.Disconnected) else f"not in {harmless(event.room)}"
        again = "" if event.retry_in is None else f"; trying again in {event.retry_in:.1f} s"
        warn(f"{what}: {described(event.code, event.text)}{again}")


class Stopper:
    """Asks the server to stop."""

    def __init__(self, client: Client, deadline: float | None) -> None:
        self._client = client
        self._deadline = deadline

    async def run(self) -> int:
        """Ask, and return the exit status."""
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._client.stop()
        except TimeoutError:
            warn("the time is over before the server answered")
            return TIMED_OUT
        warn(f"{place_of(self._client.host, self._client.port)} is stopping")
        return OK


def _name(code: int | None) -> str | None:
    return None if code is None else code_name(code)
