"""Scripts chosen at random: steps of several connections, weighted towards what brings situations about.

The source of chance is a `random.Random`. hypothesis has such ones too (`strategies.randoms`), so that it can draw the
same scripts and shrink them.
"""

from dataclasses import dataclass, field, replace
from random import Random

from conformance.fuzz.server import idle
from conformance.fuzz.server.broken_frames import BROKEN, HANDSHAKES
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
"""Items of a "send" with their weights."""

_JOINS = {"join": 3, "join-last": 4, "join-own": 6, "join-old": 2, "join-ahead": 1, "join-other-epoch": 1}
_OF_THE_SERVER = ("restart", "drain", "operator", "time", "idle", "handshake", "login")
"""Steps that are of no client that the script has."""


@dataclass(frozen=True)
class Profile:
    """How scripts are made: the most clients, rooms and steps, and weights of what is not usual."""

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
    """Returns steps that mostly make sense one after the other."""
    p = profile or Profile()
    made = _Script(random, random.randint(1, p.clients), random.randint(1, p.rooms))
    weights = {
        "join": 5.0, "send": 12.0, "leave": 1.5, "drop": 2.0, "goaway": 1.2, "break": 1.5, "refused": 1.5,
        "handshake": 0.7, "pause": p.pause, "resume": 3.0, "restart": p.restart, "drain": p.drain, "time": p.time,
        "operator": p.operator, "idle": p.idle, "lag": p.lag,
        "connect": 2.0, "login": p.login,
    } | p.weights  # fmt: skip
    for _ in range(random.randint(p.steps // 2, p.steps)):
        made.add(weights)
    return made.steps


@dataclass
class _Script:
    """A script that is being made, and what its clients have done so far: who is connected, paused, in which room."""

    random: Random
    clients: int
    rooms: int
    steps: list[Step] = field(default_factory=list)
    up: set[int] = field(default_factory=set)
    inside: set[tuple[int, int]] = field(default_factory=set)  # client, room
    paused: set[int] = field(default_factory=set)

    def add(self, weights: dict[str, float]) -> None:
        """Adds what one draw of a kind of step brings: none, or as many as it takes."""
        random = self.random
        client = random.randrange(self.clients)
        mine = [room for room in range(self.rooms) if (client, room) in self.inside]
        room = random.choice(mine) if mine and random.random() < 0.9 else random.randrange(self.rooms)
        kind = random.choices(list(weights), list(weights.values()))[0]
        cut = random.choice((0, 0, 0, 2, 7, 60))
        number = random.choice((0, 0, 1, 1, 2, 3, 5, 8, 100))
        if kind == "lag":
            self._lag(room)
        elif kind in _OF_THE_SERVER:
            self._of_the_server(kind, cut, number)
        else:
            self._of_a_client(Step(kind, client, room, number=number, cut=cut), in_a_room=bool(mine))

    def _of_the_server(self, kind: str, cut: int, number: int) -> None:
        random = self.random
        match kind:
            case "login":
                self.steps.append(Step("login", what=random.choice(LOGINS), number=number))
            case "idle":
                self.steps.append(Step("idle", what=random.choice(list(idle.KINDS))))
            case "handshake":
                self.steps.append(Step("handshake", what=random.choice(list(HANDSHAKES)), cut=cut))
            case "time":
                self.steps.append(Step("time", number=random.choice((500, 3_000, 20_000))))
            case _:
                self.steps.append(Step(kind, what="fail" if kind == "operator" else ""))
                for all_of_them in (self.up, self.inside, self.paused):
                    all_of_them.clear()

    def _of_a_client(self, step: Step, *, in_a_room: bool) -> None:
        """Adds a step of a client, or what has to come before it: CONNECT, JOIN, or reading again."""
        random, client, kind = self.random, step.client, step.do
        if client not in self.up:
            what = random.choice(("", "", "grease"))
            self.steps.append(Step("connect", client, what=what, number=client, cut=step.cut))
            self.up.add(client)
            if random.random() >= 0.8:
                return
            kind = "join"
        if client in self.paused and kind != "resume":
            if random.random() < 0.6:
                return
            kind = "resume"
        if kind == "connect":
            return
        if kind in ("send", "leave") and not in_a_room and random.random() < 0.85:
            kind = "join"
        self._add(replace(step, do=kind))

    def _add(self, step: Step) -> None:
        random, client, room, number, cut = self.random, step.client, step.room, step.number, step.cut
        add = self.steps.append
        match step.do:
            case "join":
                item = random.choices(list(_JOINS), list(_JOINS.values()))[0]
                items = (item, *self._some(2)) if random.random() < 0.3 else (item,)
                add(Step("send", client, room, "", items, number, random.random() < 0.5, cut))
                self.inside.add((client, room))
            case "send":
                add(Step("send", client, room, "", self._some(5), number, random.random() < 0.5, cut))
            case "leave":
                front = self._some(2) if random.random() < 0.4 else ()
                behind = self._some(2) if random.random() < 0.4 else ()
                add(Step("send", client, room, "", (*front, "leave", *behind), number, cut=cut))
                self.inside.discard((client, room))
            case "drop":
                what = random.choice(("fin", "reset", "half", "unanswered"))
                items = self._some(3) if what in ("unanswered", "reset") else ()
                add(Step("drop", client, room, what, items, number, cut=cut))
                self._down(client)
            case "goaway":
                items = self._some(3) if random.random() < 0.6 else ()
                add(Step("goaway", client, room, "", items, number, cut=cut))
                self._down(client)
            case "break":
                add(Step("break", client, room, random.choice(_FATAL), cut=cut))
                self._down(client)
            case "refused":
                add(Step("break", client, room, random.choice(_REFUSED), cut=cut))
            case "pause" if client not in self.paused:
                add(Step("pause", client))
                self.paused.add(client)
            case "resume" if client in self.paused:
                add(Step("resume", client))
                self.paused.discard(client)

    def _lag(self, room: int) -> None:
        """One client does not read while another publishes more than anything holds; a third one comes and goes."""
        random, steps = self.random, self.steps
        slow, quick, other = self.clients, self.clients + 1, self.clients + 2
        for client in (slow, quick):
            if client not in self.up:
                steps.append(Step("connect", client, number=client))
                self.up.add(client)
            if (client, room) not in self.inside:
                steps.append(Step("send", client, room, "", ("join",), roster=random.random() < 0.7))
                self.inside.add((client, room))
        if slow in self.paused:
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
        self.inside.discard((slow, room))

    def _down(self, client: int) -> None:
        self.up.discard(client)
        self.paused.discard(client)
        self.inside = {place for place in self.inside if place[0] != client}

    def _some(self, most: int) -> tuple[str, ...]:
        items = self.random.choices(list(_ITEMS), list(_ITEMS.values()), k=self.random.randint(1, most))
        return tuple(items)
