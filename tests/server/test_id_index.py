"""The index of a room's ids: stored and added ids are one set, and take little memory."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_server.store.base import Entry, Known
from reference_server.store.id_index import KNOWN, ROW_SIZE, IdIndex
from tests.support.stores import T0, entry


def test_added_id_takes_at_most_250_octets() -> None:
    index = IdIndex()
    tracemalloc.start()
    for number in range(50_000):
        index.add(entry(number).id, Known(number, T0, bytes(16)))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # The two allocations of an id are rounded up to multiples of 16.
    assert size / 50_000 + 2 * 15 <= 250


def stored(entries: list[Entry]) -> bytes:
    """A block of rows."""
    return b"".join(each.id + KNOWN.pack(seq, T0, each.digest) + bytes(4) for seq, each in enumerate(entries, 1))


def test_stored_id_takes_its_row() -> None:
    blocks = [stored([entry(number) for number in range(start, start + 1_000)]) for start in range(0, 50_000, 1_000)]
    tracemalloc.start()
    index = IdIndex(bytes(bytearray(block)) for block in blocks)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(index) == 50_000
    assert size / 50_000 <= ROW_SIZE + 1


@pytest.mark.parametrize("sizes", [[], [1], [7], [3, 1, 5], [1, 1, 1]], ids=str)
def test_stored_ids_are_known_like_added_ones(sizes: list[int]) -> None:
    entries = [entry(number) for number in range(0, 2 * sum(sizes), 2)]
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    blocks = [stored(entries)[(end - size) * ROW_SIZE : end * ROW_SIZE] for size, end in zip(sizes, ends, strict=True)]
    numbers = range(2 * sum(sizes) + 5)
    for before in numbers:
        one, other = IdIndex(blocks), IdIndex()
        for seq, each in enumerate(entries, 1):
            other.add(each.id, Known(seq, T0, each.digest))
        for index in (one, other):
            index.add(entry(3).id, Known(99, T0, bytes(16)))  # between them, or after all
            for known in (*entries[:1], *entries[-1:], entry(3)):
                with pytest.raises(ValueError, match="already known"):
                    index.add(known.id, Known(1, T0, bytes(16)))
        assert one.forget(T0 + before) == other.forget(T0 + before)
        assert [one.get(entry(n).id) for n in numbers] == [other.get(entry(n).id) for n in numbers]
        assert len(one) == len(other)
        assert one.forget(T0 + before) == 0
        assert one.forget(1 << 48) == other.forget(1 << 48)
        assert len(one) == 0


numbers = st.integers(0, 30)
steps = st.lists(st.tuples(st.sampled_from(("add", "get", "forget")), numbers), max_size=30)


@given(st.sets(numbers), st.integers(1, 5), steps)
def test_index_behaves_like_a_dictionary_that_forgets(
    stored_numbers: set[int], size: int, todo: list[tuple[str, int]]
) -> None:
    entries = [entry(number) for number in sorted(stored_numbers)]
    rows = stored(entries)
    index = IdIndex(rows[at : at + size * ROW_SIZE] for at in range(0, len(rows), size * ROW_SIZE))
    model = {each.id: Known(seq, T0, each.digest) for seq, each in enumerate(entries, 1)}
    for step, number in todo:
        id = entry(number).id
        if step == "forget":
            gone = [known for known in model if int.from_bytes(known[:6], "big") < T0 + number]
            assert index.forget(T0 + number) == len(gone)
            for known in gone:
                del model[known]
        elif step == "add" and id not in model:
            model[id] = Known(number, T0, bytes(16))
            index.add(id, model[id])
        assert index.get(id) == model.get(id)
        assert len(index) == len(model)
