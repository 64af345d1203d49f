"""Buckets: which parameters share one, in which order, and how gradients go in and out."""

import numpy as np
import pytest

import gpunn
from gpunn import nn
from gpunn.nn.parallel.bucket import FIRST_BYTES, GradBucket, cut, make_buckets


def made(sizes, caps, dtypes=None, sparse=None, late=()):
    """The numbers of the parameters in each bucket."""
    dtypes = dtypes or [gpunn.float32] * len(sizes)
    params = [nn.Parameter(gpunn.zeros(n, dtype=d)) for n, d in zip(sizes, dtypes, strict=True)]
    names = [f"p{k}" for k in range(len(sizes))]
    buckets = make_buckets(params, names, sparse or [False] * len(sizes), caps, late)
    for index, bucket in enumerate(buckets):
        assert bucket.index == index and bucket.left == len(bucket.numbers)
        assert bucket.names == [f"p{k}" for k in bucket.numbers]
        count = 0 if bucket.sparse else sum(sizes[k] for k in bucket.numbers)
        assert bucket.flat.shape == (count,) and bucket.flat.dtype is bucket.params[0].dtype
    return [bucket.numbers for bucket in buckets]


def test_from_the_last_to_the_first_a_small_one_first():
    quarter = FIRST_BYTES // 16  # elements: four of them fill the first bucket
    assert made([quarter] * 12, [FIRST_BYTES, 2 * FIRST_BYTES]) == [
        [11, 10, 9, 8], [7, 6, 5, 4, 3, 2, 1, 0]
    ]


@pytest.mark.parametrize("sizes, caps, expected", [
    ([10, 10, 10], [40], [[2], [1], [0]]),
    ([10, 10, 10], [79], [[2], [1], [0]]),  # two of them are 80 bytes
    ([10, 10, 10], [80], [[2, 1], [0]]),
    ([10, 1000, 10], [80], [[2], [1], [0]]),  # one larger than a bucket is alone
    ([5, 5, 5, 5, 5], [20, 40, 20], [[4], [3, 2], [1], [0]]),
    ([0, 10, 0], [40], [[2, 1, 0]]),
    ([3], [1], [[0]]),
    ([], [40], []),
])  # fmt: skip
def test_the_caps_are_kept(sizes, caps, expected):
    assert made(sizes, caps) == expected


def test_one_dtype_each_in_the_order_in_which_they_get_full():
    f, d, b = gpunn.float32, gpunn.float64, gpunn.bfloat16
    assert made([1] * 6, [1000], [f, b, f, d, d, b]) == [[4, 3], [5, 1], [2, 0]]
    # one of a dtype that comes last and first again waits for nobody else
    assert made([1] * 4, [1000], [d, f, f, d]) == [[2, 1], [3, 0]]


def test_sparse_ones_are_alone_and_late_ones_last():
    sparse = [False, True, False, True]
    assert made([4] * 4, [1000], sparse=sparse) == [[3], [1], [2, 0]]
    assert made([4] * 4, [16], late=[False, True, False, True]) == [[2], [0], [3, 1]]


def two():
    params = [nn.Parameter(gpunn.zeros(2, 3)), nn.Parameter(gpunn.zeros(()))]
    (bucket,) = make_buckets(params, ["a", "b"], [False, False], [1000])
    return params, bucket


def test_gradients_go_in_divided_and_come_out():
    (a, b), bucket = two()
    a.grad = gpunn.arange(6.0).reshape(2, 3)
    bucket.fill(0, 4)
    bucket.fill(1, 4)
    assert bucket.flat.tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1.25]  # b, then a
    assert a.grad.tolist() == [[0, 1, 2], [3, 4, 5]]
    bucket.flat.fill_(7)
    before = a.grad
    for k in (0, 1):
        bucket.empty(k, view=False)
    assert a.grad is before and a.grad.tolist() == [[7] * 3] * 2 and b.grad.item() == 7
    assert not np.shares_memory(b.grad.numpy(), bucket.flat.numpy())


@pytest.mark.parametrize("dtype", [gpunn.float32, gpunn.float16, gpunn.bfloat16, gpunn.complex64])
def test_gradients_as_views(dtype):
    param = nn.Parameter(gpunn.zeros(3, dtype=dtype))
    (bucket,) = make_buckets([param], ["a"], [False], [1000])
    param.grad = gpunn.ones(3, dtype=dtype)
    bucket.fill(0)
    bucket.empty(0, view=True)
    view = param.grad
    bucket.flat.fill_(6)
    assert view.tolist() == [6, 6, 6]
    bucket.fill(0)  # its own memory: nothing to copy
    bucket.fill(0, 2)
    assert view.tolist() == [3, 3, 3]
    bucket.empty(0, view=True)
    assert param.grad is view


def test_a_sparse_gradient_in_a_dense_bucket_becomes_dense():
    (a, _), bucket = two()
    a.grad = gpunn.sparse_coo_tensor([[1], [2]], [5.0], (2, 3))
    bucket.fill(1)
    assert bucket.parts[1].tolist() == [[0, 0, 0], [0, 0, 5]] and not a.grad.is_sparse


def test_a_gradient_of_another_dtype_is_an_error():
    (a, _), bucket = two()
    a.data = a.data.double()
    a.grad = gpunn.ones(2, 3, dtype=gpunn.float64)
    with pytest.raises(RuntimeError, match="the gradient of a is torch.float64 on cpu, its bucket"):
        bucket.fill(1)


def test_what_a_hook_gets():
    (a, b), bucket = two()
    got = GradBucket(bucket, True)
    assert got.index() == 0 and got.is_last() and got.buffer() is bucket.flat
    assert got.parameters()[0] is b and got.parameters()[1] is a
    first, second = got.gradients()
    assert first.shape == () and second.shape == (2, 3)
    second.fill_(2)
    assert got.buffer().tolist() == [0] + [2] * 6
    other = got.buffer().half() + 1
    got.set_buffer(other)
    assert got.buffer() is other and got.gradients()[1].tolist() == [[3] * 3] * 2
    assert got.gradients()[1].dtype is gpunn.float16
    assert [part.shape for part in cut(bucket, other)] == [(), (2, 3)]


def test_titles():
    assert two()[1].title() == "bucket 0: b to a"
    params = [nn.Parameter(gpunn.zeros(1))]
    assert make_buckets(params, ["a.weight"], [False], [9])[0].title() == "bucket 0: a.weight"
