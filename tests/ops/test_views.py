"""Views of whole tensors: what they share, what they refuse, their gradients."""

import warnings

import numpy as np
import pytest
from both import refused, same
from check import check_grad

import gpunn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4))


def shares(a, b):
    return np.shares_memory(a.array, b.array)


@pytest.mark.parametrize("f", [
    lambda x: x.reshape(4, 6), lambda x: x.reshape(-1), lambda x: x.reshape((3, -1)),
    lambda x: x.reshape([2, 12]), lambda x: x.reshape(x.shape), lambda x: x.view(6, 4),
    lambda x: x.view(-1, 2, 2), lambda x: x.view_as(x.new_zeros(4, 6)),
    lambda x: x.permute(2, 0, 1),
    lambda x: x.permute((-1, 0, 1)), lambda x: x.permute(dims=(1, 0, 2)),
    lambda x: x.transpose(0, -1), lambda x: x.swapaxes(0, 1), lambda x: x.swapdims(0, 1),
    lambda x: x[0].t(), lambda x: x[0].T, lambda x: x.mT, lambda x: x[0].H, lambda x: x.mH,
    lambda x: x.adjoint(), lambda x: x.unsqueeze(-1), lambda x: x.unsqueeze(0).squeeze(),
    lambda x: x[:, :1].squeeze(1), lambda x: x[:, :1].squeeze((0, 1)), lambda x: x.squeeze(0),
    lambda x: x.expand(2, 2, 3, 4), lambda x: x[:1].expand(5, -1, 4), lambda x: x.expand_as(x),
    lambda x: x[:1].broadcast_to((2, 3, 4)),
])  # fmt: skip
def test_values_memory_and_gradients(f):
    x = gpunn.tensor(X)
    y = f(x)
    assert shares(x, y) and y._base is not None and y.array.flags.writeable
    same(lambda T: f(T.tensor(X.tolist(), dtype=T.float64)))
    same(lambda T: f(T.tensor(X.tolist(), dtype=T.float64).transpose(0, 2).contiguous()
                     .transpose(0, 2).contiguous()))  # fmt: skip
    check_grad(f, [X])


def test_reshape_copies_only_where_it_must():
    x = gpunn.tensor(X)
    turned = x.transpose(0, 1)
    assert not shares(turned, turned.reshape(-1)) and shares(turned, turned.reshape(3, 2, 2, 2))
    assert shares(x, x[:, 1:].reshape(2, 2, 2, 2))
    check_grad(lambda x: x.transpose(0, 1).reshape(4, -1), [X])
    strided = np.lib.stride_tricks.as_strided(np.arange(6.0), (2, 2), (16, 8))
    assert gpunn.from_numpy(strided).reshape(-1).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_empty_and_scalar():
    for f in (
        lambda T: T.zeros(0, 3).reshape(-1), lambda T: T.zeros(0, 3).reshape(3, 0, 5),
        lambda T: T.zeros(2, 0).view(0, 7), lambda T: T.tensor(1.0).reshape(1, 1),
        lambda T: T.ones(1, 1).reshape(()), lambda T: T.tensor(1.0).transpose(0, -1),
        lambda T: T.tensor(1.0).t(), lambda T: T.tensor(1.0).expand(2),
        lambda T: T.tensor(1.0).squeeze(0),
        lambda T: T.tensor(1.0).unsqueeze(-1), lambda T: T.tensor(1.0).permute(()),
        lambda T: T.zeros(1, 0).expand(3, 0), lambda T: T.zeros(0).expand(2, 0),
    ):  # fmt: skip
        same(f)


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: T.zeros(6).reshape(4, 2), r"shape '\[4, 2\]' is invalid for input of size 6"),
    (lambda T: T.zeros(6).reshape(-1, -1), "only one dimension can be inferred"),
    (lambda T: T.zeros(6).reshape(-2, 3), "invalid shape dimension -2"),
    (lambda T: T.zeros(6).reshape(-1, 4), r"shape '\[-1, 4\]' is invalid for input of size 6"),
    (lambda T: T.zeros(0).reshape(-1, 0), "cannot reshape tensor of 0 elements into shape"),
    (lambda T: T.zeros(2, 3).t().view(6), "view size is not compatible with input tensor's size"),
    (lambda T: T.zeros(2, 3).permute(0), "number of dimensions in the tensor input"),
    (lambda T: T.zeros(2, 3).permute(0, 0), "duplicate dims are not allowed"),
    (lambda T: T.zeros(2, 3).permute(0, 2), "Dimension out of range"),
    (lambda T: T.zeros(2, 3).transpose(0, 2), "Dimension out of range"),
    (lambda T: T.zeros(2, 3, 4).t(), r"t\(\) expects a tensor with <= 2 dimensions"),
    (lambda T: T.zeros(2).mT, "only supported on matrices or batches of matrices"),
    (lambda T: T.zeros(2).H, "only supported on matrices"),
    (lambda T: T.zeros(2, 3).expand(3), "the number of sizes provided"),
    (lambda T: T.zeros(2, 3).expand(4, 3), r"The expanded size of the tensor \(4\) must match"),
    (lambda T: T.zeros(2, 3).expand(-1, 2, 3), "isn't allowed in a leading, non-existing"),
    (lambda T: T.zeros(2, 3).unsqueeze(4), r"expected to be in range of \[-3, 2\], but got 4"),
    (lambda T: T.zeros(2, 3).squeeze(2), r"expected to be in range of \[-2, 1\], but got 2"),
    (lambda T: T.zeros(1, 3).squeeze((0, 0)), "appears multiple times in the list of dims"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)


def test_in_place_forms_change_the_tensor_itself():
    def program(T):
        a = T.arange(6.0).reshape(2, 1, 3).requires_grad_()
        x = a * 1
        same_ones = [
            x.squeeze_(1) is x, x.t_() is x, x.unsqueeze_(0) is x, x.transpose_(0, 2) is x,
            x.swapaxes_(0, 1) is x, x.swapdims_(0, 1) is x, x.squeeze_() is x,
        ]  # fmt: skip
        (x * T.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).sum().backward()
        return same_ones, x, a.grad

    same(program)


def test_another_dtype_reads_the_same_bytes():
    same(lambda T: T.tensor([1.0, -2.0]).view(T.int32))
    same(lambda T: T.tensor([[1.0, -2.0]]).view(T.uint8))
    same(lambda T: T.tensor([1.0, -2.0]).view(dtype=T.float64))
    x = gpunn.tensor([1.0, 2.0])
    x.view(gpunn.int32)[0] = 0
    assert x.tolist() == [0.0, 2.0]
    with pytest.raises(RuntimeError, match="view: cannot read"):
        gpunn.zeros(3).view(gpunn.float64)


def test_no_warning_from_expanded_memory():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = gpunn.ones(1, 3).t().expand(3, 4)
        x[0, 0] = 5.0
    assert x[0].tolist() == [5.0] * 4


def test_names_of_nodes():
    x = gpunn.ones(1, 2, requires_grad=True)
    for y, name in (
        (x.view(2), "View"), (x.permute(1, 0), "Permute"), (x.t(), "T"), (x.squeeze(), "Squeeze"),
        (x.unsqueeze(0), "Unsqueeze"), (x.expand(2, 2), "Expand"), (x.transpose(0, 1), "Transpose"),
    ):  # fmt: skip
        if name != "T":
            assert y.grad_fn.name() == name + "Backward0"
