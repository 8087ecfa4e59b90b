"""The interactive chat: several rooms at once, one of which is current and receives the typed lines."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from reference_client import events
from reference_client.chat.render import harmless, plain
from reference_client.chat.rows import again
from reference_client.chat.show import Show, described
from reference_client.chat.streams import InputError
from reference_client.chat.terminal import Screen
from reference_client.client import Client
from reference_client.errors import ClientError, OutcomeUnknown
from reference_client.room import Receipt, Room

HELP = """\
/join ROOM        join a room, and make it the current one
/leave [ROOM]     leave a room, or the current one
/room [ROOM]      make a room the current one; without a name, list the rooms
/who [ROOM]       who is in the room
/history [COUNT]  the newest messages of the current room (20)
/help             this list
/quit             leave (so does Ctrl-D)
//text            sends /text
Everything else is sent to the current room. Anybody may use the name in <name>; the name in [name] is an account's."""

_GOODBYE_SECONDS = 2.0


class Chat:
    """Turns typed lines into requests, and events into lines on the screen.

    Each JOIN asks for `history` old messages.
    """

    def __init__(self, client: Client, screen: Screen, show: Show, *, history: int) -> None:
        self._client = client
        self._screen = screen
        self._show = show
        self._history = history
        self._current: Room | None = None
        self._pending: set[asyncio.Future[Receipt]] = set()
        self._last: dict[Room, int] = {}  # seq of our newest message
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._ending = False  # because the user wants it
        self._failed = False
        self._unknown = False
        self._commands: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
            "join": self._join,
            "leave": self._leave,
            "room": self._room,
            "who": self._who,
            "history": self._older,
            "help": self._help,
        }

    async def run(self, rooms: Iterable[str]) -> int:
        """Chat until the input ends, the user types /quit, or the session ends. Returns the exit status."""
        watching = asyncio.create_task(self._watch())
        typing = asyncio.create_task(self._type(rooms))
        try:
            await asyncio.wait((watching, typing), return_when=asyncio.FIRST_COMPLETED)
            self._ending = typing.done()
            if self._ending:
                typing.result()
            await self._client.close()
            await watching  # until the last event is shown
        finally:
            for task in (watching, typing, *self._tasks):
                task.cancel()
        if self._unknown:
            return 4
        return 0 if self._ending and not self._failed else 1

    # --- events

    async def _watch(self) -> None:
        async for event in self._client:
            if isinstance(event, events.MessageReceived):
                several = len(self._client.rooms) > 1
                self._screen.show(self._show.message(event, room=event.room if several else None))
            elif not (self._ending and isinstance(event, events.Disconnected)) and (line := self._show.event(event)):
                self._screen.show(line)
            if isinstance(event, events.Left | events.Evicted | events.JoinFailed) and not self._in_current():
                self._make_current(next(iter(self._client.rooms.values()), None))
            self._moved.set()

    def _in_current(self) -> bool:
        return self._current is None or self._current.name in self._client.rooms

    def _make_current(self, room: Room | None) -> None:
        self._current = room
        self._screen.prompt(f"{plain(room.title)}> " if room else "> ")

    def _say(self, text: str) -> None:
        self._screen.show(self._show.note(text))

    def _complain(self, text: str) -> None:
        self._failed = not self._screen.interactive  # at a terminal, a typing error is no failure of the program
        self._screen.show(self._show.problem(text))

    # --- typed lines

    async def _type(self, rooms: Iterable[str]) -> None:
        for name in rooms:
            await self._enter(name)
        if self._client.rooms:
            self._make_current(next(iter(self._client.rooms.values())))
        elif self._screen.interactive:
            self._say("you are in no room: /join ROOM, /help for more")
        try:
            await self._take_lines()
        except InputError as error:
            self._complain(f"the standard input cannot be read: {error}")
        await self._finish()

    async def _take_lines(self) -> None:
        async for line in self._screen.lines():
            text = line.decode("utf-8", "surrogateescape")
            if text.strip() == "/quit":
                break
            if text.startswith("/") and not text.startswith("//"):
                await self._command(text)
            elif text.strip():
                await self._publish(text.removeprefix("/") if text.startswith("//") else text)

    async def _command(self, text: str) -> None:
        word, _, argument = text[1:].partition(" ")
        command = self._commands.get(word)
        if command is None:
            self._complain(f"there is no command /{harmless(word)}: /help lists them")
            return
        running = asyncio.create_task(command(argument.strip()))
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)
        # At a terminal, typing goes on while the server answers. In a script, the next line may depend on this one.
        if not self._screen.interactive:
            await running

    async def _publish(self, text: str) -> None:
        room = self._current
        if room is None:
            self._complain("you are in no room: /join ROOM")
            return
        try:
            published = await room.submit(text.encode("utf-8", "surrogateescape"), ctype=0)
        except ClientError as error:
            self._complain(f"not sent: {described(error.code, error.text)}")
            return
        self._pending.add(published)
        published.add_done_callback(lambda done: self._published(room, text, done))
        if not self._client.connected and self._screen.interactive:
            self._say("not connected: this will be sent later")

    def _published(self, room: Room, text: str, done: asyncio.Future[Receipt]) -> None:
        self._pending.discard(done)
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            self._last[room] = done.result()[0]
        elif isinstance(error, OutcomeUnknown):
            self._unknown = True
            self._screen.show(self._show.problem(f"outcome unknown, perhaps sent: {harmless(text)}"))
        elif isinstance(error, ClientError):
            self._complain(f"not sent, {described(error.code, error.text)}: {harmless(text)}")

    async def _finish(self) -> None:
        """Wait until all publishes are answered and our own messages are shown."""
        # At a terminal, the user does not want to wait for a server that is away.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS if self._screen.interactive else None):
                while self._pending:
                    await asyncio.wait(self._pending)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                while any(room.name in self._client.rooms and room.cursor[1] < seq for room, seq in self._last.items()):
                    self._moved.clear()
                    await self._moved.wait()

    # --- commands

    async def _enter(self, name: str) -> Room | None:
        try:
            return await self._client.join(name, history=self._history)
        except ClientError as error:
            if error.code is None:  # a refusal by the server is shown as an event
                self._complain(f"not in {harmless(name)}: {harmless(error.text)}")
            self._failed = not self._screen.interactive
            return None

    async def _join(self, name: str) -> None:
        if not name:
            self._complain("/join ROOM: which room?")
        elif (room := await self._enter(name)) is not None:
            self._make_current(room)

    async def _leave(self, name: str) -> None:
        room = self._named(name)
        if room is not None:
            await room.leave()

    async def _room(self, name: str) -> None:
        if not name:
            names = (
                f"{plain(room.title, ',()')}{' (current)' if room is self._current else ''}" for room in self._rooms()
            )
            self._say(f"your rooms: {', '.join(names) or 'none'}")
        elif (room := self._named(name)) is not None:
            self._make_current(room)
            self._say(f"you speak in {plain(room.title)} now")

    async def _who(self, name: str) -> None:
        if (room := self._named(name)) is not None:
            self._screen.show(self._show.roster(room.title, room.roster, room.members))

    async def _older(self, argument: str) -> None:
        count = 20 if not argument else int(argument) if argument.isascii() and argument.isdigit() else 0
        if not 1 <= count <= 10_000:
            self._complain("/history COUNT: from 1 to 10000 messages")
        elif (room := self._named("")) is not None:
            try:
                messages = [message async for message in room.history(newest=count)]
            except ClientError as error:
                self._complain(f"no history: {described(error.code, error.text)}")
                return
            self._say(f"the newest {len(messages)} messages of {plain(room.title)}:")
            for message in messages:
                self._screen.show(again(self._show.message(message, room=None)))
            self._say("end of history")

    async def _help(self, _: str) -> None:
        for line in HELP.splitlines():
            self._say(line)

    def _rooms(self) -> list[Room]:
        return list(self._client.rooms.values())

    def _named(self, name: str) -> Room | None:
        """The room with the typed name, or the current one without a name; None, with a complaint, if there is none."""
        if not name:
            if self._current is None:
                self._complain("you are in no room: /join ROOM")
            return self._current
        for room in self._rooms():
            if name in (room.name, room.title):
                return room
        self._complain(f"you are not in {harmless(name)}")
        return None
