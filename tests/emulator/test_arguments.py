"""Arguments: pointers, aliases, tables, values; and what is refused."""

import numpy as np
import pytest

from . import EmulatorError, RawModule
from .samples import BF16, text


class PointerTable(np.ndarray):
    """A struct of device pointers, with the arrays that they are to point to."""


def table(*arrays):
    made = np.zeros((), [("at", np.uint64, 64)]).view(PointerTable)
    made.arrays = list(arrays)
    return made


def kernel(name):
    return RawModule(text("features.cu")).get_function(name)


def add_one(x, also_x, n, threads=32):
    kernel("add_one")((1,), (threads,), (x, also_x, np.int64(n)))


def ints(n):
    return np.arange(n, dtype=np.int32)


def test_the_same_array_twice():
    x = ints(8)
    add_one(x, x, 8)
    np.testing.assert_array_equal(x, np.arange(8) + 1)


def test_overlapping_views_stay_aliases():
    x = ints(8)
    add_one(x[1:], x[:-1], 7, threads=1)  # each reads what was just written
    np.testing.assert_array_equal(x, np.arange(8))


def test_views_side_by_side_are_guarded_each():
    x = ints(8)
    add_one(x[4:], x[:4], 4)
    np.testing.assert_array_equal(x, [0, 1, 2, 3, 1, 2, 3, 4])
    with pytest.raises(EmulatorError, match="x|also_x"):
        add_one(x[4:], x[:4], 5)


def test_subclasses_of_arrays():
    class Device(np.ndarray):
        pass

    x, y = ints(4).view(Device), np.zeros(4, np.int32).view(Device)
    add_one(y, x, 4)
    np.testing.assert_array_equal(y, x + 1)


def test_null_and_empty():
    y = np.zeros(1, bool)
    kernel("nothing")((1,), (1,), (None, y))
    assert y[0]
    kernel("nothing")((1,), (1,), (np.zeros(0, np.float32), np.zeros(0, bool)))
    add_one(np.zeros(0, np.int32), np.zeros(0, np.int32), 0)


def test_bool_arrays_serve_bytes():
    y = np.zeros(1, np.uint8)
    kernel("nothing")((1,), (1,), (None, y))
    assert y[0] == 1


@pytest.mark.parametrize("skip", range(4))
def test_alignment_is_that_of_the_array(skip):
    out, x = np.zeros(1, np.int32), np.zeros(16, np.float32)[skip:]
    kernel("remainder_of_address")((1,), (1,), (x, out))
    assert out[0] == x.__array_interface__["data"][0] % 16


def test_tables_of_pointers():
    x = [np.full(32, i, np.float32) for i in range(3)]
    y = [np.zeros(32, np.float32) for _ in range(3)]
    x[1] = None
    kernel("sum_tables")((1,), (32,), (table(*x), table(*y), np.int32(3)))
    assert [a[5] for a in y] == [0, 0, 4]


def test_a_table_may_hold_one_array_twice():
    y = np.zeros(32, np.float32)
    kernel("sum_tables")((1,), (32,), (table(y, y), table(y, y), np.int32(2)))
    assert (y == 1).all()


def test_values():
    out = np.zeros(9)
    values = (1.5, 2.5, -3, 2**40, True, 2**32 - 1, 255, 0.5, 0.25)
    types = (np.float32, np.float64, np.int32, np.int64, np.bool_, np.uint32, np.uint8, np.float16)
    args = [t(v) for t, v in zip((*types, BF16.type), values)]
    kernel("scalars")((1,), (1,), (out, *args))
    np.testing.assert_array_equal(out, values)
    args[1], args[3], args[4] = 2.5, 2**40, True  # as CuPy passes Python's numbers
    kernel("scalars")((1,), (1,), (out, *args))
    np.testing.assert_array_equal(out, values)


def refused(match, name, *args):
    with pytest.raises(EmulatorError, match=match):
        kernel(name)((1,), (1,), args)


def test_what_is_refused():
    x, n = ints(4), np.int64(4)
    refused("add_one takes 3 arguments, got 2", "add_one", x, x)
    refused(r"also_x \(argument 1\) points to int32, got an array of float32", "add_one",
            x, x.astype(np.float32), n)  # fmt: skip
    refused("points to int32, got an array of uint32", "add_one", x.astype(np.uint32), x, n)
    refused(r"x \(argument 0\) must be C-contiguous, got strides \(8,\)", "add_one",
            ints(8)[::2], x, n)  # fmt: skip
    refused(r"n \(argument 2\) is int64, got int32", "add_one", x, x, np.int32(4))
    refused("n .* is int64, got float64", "add_one", x, x, 4.0)
    refused(r"n \(argument 2\) is passed by value \(int64\), got ndarray", "add_one", x, x, ints(2))
    refused(r"also_x .* is a pointer, got int64", "add_one", x, n, n)
    frozen = ints(4)
    frozen.flags.writeable = False
    add_one(x, frozen, 4)
    refused(r"x \(argument 0\) is read-only, and the kernel may write", "add_one", frozen, x, n)
    half = np.zeros(3, np.float16)
    refused("points to struct4, got an array of float16", "half_arithmetic", half, half, half,
            np.int32(0))  # fmt: skip
    refused("setting .* has 16 bytes in the kernel, the argument 4", "shared_kinds",
            half, np.zeros(1), np.int32(1))  # fmt: skip


def test_tables_that_are_refused():
    y = np.zeros(32, np.float32)
    refused("from .* is a table of pointers, got ndarray", "sum_tables", y, table(y), np.int32(1))
    refused("from .* points to float32, got an array of float64", "sum_tables",
            table(y.astype(np.float64)), table(y), np.int32(1))  # fmt: skip
    refused("is a table of 64 pointers, got 65", "sum_tables",
            table(*[y] * 65), table(y), np.int32(1))  # fmt: skip
