"""Unfold and fold: the definition, each the other's gradient, errors."""

import numpy as np
import pytest
from both import refused, same
from check import check
from emulated import on_both

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)


def slow_unfold(x, kernel, dilation, padding, stride):
    """The definition, one window at a time."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    starts = [range(0, n - r + 1, s)
              for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]  # fmt: skip
    found = [x[:, :, i : i + reach[0] : dilation[0], j : j + reach[1] : dilation[1]]
             .reshape(len(x), -1) for i in starts[0] for j in starts[1]]  # fmt: skip
    return np.stack(found, axis=-1)


CASES = [  # kernel, dilation, padding, stride
    ((2, 2), (1, 1), (0, 0), (1, 1)),
    ((1, 1), (1, 1), (0, 0), (1, 1)),
    ((2, 3), (2, 1), (1, 2), (1, 2)),
    ((3, 3), (1, 1), (1, 1), (3, 3)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_unfold_is_the_definition(case):
    check(lambda x: F.unfold(x, *case), [rng.normal(size=(2, 3, 5, 6))],
          lambda x: slow_unfold(x, *case))  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fold_is_the_transpose(case):
    """Fold's matrix, one column for each entry of the image, is that of unfold transposed."""
    size = (5, 6)
    units = np.eye(30).reshape(30, 1, *size)
    matrix = slow_unfold(units, *case).reshape(30, -1)
    cols = rng.normal(size=(2, 3, matrix.shape[1]))
    places = matrix.shape[1] // (case[0][0] * case[0][1])
    check(
        lambda x: F.fold(x, size, *case), [cols.reshape(2, -1, places)],
        lambda x: (x.reshape(2, 3, -1) @ matrix.T).reshape(2, 3, *size), rtol=3e-2,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_a_device(emulated, case):
    x = rng.normal(size=(2, 3, 5, 6))
    on_both(lambda x: F.unfold(x, *case), [x], rtol={"bfloat16": 1e-1})
    on_both(lambda x: F.fold(x, (5, 6), *case), [slow_unfold(x, *case)], rtol={"bfloat16": 1e-1})


def test_fold_of_unfold_counts_the_windows():
    x = gpunn.randn(1, 2, 5, 5, dtype=gpunn.float64)
    count = F.fold(F.unfold(gpunn.ones_like(x), 3, padding=1), (5, 5), 3, padding=1)
    assert count[0, 0].tolist()[0] == [4, 6, 6, 6, 4] and count[0, 0, 2, 2] == 9
    back = F.fold(F.unfold(x, 3, padding=1), (5, 5), 3, padding=1)
    np.testing.assert_allclose((back / count).numpy(), x.numpy(), atol=1e-12)


def test_unfold_and_a_matrix_product_are_a_convolution():
    x, w = gpunn.randn(2, 3, 7, 8), gpunn.randn(4, 3, 3, 2)
    product = w.reshape(4, -1) @ F.unfold(x, (3, 2), stride=2)
    np.testing.assert_allclose(
        product.reshape(2, 4, 3, 4).numpy(), F.conv2d(x, w, stride=2).numpy(), atol=1e-5
    )


def test_columns_are_memory_of_their_own():
    x = gpunn.zeros(1, 1, 2, 2)
    F.unfold(x, 1).fill_(1)
    F.fold(x.reshape(1, 1, 4), 2, 1).fill_(1)
    assert x.sum() == 0


def test_unbatched_empty_and_other_dtypes():
    x = gpunn.randn(3, 4, 4)
    cols = F.unfold(x, 2)
    assert gpunn.equal(cols, F.unfold(x.unsqueeze(0), 2)[0]) and cols.shape == (12, 9)
    assert gpunn.equal(F.fold(cols, 4, 2), F.fold(cols.unsqueeze(0), 4, 2)[0])
    assert F.unfold(gpunn.zeros(0, 3, 4, 4), 2).shape == (0, 12, 9)
    assert F.fold(gpunn.zeros(0, 12, 9), 4, 2).shape == (0, 3, 4, 4)
    z = gpunn.complex(x, -x)
    assert gpunn.equal(F.unfold(z, 2), gpunn.complex(cols, -cols))
    spots = F.fold(F.unfold(gpunn.eye(4).bool()[None], 2), 4, 2)
    assert spots.dtype is gpunn.bool and gpunn.equal(spots[0], gpunn.eye(4).bool())


def test_half_precision_is_rounded_once():
    cols = gpunn.full((9, 9), 1 / 3, dtype=gpunn.bfloat16)
    wanted = F.fold(cols.double(), 3, 3, padding=1).bfloat16()
    assert gpunn.equal(F.fold(cols, 3, 3, padding=1), wanted)


X, COLS = gpunn.zeros(1, 4, 5, 5), gpunn.zeros(1, 12, 12)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.unfold(X, 0), RuntimeError, "kernel size should be greater than zero"),
        (lambda: F.unfold(X, 3, 0), RuntimeError, "dilation should be greater than zero"),
        (lambda: F.unfold(X, 3, 1, -1), RuntimeError, "padding should be non-negative"),
        (lambda: F.unfold(X, 3, 1, 0, 0), RuntimeError, "stride should be greater than zero"),
        (lambda: F.unfold(X, (3, 3, 3)), RuntimeError,
         "It is expected kernel_size equals to 2, but got size 3"),
        (lambda: F.unfold(X, 3.0), TypeError, "'kernel_size' .position 2. must be tuple of ints"),
        (lambda: F.unfold(3, 3), TypeError, "'input' .position 1. must be Tensor, not int"),
        (lambda: F.unfold(X, 6), RuntimeError,
         r"Given input with spatial size \(5, 5\), kernel_size=\(6, 6\), dilation=\(1, 1\), "
         r"padding=\(0, 0\), calculated shape of the array of sliding blocks as \(0, 0\), but its "
         "components must be at least one"),
        (lambda: F.unfold(X[:, :0], 3), RuntimeError, r"Expected 3D or 4D \(batch mode\) tensor"),
        (lambda: F.unfold(X[0, 0], 3), RuntimeError, r"Expected 3D or 4D \(batch mode\) tensor"),
        (lambda: F.unfold(X.int(), 3), NotImplementedError, "im2col_out_cpu.* for 'Int'"),
        (lambda: F.fold(COLS, (4, 5, 6), 2), RuntimeError, "expected output_size equals to 2"),
        (lambda: F.fold(COLS, (4, 5), (2, 5)), RuntimeError,
         "to be divisible by the product of kernel_size, but got input.size.1.=12"),
        (lambda: F.fold(COLS, (4, 6), 2), RuntimeError,
         r"sliding blocks 3 \* 5 = 15, but got input.size\(2\)=12"),
        (lambda: F.fold(COLS, (0, 5), 2), RuntimeError, r"sliding blocks -1 \* 4 = -4"),
        (lambda: F.fold(COLS[0, 0], (4, 5), 2), RuntimeError, r"Expected 2D or 3D \(batch mode\)"),
        (lambda: F.fold(COLS.int(), (4, 5), 2), NotImplementedError, "col2im_out_cpu.* for 'Int'"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_modules_are_the_functions():
    x = gpunn.randn(2, 3, 5, 6)
    unfold, fold = nn.Unfold((2, 3), padding=1), nn.Fold((5, 6), (2, 3), padding=1)
    cols = unfold(x)
    assert gpunn.equal(cols, F.unfold(x, (2, 3), padding=1))
    assert gpunn.equal(fold(cols), F.fold(cols, (5, 6), (2, 3), padding=1))
    assert repr(unfold) == "Unfold(kernel_size=(2, 3), dilation=1, padding=1, stride=1)"
    assert repr(fold) == (
        "Fold(output_size=(5, 6), kernel_size=(2, 3), dilation=1, padding=1, stride=1)"
    )
    assert not fold.state_dict() and nn.modules.fold.Fold is nn.Fold


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_values_and_gradients_are_pytorchs(case, dtype):
    def program(T):
        F = T.nn.functional
        turn = 1 + 2j if dtype.startswith("complex") else 1
        x = (T.arange(48, dtype=T.float64) * turn).reshape(2, 1, 4, 6).requires_grad_()
        cols = F.unfold(x, *case)
        back = F.fold(cols * cols, (4, 6), *case)
        (back * back.conj()).real.sum().backward()
        return cols, back, x.grad

    same(program)


@pytest.mark.parametrize(
    "size, kernel, options, words",
    [
        ((4, 5), (2, 0), {}, "kernel size should be greater than zero"),
        ((4, 5), 2, {"dilation": 0}, "dilation should be greater than zero"),
        ((4, 5), 2, {"padding": -1}, "padding should be non-negative"),
        ((4, 5), 2, {"stride": 0}, "stride should be greater than zero"),
        ((4, 5), 2, {"stride": (1, 1, 1)}, "It is expected stride equals to 2, but got size 3"),
        ((4, 5), (2.0, 2), {}, "must be tuple of ints, but found element of type float at pos 0"),
        ((4,), 2, {}, "It is expected output_size equals to 2, but got size 1"),
        (4, 2, {}, r"sliding blocks 3 \* 3 = 9, but got input.size\(2\)=12"),
        ((1, 5), 2, {}, r"sliding blocks 0 \* 4 = 0, but got input.size\(2\)=12"),
    ],
)
def test_refusals_are_pytorchs(size, kernel, options, words):
    refused(lambda T: T.nn.functional.fold(T.ones(1, 12, 12), size, kernel, **options), words)
