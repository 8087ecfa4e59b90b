"""Which case kills which broken peer. `python -m tests.mutants.kill_matrix` runs them all and writes the matrix anew.

The matrix is part of the suite (conformance/data/kill_matrix.json), so that whoever installs it can see what its
cases are worth: `roomwire-check coverage` reads it. It holds for each broken peer the requirements that it breaks,
the cases that failed on their own assertion, and the requirements by which the watch over all connections found it.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import pytest

from conformance.client.cases import client_cases
from conformance.client.runner import ClientRunner
from conformance.codec.cases import codec_cases
from conformance.harness.case import Case
from conformance.harness.options import Options
from conformance.harness.verdicts import Result, Verdict
from conformance.report.coverage import MATRIX
from conformance.server.cases import server_cases
from conformance.spec.tables import load
from tests.mutants import client_accounts as broken_client_accounts
from tests.mutants import codecs as broken_codecs
from tests.mutants import server_accounts as broken_server_accounts
from tests.mutants import server_connections as broken_server_connections
from tests.mutants import server_frames as broken_server_frames
from tests.mutants import server_limits as broken_server_limits
from tests.mutants import server_publish as broken_server_publish
from tests.mutants import server_rooms as broken_server_rooms
from tests.mutants.client_rooms import BROKEN as CLIENTS
from tests.mutants.clients import Break
from tests.mutants.codecs import BrokenCodec
from tests.mutants.server_changes import SERVERS
from tests.mutants.server_rooms import durable
from tests.mutants.servers import WHOLE_OPTIONS, Broken, trial
from tests.support.client_in_process import launch, run_to_the_end

DECLARED_IN = (
    broken_server_frames, broken_server_connections, broken_server_rooms, broken_server_publish, broken_server_limits,
    broken_server_accounts, broken_client_accounts,
)  # fmt: skip
"""Modules that declare broken peers when they are imported."""

CODECS = tuple(broken_codecs.ALL)
# A machine that does much else must not make a whole server fail.
_BUSY = {"heartbeat_ms": 4000, "preface_ms": 8000, "handshake_ms": 8000, "frame_ms": 8000, "linger_ms": 2000}
WHOLE = (
    Broken("whole", (), config=_BUSY),
    Broken("whole and durable, with accounts and TLS", (), boot=durable, config=_BUSY, accounts=True, tls=True),
)
Peer = Broken | BrokenCodec | Break
PEERS: dict[str, Peer] = {
    **{f"server/{peer.name}": peer for peer in SERVERS},
    **{f"codec/{peer.name}": peer for peer in CODECS},
    **{f"client/{peer.name}": peer for peer in CLIENTS},
}
"""The broken peers, by role and name."""


class Row(NamedTuple):
    """What came of one broken peer. `ends` are all ends by case, as `trial` words them."""

    breaks: tuple[str, ...]
    ends: dict[str, str]
    errors: list[str]

    @property
    def kills(self) -> list[str]:
        """Cases that failed on their own assertion."""
        return [id for id, end in self.ends.items() if end.startswith("kill ")]

    @property
    def watched(self) -> list[str]:
        """Requirements that the watch found broken."""
        return sorted({end.removeprefix("watch ") for end in self.ends.values() if end.startswith("watch ")})


def broken_by(peer: Peer) -> tuple[str, ...]:
    """The requirements that a peer breaks."""
    return (peer.requirement,) if isinstance(peer, Break) else peer.breaks


def cases_for(peer: Peer) -> list[Case]:
    """The cases that are tried on a broken peer."""
    if isinstance(peer, Break):
        named = [case for case in client_cases() if any(fnmatchcase(case.id, name) for name in peer.cases)]
        return named or [case for case in client_cases() if peer.requirement in case.requirements]
    if isinstance(peer, BrokenCodec):
        return broken_codecs.cases_for(peer, codec_cases())
    if peer.only:
        return [case for case in server_cases() if case.id in peer.only]
    return [case for case in server_cases() if set(case.requirements) & set(peer.breaks)]


def _client_ends(peer: Break, cases: Sequence[Case]) -> dict[str, str]:
    """How cases end on a broken client; a failure over another requirement than the case names is the watch's."""
    named = {case.id: case.requirements for case in cases}

    def end(result: Result) -> str:
        if result.verdict is Verdict.PASS:
            return "pass"
        if result.verdict not in (Verdict.FAIL, Verdict.WARN):
            return f"no verdict: {result.verdict.name}: {result.reason}"
        return f"{'kill' if result.requirement in named[result.id] else 'watch'} {result.requirement}"

    with pytest.MonkeyPatch.context() as patch:
        peer.apply(patch)
        runner = ClientRunner(launch, load(), Options(timeout=0.6, ready=5.0, jobs=24), lambda result: result)
        return {result.id: end(result) for result in asyncio.run(run_to_the_end(runner.run(cases)))}


def run(peer: Peer, cases: Sequence[Case] | None = None) -> Row:
    """Tries a broken peer, on all of its cases or some."""
    taken = cases_for(peer) if cases is None else cases
    if isinstance(peer, Break):
        return Row(broken_by(peer), _client_ends(peer, taken), [])
    if isinstance(peer, BrokenCodec):
        return Row(peer.breaks, broken_codecs.trial(peer, taken), [])
    ends, errors = trial(peer, taken)
    return Row(peer.breaks, ends, errors)


def whole(cases: Iterable[Case]) -> dict[str, list[str]]:
    """How cases end on the servers that break nothing, the volatile and the durable one."""
    ends = [trial(peer, list(cases), WHOLE_OPTIONS)[0] for peer in WHOLE]
    return {id: [end[id] for end in ends] for id in ends[0]}


def main() -> int:
    """Writes the matrix; with names of broken peers it writes their rows alone, or with --show how all cases end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="ROLE/NAME")
    parser.add_argument("--show", action="store_true", help="show how all cases end, and write nothing")
    parser.add_argument("--again", type=int, default=2, help="how often each is tried; kills count that come each time")
    options = parser.parse_args()
    if options.show:
        for name in options.peers:
            row = run(PEERS[name])
            print(json.dumps({"peer": name, "ends": row.ends, "errors": row.errors}, indent=1))
        return 0
    rows = json.loads(MATRIX.read_text(encoding="utf-8"))["peers"] if options.peers else {}
    for name in options.peers or PEERS:
        began = time.monotonic()
        tries = [run(PEERS[name]) for _ in range(options.again)]
        kills = [id for id in tries[0].kills if all(id in row.kills for row in tries)]
        watched = [id for id in tries[0].watched if all(id in row.watched for row in tries)]
        rows[name] = {"breaks": broken_by(PEERS[name]), "kills": kills, "watch": watched}
        print(f"{time.monotonic() - began:6.2f} s  {len(kills):3} {' '.join(watched):30} {name}", flush=True)
    document = {"version": 1, "peers": {name: rows[name] for name in PEERS}}
    MATRIX.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
