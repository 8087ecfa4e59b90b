"""Scripts chosen at random: steps that several connections may take, weighted towards what brings situations about.

The source of chance is a `random.Random`; hypothesis has such ones too (`strategies.randoms`), so that it can draw the
same scripts, and shrink them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from conformance.fuzz.server.broken_frames import BROKEN, HANDSHAKES
from conformance.fuzz.server.idle import KINDS as IDLE
from conformance.fuzz.server.login_steps import LOGINS
from conformance.fuzz.server.steps import Step

_FATAL = [name for name, breakage in BROKEN.items() if breakage.fatal]
_REFUSED = [name for name, breakage in BROKEN.items() if not breakage.fatal]
_ITEMS = {
    "text": 9, "empty": 1, "octets": 1, "ctype": 1, "relayed": 2, "field": 2, "ordered": 3, "flags": 1, "large": 0.3,
    "repeat": 4, "repeat-old": 2, "repeat-ordered": 1, "conflict": 1, "conflict-field": 0.5, "bad-text": 2,
    "too-large": 0.3, "expired": 0.7, "ahead": 0.4, "ordered-bad-text": 0.6,
    "history": 1, "history-newest": 1, "history-end": 1, "history-empty": 0.3, "history-backwards": 0.5,
    "ping": 1, "pong": 0.5, "unknown": 1, "unknown-request": 0.6, "leave": 1, "join": 0.6, "join-own": 0.6,
}  # fmt: skip
_JOINS = {"join": 3, "join-last": 4, "join-own": 6, "join-old": 2, "join-ahead": 1, "join-other-epoch": 1}


@dataclass(frozen=True)
class Profile:
    """How scripts are made: numbers of clients, rooms and steps, and weights of what is not usual."""

    clients: int = 4
    rooms: int = 2
    steps: int = 22
    restart: float = 0.0
    drain: float = 0.0
    time: float = 0.0
    operator: float = 0.0
    idle: float = 0.0
    lag: float = 0.0
    login: float = 0.4  # where the server's accounts are known
    pause: float = 0.5
    weights: dict[str, float] = field(default_factory=dict)


def script(random: Random, profile: Profile | None = None) -> list[Step]:
    """Steps that mostly make sense one after the other."""
    p = profile or Profile()
    clients = random.randint(1, p.clients)
    rooms = random.randint(1, p.rooms)
    up: set[int] = set()
    inside: set[tuple[int, int]] = set()
    paused: set[int] = set()
    steps: list[Step] = []
    weights = {
        "join": 5.0, "send": 12.0, "leave": 1.5, "drop": 2.0, "goaway": 1.2, "break": 1.5, "refused": 1.5,
        "handshake": 0.7, "pause": p.pause, "resume": 3.0, "restart": p.restart, "drain": p.drain, "time": p.time,
        "operator": p.operator, "idle": p.idle, "lag": p.lag,
        "connect": 2.0, "login": p.login,
    } | p.weights  # fmt: skip
    names = list(weights)
    for _ in range(random.randint(p.steps // 2, p.steps)):
        client = random.randrange(clients)
        mine = [room for room in range(rooms) if (client, room) in inside]
        room = random.choice(mine) if mine and random.random() < 0.9 else random.randrange(rooms)
        kind = random.choices(names, [weights[name] for name in names])[0]
        cut = random.choice((0, 0, 0, 2, 7, 60))
        number = random.choice((0, 0, 1, 1, 2, 3, 5, 8, 100))
        if kind == "lag":
            _lag(random, steps, clients, room, up, inside, paused)
            continue
        if kind in ("restart", "drain", "operator", "time", "idle", "handshake", "login"):
            if kind == "login":
                steps.append(Step("login", what=random.choice(LOGINS), number=number))
            elif kind == "idle":
                steps.append(Step("idle", what=random.choice(list(IDLE))))
            elif kind == "handshake":
                steps.append(Step("handshake", what=random.choice(list(HANDSHAKES)), cut=cut))
            elif kind == "time":
                steps.append(Step("time", number=random.choice((500, 3_000, 20_000))))
            else:
                steps.append(Step(kind, what="fail" if kind == "operator" else ""))
                up, inside, paused = set(), set(), set()
            continue
        if client not in up:
            steps.append(Step("connect", client, what=random.choice(("", "", "grease")), number=client, cut=cut))
            up.add(client)
            if random.random() < 0.8:
                kind = "join"
            else:
                continue
        if client in paused and kind != "resume":
            if random.random() < 0.6:
                continue
            kind = "resume"
        if kind == "connect":
            continue
        if kind in ("send", "leave") and not mine and random.random() < 0.85:
            kind = "join"
        _step(random, steps, Step(kind, client, room, number=number, cut=cut), up, inside, paused)
    return steps


def _step(
    random: Random, steps: list[Step], step: Step, up: set[int], inside: set[tuple[int, int]], paused: set[int]
) -> None:
    client, room, number, cut = step.client, step.room, step.number, step.cut
    match step.do:
        case "join":
            item = random.choices(list(_JOINS), list(_JOINS.values()))[0]
            items: tuple[str, ...] = (item,)
            if random.random() < 0.3:
                items = (item, *_some(random, 2))
            steps.append(Step("send", client, room, "", items, number, random.random() < 0.5, cut))
            inside.add((client, room))
        case "send":
            steps.append(Step("send", client, room, "", _some(random, 5), number, random.random() < 0.5, cut))
        case "leave":
            front = _some(random, 2) if random.random() < 0.4 else ()
            behind = _some(random, 2) if random.random() < 0.4 else ()
            steps.append(Step("send", client, room, "", (*front, "leave", *behind), number, cut=cut))
            inside.discard((client, room))
        case "drop":
            what = random.choice(("fin", "reset", "half", "unanswered"))
            items = _some(random, 3) if what in ("unanswered", "reset") else ()
            steps.append(Step("drop", client, room, what, items, number, cut=cut))
            _down(client, up, inside, paused)
        case "goaway":
            items = _some(random, 3) if random.random() < 0.6 else ()
            steps.append(Step("goaway", client, room, "", items, number, cut=cut))
            _down(client, up, inside, paused)
        case "break":
            steps.append(Step("break", client, room, random.choice(_FATAL), cut=cut))
            _down(client, up, inside, paused)
        case "refused":
            steps.append(Step("break", client, room, random.choice(_REFUSED), cut=cut))
        case "pause" if client not in paused:
            steps.append(Step("pause", client))
            paused.add(client)
        case "resume" if client in paused:
            steps.append(Step("resume", client))
            paused.discard(client)


def _lag(
    random: Random,
    steps: list[Step],
    clients: int,
    room: int,
    up: set[int],
    inside: set[tuple[int, int]],
    paused: set[int],
) -> None:
    """Somebody does not read while more is published than anything holds; others come and go meanwhile."""
    slow, quick, other = clients, clients + 1, clients + 2
    for client in (slow, quick):
        if client not in up:
            steps.append(Step("connect", client, number=client))
            up.add(client)
        if (client, room) not in inside:
            steps.append(Step("send", client, room, "", ("join",), roster=random.random() < 0.7))
            inside.add((client, room))
    if slow in paused:
        return
    steps.append(Step("pause", slow))
    if random.random() < 0.5:
        steps.append(Step("send", quick, room, "", ("text",)))
    if random.random() < 0.9:
        steps += [Step("send", quick, room, "", ("flood",))] * random.choice((1, 1, 2))
    if random.random() < 0.6:
        steps.append(Step("connect", other, number=other))
        steps.append(Step("send", other, room, "", ("join",)))
        if random.random() < 0.6:
            steps.append(Step("goaway", other))
    if random.random() < 0.8:
        steps.append(Step("time", number=random.choice((6_000, 6_000, 50_000))))
    steps.append(Step("resume", slow, room, "", random.choice(((), (), ("leave",), ("text", "leave"))), number=1))
    inside.discard((slow, room))


def _down(client: int, up: set[int], inside: set[tuple[int, int]], paused: set[int]) -> None:
    up.discard(client)
    paused.discard(client)
    for place in [place for place in inside if place[0] == client]:
        inside.discard(place)


def _some(random: Random, most: int) -> tuple[str, ...]:
    items: Sequence[str] = random.choices(list(_ITEMS), list(_ITEMS.values()), k=random.randint(1, most))
    return tuple(items)
