"""How much of something is allowed: token buckets, and connections and new rooms an address (SPEC.md, section 15)."""

import ipaddress
from collections import Counter


class TokenBucket:
    """`burst` at once, `rate` a second in the long run."""

    __slots__ = ("_time", "_tokens")

    def __init__(self, burst: float, now: float) -> None:
        self._tokens = float(burst)
        self._time = now

    def take(self, rate: float, burst: float, now: float) -> int:
        """Take one token; 0 if there was one, else the milliseconds, at least 1, until there will be (RW-LIMIT-1)."""
        tokens = min(burst, self._tokens + (now - self._time) * rate)
        self._time = now
        if tokens >= 1:
            self._tokens = tokens - 1
            return 0
        self._tokens = tokens
        return max(1, -int(-(1 - tokens) * 1000 // rate))

    def give_back(self) -> None:
        """Undo a `take` that came to something."""
        self._tokens += 1

    def full(self, rate: float, burst: float, now: float) -> bool:
        """Whether nothing is remembered of the past."""
        return self._tokens + (now - self._time) * rate >= burst


class AddressBook:
    """What each address has: open connections, tokens for new rooms, and for logins that fail.

    Addresses of this host are not counted: on it run proxies, which bring many people from one address.
    """

    def __init__(self, connections: int, rooms_per_minute: int, logins_per_minute: int) -> None:
        self._connections = connections
        self._rate = rooms_per_minute / 60
        self._burst = float(rooms_per_minute)
        self._open: Counter[str] = Counter()
        self._rooms: dict[str, TokenBucket] = {}
        self._login_rate = logins_per_minute / 60
        self._login_burst = float(logins_per_minute)
        self._logins: dict[str, TokenBucket] = {}

    def connect(self, address: str) -> bool:
        """Count a connection; false if the address has as many as it may."""
        if is_local(address):
            return True
        self._open[address] += 1
        return self._open[address] <= self._connections

    def disconnect(self, address: str) -> None:
        """Undo `connect`, whatever it returned."""
        if is_local(address):
            return
        self._open[address] -= 1
        if self._open[address] <= 0:
            del self._open[address]

    def create_room(self, address: str, now: float) -> int:
        """0 if the address may make a room now, else the milliseconds to wait."""
        if is_local(address):
            return 0
        bucket = self._rooms.setdefault(address, TokenBucket(self._burst, now))
        return bucket.take(self._rate, self._burst, now)

    def login(self, address: str, now: float) -> int:
        """0 if a client at the address may try to log in now, else the milliseconds to wait."""
        if is_local(address):
            return 0
        bucket = self._logins.setdefault(address, TokenBucket(self._login_burst, now))
        return bucket.take(self._login_rate, self._login_burst, now)

    def logged_in(self, address: str) -> None:
        """The login succeeded: only those that fail are limited (RW-SASL-9)."""
        if address in self._logins:
            self._logins[address].give_back()

    def sweep(self, now: float) -> None:
        """Forget addresses that have been quiet, so that the book does not grow with visitors."""
        for address in [a for a, b in self._logins.items() if b.full(self._login_rate, self._login_burst, now)]:
            del self._logins[address]
        for address in [a for a, bucket in self._rooms.items() if bucket.full(self._rate, self._burst, now)]:
            del self._rooms[address]


def is_local(address: str) -> bool:
    """Whether the address is this host's own loopback, or no IP address at all (a local socket)."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True
