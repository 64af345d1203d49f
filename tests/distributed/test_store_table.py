"""Requests as bytes: whole, cut short, and none at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpunn.distributed.errors import DistNetworkError
from gpunn.distributed.store_table import HEAD, NAMES, NUMBER, Table, pack, unpack


@given(st.integers(0, len(NAMES) - 1), st.floats(0, 1e6), st.lists(st.binary(max_size=40)))
def test_there_and_back(kind, seconds, items):
    data = pack(kind, seconds, items)
    assert unpack(data) == (kind, seconds, items, len(data))
    assert unpack(b"abc" + data + b"rest", 3) == (kind, seconds, items, len(data) + 3)
    for cut in range(0, len(data), 7):
        assert unpack(data[:cut]) is None


@given(st.binary(min_size=HEAD.size, max_size=60))
def test_any_bytes_are_a_request_or_an_error(data):
    try:
        found = unpack(data)
    except DistNetworkError:
        return
    if found is not None:
        assert found[3] <= len(data) and found[0] < len(NAMES)


def test_lengths_that_lie_are_refused():
    body = (50).to_bytes(4, "little") + b"x"
    for head in (HEAD.pack(len(body), 0, 0.0, 1), HEAD.pack(1 << 31, 0, 0.0, 1),
                 HEAD.pack(0, len(NAMES), 0.0, 0), HEAD.pack(0, 0, 0.0, 3)):  # fmt: skip
        for data in (head + body, head + bytes(HEAD.unpack(head)[0] % 100)):
            with pytest.raises(DistNetworkError, match="no request"):
                unpack(data)


def test_what_has_to_wait_gives_none():
    table = Table()
    for name, items in (("get", [b"a"]), ("wait", [b"a", b"b"]), ("pop", [b"q", b"1"]),
                        ("below", [b"a", b"0"]), ("multi_get", [b"a"])):  # fmt: skip
        assert table.apply(NUMBER[name], items) is None
    table.set(b"a/1", b"x")
    assert table.apply(NUMBER["below"], [b"a", b"0"]) == [b"a/1", b"x"]
