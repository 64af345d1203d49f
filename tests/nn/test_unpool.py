"""Unpooling: undoes pooling, passes gradients back, and names bad places."""

import numpy as np
import pytest
from both import refused, same
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)
POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
UNPOOL = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)


def scattered(x, places, size):
    """x at its places in planes of zeros, one by one."""
    dims = len(size)
    y = np.zeros((*x.shape[:-dims], np.prod(size)))
    for lead in np.ndindex(x.shape[:-dims]):
        for value, place in zip(x[lead].ravel(), places[lead].ravel(), strict=True):
            y[(*lead, place)] = value
    return y.reshape((*x.shape[:-dims], *size))


@pytest.mark.parametrize("dims, shape", [
    (1, (2, 3, 8)), (1, (3, 6)), (2, (2, 2, 6, 4)), (2, (2, 4, 6)), (3, (1, 2, 4, 2, 4)),
])  # fmt: skip
def test_undoes_pooling(dims, shape):
    x = gpunn.from_numpy(rng.normal(size=shape))
    y, places = POOL[dims - 1](x, 2, return_indices=True)
    back = UNPOOL[dims - 1](y, places, 2)
    assert back.shape == x.shape and gpunn.equal(back[back != 0].sort()[0], y.flatten().sort()[0])
    check(lambda v: UNPOOL[dims - 1](v, places, 2), [rng.normal(size=tuple(y.shape))],
          lambda v: scattered(v, places.numpy(), shape[-dims:]))  # fmt: skip


def test_output_size_may_be_given():
    y, places = F.max_pool1d(gpunn.arange(5.0).reshape(1, 1, 5), 2, return_indices=True)
    assert F.max_unpool1d(y, places, 2, output_size=[5]).tolist() == [[[0.0, 1.0, 0.0, 3.0, 0.0]]]
    assert F.max_unpool1d(y, places, 2, output_size=(1, 1, 5)).shape == (1, 1, 5)


def test_one_place_twice():
    """The last value stays; the gradient of the gradient adds up."""

    def program(T):
        threads = T.get_num_threads()
        T.set_num_threads(1)  # with more, PyTorch's write one place in any order
        x = T.arange(4.0).reshape(1, 2, 2).requires_grad_()
        places = T.zeros(1, 2, 2, dtype=T.int64)
        g = T.ones(1, 4, 4).requires_grad_()
        y = T.nn.functional.max_unpool2d(x, places, 2)
        T.set_num_threads(threads)
        first = T.autograd.grad(y, x, g, create_graph=True)[0]
        return [y, first, T.autograd.grad((first * x.detach()).sum(), g)[0]]

    same(program)


ERRORS = [
    (2, (1, 1, 2, 2), (1, 1, 2, 1), {}, "Expected shape of indices to be same as that of the"),
    (2, (2, 2), (2, 2), {}, "should be a 3d or 4d Tensor, but got a tensor with 2 dimensions"),
    (1, (2,), (2,), {}, "should be a 3d or 4d Tensor, but got a tensor with 2 dimensions"),
    (3, (1, 2, 2), (1, 2, 2), {}, "should be a 4d or 5d Tensor"),
    (2, (1, 0, 2, 2), (1, 0, 2, 2), {}, "with dimension 1 being empty"),
    (3, (1, 1, 1, 2, 2), (1, 1, 1, 2, 2), {"stride": 0}, "strides should be greater than zero"),
    (2, (1, 1, 2, 2), (1, 1, 2, 2), {"padding": 5}, r"got output_size\[0\]=-6"),
    (1, (1, 1, 2), (1, 1, 2), {"output_size": [9]}, r"\(dim 0 must be between 2 and 6\)"),
    (1, (1, 1, 2), (1, 1, 2), {"output_size": (1, 5)}, "1 or 3 elements, but it has a length"),
]


@pytest.mark.parametrize("dims, shape, places, options, words", ERRORS)
def test_errors_are_pytorchs(dims, shape, places, options, words):
    refused(lambda T: getattr(T.nn.functional, f"max_unpool{dims}d")(
        T.ones(shape), T.zeros(places, dtype=T.int64), 2, **options), words)  # fmt: skip


@pytest.mark.parametrize("bad", [-1, 16, 100])
def test_places_outside_are_refused(bad):
    refused(lambda T: T.nn.functional.max_unpool2d(
        T.ones(1, 2, 2), T.full((1, 2, 2), bad), 2), f"invalid max index: {bad} .*4x4")  # fmt: skip


def test_dtypes():
    refused(lambda T: T.nn.functional.max_unpool2d(
        T.ones(1, 2, 2), T.zeros(1, 2, 2, dtype=T.int32), 2), "should be type int64")  # fmt: skip
    refused(lambda T: T.nn.functional.max_unpool2d(
        T.ones(1, 2, 2).long(), T.zeros(1, 2, 2).long(), 2), "not implemented for 'Long'")


def test_modules():
    x = gpunn.randn(2, 4, 4, 4)
    for dims in (1, 2, 3):
        pool = getattr(nn, f"MaxPool{dims}d")(2, return_indices=True)
        y, places = pool(x if dims > 1 else x[0])
        unpool = getattr(nn, f"MaxUnpool{dims}d")(2)
        assert gpunn.equal(unpool(y, places), UNPOOL[dims - 1](y, places, 2))
    same(lambda T: [repr(T.nn.MaxUnpool1d(2)), repr(T.nn.MaxUnpool3d((1, 2, 3), 2, 1))])
