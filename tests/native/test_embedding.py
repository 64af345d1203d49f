import numpy as np
import pytest

from gpunn import native

indexes = pytest.mark.parametrize("itype", [np.int64, np.int32])


@indexes
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.float16, np.complex128])
@pytest.mark.parametrize("row", [(), (1,), (2,), (3,), (4,), (17,), (64,), (2, 5)], ids=str)
def test_gather(dtype, itype, row):
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((50, *row)) * 50).astype(dtype)
    for shape in ((), (0,), (7,), (300, 5)):
        index = rng.integers(0, 50, shape).astype(itype)
        out = native.embedding_forward(weight, index)
        assert out.dtype == dtype
        np.testing.assert_array_equal(out, weight[index])


@indexes
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("row", [1, 3, 16, 40, 300])
@pytest.mark.parametrize("padding", [None, 0, 4])
def test_scatter_add(dtype, itype, row, padding):
    rng = np.random.default_rng(0)
    for n in (0, 3, 3000):
        index = rng.integers(0, 13, n).astype(itype)
        grad = rng.standard_normal((n, row)).astype(dtype)
        exact = np.zeros((13, row), dtype)
        kept = np.ones(n, bool) if padding is None else index != padding
        np.add.at(exact, index[kept], grad[kept])
        dweight = native.embedding_backward(grad, index, 13, padding)
        np.testing.assert_array_equal(dweight, exact)


@pytest.mark.parametrize("row", [2, 64])
def test_the_number_of_threads_changes_no_bit(row):
    rng = np.random.default_rng(0)
    index = (rng.random(20000) ** 3 * 100).astype(np.int64)
    grad = rng.standard_normal((20000, row)).astype(np.float32)
    before = native.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3, 8):
            native.set_num_threads(n)
            results.append(native.embedding_backward(grad, index, 100))
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)
    finally:
        native.set_num_threads(before)


@indexes
@pytest.mark.parametrize("bad", [-1, 10, 2**31 - 1, -(2**31)])
def test_an_index_outside_is_an_error_that_names_it(itype, bad):
    weight, index = np.ones((10, 4), np.float32), np.zeros(9000, itype)
    index[8000] = bad
    with pytest.raises(IndexError, match=f"index out of range in self: index {bad}, 10 rows"):
        native.embedding_forward(weight, index)
    with pytest.raises(IndexError, match="index out of range in self"):
        native.embedding_backward(np.ones((9000, 4), np.float32), index, 10)


def test_other_index_dtypes_are_left_to_numpy():
    assert native.embedding_forward(np.ones((3, 2)), np.zeros(2, np.uint8)) is None
    assert native.embedding_backward(np.ones((2, 2), np.int64), np.zeros(2, np.int64), 3) is None
