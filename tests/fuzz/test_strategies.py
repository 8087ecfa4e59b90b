"""What the strategies draw."""

from hypothesis import given
from hypothesis import strategies as st

from conformance.fuzz import strategies
from protocol.names import key


@given(strategies.edge_names)
def test_edge_names(name: str) -> None:
    assert key(name)


@given(st.data())
def test_streams_in_pieces(data: st.DataObject) -> None:
    pieces = data.draw(strategies.streams("C"))
    assert b"".join(pieces) == b"".join(data.draw(strategies.slices(b"".join(pieces))))
