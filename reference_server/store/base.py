"""The contract of a store of room logs, without an implementation.

A store keeps one append-only log for each room. It knows nothing of frames or connections: payloads and
fields are opaque octets. Two stores fulfil the contract, `memory.MemoryStore` (volatile) and
`sqlite.SqliteStore` (durable); tests/server/test_store.py and tests/server/test_store_model.py run on both.

What every store promises (SPEC.md, "The promise"):

1. Sequence numbers of a room start at 1, rise by 1, and are never reused, neither after trimming nor after a
   restart.
2. `head` counts, and `read` shows, only what is stable (RW-PROMISE-1). Stable means: on stable storage where
   `durable` is true.
3. What one commit places in a room becomes stable as a whole or not at all, and in the order of the proposals:
   after a crash every log is a prefix of what was placed in it (RW-PROMISE-3).
4. An id that has a place is known from then on, also before it is stable, until `forget` drops it. Trimming
   records does not forget ids, nor does a restart of a durable store (RW-DEDUPE-3).
5. The epoch of a room changes when data may have been lost, and only then (RW-MODEL-5).
6. A failed write is not retried: the store reports it once and does no further work (RW-PROMISE-7).

Everything is called from one thread, the caller's, and callbacks run on that thread only, so the same code
runs under an event loop and under a virtual clock. Only `Store.raise_max_body` and `Store.close` wait for storage.

Units: `octets` are counted over payload and fields; `*_ms` are UTC milliseconds since 1970, or a duration in
milliseconds; ids are 16 octets of which the first six are a big-endian time in milliseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from protocol.registry import Code
from reference_server.store.progress import Progress

ID_SIZE = 16
DIGEST_SIZE = 16

MESSAGE = 0
"""The kind of an entry that is a message."""

INCARNATION_SIZE = 32


# These classes are made at least once for each message. `tuple.__new__` takes half the time of their own `__new__`.


class Entry(NamedTuple):
    """What is proposed for a log.

    `digest` stands for the content (16 octets, computed by the caller): the store keeps it with the id, so that
    a repeat can be told from a conflict even after the record was trimmed. `fields` are relayed extension fields.
    `kind` is 0 for a message; a reader that does not know a kind keeps its place. `time_ms` is when it was proposed.
    """

    id: bytes
    digest: bytes
    time_ms: int
    kind: int
    sender: int
    name: str
    verified: bool
    ctype: int
    payload: bytes
    fields: bytes


class Record(NamedTuple):
    """An entry as it is read back; `time_ms` never decreases with `seq`."""

    seq: int
    time_ms: int
    kind: int
    sender: int
    id: bytes
    ctype: int
    name: str
    verified: bool
    payload: bytes
    fields: bytes


class Known(NamedTuple):
    """What is remembered of an id: the place of its message in the log, and the digest of its content."""

    seq: int
    time_ms: int
    digest: bytes


class Placed(NamedTuple):
    """The entry has this place in the log."""

    seq: int
    time_ms: int


class Repeat(NamedTuple):
    """The same message has this place already (RW-DEDUPE-1)."""

    seq: int
    time_ms: int


class Refused(NamedTuple):
    """The entry gets no place; `retry_ms` is 0 if its sender is not to try again."""

    code: Code
    text: str
    retry_ms: int = 0


Outcome = Placed | Repeat | Refused


class Chain(Protocol):
    """The publishes of one membership, one after the other."""

    refused: bool
    """Whether the last one whose outcome was told was refused."""


class Proposal(Protocol):
    """One PUBLISH."""

    entry: Entry
    ordered: bool
    """Whether it is refused with PRECEDED after one that was refused (RW-ORDER-1)."""
    invalid: Refused | None
    """Why its content can't be accepted, whatever the log holds."""
    expired: Refused | None
    """Why its id can't be new. It may be known (RW-DEDUPE-4)."""

    @property
    def chain(self) -> Chain:
        """What it belongs to."""

    def admit(self, known: int) -> Refused | None:
        """Whether the room takes it, where `known` ids are known; otherwise why not. The walk asks for a new id only.
        It may ask again: the first answer that depends on time stays (RW-LIMIT-1)."""

    def settle(self, outcome: Outcome) -> None:
        """Take the outcome, which is final, and is told once. One of a place is acknowledged when the log's head has
        reached it (RW-PROMISE-1)."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of each room's log is kept; None is no limit. The strictest limit applies.

    `remember_ids` False keeps no index of ids at all (for a server whose dedupe_ms is 0): `Log.lookup` then
    finds nothing, and no proposal is a repeat.
    """

    messages: int | None = 10_000
    octets: int | None = None
    age_ms: int | None = 7 * 24 * 3600 * 1000
    remember_ids: bool = True


class StoreError(Exception):
    """A store cannot be opened or has failed. `str()` is one line that an operator can act on."""

    def __init__(self, path: object, expected: str, found: str) -> None:
        super().__init__(f"{path}: expected {expected}, found {found}")
        self.path = str(path)
        self.expected = expected
        self.found = found


class StoreLocked(StoreError):
    """Another process has the store open."""


class StoreTooNew(StoreError):
    """The store was written by a newer version of the server."""


class StoreCorrupt(StoreError):
    """What was read is not what was written."""


class StoreUnavailable(StoreError):
    """The storage refuses: permissions, a full disk, a failed write or fsync."""


class Log(Protocol):
    """The log of one room. `Store.open` gives it, `Store.release` takes it back."""

    @property
    def key(self) -> str:
        """The room's folded name, by which rooms are compared."""

    @property
    def name(self) -> str:
        """The room's name as it was first written."""

    @property
    def epoch(self) -> int:
        """The log's incarnation, a non-zero unsigned 64-bit integer; an empty log has one too."""

    @property
    def head(self) -> int:
        """The last stable sequence number, 0 for an empty log. Never moves back."""

    @property
    def tail(self) -> int:
        """The last sequence number given to a proposal; at least `head`."""

    @property
    def oldest(self) -> int:
        """The first sequence number retained, `head` + 1 if there is none.

        It moves at once, before the records are deleted, so `read` never serves less than what `oldest` says
        when its callback runs. After a crash it may be lower than before: then more is served, never less.
        """

    @property
    def last_time_ms(self) -> int:
        """The time given to the last entry, 0 for an empty log."""

    @property
    def known(self) -> int:
        """The number of ids remembered."""

    def lookup(self, id: bytes) -> Known | None:
        """What is remembered of `id`, if anything. While its message is not stable its seq is greater than `head`."""

    moved: Callable[[list[Record]], None]
    """Called with what has become stable, in order, without holes from one call to the next, after the proposals were
    settled (RW-PROMISE-11) and `head` has moved."""

    def propose(self, proposal: Proposal) -> None:
        """Have the next `Store.commit` walk this, after what was proposed to the log before. Nobody is shown it."""

    def read(self, after: int, limit: int, octets: int, done: Callable[[list[Record]], None]) -> None:
        """Call `done` once with stable records whose seq is greater than `after`, ascending, without holes.

        At least one record if any is retained in (after, head], at most `limit`, and only as many as fit into
        `octets`. The first is `after` + 1, or, if that has been trimmed, the log's `oldest`.
        """

    def trim(self, below: int) -> None:
        """Delete the stable records whose seq is less than `below`. The head does not move."""

    def retain(self, now_ms: int) -> None:
        """Apply the store's retention to what is stable. `oldest` moves now or in a callback soon afterwards."""

    def forget(self, before_ms: int) -> None:
        """Forget the ids whose own time, their first six octets, is less than `before_ms`.

        A crash may bring some of them back. `trim`, `retain` and `forget` need no commit.
        """


class Store(Protocol):
    """Room logs by key."""

    @property
    def durable(self) -> bool:
        """Whether what is stable survives a crash of the process and loss of power."""

    @property
    def last_time_ms(self) -> int:
        """The greatest time given to any record, or 0: the server's clock must not start below it."""

    @property
    def progress(self) -> Progress:
        """How far the store's time had come when it was opened, by what was noted."""

    @property
    def busy(self) -> bool:
        """Whether commits wait for something that may last: better place nothing more now."""

    on_stable: Callable[[int], None]
    """Called with the number of proposals that have become stable, after their logs' `moved`."""

    on_damage: Callable[[str, StoreError], None]
    """Called with the key of a room in which something was not read as it was written; the others are not concerned.
    What was asked for is not there: `read` calls `done` with no records."""

    def note_clock(self, progress: Progress) -> None:
        """Keep this as the store's `progress`, after what was placed before and before what is placed later."""

    def raise_max_body(self, max_body: int) -> int:
        """Note that messages are stored under this limit for bodies from now on; return the greatest ever noted.

        Call it once, before the first proposal; it waits for storage. A server announces no less (RW-WELCOME-5).
        """

    def rooms(self) -> int:
        """The number of rooms with a stable head above 0."""

    def files(self) -> tuple[Path, ...]:
        """The files of the store, for the metrics; some may be missing."""

    def keys(self, after: str, limit: int, done: Callable[[list[str]], None]) -> None:
        """Call `done` with the keys of up to `limit` stored rooms greater than `after`, ascending.

        It serves to visit all rooms, a few at a time: retention and forgetting reach open logs only.
        """

    def open(
        self, key: str, name: str, done: Callable[[Log, bool], None], damaged: Callable[[], None] = lambda: None
    ) -> None:
        """Load or make the log of the room `key`, and call `done(log, created)` once, or `damaged` after `on_damage`.

        `created` is true if nothing is stored for the room and it was not open; nothing is stored for it before
        the first entry. While a log is open every `open` gets the same object; match each with a `release`.
        """

    def release(self, log: Log) -> None:
        """End what one `open` began. A log that is no longer open leaves memory once it is stable."""

    def commit(self) -> None:
        """Walk what was proposed to each log since the last commit, settle it, and make stable what was placed.

        May be called again before that is stable: it becomes stable in order. If it cannot be written, no head moves
        any more.
        """

    def close(self) -> None:
        """Finish the commits in progress and free everything. Drops proposals without a commit. May be called again."""


def ignore(_: object) -> None:
    """What a log's `moved` and a store's `on_stable` are until somebody sets them."""


def epoch_of(incarnation: bytes, key: str, salt: bytes = b"") -> int:
    """The epoch of the room `key` in the store whose incarnation is these 32 random octets; `salt` is of the room.

    It is derived rather than stored, so that an empty room has an epoch that survives a restart although nothing is
    stored for it; and keyed, so that a client that knows epochs of some rooms cannot compute those of others.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=incarnation + salt).digest()
    return int.from_bytes(digest, "big") or 1  # zero is not an epoch
