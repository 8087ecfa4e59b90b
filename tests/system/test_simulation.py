"""Scripts for the simulated world: the promise of SPEC.md, section 4, holds in all of them."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reference_client import events
from reference_server.config import Config
from tests.support.oracle import check_end, check_views
from tests.support.simulation import WALL_MS, World

ROOMS = ("red", "blue")
CLIENTS = 3
HEALING_SECONDS = 400.0
HOUR_MS = 3_600_000
YEAR_MS = 8_766 * HOUR_MS

client = st.integers(0, CLIENTS - 1)
room = st.sampled_from(ROOMS)

steps = st.one_of(
    st.tuples(st.just("publish"), client, room, st.integers(1, 8)),
    st.tuples(st.just("publish"), client, room, st.integers(1, 8)),
    st.tuples(st.just("join"), client, room, st.integers(0, 5)),
    st.tuples(st.just("leave"), client, room),
    st.tuples(st.just("wait"), st.sampled_from((0.0, 0.001, 0.01, 0.1, 1.0, 70.0))),
    st.tuples(st.just("cut"), client),
    st.tuples(st.just("silence"), client),
    st.tuples(st.just("stall"), client),
    st.tuples(st.just("read"), client),
    st.tuples(st.just("hold"), client),
    st.tuples(st.just("release"), client),
    st.tuples(st.just("crash")),
    st.tuples(st.just("fuse"), st.integers(1, 30)),
    st.tuples(st.just("drain")),
    st.tuples(
        st.just("clock"), st.sampled_from((-10 * YEAR_MS, -YEAR_MS, -HOUR_MS, 0, HOUR_MS, YEAR_MS, 10 * YEAR_MS))
    ),
)
scripts = st.lists(steps, max_size=30)

configs = st.sampled_from(
    (
        Config(),
        Config(publish_burst=2, publish_rate=5, join_burst=1, join_rate=1),
        Config(window=2, max_body=4096),
        Config(retention_messages=5, replay_messages=4),
        Config(quiet_members=1, heartbeat_ms=1000),
    )
)


def play(world: World, script: list[tuple[Any, ...]]) -> None:
    """Run the steps with a moment between them, and check in the end what must always hold."""
    for step in script:
        match step:
            case ("publish", who, where, count):
                world.clients[who].publish(where, count)
            case ("join", who, where, history):
                world.clients[who].join(where, history)
            case ("leave", who, where):
                world.clients[who].leave(where)
            case ("wait", seconds):
                world.run(seconds)
            case ("cut", who):
                connection = world.clients[who].connection
                if connection is not None:
                    connection.cut()
            case ("silence", who):
                connection = world.clients[who].connection
                if connection is not None:
                    connection.silent = True
            case ("stall", who) | ("read", who):
                connection = world.clients[who].connection
                if connection is not None:
                    connection.to_client.hold(step[0] == "stall")
            case ("hold", who) | ("release", who):
                world.clients[who].hold(step[0] == "hold")
            case ("crash",):
                world.crash()
            case ("fuse", count):
                world.fuse = count
            case ("drain",):
                world.drain()
            case ("clock", wrong_ms):
                world.wrong_ms = wrong_ms
        world.run(0.001)
    check_views(world)


def heal(world: World) -> None:
    """Let all clients read, and let enough time pass for heartbeats, backoff and rate limits, without crashes."""
    world.fuse = 0
    for client in world.clients:
        client.hold(False)
        if client.connection is not None:
            client.connection.to_client.hold(False)
    world.run(HEALING_SECONDS)


# The only member of a room leaves it and joins again while its messages are not yet durable.
ROOM_LEFT = (
    [("join", 1, "blue", 4), ("wait", 70.0), ("publish", 1, "blue", 8), ("cut", 1)],
    Config(retention_messages=5, replay_messages=4),
)


@settings(max_examples=300)
@example(script=ROOM_LEFT[0], seed=152, config=ROOM_LEFT[1])
@given(scripts, st.integers(0, 2**32), configs)
def test_promise_holds_in_any_script(script: list[tuple[Any, ...]], seed: int, config: Config) -> None:
    world = World(seed, CLIENTS, config)
    for client in world.clients:
        client.join("red")
    world.run(1.0)
    play(world, script)
    heal(world)
    check_end(world)


def scenario(config: Config | None = None, seed: int = 1) -> World:
    """A world whose clients are in one room."""
    world = World(seed, CLIENTS, config or Config())
    for client in world.clients:
        client.join("red")
    world.run(1.0)
    return world


def test_pending_publishes_survive_crashes_once() -> None:
    world = scenario()
    for _ in range(20):
        world.clients[0].publish("red", 5)
        world.run(0.01)
        world.crash()
        world.run(5.0)
    heal(world)
    check_end(world)
    received = [e.payload for e in world.clients[1].log if isinstance(e, events.MessageReceived)]
    assert sorted(received) == sorted(p.payload for p in world.clients[0].published.values())


def killed_between_steps(seed: int = 1) -> int:
    """Crash the server at each step of several publishes of two members in turn. Returns the number of steps."""
    steps = 0
    while True:
        world = scenario(Config(publish_burst=1000), seed)
        steps += 1
        world.fuse = steps
        for _ in range(3):
            world.clients[0].publish("red", 2)
            world.clients[1].publish("red", 2)
            world.run(0.1)
        survived = world.fuse > 0
        heal(world)
        check_end(world)
        expected = sorted(p.payload for client in world.clients for p in client.published.values())
        assert sorted(e.payload for e in world.clients[2].log if isinstance(e, events.MessageReceived)) == expected
        if survived:
            return steps - 1


def test_crash_between_any_two_steps() -> None:
    """RW-PROMISE-2, RW-PROMISE-3: the steps are those of append, commit, acknowledge and deliver."""
    assert sum(killed_between_steps(seed) for seed in range(4)) > 120


def test_member_behind_retention_gets_a_gap() -> None:
    world = scenario(Config(retention_messages=5, replay_messages=5))
    world.clients[1].connection.cut()  # type: ignore[union-attr]
    world.clients[0].publish("red", 30)
    heal(world)
    check_end(world)
    assert any(isinstance(event, events.Gap) for event in world.clients[1].log)


def test_stalled_member_does_not_delay_trimming(monkeypatch: pytest.MonkeyPatch) -> None:
    """RW-LAG-7; and RW-LAG-3 when the member reads again."""
    monkeypatch.setattr("reference_server.core.room.TAIL_OCTETS", 0)  # keep no trimmed messages in memory
    world = scenario(Config(retention_messages=5, publish_burst=1000))
    world.clients[1].connection.to_client.hold(True)  # type: ignore[union-attr]
    world.clients[0].publish("red", 400)
    world.run(10.0)
    log = world.log_of("red")
    assert log is not None
    assert log.head > 200  # more than the connection holds
    assert log.oldest == log.head - 4
    heal(world)
    check_end(world)
    assert any(isinstance(event, events.Evicted) for event in world.clients[1].log)
    assert any(isinstance(event, events.Gap) for event in world.clients[1].log)


def test_refusals_do_not_change_the_order() -> None:
    world = scenario(Config(publish_burst=3, publish_rate=2))
    world.clients[0].publish("red", 60)
    heal(world)
    check_end(world)
    payloads = [p.payload for p in world.clients[0].published.values()]
    assert [e.payload for e in world.clients[2].log if isinstance(e, events.MessageReceived)] == payloads


def test_half_open_connection_is_reported_once() -> None:
    world = scenario()
    world.clients[0].connection.silent = True  # type: ignore[union-attr]
    heal(world)
    check_end(world)
    lost = [e for e in world.clients[1].log if isinstance(e, events.MemberLeft) and e.name == "c0"]
    assert [event.lost for event in lost] == [True]


@pytest.mark.parametrize("disturb", [World.crash, World.drain])
def test_clients_connect_again(disturb: Callable[[World], None]) -> None:
    world = scenario()
    disturb(world)
    heal(world)
    check_end(world)
    assert all(client.session.welcome is not None for client in world.clients)


def test_empty_room_is_trimmed_by_age() -> None:
    world = scenario(Config(retention_ms=60_000))
    world.clients[0].publish("red", 3)
    world.run(1.0)
    for client in world.clients:
        client.leave("red")
    heal(world)
    log = world.log_of("red")
    assert log is not None
    assert (log.head, log.oldest, log.users) == (3, 4, 0)


def restarted(world: World, wrong_ms: int, seconds: float = 20.0) -> None:
    """Start the server again with a wall clock that is ahead by this, and let some time pass."""
    world.wrong_ms = wrong_ms
    world.crash()
    world.run(seconds)


def kept(world: World) -> int:
    """How many messages are retained."""
    log = world.log_of("red")
    assert log is not None
    return log.head + 1 - log.oldest


def clock_error(world: World) -> int:
    """By how many milliseconds the server's clock is ahead of the time."""
    assert world.hub is not None
    return world.hub.state.clock.ms(world.now) - WALL_MS - int(world.now * 1000)


def test_clock_that_is_behind_at_the_start_deletes_nothing() -> None:
    world = scenario()
    restarted(world, -YEAR_MS)
    world.clients[0].publish("red", 5)
    world.run(1.0)
    assert kept(world) == 5
    restarted(world, 0)
    world.clients[0].publish("red", 5)
    heal(world)
    check_end(world)
    assert kept(world) == 10
    assert abs(clock_error(world)) < 1000


@pytest.mark.parametrize("ahead_ms", [730 * HOUR_MS, 10 * YEAR_MS])
@pytest.mark.parametrize("spoken", [0, 1])
def test_clock_that_is_ahead_for_one_start_deletes_nothing(ahead_ms: int, spoken: int) -> None:
    """RW-LIMIT-4, RW-ID-4: if nobody spoke meanwhile, the server's clock is right again."""
    world = scenario()
    world.clients[0].publish("red", 5)
    world.run(1.0)
    restarted(world, ahead_ms, 7.0)
    world.clients[0].publish("red", spoken)
    world.run(1.0)
    for _ in range(2):
        restarted(world, 0)
    log = world.log_of("red")
    assert log is not None
    assert log.known == 5 + spoken  # so that a publish without an answer may still be repeated
    heal(world)
    check_end(world)
    assert kept(world) == 5 + spoken
    assert abs(clock_error(world) - spoken * ahead_ms) < 30_000


@pytest.mark.parametrize("wrong_ms", [-YEAR_MS, YEAR_MS])
def test_messages_do_not_outlive_their_age_because_of_a_clock(wrong_ms: int) -> None:
    world = scenario(Config(retention_ms=60_000))
    world.clients[0].publish("red", 5)
    world.run(1.0)
    restarted(world, wrong_ms)
    world.clients[0].publish("red", 5)
    world.run(20.0)
    assert kept(world) == 10
    world.run(35.0)
    assert kept(world) == 5
    restarted(world, 0)
    heal(world)
    assert kept(world) == 0
    check_end(world)


def test_messages_do_not_outlive_their_age_because_of_a_clock_that_was_ahead() -> None:
    world = scenario(Config(retention_ms=60_000))
    world.clients[0].publish("red", 5)
    world.run(1.0)
    restarted(world, YEAR_MS)
    restarted(world, 0)
    assert kept(world) == 5
    world.run(60.0)
    assert kept(world) == 0


def test_id_that_was_forgotten_under_a_wrong_clock_is_not_taken_again() -> None:
    """RW-ID-4: a silent server with a clock that is ahead forgets ids; the next one, with a clock that is behind, must
    still refuse them."""
    world = scenario()
    world.clients[0].publish("red", 1)
    world.run(1.0)
    log = world.log_of("red")
    assert log is not None
    id = log._records[0].id
    restarted(world, YEAR_MS, 1_000.0)
    assert log.lookup(id) is None
    for wrong_ms in (-HOUR_MS, -YEAR_MS, 0):
        restarted(world, wrong_ms)
        assert world.hub is not None
        age_ms = world.hub.state.clock.ms(world.now) - int.from_bytes(id[:6], "big")
        assert age_ms > world.config.dedupe_ms


def test_clock_that_is_set_is_read_again_without_clients(caplog: pytest.LogCaptureFixture) -> None:
    world = scenario()
    world.wrong_ms = YEAR_MS
    world.run(5.0)
    assert abs(clock_error(world)) < 1000
    assert "keeps its own time" in caplog.text
    world.crash()
    world.wrong_ms = -YEAR_MS
    world._restart()  # before any client is back
    assert world.hub is not None
    world.wrong_ms = 0
    assert abs(clock_error(world)) > HOUR_MS
    for _ in world.hub.sweep():
        pass
    assert abs(clock_error(world)) < 1000
    assert "read again" in caplog.text
