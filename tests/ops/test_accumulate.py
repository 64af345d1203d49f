"""Adding up at repeated indices: every path gives what np.add.at gives, in the same order."""

import types

import ml_dtypes
import numpy as np
import pytest

from gpunn.ops import accumulate
from gpunn.ops.accumulate import add_at

RNG = np.random.default_rng(0)


def key_of(kind, shape):
    def some(n, *size):
        return RNG.integers(-n, n, size)

    return {
        "one": (some(shape[0], 40),),
        "bare": some(shape[0], 40),
        "matrix": (some(shape[0], 5, 8),),
        "two": (some(shape[0], 40), some(shape[1], 40)),
        "broadcast": (some(shape[0], 40, 1), some(shape[1], 3)),
        "second": (slice(None), some(shape[1], 40)),
        "last": (slice(None), slice(None), some(shape[2], 40)),
        "all": tuple(some(n, 40) for n in shape),
        "apart": (some(shape[0], 40), slice(None), some(shape[2], 40)),
        "cut": (slice(1, 3), some(shape[1], 40)),
        "int32": (some(shape[0], 40).astype(np.int32),),
        "mask": (RNG.random(shape) > 0.5,),
        "nothing": (np.zeros(0, np.int64),),
    }[kind]


KINDS = ["one", "bare", "matrix", "two", "broadcast", "second", "last", "all", "apart", "cut",
         "int32", "mask", "nothing"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "complex64", "bool"])
@pytest.mark.parametrize("way", ["general", "rows", "native", "chunks"])
def test_every_way_adds_alike(kind, dtype, way, monkeypatch):
    monkeypatch.setattr(accumulate, "_SMALL", 1 << 60 if way == "general" else 0)
    monkeypatch.setattr(accumulate, "_NATIVE", 0 if way == "native" else 1 << 60)
    monkeypatch.setattr(accumulate, "_CHUNK", 7 if way == "chunks" else 1 << 15)
    shape = (4, 5, 6)
    key = key_of(kind, shape)
    start = RNG.normal(size=shape).astype(dtype)
    values = RNG.normal(size=start[key].shape).astype(dtype)
    want, got = start.copy(), start.copy()
    np.add.at(want, key, values)
    add_at(got, key, values)
    rtol = 1e-6 if way == "native" else 0
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_adds_up_in_float32(dtype, monkeypatch):
    monkeypatch.setattr(accumulate, "_SMALL", 0)
    whole = np.zeros((2, 3), dtype)
    add_at(whole, (np.zeros(1000, np.int64),), np.full((1000, 3), 0.25, dtype))
    assert whole.astype(np.float32).tolist() == [[250.0] * 3, [0.0] * 3]


def test_values_are_broadcast_and_memory_may_be_strided(monkeypatch):
    monkeypatch.setattr(accumulate, "_SMALL", 0)
    index = np.array([0, 2, 2])
    for whole in (np.zeros((3, 4)), np.zeros((4, 3)).T, np.zeros((3, 8))[:, ::2]):
        add_at(whole, (index,), 1.0)
        assert whole.tolist() == [[1.0] * 4, [0.0] * 4, [2.0] * 4]


def test_an_index_out_of_range_raises(monkeypatch):
    monkeypatch.setattr(accumulate, "_SMALL", 0)
    with pytest.raises(IndexError, match="index 3 is out of bounds"):
        add_at(np.zeros((3, 2)), (np.array([0, 3]),), np.ones((2, 2)))
    with pytest.raises(IndexError, match="out of bounds"):
        add_at(np.zeros((2, 3)), (np.array([0]), np.array([-4])), np.ones(1))


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_cupy_is_asked_only_for_what_it_adds(dtype, monkeypatch):
    """CuPy adds up these dtypes; this stands in for it on a machine without a GPU."""

    def at(whole, key, values):
        assert whole.dtype.name in ("int32", "uint32", "uint64")
        np.add.at(whole, key, values)

    fake = types.SimpleNamespace(add=types.SimpleNamespace(at=at), asarray=np.asarray)
    monkeypatch.setattr(accumulate, "ns", lambda x: fake)
    index, values = np.array([1, 1, 0]), np.array([[-1, 2], [3, 4], [5, 6]]).astype(dtype)
    want, got = np.ones((2, 2), dtype), np.ones((2, 2), dtype)
    np.add.at(want, (index,), values)
    accumulate._add_at_cuda(got, (index,), values)
    np.testing.assert_array_equal(got, want)
