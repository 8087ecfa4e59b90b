"""A right server: what it makes of a client's requests, and how the client's reports are held against it."""

from typing import Any

from conformance.client.target import Report
from conformance.fuzz.client.connection import LATE, MEMBER, RETRY_MS, ClientLink, Command
from conformance.fuzz.client.model import NOW_MS, ClientRoom
from conformance.fuzz.failure import fail
from conformance.wire import clock
from conformance.wire.text import frame_line
from protocol.frames import (
    Ack,
    Error,
    Frame,
    Goaway,
    History,
    HistoryEnd,
    Join,
    Leave,
    Ok,
    Pong,
    Publish,
    Roster,
    RosterEntry,
    Unknown,
)
from protocol.registry import Code, Flag


class Serving(ClientLink):
    """What the client says on the wire, what it is answered, and what it reports."""

    def _heard(self, frame: Frame | Unknown) -> None:
        self.stats.received += 1
        match frame:
            case Pong():
                self._pongs.discard(frame.opaque)
            case Goaway():
                self.stats.codes["G", frame.code] += 1
                if not self._ends:
                    fail("RW-CHECK-3", "a client that goes on", frame_line(frame))
            case Publish():
                self._heard_publish(frame)
                self._queue.append(frame)
            case Join() | Leave() | History():
                self._queue.append(frame)

    def _publishes(self, room: ClientRoom) -> list[Command]:
        return [c for c in self.commands.values() if c.op == "publish" and c.room is room]

    def _heard_publish(self, publish: Publish) -> None:
        """Holds it against the command that it stems from. Raises Failed."""
        room = self._room_of(publish)
        command = next((c for c in self._publishes(room) if c.payload == publish.payload), None)
        if command is None:
            entry = room.ids.get(publish.id)
            if entry is None or entry.payload != publish.payload:
                fail("RW-PROMISE-5", "only what was to be published, and is not answered", frame_line(publish))
            return
        if command.ids and publish.id not in command.ids:
            fail("RW-PROMISE-5", f"the id {command.ids[0].hex()} again", frame_line(publish))
        if clock.now() < command.waits_until - LATE:
            fail("RW-ERROR-2", f"no repeat for {RETRY_MS} ms", frame_line(publish))
        if command.lost and command.unknown and not self._dedupe_ms:
            fail("RW-DEDUPE-7", "no repeat of a publish whose outcome is unknown", frame_line(publish))
        first = self._repeats.get(room.name, [])
        if publish.id in first:
            if first[0] != publish.id and not self._seen(room, first[0]):
                fail("RW-ORDER-3", f"the repeat of {first[0].hex()} first", frame_line(publish))
            del first[: first.index(publish.id) + 1]
        elif not command.ids and any(not self._seen(room, id) for id in first):
            fail("RW-ORDER-3", f"the repeats of {[id.hex() for id in first]} first", frame_line(publish))
        command.ids = (publish.id,)

    def _seen(self, room: ClientRoom, id: bytes) -> bool:
        """Whether the stream has brought the message with this id: it needs no repeat (RW-RECOVER-2)."""
        entry = room.ids.get(id)
        return entry is not None and entry.seq <= room.sent

    def _room_of(self, frame: Publish | Leave | History) -> ClientRoom:
        for room in self.rooms.values():
            if room.ref == frame.room:
                return room
        return fail("RW-MODEL-8", "the ref of a room that it is in", frame_line(frame))

    def _answer(self, request: Frame) -> None:
        match request:
            case Join():
                self._answer_join(request)
            case Publish():
                self._answer_publish(request)
            case Leave():
                room = self._room_of(request)
                room.ref = 0
                self.stats.visit("membership", "LEAVING", "OK")
                self._say(Ok(request=request.request, room=request.room))
            case History():
                room = self._room_of(request)
                low = min(max(request.start, room.oldest), room.head + 1)
                high = max(low, min(request.end or room.head + 1, room.head + 1))
                entries = [e for e in room.log if low <= e.seq < high][: request.limit or 100]
                entries = [e for e in entries if not e.ignorable]
                end = entries[-1].seq + 1 if entries else low
                flags = Flag.MORE if end != high else 0
                last = HistoryEnd(low, end, room.oldest, flags=flags, request=request.request, room=room.ref)
                self._say(*(e.frame(room.ref, request.request) for e in entries), last)

    def _error(self, request: Frame, code: Code) -> None:
        flags, retry = (Flag.RETRY, RETRY_MS) if code.retry else (0, 0)
        self.stats.codes["E", code] += 1
        self._say(Error(code, retry, "no", flags=flags, request=request.request, room=request.room))

    def _answer_join(self, join: Join) -> None:
        room = next((r for r in self.rooms.values() if r.name == join.name), None)
        if room is None or not room.wanted or room.ref:
            fail("RW-LAG-5", "no JOIN that nobody asked for", frame_line(join))
        if self._join_refusals:
            code = self._join_refusals.popleft()
            self._error(join, code)
            self.stats.visit("membership", "JOINING", "ERROR")
            if not code.retry:
                room.wanted = False
                for command in list(self.commands.values()):
                    command.fails = command.fails or command.room is room
            return
        ref = 5 + 40 * self._connections + [*self.rooms.values()].index(room)
        room.people = {MEMBER: self.granted, **{m: n for m, n in room.people.items() if m != MEMBER}}
        joined = room.answer(join, ref)
        self.stats.visit("membership", "JOINING", "JOINED")
        self._say(joined)
        if room.roster and not room.quiet:
            self._roster(room)
        self._stream(room)

    def _roster(self, room: ClientRoom) -> None:
        entries = [RosterEntry(member, 0, name) for member, name in room.people.items()]
        at = self.random.randrange(len(entries))
        if at:
            self._say(Roster(tuple(entries[:at]), flags=Flag.RESET | Flag.MORE, room=room.ref))
            self._say(Roster(tuple(entries[at:]), room=room.ref))
        else:
            self._say(Roster(tuple(entries), flags=Flag.RESET, room=room.ref))

    def _stream(self, room: ClientRoom, cut: int = 0) -> None:
        """What the stream owes a member."""
        if not room.ref or self.wire is None:
            return
        frames = [entry.frame(room.ref) for entry in room.log if entry.seq > room.sent]
        if frames:
            self._say(*frames, cut=cut)
            self.stats.visit("membership", "IN", "stream frame")
        room.sent = room.head
        room.reached[room.epoch] = max(room.reached.get(room.epoch, 0), room.head)

    def _answer_publish(self, publish: Publish, *, silently: bool = False) -> None:
        room = self._room_of(publish)
        command = next((c for c in self._publishes(room) if publish.id in c.ids), None)
        entry = room.ids.get(publish.id)
        if entry is None and self._refusals and not silently:
            code = self._refusals.popleft()
        elif entry is None and room.refused and publish.flags & Flag.ORDERED and not silently:
            code = Code.PRECEDED
        else:
            code = Code.NONE
        if code:
            room.refused = True
            self._error(publish, code)
            if command:
                command.unknown = False  # unless an earlier copy was lost
            if command and not code.retry:
                command.fails = True
            elif command:
                command.waits_until = clock.now() + (RETRY_MS / 1000 if code != Code.PRECEDED else 0)
            return
        room.refused = False
        flags = Flag.DUPLICATE if entry else 0
        if entry is None:
            if any(e.payload == publish.payload and e.sender == MEMBER for e in room.log):
                fail("RW-PROMISE-5", "no second message", frame_line(publish))
            entry = room.append(publish.id, MEMBER, publish.ctype, publish.payload)
            self._in_order(room, entry)
        if silently:
            return
        self._say(Ack(entry.seq, NOW_MS + entry.seq, flags=flags, request=publish.request, room=room.ref))
        self._stream(room)

    def _in_order(self, room: ClientRoom, entry: Any) -> None:
        """Order: what a client that keeps order publishes stands in the log as it was told (RW-ORDER-2)."""
        if not self._has("ordered"):
            return
        behind = [int(e.payload.split()[1]) for e in room.log if e.sender == MEMBER and e.seq < entry.seq]
        mine = int(entry.payload.split()[1])
        if behind and max(behind) > mine:
            fail("RW-ORDER-2", f"message {mine} before message {max(behind)}", "the other order")

    def _reported(self, report: Report) -> None:
        event, id = report.get("event"), report.get("id")
        room = next((r for r in self.rooms.values() if r.name == report.get("room")), None)
        if event == "connected":
            self._connected -= 1
            if report.get("name") != self.granted or report.get("member") != str(MEMBER):
                fail("RW-WELCOME-6", f"the name and the number of WELCOME, {self.granted} and {MEMBER}", f"{report}")
            return
        if room is None:
            return
        command = self.commands.get(id) if isinstance(id, int) else None
        match event:
            case "joined":
                room.told_joined(report)
                self._done(command)
            case "message":
                room.told_message(report)
            case "gap":
                room.told_gap(report)
            case "presence":
                room.shown = {entry["member"]: entry["name"] for entry in report.get("roster", [])}
            case "left" | "history":
                self._done(command)
            case "published":
                self._published(room, command, report)
            case "error":
                self._error_reported(command, report)

    def _done(self, command: Command | None) -> None:
        if command:
            self.commands.pop(command.id, None)

    def _published(self, room: ClientRoom, command: Command | None, report: Report) -> None:
        if command is None:
            fail("RW-REQUEST-7", "each command answered once", f"{report}")
        entry = next((e for e in room.log if e.payload == command.payload), None)
        place = (str(room.epoch), str(entry.seq)) if entry else None
        if place is None and room.oldest == 1:
            fail("RW-REQUEST-7", "no `published` of what was not", f"{report}")
        if place and (report.get("epoch"), report.get("seq")) != place and report.get("epoch") == str(room.epoch):
            fail("RW-REQUEST-7", f"epoch and seq {place}", f"{report}")
        self._done(command)

    def _error_reported(self, command: Command | None, report: Report) -> None:
        if command is None:
            return
        if command.op == "join":
            command.room.wanted = False  # it has given up
        if command.op == "publish":
            if command.lost and command.unknown and report.get("unknown") is not True:
                fail("RW-PROMISE-6", "`unknown` of a publish of which a copy was not answered", f"{report}")
            if not (command.fails or command.lost or self.over or not command.room.wanted):
                fail("RW-ERROR-3", "an error only where it was refused for good", f"{report}")
            entry = next((e for e in command.room.log if e.payload == command.payload), None)
            if entry and command.room.wanted and not self.over and not command.fails:
                fail("RW-DEDUPE-8", f"`published`, as message {entry.seq} is there", f"{report}")
            if not command.lost and report.get("unknown") is True:
                fail("RW-PROMISE-6", "no `unknown` where each copy was refused", f"{report}")
        self._done(command)
