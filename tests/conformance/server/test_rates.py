"""A right server that limits what one address may do: cases wait for their turn or share rooms, and none fails."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from conformance.harness.options import Options
from conformance.harness.verdicts import Result, Verdict
from conformance.server.cases import server_cases
from conformance.server.context import Context
from conformance.server.rates import Rate, TooLong
from conformance.server.runner import ServerRunner
from conformance.server.target import ServerTarget
from conformance.spec.tables import load
from conformance.wire import clock
from reference_server.config import Config
from reference_server.net.listener import Listener
from reference_server.store.memory import MemoryStore
from reference_server.store.open import retention
from tests.support import virtual_time
from tests.support.accounts import ADMINS, PASSWORDS, accounts_file

_FINE = (Verdict.PASS, Verdict.INFO, Verdict.UNSUPPORTED)
_LIMITED = ("3", "5.3", "5.4", "6.1", "6.2", "7.9", "7.10", "7.13", "7.15", "9.3", "10.3", "12", "13", "15")
"""Sections whose cases make rooms, share them, or log in."""


async def _run_at_default_limits() -> tuple[list[Result], list[str]]:
    """The results at a server that limits this address as it does every other one, and what the run says of that."""
    config = Config(port=0, memory=True, local_limits=True, accounts=str(accounts_file()))
    listener = Listener(config, lambda post, failed: MemoryStore(retention(config)))
    target, said = ServerTarget(*await listener.start(), 5.0), list[str]()
    target.rates.tell(said.append)
    options = Options(accounts=PASSWORDS, admins=ADMINS)
    cases = [case for case in server_cases() if case.section in _LIMITED and "waits" not in case.tags]
    try:
        return await ServerRunner(target, load(), options, lambda result: result).run(cases), said
    finally:
        listener.cut()


def test_server_with_default_limits_passes() -> None:
    results, said = virtual_time.run(_run_at_default_limits())
    assert [f"{result.id}: {result.got or result.reason}" for result in results if result.verdict not in _FINE] == []
    assert sum(result.verdict is Verdict.PASS for result in results) > 200
    assert ["room_rate" in text for text in said].count(True) == 1
    assert ["auth_rate" in text for text in said].count(True) == 1
    assert re.search(r"every (6|5\.9\d*) s", said[0])
    assert "ROOMWIRE_ROOM_RATE=" in said[0]


Ask = Callable[[], Awaitable[tuple[str, int]]]


def _answers(*refusals: int) -> Ask:
    """Refuses with these times, and accepts then."""
    left = list(refusals)

    async def ask() -> tuple[str, int]:
        return ("refused", left.pop(0)) if left else ("accepted", 0)

    return ask


def test_turns_wait_one_after_another() -> None:
    """Each has the whole patience from when its turn has come."""
    said: list[str] = []
    rate = Rate("room_rate", "a new room", 100, said.append)
    allowed_at = [0.0]

    async def ask() -> tuple[str, int]:
        left = allowed_at[0] - clock.now()
        if left > 0:
            return "refused", max(1, round(left * 1000))
        allowed_at[0] = clock.now() + 6
        return "accepted", 0

    async def run() -> tuple[list[str], float]:
        began = clock.now()
        allowed_at[0] = began + 2
        found = await asyncio.gather(*(rate.until(ask, 2_000, 8.0) for _ in range(10)))
        return found, clock.now() - began

    found, seconds = virtual_time.run(run())
    assert found == ["accepted"] * 10
    assert 55 < seconds < 58
    assert len(said) == 1
    assert "a new room every 6 s" in said[0]
    assert "about 10 min" in said[0]


def test_server_that_never_allows_it() -> None:
    """The patience is over once, not once for each case; what the server allows after all counts again."""
    rate = Rate("room_rate", "a new room", 100)

    async def refused(ask: Ask) -> None:
        with pytest.raises(TooLong, match="longer than 15 s for a new room"):
            await rate.until(ask, 6_000, 15.0)

    async def run() -> float:
        began = clock.now()
        await asyncio.gather(*(refused(_answers(*[6_000] * 99)) for _ in range(20)))
        return clock.now() - began

    assert virtual_time.run(run()) < 20


def test_time_of_a_turn_does_not_end_the_case() -> None:
    rate = Rate("room_rate", "a new room", 100)

    async def run() -> str:
        context = Context(ServerTarget("127.0.0.1", 1, 1.0), Options(patience=50.0))
        async with asyncio.timeout(10) as bound:
            context.bounded_by(bound)
            found = await context.in_turn(rate, _answers(20_000), 20_000)
            await asyncio.sleep(9)
        return found

    assert virtual_time.run(run()) == "accepted"
