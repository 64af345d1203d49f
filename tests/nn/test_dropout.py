"""Dropout: its rate, its scale, its gradient, and when it does nothing."""

import pytest
from both import refused, same

import gpunn
import gpunn.nn.functional as F
from gpunn import nn


def test_rate_and_scale():
    gpunn.manual_seed(0)
    y = F.dropout(gpunn.ones(100_000), 0.3)
    zeros = (y == 0).float().mean().item()
    assert abs(zeros - 0.3) < 0.01
    assert set(y.unique().tolist()) == {0.0, gpunn.tensor(1 / 0.7).item()}


def test_the_gradient_has_the_mask():
    x = gpunn.ones(1000, requires_grad=True)
    y = F.dropout(x, 0.5)
    y.sum().backward()
    assert gpunn.equal(x.grad, y.detach())


def test_evaluation_and_zero_rate_return_the_input_itself():
    x = gpunn.ones(3)
    assert nn.Dropout(0.5).eval()(x) is x and F.dropout(x, 0.0) is x


def test_rate_one_is_all_zero():
    assert F.dropout(gpunn.ones(5), 1.0).tolist() == [0.0] * 5


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("n", [100, 70_001])
def test_the_mask_and_what_is_drawn_next_are_pytorchs(n, p):
    def draw(T):
        T.manual_seed(3)
        y = T.nn.functional.dropout(T.ones(n), p)
        return T.cat([y, T.nn.functional.dropout(T.ones(n), p), T.rand(3)])

    same(draw)


@pytest.mark.parametrize("dtype", [gpunn.float16, gpunn.bfloat16, gpunn.float64])
def test_dtypes_large_and_small(dtype):
    for n in (10, 5000):
        y = F.dropout(gpunn.ones(n, dtype=dtype), 0.5)
        assert y.dtype is dtype and set(y.tolist()) == {0.0, 2.0}


def test_a_mask_is_drawn_in_the_order_of_memory():
    def program(T):
        x = T.arange(24.0).reshape(2, 3, 4) + 1
        layouts = [x, x.permute(2, 0, 1), x.transpose(1, 2)[:, ::2], x[:, :, ::3], x[:, :1].mT,
                   x[0].expand(2, 3, 4), x[:, :, :1].expand(2, 3, 4)]  # fmt: skip
        found = []
        for y in layouts:
            T.manual_seed(0)
            leaf = y.detach().requires_grad_()
            dropped = T.nn.functional.dropout(leaf, 0.5)
            dropped.sum().backward()
            found += [dropped, leaf.grad]
        return found

    same(program)


def test_in_place():
    x = gpunn.ones(100)
    assert F.dropout(x, 0.5, inplace=True) is x and (x == 0).any()


@pytest.mark.parametrize("make", [nn.Dropout, lambda p: F.dropout(gpunn.ones(1), p)])
def test_a_probability_is_between_0_and_1(make):
    with pytest.raises(ValueError, match="between 0 and 1, but got -0.1"):
        make(-0.1)


def test_integers_are_refused_as_by_pytorch():
    refused(lambda T: T.nn.functional.dropout(T.ones(3).long(), 0.5),
            "result type Float can't be cast to the desired output type Long")  # fmt: skip
    same(lambda T: T.nn.functional.dropout(T.ones(3).long(), 1.0))


def test_all_dropouts_have_one_base():
    base = nn.modules.dropout._DropoutNd
    assert all(isinstance(m, base) for m in (nn.Dropout(), nn.Dropout3d(), nn.AlphaDropout()))
