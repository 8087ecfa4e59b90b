"""The promise of SPEC.md, section 4, checked against the events of the clients of a simulated world."""

from collections import defaultdict

from reference_client import events
from tests.support.simulation import Client, World


def check_views(world: World) -> None:
    """Check what holds at every moment."""
    texts: dict[tuple[str, int, int], tuple[str, bytes]] = {}
    places: dict[tuple[str, int, bytes], int] = {}
    for client in world.clients:
        _check_stream(client)
        for event in client.log:
            if isinstance(event, events.MessageReceived):
                place = (event.room, event.epoch, event.seq)
                same = texts.setdefault(place, (event.name, event.payload))
                assert same == (event.name, event.payload), f"RW-MODEL-2: {place} differs between members"
                seq = places.setdefault((event.room, event.epoch, event.payload), event.seq)
                assert seq == event.seq, f"RW-DEDUPE-1: {event.payload!r} is in {event.room} twice"


def _check_stream(client: Client) -> None:
    """Check that each message came once, in order, without a silent gap (RW-PROMISE-9, RW-PROMISE-10, RW-RECOVER-3)."""
    cursors: dict[str, tuple[int, int]] = {}
    for event in client.log:
        match event:
            case events.Joined() if not event.again:
                cursors[event.room] = (event.epoch, event.start - 1)
            case events.Gap():
                assert cursors.get(event.room, (event.old_epoch, event.after)) == (event.old_epoch, event.after)
                cursors[event.room] = (event.epoch, event.start - 1)
            case events.MessageReceived():
                epoch, seq = cursors[event.room]
                assert (event.epoch, event.seq) == (epoch, seq + 1), f"{client.name}: {event} after {(epoch, seq)}"
                cursors[event.room] = (event.epoch, event.seq)


def check_end(world: World) -> None:
    """Check what holds after the network has recovered and all outcomes are known."""
    check_views(world)
    assert world.hub is not None
    logs: dict[str, dict[bytes, int]] = {}
    for key, log in world.store._logs.items():
        assert [record.seq for record in log._records] == list(range(log.oldest, log.head + 1)), "RW-MODEL-1"
        times = [record.time_ms for record in log._records]
        assert times == sorted(times), "RW-ACK-1"
        logs[key] = {record.payload: record.seq for record in log._records}
    trimmed = {key for key, log in world.store._logs.items() if log.oldest > 1}
    for key in trimmed:
        enough = world.store._logs[key].head > world.config.retention_messages
        assert enough or world.now * 1000 > world.config.retention_ms, f"RW-LIMIT-4: {key} was trimmed by a wrong clock"
    for client in world.clients:
        _check_outcomes(client, logs, trimmed)
        assert client.session.pending == 0, f"{client.name}: publishes without an outcome"
        if client.session.closed:
            continue
        assert client.session.welcome is not None, f"{client.name} did not connect again"
        for room in client.session.rooms():
            hosted = world.hub.state.rooms[room]
            member = next(m for peer, m in hosted.members.items() if peer.name == client.name)
            assert client.session.cursor(room) == (hosted.log.epoch, hosted.log.head), (
                f"{client.name} is behind in {room}"
            )
            assert member.cursor == hosted.log.head
            here = {peer.member for peer in hosted.members} - {member.peer.member}
            known = {entry.member for entry in client.session.roster(room)} - {member.peer.member}
            assert hosted.quiet or known == here, f"RW-PRESENCE-2: {client.name} sees others in {room}"


def _check_outcomes(client: Client, logs: dict[str, dict[bytes, int]], trimmed: set[str]) -> None:
    order: dict[str, list[int]] = defaultdict(list)
    for published in client.published.values():
        outcome = published.outcome
        seq = logs.get(published.room, {}).get(published.payload)
        if isinstance(outcome, events.Published):
            if published.room not in trimmed:
                assert seq == outcome.seq, f"RW-PROMISE-1: {published.payload!r} was acknowledged at {outcome.seq}"
        elif isinstance(outcome, events.PublishFailed) and not outcome.unknown:
            assert seq is None, f"RW-PROMISE-4: {published.payload!r} was refused, and is at {seq}"
        if seq is not None:
            order[published.room].append(seq)
    for room, seqs in order.items():
        assert seqs == sorted(seqs), f"RW-PROMISE-8: {client.name} published to {room} in another order: {seqs}"
