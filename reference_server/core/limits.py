"""Limits: token buckets, and connections, new rooms and logins for each address (SPEC.md, section 15)."""

import ipaddress
from collections import Counter
from typing import NamedTuple


class TokenBucket:
    """A rate: `burst` at once, `rate` a second in the long run."""

    __slots__ = ("_time", "_tokens")

    def __init__(self, burst: float, now: float) -> None:
        self._tokens = float(burst)
        self._time = now

    def take(self, rate: float, burst: float, now: float) -> int:
        """Take one token; 0 if there was one, else the milliseconds, at least 1, until there will be (RW-LIMIT-1)."""
        tokens = self._tokens
        if now != self._time:
            tokens = min(burst, tokens + (now - self._time) * rate)
            self._time = now
        if tokens >= 1:
            self._tokens = tokens - 1
            return 0
        self._tokens = tokens
        return max(1, -int(-(1 - tokens) * 1000 // rate))

    def give_back(self) -> None:
        """Undo a `take` that returned 0."""
        self._tokens += 1

    def full(self, rate: float, burst: float, now: float) -> bool:
        """Whether the bucket is full at `now`, so that it need not be kept."""
        return self._tokens + (now - self._time) * rate >= burst


class Spent(NamedTuple):
    """What a connection has used of its rates; None if it has used nothing."""

    publish: TokenBucket | None = None
    join: TokenBucket | None = None
    history: TokenBucket | None = None


class Rates(NamedTuple):
    """The rates of a connection, each with its burst."""

    publish: tuple[float, float]
    join: tuple[float, float]
    history: tuple[float, float]

    def forgotten(self, spent: Spent, now: float) -> bool:
        """Whether so much time has passed that nothing counts as used any more."""
        pairs = zip(spent, self, strict=True)
        return all(bucket is None or bucket.full(rate, burst, now) for bucket, (rate, burst) in pairs)


class AddressBook:
    """Counts for each address: open connections, TLS handshakes, new rooms, logins that failed, and what its ended
    connections have used.

    Addresses of this host are exempt unless `local` is true: proxies run on it, and bring many people from one address.
    """

    def __init__(
        self, connections: int, rooms_per_minute: int, logins_per_minute: int, rates: Rates, *, local: bool = False
    ) -> None:
        self._connections = connections
        self._rate = rooms_per_minute / 60
        self._burst = float(rooms_per_minute)
        self._rates = rates
        self._local = local
        self._open: Counter[str] = Counter()
        self._handshakes: Counter[str] = Counter()  # of TLS, in progress
        self._rooms: dict[str, TokenBucket] = {}
        self._login_rate = logins_per_minute / 60
        self._login_burst = float(logins_per_minute)
        self._logins: dict[str, TokenBucket] = {}
        self._spent: dict[str, list[Spent]] = {}

    def _exempt(self, address: str) -> bool:
        return not self._local and is_local(address)

    def connect(self, address: str) -> bool:
        """Count a connection; false if the address has more than it may."""
        if self._exempt(address):
            return True
        who = network(address)
        self._open[who] += 1
        return self._open[who] <= self._connections

    def take_over(self, address: str) -> Spent:
        """What a new connection counts as having used: what one of the address's ended connections has (RW-LIMIT-3)."""
        left = self._spent.get(network(address)) if self._spent else None
        return left.pop() if left else Spent()

    def disconnect(self, address: str, spent: Spent, now: float) -> None:
        """Undo `connect`, whether it returned true or false, and remember what the connection has used.

        A new connection takes over what an ended one left, so no more is remembered for an address than it had
        connections open at once.
        """
        if self._exempt(address):
            return
        who = network(address)
        self._open[who] -= 1
        if self._open[who] <= 0:
            del self._open[who]
        if not self._rates.forgotten(spent, now):
            self._spent.setdefault(who, []).append(spent)

    def begin_handshake(self, address: str) -> bool:
        """Count a TLS handshake; false if the address has as many in progress as it may have connections."""
        who = network(address)
        if not self._exempt(address) and self._handshakes[who] >= self._connections:
            return False
        self._handshakes[who] += 1
        return True

    def end_handshake(self, address: str) -> None:
        """Undo a `begin_handshake` that returned true."""
        who = network(address)
        self._handshakes[who] -= 1
        if not self._handshakes[who]:
            del self._handshakes[who]

    def create_room(self, address: str, now: float) -> int:
        """0 if the address may make a room now, otherwise the milliseconds to wait."""
        if self._exempt(address):
            return 0
        bucket = self._rooms.setdefault(network(address), TokenBucket(self._burst, now))
        return bucket.take(self._rate, self._burst, now)

    def login(self, address: str, now: float) -> int:
        """0 if a client at the address may try to log in now, otherwise the milliseconds to wait."""
        if self._exempt(address):
            return 0
        bucket = self._logins.setdefault(network(address), TokenBucket(self._login_burst, now))
        return bucket.take(self._login_rate, self._login_burst, now)

    def logged_in(self, address: str) -> None:
        """The login succeeded: only those that fail are limited (RW-SASL-9)."""
        bucket = self._logins.get(network(address))
        if bucket is not None:
            bucket.give_back()

    def sweep(self, now: float) -> None:
        """Forget addresses whose limits have recovered, so that the book does not grow with each visitor."""
        for address in [a for a, b in self._logins.items() if b.full(self._login_rate, self._login_burst, now)]:
            del self._logins[address]
        for address in [a for a, bucket in self._rooms.items() if bucket.full(self._rate, self._burst, now)]:
            del self._rooms[address]
        for address, left in tuple(self._spent.items()):
            left[:] = [spent for spent in left if not self._rates.forgotten(spent, now)]
            if not left:
                del self._spent[address]


def network(address: str) -> str:
    """What counts as one address: of IPv6 the first 64 bits, since a host can choose the rest."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))


def is_local(address: str) -> bool:
    """Whether the address is this host's own loopback, or no IP address at all (a local socket)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
    except ValueError:
        return True
