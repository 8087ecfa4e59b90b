"""Credit: how much one client may say and is handed, so that floods and slow readers leave time and memory for others.

Each tick gives a client FRAMES_PER_TICK. A frame that is no request costs one of them, other frames what is said here.
A client whose credit is used up waits in the ready queue, and every ROUND_SECONDS the clients that have waited longest
share FRAMES_PER_ROUND among them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Protocol

STREAM_OCTETS = 256 * 1024
"""About how many octets of all its rooms' streams one client is handed in a tick."""

PORTION_OCTETS = 128 * 1024
"""About how many octets of a room's stream one member is handed at once."""

READS_AT_ONCE = 2
"""For how many rooms at once the store reads what one client is behind: so a client that is behind in many rooms holds
no more memory than one that is behind in two."""

FRAMES_PER_TICK = 8
"""The credit of one client in a tick, in frames that are no requests."""

REQUEST_COST = 4
"""What a request costs, accepted publishes aside: these cost nothing, since a rate limits them. Whether a publish is
accepted is known only at the end of the tick, so each costs what the client's last one would have cost."""

REPEAT_COST = 1
"""What a publish costs that was accepted before: no rate limits it."""

MESSAGE_COST = 2
"""What each message in the reply to HISTORY costs: it is read from the store as well."""

ROUND_SECONDS = 0.001
"""How long clients without credit wait for the next round. The pause leaves some of the processor to other clients and
to the thread that commits."""

FRAMES_PER_ROUND = 256
"""What all clients of one round share. A publish waits for about three ticks, and a round must not make them long: it
takes less than a millisecond."""


class Debtor(Protocol):
    """A peer, as far as the ready queue needs it."""

    def give_credit(self, frames: int) -> None:
        """Go on with what exceeded the credit of a tick, up to this many frames."""


class ReadyQueue:
    """Peers that have used up their credit, in the order in which they did. `schedule` has `give_credit` called in
    ROUND_SECONDS; it is called once for each round, however many peers come and go before."""

    __slots__ = ("_peers", "_schedule", "_scheduled")

    def __init__(self, schedule: Callable[[], None]) -> None:
        self._peers: dict[Debtor, None] = {}
        self._schedule = schedule
        self._scheduled = False

    def add(self, peer: Debtor) -> None:
        """Let the peer wait for a round."""
        self._peers[peer] = None
        self._schedule_round()

    def discard(self, peer: Debtor) -> None:
        """The peer is gone."""
        self._peers.pop(peer, None)

    def give_credit(self) -> None:
        """A round: let the peers go on that have waited longest."""
        self._scheduled = False
        served = tuple(islice(self._peers, FRAMES_PER_ROUND // FRAMES_PER_TICK))
        for peer in served:
            del self._peers[peer]
            peer.give_credit(FRAMES_PER_ROUND // len(served))
        if self._peers:
            self._schedule_round()

    def _schedule_round(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._schedule()
