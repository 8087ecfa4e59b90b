"""Sections 4, 9.2, 10.3 and 11 under generated interleavings: several clients do what the oracle plans.

A keeper that never leaves sees who comes and goes; at the end another client reads each room's whole log.
"""

from dataclasses import dataclass, field, replace
from random import Random

from conformance.harness.verdicts import Failed
from conformance.server.cases.steps import SERVER
from conformance.server.context import Context
from conformance.server.oracle import ROOMS, Kind, Ledger, Step, plan
from conformance.server.raw_client import RawClient
from conformance.wire.octets import encode
from conformance.wire.text import frame_line
from protocol.frames import Ack, Error, Goaway, Join, Joined, Leave, Message, Ok, Presence, Publish
from protocol.registry import Code, Flag, PresenceKind

_CLIENTS = 4
_STEPS = 70
_OCTETS = 4000  # of a payload, at most: a few of these fill the transport of a client that does not read
_BUFFER = 4096


@dataclass
class _Sent:
    """A publish that has no reply yet."""

    request: int
    room: int
    frame: Publish
    bad: bool


@dataclass
class _Client:
    """One client. `cursors` are (epoch, seq) by room; `unknown` are publishes whose outcome it does not know."""

    connection: RawClient | None = None
    rooms: dict[int, Joined] = field(default_factory=dict)
    cursors: dict[int, tuple[int, int]] = field(default_factory=dict)
    pending: list[_Sent] = field(default_factory=list)
    unknown: list[tuple[int, Publish]] = field(default_factory=list)
    published: list[tuple[int, Publish]] = field(default_factory=list)
    refused: dict[int, bool] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)


class _World:
    """The clients, their server, and the model."""

    def __init__(self, t: Context, random: Random) -> None:
        self.t = t
        self.random = random
        self.ledger = Ledger()
        self.clients = [_Client() for _ in range(_CLIENTS)]
        self.names = [t.room() for _ in range(ROOMS)]
        self.refs: dict[int, int] = {}
        self.epochs: list[int] = []
        self.presence: dict[tuple[int, int], list[int]] = {}
        self.loud = True

    async def begin(self) -> None:
        """The keeper joins all rooms."""
        self.keeper = await self.t.open()
        self.t.needs(self.keeper, rooms=ROOMS, window=2, dedupe=True)
        for room, name in enumerate(self.names):
            joined = await self.t.join(self.keeper, name)
            self.refs[joined.room] = room
            self.epochs.append(joined.epoch)
            self.loud = self.loud and not joined.flags & Flag.QUIET

    async def take(self, step: Step) -> None:
        """Takes one step."""
        client = self.clients[step.client]
        if step.kind == "connect":
            client.connection = await self.t.open(receive_buffer=_BUFFER)
            return
        connection = self._connection(client)
        match step.kind:
            case "join":
                await self._join(client, step)
            case "publish":
                payloads = [self.random.randbytes(self.random.randrange(_OCTETS)) for _ in range(step.count)]
                await self._publish(client, step, [Publish(self.t.id(connection), 1, payload) for payload in payloads])
            case "repeat":
                mine = [frame for room, frame in client.published if room == step.room]
                if mine:
                    await self._publish(client, replace(step, bad=-1), [self.random.choice(mine)])
            case "leave":
                await self.settle(client)
                joined = client.rooms[step.room]
                await connection.expect(connection.ask(Leave(room=joined.room)), Ok, "RW-REQUEST-2")
                self._left(client, step.room, PresenceKind.LEFT)
            case "drop":
                await self._drop(client, step)
            case "goaway":
                await self.settle(client)
                connection.send(Goaway(Code.NONE))
                await connection.expect_goaway(Code.NONE, "RW-CLOSE-3")
                self._gone(client, PresenceKind.LEFT)
            case "pause":
                connection.pause()
            case "resume":
                connection.pause(False)
            case _:
                await self.settle(client)

    @staticmethod
    def _connection(client: _Client) -> RawClient:
        assert client.connection, "the plan connects first"
        return client.connection

    async def _join(self, client: _Client, step: Step) -> None:
        connection, room = self._connection(client), step.room
        await self.settle(client)
        epoch, since = client.cursors.get(room, (0, 0)) if step.flag else (0, 0)
        since = since if epoch else step.count
        top = self.ledger.top(room)
        reply = await self.t.patiently(connection, Join(self.names[room], epoch, since))
        if not isinstance(reply, Joined):
            raise Failed("JOINED", frame_line(reply), "RW-REQUEST-2")
        self.t.require(reply.epoch == self.epochs[room], f"epoch {self.epochs[room]}", reply.epoch, "RW-MODEL-5")
        self.t.require(reply.head >= top, f"a head of at least {top}", reply.head, "RW-PROMISE-1")
        if epoch:
            least = min(max(since + 1, reply.oldest), reply.head + 1)
            self.t.require(reply.start >= least, f"start from {least}", reply.start, "RW-CURSOR-1")
            gap = reply.start != since + 1
            self.t.require(bool(reply.flags & Flag.GAP) == gap, f"GAP {gap}", frame_line(reply), "RW-CURSOR-1")
        client.rooms[room] = reply
        client.refused[room] = False
        client.last[room] = 0
        self.presence.setdefault((room, connection.welcome.member), []).append(PresenceKind.JOINED)
        unanswered = [frame for place, frame in client.unknown if place == room]
        client.unknown = [item for item in client.unknown if item[0] != room]
        if unanswered:  # RW-ORDER-3: first the publishes without a reply, in their order
            await self._publish(client, Step("repeat", step.client, room), unanswered)

    async def _publish(self, client: _Client, step: Step, frames: list[Publish]) -> None:
        """Sends publishes at once, as many as the window allows."""
        connection, ref = self._connection(client), client.rooms[step.room].room
        while frames:
            space = connection.welcome.window - len(client.pending)
            if space < 1:
                await self.settle(client)
                continue
            batch, frames = frames[:space], frames[space:]
            octets = b""
            for at, frame in enumerate(batch):
                bad = at == step.bad
                flags = Flag.ORDERED if step.flag and step.kind == "publish" else 0
                ctype, payload = (0, b"\xff") if bad else (frame.ctype, frame.payload)
                request = connection.next_request()
                sent = Publish(frame.id, ctype, payload, flags=flags, request=request, room=ref)
                client.pending.append(_Sent(request, step.room, sent, bad))
                self.ledger.sent(step.room, sent.id, payload)
                octets += encode(sent)
            connection.send_octets(octets)

    async def _drop(self, client: _Client, step: Step) -> None:
        """Ends a connection in the middle of what it does."""
        connection = self._connection(client)
        room = next(iter(client.rooms), None)
        if room is not None and step.count:
            frames = [Publish(self.t.id(connection), 1, self.random.randbytes(50)) for _ in range(step.count)]
            await self._publish(client, Step("drop", step.client, room), frames)
            if step.flag:
                half = encode(Publish(self.t.id(connection), 1, bytes(200), request=connection.next_request(), room=1))
                connection.send_octets(half[: self.random.randrange(1, len(half))], breaks="RW-FRAME-5")
            await connection.flush()
        connection.pause(False)
        await connection.close(abort=self.random.random() < 0.5)
        await self._answered(client, waiting=False)
        client.unknown += [(item.room, item.frame) for item in client.pending if not item.bad]
        client.pending.clear()
        self._gone(client, PresenceKind.LOST)

    async def settle(self, client: _Client) -> None:
        """Waits for all replies to a client."""
        self._connection(client).pause(False)
        await self._answered(client, waiting=True)

    async def _answered(self, client: _Client, *, waiting: bool) -> None:
        connection = self._connection(client)
        came = {i.frame.request for i in connection.received if isinstance(i.frame, (Ack, Error)) and not i.taken}
        while client.pending and (waiting or client.pending[0].request in came):
            sent = client.pending.pop(0)
            self._outcome(client, sent, await connection.reply(sent.request, "RW-REQUEST-2"))

    def _outcome(self, client: _Client, sent: _Sent, reply: object) -> None:
        """Judges the reply to one publish, given all replies before it."""
        room, id = sent.room, sent.frame.id
        preceded = bool(sent.frame.flags & Flag.ORDERED) and client.refused[room]
        known, certain = self.ledger.known(room, id), self.ledger.certain(room, id)
        if isinstance(reply, Ack):
            duplicate = bool(reply.flags & Flag.DUPLICATE)
            self.t.require(not sent.bad, "PAYLOAD_INVALID", frame_line(reply), "RW-PUBLISH-2")
            self.t.require(not preceded or duplicate, "PRECEDED", frame_line(reply), "RW-ORDER-1")
            self.ledger.acknowledged(room, id, reply.seq, reply.time_ms, duplicate=duplicate)
            if not duplicate:
                last = client.last[room]
                self.t.require(reply.seq > last, f"a seq above {last}", reply.seq, "RW-PROMISE-8")
                client.last[room] = reply.seq
                client.published.append((room, sent.frame))
            client.refused[room] = False
            return
        assert isinstance(reply, Error)
        wanted = Code.PAYLOAD_INVALID if sent.bad else Code.PRECEDED if preceded else Code.RATE_LIMITED
        expected = wanted.name if wanted != Code.RATE_LIMITED else "ACK"
        self.t.require(reply.code == wanted, expected, frame_line(reply))
        if known:
            raise Failed("ACK with DUPLICATE for a known id", frame_line(reply), "RW-DEDUPE-1")
        self.ledger.refused(room, id)
        client.refused[room] = True
        if not certain:
            client.unknown.append((room, sent.frame))

    def _left(self, client: _Client, room: int, kind: PresenceKind) -> None:
        connection, joined = self._connection(client), client.rooms.pop(room)
        seen = [
            i.frame.seq for i in connection.received if isinstance(i.frame, Message) and i.frame.room == joined.room
        ]
        client.cursors[room] = (joined.epoch, max([joined.start - 1, *seen[-1:]]))
        self.presence[room, connection.welcome.member].append(kind)

    def _gone(self, client: _Client, kind: PresenceKind) -> None:
        for room in list(client.rooms):
            self._left(client, room, kind)
        client.connection = None

    async def end(self) -> None:
        """Lets all clients read to the end; then what they saw has to fit together."""
        for client in self.clients:
            if client.connection:
                await self.settle(client)
        heads = []
        for ref, room in self.refs.items():
            readers = [client.connection for client in self.clients if client.connection and room in client.rooms]
            id = self.t.id(self.keeper)
            self.ledger.sent(room, id, b"marker")
            ack = await self.t.publish(self.keeper, ref, b"marker", id=id)
            self.ledger.acknowledged(room, id, ack.seq, ack.time_ms, duplicate=False)
            for reader in (self.keeper, *readers):
                await reader.until(ref, id, "RW-MESSAGE-1")
            heads.append((ack.seq, id))
        firsts = []
        for room, (head, id) in enumerate(heads):
            connection, joined = await self.t.member(self.names[room], epoch=self.epochs[room])
            self.t.require(joined.head == head, f"head {head}", joined.head, "RW-PROMISE-9")
            if joined.oldest <= joined.head:  # otherwise nothing is retained
                await connection.until(joined.room, id, "RW-CURSOR-2")
            firsts.append(joined.start)
            self.presence[room, connection.welcome.member] = [PresenceKind.JOINED]
        for connection in self.t.clients:
            for item in connection.received:
                m = item.frame
                if isinstance(m, Message):
                    self.ledger.message(self.refs[m.room], m.seq, m.time_ms, m.sender, m.id, m.payload)
        for room, (head, _) in enumerate(heads):
            self.ledger.whole(room, firsts[room], head)
        if self.loud:
            expected = f"each member's comings and goings: {self.presence}"
            await self.keeper.wait(lambda: self._presence() == self.presence or None, expected, "RW-PRESENCE-2")

    def _presence(self) -> dict[tuple[int, int], list[int]]:
        told: dict[tuple[int, int], list[int]] = {}
        for item in self.keeper.received:
            if isinstance(item.frame, Presence):
                told.setdefault((self.refs[item.frame.room], item.frame.member), []).append(item.frame.kind)
        return told


def _define(path: str, summary: str, without: tuple[Kind, ...], *requirements: str) -> None:
    async def run(t: Context) -> None:
        random = Random(f"{t.options.seed} {path}")
        world = _World(t, random)
        await world.begin()
        for step in plan(random, _CLIENTS, _STEPS, without=without):
            t.log.event(f"client {step.client}", str(step))
            await world.take(step)
        await world.end()

    text = f"{summary}\n\nThe steps are random; the same --seed gives the same ones."
    SERVER.add(path, requirements, text, run, ["slow"])


_define(
    "9.2/generated-stream",
    "The server loses and doubles nothing for clients that join, publish, leave and read slowly, in one order for all.",
    ("drop", "repeat"),
    *("RW-MODEL-2", "RW-MODEL-1", "RW-CURSOR-2", "RW-CURSOR-3", "RW-PROMISE-8", "RW-PROMISE-9", "RW-PRESENCE-2"),
)
_define(
    "11/generated-recovery",
    "The server has each message once for clients that drop while they publish, join with a cursor, and repeat.",
    ("goaway", "pause", "resume"),
    *("RW-DEDUPE-1", "RW-PROMISE-1", "RW-PROMISE-4", "RW-PROMISE-9", "RW-CURSOR-1", "RW-PRESENCE-3"),
)
_define(
    "10.3/generated-order",
    "The server answers publishes sent at once, some ordered, refused or repeated, as the replies before each demand.",
    ("drop", "goaway", "pause", "resume", "leave"),
    *("RW-ORDER-1", "RW-PROMISE-8", "RW-PROMISE-11", "RW-DEDUPE-1"),
)
_define(
    "4/generated-everything",
    "The server keeps the promise for clients that join, leave, publish, repeat, pause, drop and come back.",
    (),
    *("RW-PROMISE-9", "RW-PROMISE-1", "RW-PROMISE-4", "RW-PROMISE-8", "RW-PROMISE-11", "RW-MODEL-2", "RW-DEDUPE-1"),
)
