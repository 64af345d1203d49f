"""The stand-in for CuPy: it refuses what CuPy lacks, and differs from NumPy where CuPy does."""

import importlib

import cupy_lacks
import ml_dtypes
import numpy as np
import pytest


@pytest.fixture
def xp(emulated):
    return emulated.xp


def test_what_cupy_lacks_is_refused(xp):
    """Names, keywords, methods of ufuncs, dtypes of at()."""
    x = xp.arange(6.0).reshape(2, 3)
    for space, name in ((xp, "nanquantile"), (xp, "insert"), (xp.linalg, "multi_dot")):
        with pytest.raises(AttributeError, match=name):
            getattr(space, name)
    for call in (lambda: x.max(initial=0), lambda: np.max(x, initial=0), lambda: x.max(where=x)):
        with pytest.raises(TypeError, match="max takes no"):
            call()
    with pytest.raises(TypeError, match="Wrong arguments"):
        xp.add(x, x, where=x > 0)
    for call in (lambda: xp.maximum.accumulate(x), lambda: np.maximum.reduce(x)):
        with pytest.raises(NotImplementedError, match="cupy_maximum"):
            call()
    with pytest.raises(NotImplementedError, match=r"cupy_multiply`?.at"):
        xp.multiply.at(x, (0,), 2.0)
    with pytest.raises(TypeError, match="not int64"):
        xp.add.at(xp.arange(3), xp.arange(2), xp.arange(2))
    with pytest.raises(TypeError, match="logical_not"):
        xp.logical_not(x.astype(np.complex64))
    with pytest.raises(AttributeError, match="setflags"):
        x.setflags(write=False)
    with pytest.raises(AttributeError, match="writeable"):
        x.flags.writeable  # noqa: B018
    with pytest.raises(ValueError, match="M, K"):
        xp.linalg.solve(xp.ones((2, 3, 3)), xp.ones((1, 3, 3)))


def test_host_and_device_do_not_mix(xp):
    """Neither by an operation, nor by a transfer that nobody asked for."""
    x, host = xp.arange(3.0), np.arange(3.0)
    for call in (
        lambda: x + host, lambda: xp.add(host, host), lambda: xp.where(x > 0, host, x),
        lambda: xp.concatenate([x, host]), lambda: x.dot(host), lambda: xp.stack([x[0], 1.0]),
        lambda: x.__setitem__(0, host[:1]),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            call()
    for call in (lambda: np.asarray(x), lambda: np.array(x), lambda: xp.array([x[0], 1.0])):
        with pytest.raises(TypeError, match="Implicit conversion"):
            call()
    assert type(xp.asarray(host)) is xp.ndarray
    assert type(x.get()) is np.ndarray
    assert type(x.sum()) is xp.ndarray
    assert type((x > 1).any()) is xp.ndarray
    assert int(x[2]) == 2 and float(x.sum()) == 3.0


def test_indices_out_of_range_wrap_around(xp):
    """As in CuPy, which cannot raise from a kernel: checking is for gpunn to do."""
    x, i = xp.arange(6).reshape(2, 3), xp.asarray([4, -5])
    assert x[:, i].get().tolist() == [[1, 1], [4, 4]]
    assert x[..., i].get().tolist() == x.take(i, 1).get().tolist() == [[1, 1], [4, 4]]
    assert xp.take_along_axis(x, i[None], 1).get().tolist() == [[1, 1], [4, 4]]
    x[xp.asarray([2]), [5]] = 9
    assert x.get().tolist() == [[0, 1, 9], [3, 4, 5]]
    with pytest.raises(IndexError):
        x[7]


def test_dtypes_of_cupys_tables(xp):
    """where has no loop for bfloat16; products of halves are summed in float32, and are halves."""
    half = xp.ones(4, ml_dtypes.bfloat16)
    assert xp.where(half > 0, half, half).dtype == np.float32
    assert (half * half).dtype == half.dtype
    square = half.reshape(2, 2)
    assert (square @ square).dtype == half.dtype


def test_atomic_extremes_pass_over_nan(xp):
    """maximum.at is CUDA's atomicMax, for which NaN is no number."""
    x = xp.zeros(2, np.float32)
    xp.maximum.at(x, xp.asarray([0, 0, 1]), xp.asarray([1.0, np.nan, np.nan], np.float32))
    assert x.get().tolist() == [1.0, 0.0]


def test_the_tables_are_those_of_the_installed_cupy(capsys):
    """Where CuPy is installed, in the version of the tables: nothing is listed that it has."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.__version__.startswith("14.2"):
        pytest.skip(f"the tables are of CuPy 14.2, installed is {cupy.__version__}")
    importlib.reload(cupy_lacks).main()
    printed = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    for table in ("NAMES", "LINALG", "AT", "NO_COMPLEX"):
        assert set(getattr(cupy_lacks, table).split()) - set(printed[table].split()) <= {"clip"}
