"""Steps of the application, and how the server answers what comes of them from then on."""

from typing import Any

from conformance.fuzz.client.model import ClientRoom
from conformance.fuzz.client.player import ClientPlayer, Command, step
from conformance.fuzz.client.room_steps import add_text
from conformance.fuzz.client.steps import JOIN_REFUSALS, ClientStep
from protocol.fields import extensions
from protocol.registry import Code


def _tell(player: ClientPlayer, op: str, room: ClientRoom, **values: Any) -> Command:
    """Tells the client to do something in a room. Returns the command that it has to answer."""
    id = player.client.tell(op, room=room.name, **values)
    command = player.commands[id] = Command(id, op, room)
    return command


def _is_busy(player: ClientPlayer, room: ClientRoom) -> bool:
    return any(command.room is room for command in player.commands.values())


@step("join")
async def join(player: ClientPlayer, step: ClientStep) -> None:
    """Joins a room, for the newest `number` messages."""
    room = player.rooms.get(step.room)
    if room is None:
        room = ClientRoom(f"R\u00f6om {step.room}", player.random.getrandbits(63) | 1)
        player.rooms[step.room] = room
        for _ in range(player.random.randrange(4)):
            add_text(player, room)
    if room.wanted or _is_busy(player, room):
        return
    room.wanted, room.newest, room.view, room.gap = True, step.number, None, None
    room.shown, room.lagged = None, 0
    _tell(player, "join", room, newest=step.number)


@step("publish")
async def publish(player: ClientPlayer, step: ClientStep) -> None:
    """Publishes `number` messages, too large ones if `what` is "large"."""
    room = player.rooms.get(step.room)
    if room is not None and room.wanted:
        publish_in(player, room, step.number, large=step.what == "large")


def publish_in(player: ClientPlayer, room: ClientRoom, count: int = 1, *, large: bool = False) -> None:
    """Has the client publish messages in a room."""
    for _ in range(count):
        player.texts += 1
        payload = f"mine {player.texts}".encode() + (bytes(70_000) if large else b"")
        command = _tell(player, "publish", room, payload=payload.hex(), ctype=player.random.choice((0, 1, 9)))
        command.payload = payload
        command.fails = large  # RW-FRAME-3: it cannot be said


@step("leave")
async def leave(player: ClientPlayer, step: ClientStep) -> None:
    """Leaves a room that nothing is under way in."""
    room = player.rooms.get(step.room)
    if room is not None and room.wanted and room.ref and not (_is_busy(player, room) or player.held):
        room.wanted = False
        _tell(player, "leave", room)


@step("history")
async def history(player: ClientPlayer, step: ClientStep) -> None:
    """Asks for the messages of a room from `number` on."""
    room = player.rooms.get(step.room)
    if room is None or not (room.wanted and room.ref and player.server and player.has("history")):
        return
    if "history" in extensions(player.server.welcome):
        _tell(player, "history", room, start=str(step.number), end="0")


# --- answers


@step("hold")
async def hold(player: ClientPlayer, step: ClientStep) -> None:
    """Requests are not answered from now on. If `what` is "refuse-joins", the next JOIN is refused instead."""
    if step.what == "refuse-joins":
        player.join_refusals.append(Code[player.random.choice(JOIN_REFUSALS[:4])])
    else:
        player.held = True


@step("unhold")
async def unhold(player: ClientPlayer, step: ClientStep) -> None:
    """Requests are answered again."""
    player.held = False


@step("refuse")
async def refuse(player: ClientPlayer, step: ClientStep) -> None:
    """The next `number` PUBLISHes are refused with the code `what`."""
    player.refusals += [Code[step.what]] * step.number


@step("handshake")
async def handshake(player: ClientPlayer, step: ClientStep) -> None:
    """The next connection becomes what `what` names."""
    player.handshake = step.what
