"""Splitting into views."""

import numpy as np
import pytest
from check import check

import gpunn

x = np.arange(20.0).reshape(5, 4)


def test_pieces():
    t = gpunn.tensor(x)
    assert [p.shape[0] for p in t.split(2)] == [2, 2, 1] == [p.shape[0] for p in t.chunk(3)]
    assert [p.shape[0] for p in t.split([1, 4])] == [1, 4]
    assert [p.shape[0] for p in gpunn.tensor_split(t, 3)] == [2, 2, 1]
    assert [p.shape[1] for p in gpunn.hsplit(t, 2)] == [2, 2]
    assert len(gpunn.unbind(t, 1)) == 4 and t.select(1, -1).tolist() == x[:, -1].tolist()
    assert t.narrow(0, 1, 2).tolist() == x[1:3].tolist()


def test_pieces_are_views_with_gradients():
    for f in (lambda t: t.split(2)[1], lambda t: t.chunk(2, 1)[0], lambda t: t.unbind()[3]):
        check(f, [x], lambda a, f=f: f(gpunn.tensor(a)).numpy())
        t = gpunn.tensor(x)
        f(t).zero_()
        assert (f(t) == 0).all()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda t: t.split([1, 1]), RuntimeError, "sum exactly to 5"),
        (lambda t: t.chunk(0), RuntimeError, "greater than 0"),
        (lambda t: t.narrow(0, 4, 3), RuntimeError, "exceeds dimension size"),
        (lambda t: t.select(0, 9), IndexError, "out of range"),
        (lambda t: gpunn.hsplit(t, 3), RuntimeError, "not divisible"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call(gpunn.tensor(x))
