"""Rows of SPEC.md's tables that the fuzzers reach: all but those in `conformance/data/fuzz_reach.toml`."""

from collections.abc import Callable
from random import Random

from conformance.fuzz import reach
from conformance.fuzz.client.fuzzer import ClientFuzz
from conformance.fuzz.options import Options
from conformance.fuzz.progress import Progress
from conformance.fuzz.server.generate import Profile, script
from conformance.fuzz.server.player import Player
from conformance.fuzz.stats import TABLES, Stats
from protocol.registry import Code
from tests.mutants.fuzz_client_matrix import ONLY_AT_CLIENTS
from tests.mutants.servers import UNCHANGED_DURABLE
from tests.support.client_in_process import launch
from tests.support.hub_network import HubNetwork, tight

ACCOUNTS = {"Ada": "correct horse", "a,b=c": "comma equals"}
MADE: tuple[Callable[[int], HubNetwork], ...] = (
    HubNetwork,
    tight,
    lambda seed: HubNetwork(seed, UNCHANGED_DURABLE),
    lambda seed: HubNetwork(
        seed, None, retention_messages=6, stall_ms=20_000, heartbeat_ms=9_000, drain_ms=19_000
    ),  # members are left behind, and a drain outlasts two heartbeats
    lambda seed: HubNetwork(seed, None, ACCOUNTS, auth_rate=100_000),
    lambda seed: HubNetwork(seed, None, max_members=2, max_connections=5),
    lambda seed: HubNetwork(seed, None, {"Ada": "correct horse"}, create_rooms=False, auth_rate=1),
)
"""Servers without I/O, which differ in the situations that a script can bring about."""

PROFILES = (
    Profile(restart=0.3, drain=0.3, time=0.3, operator=0.1, idle=0.5, lag=1.0, login=1.0),
    Profile(clients=5, rooms=4, restart=0.2, drain=0.1, time=0.2, operator=0.1, idle=0.3, lag=2.0),
)
SEEDS = (*range(70), 82, 93, 111, 118, 125, 325)
"""The later ones reach rows that few scripts reach. When scripts change, look for others beyond those."""


def reached() -> Stats:
    """Returns what scripts see at all these servers. No script may fail."""
    counted = Stats()
    for seed in SEEDS:
        steps = script(Random(seed), PROFILES[seed // len(MADE) % len(PROFILES)])
        failure = Player(MADE[seed % len(MADE)](seed), seed, counted, 5.0).play(steps)
        assert failure is None, (seed, str(failure))
    return counted


def test_transitions_that_no_script_reaches() -> None:
    stats = reached()
    for table in ("server", "membership"):
        missed = {f"{row.state}, {row.event}" for row in stats.unvisited(table)}
        assert missed == set(reach.load()["never"][table])
    assert {code.name for code in stats.unseen_codes()} == ONLY_AT_CLIENTS  # see tests/fuzz/client/test_fuzzer.py
    assert reach.load()["never"]["codes"] == {}
    progress = Progress("fuzz", stats, 1.0, 0)
    assert progress.unvisited() == [
        "server: AUTHENTICATING, AUTH, needs more: no mechanism of this document has a third step"
    ]


def test_reasons_for_existing_rows() -> None:
    document = reach.load()
    assert set(document) == {"never", "live", "exec", "accounts"}
    for reasons in document.values():
        for table, rows in reasons.items():
            names = {code.name for code in Code} if table == "codes" else set()
            for row in TABLES.get(table, ()):
                names |= {row.state, f"{row.state}, {row.event}"}
            assert set(rows) <= names, table
            assert all(rows.values())


def test_summary_of_an_empty_run() -> None:
    empty = Progress("fuzz", Stats(), 1.0, 0)
    assert len(empty.unvisited()) == len(TABLES["server"]) + len(TABLES["membership"])
    assert len(empty.unseen_codes()) == len(Code)
    assert "server: AUTHENTICATING, refused: accounts that --config declares" in empty.unvisited()
    assert "server: OPEN, frame: by chance: a longer run" in empty.unvisited()


def test_reasons_of_a_run_with_exec_and_accounts() -> None:
    """They do not name what the run had."""
    launched = Progress("fuzz", Stats(), 1.0, 0, kinds=reach.kinds(launched=True, accounts=False))
    both = Progress("fuzz", Stats(), 1.0, 0, kinds=reach.kinds(launched=True, accounts=True))
    declared = Progress("fuzz", Stats(), 1.0, 0, kinds=reach.kinds(launched=False, accounts=True))
    assert "exec" not in " ".join(launched.unvisited() + launched.unseen_codes())
    assert "AUTH_FAILED: accounts that --config declares" in launched.unseen_codes()
    assert not [line for line in both.unvisited() + both.unseen_codes() if "exec" in line or "config" in line]
    assert "config" not in " ".join(declared.unvisited() + declared.unseen_codes())
    assert "server: OPEN, drain: a drain, which needs --exec" in declared.unvisited()
    for progress in (launched, both, declared):
        assert "server: DRAINING, time-out: a drain time longer than two heartbeats: only without I/O" in (
            progress.unvisited()
        )


def test_reasons_of_a_run_against_a_client() -> None:
    """`fuzz client` does not point to itself, nor to what only servers are asked."""
    progress = ClientFuzz(launch, Options()).progress
    assert {line.partition(": ")[2] for line in progress.unseen_codes()} == {"by chance: a longer run"}
    named = {line for line in progress.unvisited() if not line.endswith(": by chance: a longer run")}
    assert len(named) == len(reach.load()["never"]["client"])
