"""What a run knows of the rates by which a server limits an address (SPEC.md, section 15), over all of its cases.

A new room or a login that is refused with RATE_LIMITED waits for its turn: one case at a time asks again, so that each
waits for the server alone and not for the luck of the others. This time counts towards no patience.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from conformance.harness.verdicts import Inconclusive

T = TypeVar("T")

ROOMS = 150
"""How many rooms a whole run makes, about, where cases share those that they can share."""
LOGINS = 40
"""How many logins of a whole run fail on purpose, about."""


class TooLong(Inconclusive):
    """The server limits a rate so strictly that the run's patience is over."""


def _silent(text: str) -> None:
    """Tells nobody."""


@dataclass
class Rate:
    """One rate. `limit` is its name in section 15, `what` it limits, and a whole run does that `number` times."""

    limit: str
    what: str
    number: int
    tell: Callable[[str], None] = _silent
    scarce: bool = False
    """Whether the server has refused something because of it."""
    _given: bool = False
    _told: bool = False
    _stuck: bool = False
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def until(self, ask: Callable[[], Awaitable[tuple[T, int]]], retry_ms: int, patience: float) -> T:
        """Asks again until the server does not refuse it, for `patience` seconds after the turn has come.

        `ask` returns an answer, and how many milliseconds to wait if that is RATE_LIMITED, otherwise 0. `retry_ms` is
        the time of the refusal before. Raises TooLong.
        """
        self.scarce = True
        waiting, waited = self._turn.locked(), 0.0
        async with self._turn:
            if waiting and not self._stuck:
                answer, retry_ms = await ask()  # the time of the refusal before is over
            while retry_ms:
                self._refused(retry_ms)
                waited += retry_ms / 1000
                if self._stuck or waited > patience:
                    self._stuck = True  # so the cases after this one do not wait as long again
                    raise TooLong(f"the server asks to wait longer than {patience:g} s for {self.what} ({self.limit})")
                await asyncio.sleep(retry_ms / 1000)
                answer, retry_ms = await ask()
            self._stuck, self._given = False, True
            return answer

    def _refused(self, retry_ms: int) -> None:
        """Tells the user once how often the server allows it: the time of a refusal right after it has allowed one."""
        if self._given and not self._told:
            self._told = True
            self.tell(self._slow(retry_ms))

    def _slow(self, retry_ms: int) -> str:
        """Says that the rate makes the run slow, and what to do about it."""
        minutes = max(1, round(self.number * retry_ms / 60_000))
        return (
            f"the server lets this address have {self.what} every {retry_ms / 1000:g} s ({self.limit} of SPEC.md, "
            f"section 15), so cases wait for their turn: about {minutes} min in a run of all. To be quicker, raise "
            f"{self.limit} of the server for the run (roomwire-server: ROOMWIRE_{self.limit.upper()}=100000), run this "
            "on the server's own host if it leaves that out of its limits, or let the suite start it (--exec)"
        )


@dataclass
class Rates:
    """The rates of one server, and the rooms that cases may share. `used` have messages, and no case is in them."""

    rooms: Rate = field(default_factory=lambda: Rate("room_rate", "a new room", ROOMS))
    logins: Rate = field(default_factory=lambda: Rate("auth_rate", "a login that may fail", LOGINS))
    used: list[str] = field(default_factory=list)

    def tell(self, how: Callable[[str], None]) -> None:
        """Sets how to tell the user that a rate makes the run slow."""
        self.rooms.tell = self.logins.tell = how
