"""Steps of the server on an open connection: what others do in a room, what comes of it, and what else it may say."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from conformance.fuzz.client.model import NOW_MS, ClientRoom
from conformance.fuzz.client.player import MEMBER, RETRY_MS, ClientPlayer, step
from conformance.fuzz.client.steps import ClientStep
from protocol.frames import Ack, Evicted, Field, Message, Ping, Pong, Presence, Publish, Unknown
from protocol.registry import GREASE, Code, Flag, PresenceKind

InRoom: TypeAlias = Callable[[ClientPlayer, ClientStep, ClientRoom], None]


def _in_room(name: str) -> Callable[[InRoom], InRoom]:
    """Registers a function that takes the steps of a name, where the client is in their room."""

    def register(happens: InRoom) -> InRoom:
        async def take(player: ClientPlayer, step: ClientStep) -> None:
            room = player.rooms.get(step.room)
            if room is not None and room.ref:
                happens(player, step, room)

        step(name)(take)
        return happens

    return register


def add_text(player: ClientPlayer, room: ClientRoom) -> None:
    """Appends a message of another member to a room's log."""
    player.texts += 1
    tail = player.random.choice((b"", b"", b"\xff\xfe", bytes(9_000)))
    payload = f"theirs {player.texts}".encode() + tail
    room.append(player.random.randbytes(16), 77, player.random.choice((0, 1, 200)), payload)


@step("ping")
async def ping(player: ClientPlayer, step: ClientStep) -> None:
    """Sends a PONG that answers nothing, and a PING."""
    player.pongs.add(opaque := player.random.randbytes(8))
    player.say(Pong(player.random.randbytes(8)), Ping(opaque))


@_in_room("others")
def others(player: ClientPlayer, step: ClientStep, room: ClientRoom) -> None:
    """Others publish `number` messages."""
    for _ in range(step.number):
        add_text(player, room)
    player.stream(room, step.cut)


@_in_room("old")
def say_old(player: ClientPlayer, step: ClientStep, room: ClientRoom) -> None:
    """Sends once more what the client has (RW-STREAM-1)."""
    entry = room.at(max(room.oldest, room.sent - step.number))
    if entry and entry.seq <= room.sent:
        player.say(entry.frame(room.ref), cut=step.cut)


@_in_room("ignorable")
def ignorable(player: ClientPlayer, step: ClientStep, room: ClientRoom) -> None:
    """Sends what a client that knows no extension has to ignore."""
    random = player.random
    if step.what == "sequenced":
        room.append(b"", 0, 0, b"extension", ignorable=True)
        player.stream(room, step.cut)
    elif step.what == "fields":
        entry = room.append(random.randbytes(16), 77, 1, f"field {player.texts} {room.head}".encode())
        frame = entry.frame(room.ref)
        assert isinstance(frame, Message)
        flags = frame.flags | (0x0F40 if step.number > 1 else 0)
        fields = (Field(0xC123, b"relayed"), Field(random.choice(GREASE), b"grease"))
        player.say(replace(frame, fields=fields, flags=flags), cut=step.cut)
        room.sent = room.reached[room.epoch] = room.head
    else:
        flags = 0x0F00 if step.what == "flags" else 0
        type = random.choice([*GREASE[:20], 0xF000])
        player.say(Unknown(type, b"what", flags=flags, room=room.ref), cut=step.cut)


@_in_room("presence")
def presence(player: ClientPlayer, step: ClientStep, room: ClientRoom) -> None:
    """Others come and go, or the room becomes quiet."""
    if room.quiet:
        return
    random, ref = player.random, room.ref
    others = [member for member in room.people if member != MEMBER]
    match step.what:
        case "unknown":
            player.say(Presence(9, random.choice([5, *others]), "x", room=ref), cut=step.cut)
        case "roster" if room.roster:  # RW-ROSTER-3: it repairs what was left out
            if others:
                del room.people[others[0]]
            room.people[random.getrandbits(60) | 1] = "somebody new"
            player.send_roster(room)
        case "quiet":
            room.quiet = True
            player.say(Presence(PresenceKind.QUIET, 0, "", room=ref), cut=step.cut)
        case "joined":
            member = random.getrandbits(60) | 1
            name = room.people[member] = f"somebody {member % 97}"
            player.say(Presence(PresenceKind.JOINED, member, name, room=ref), cut=step.cut)
        case "left" | "lost":
            kind = PresenceKind.LEFT if step.what == "left" else PresenceKind.LOST
            member = random.choice(others) if others else random.getrandbits(60) | 1
            name = room.people.pop(member, f"somebody {member % 97}")
            player.say(Presence(kind, member, name, room=ref), cut=step.cut)


@_in_room("trim")
def trim(player: ClientPlayer, step: ClientStep, room: ClientRoom) -> None:
    """Trims the log to `number` messages, which may be a gap with the next JOIN."""
    room.trim(step.number)


@_in_room("reset")
def reset(player: ClientPlayer, step: ClientStep, room: ClientRoom) -> None:
    """The log is lost."""
    evict(player, ClientStep("evict", step.room, "LOG_RESET"), room)


@_in_room("evict")
def evict(player: ClientPlayer, step: ClientStep, room: ClientRoom) -> None:
    """Evicts the client with the code `what`, unless requests are under way that it could take for refused."""
    code = Code[step.what]
    waiting = [frame for frame in player.queue if isinstance(frame, Publish) and frame.room == room.ref]
    publishes = player.publishes(room)
    if len(waiting) < len(player.queue) or (publishes and not (waiting and code == Code.LAGGED)):
        return
    if len(publishes) > len(waiting):
        return
    flags, retry = (Flag.RETRY, RETRY_MS) if code.retry else (0, 0)
    player.stats.codes["V", code] += 1
    player.say(Evicted(code, retry, "go", flags=flags, room=room.ref))
    player.stats.visit("membership", "IN", "EVICTED")
    player.queue.clear()
    for publish in waiting:  # the server read them before the eviction, and answers them behind it (RW-REQUEST-7)
        entry = room.append(publish.id, MEMBER, publish.ctype, publish.payload)
        player.say(Ack(entry.seq, NOW_MS + entry.seq, request=publish.request, room=publish.room))
    room.ref = 0
    room.people = {}
    room.quiet = False
    room.wanted = code.retry and player.has("rejoin")
    if code == Code.LAGGED:
        room.lagged += 1
        for _ in range(step.number):
            add_text(player, room)
        room.trim(0 if step.number == 2 else 1)
    elif code == Code.LOG_RESET:
        room.start_again(player.random.getrandbits(63) | 1)
