"""Minimising what fails."""

import asyncio

from conformance.harness.ddmin import fewest, smallest, smallest_async


def test_fewest_items_that_fail() -> None:
    def fails(items: list[int]) -> bool:
        return {3, 7} <= set(items)

    async def fails_too(items: list[int]) -> bool:
        return fails(items)

    for items in (range(20), [3, 7]):
        assert smallest(items, fewest, fails) == [3, 7]
        assert asyncio.run(smallest_async(items, fewest, fails_too)) == [3, 7]
    assert smallest([3, 7], fewest, lambda items: True) == []


def test_search_that_is_ended_early() -> None:
    tried: list[list[int]] = []

    def fails(items: list[int]) -> bool:
        tried.append(items)
        return 3 in items

    left = smallest(range(20), fewest, fails, lambda: len(tried) == 2)
    assert tried == [[], list(range(10, 20))]
    assert left == list(range(20))
    left = smallest(range(20), fewest, fails, lambda: len(tried) == 5)
    assert left == tried[-1]
    assert left == list(range(10))
