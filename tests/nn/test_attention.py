"""Scaled dot-product attention against PyTorch: values, gradients, dropout's bits, errors."""

import math

import numpy as np
import pytest
from both import refused

import gpunn
import gpunn.nn.functional as F
from gpunn.nn import attention_dropout
from gpunn.nn.attention import SDPBackend, sdpa_kernel

attend = F.scaled_dot_product_attention
TOLERANCE = {"float64": 1e-9, "float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}


def parity(shapes, mask=None, mask_grad=False, dtype="float64", **options):
    """Values and gradients are PyTorch's, after the same seed."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in shapes]
    found = []
    for T, f in ((torch, torch.nn.functional.scaled_dot_product_attention), (gpunn, attend)):
        leaves = [T.from_numpy(a).to(getattr(T, dtype)).requires_grad_() for a in arrays]
        given = None
        if mask is not None:
            given = T.from_numpy(mask)
            if mask.dtype != np.bool_:
                given = given.to(getattr(T, dtype))
            if mask_grad:
                leaves.append(given.requires_grad_())
        T.manual_seed(5)
        y = f(*leaves[:3], attn_mask=given, **options)
        weights = np.random.default_rng(1).normal(size=tuple(y.shape))
        y.backward(T.from_numpy(weights).to(getattr(T, dtype)))
        found.append([x.detach().double().numpy() for x in (y, *(x.grad for x in leaves))])
    for want, got in zip(*found, strict=True):
        assert want.shape == got.shape
        np.testing.assert_allclose(got, want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


SHAPES = [
    ((2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)), ((5, 4), (7, 4), (7, 6)),
    ((5, 4), (2, 7, 4), (2, 7, 6)), ((2, 5, 4), (7, 4), (7, 6)),
    ((2, 1, 5, 4), (1, 3, 7, 4), (2, 3, 7, 6)), ((2, 3, 5, 4), (3, 7, 4), (3, 7, 6)),
    ((2, 2, 3, 5, 4), (2, 2, 3, 7, 4), (2, 2, 3, 7, 4)),
    ((2, 1, 5, 4), (1, 3, 7, 4), (4, 2, 3, 7, 6)), ((2, 3, 5, 4), (2, 1, 7, 4), (2, 1, 7, 6)),
    ((2, 3, 5, 4), (1, 7, 4), (7, 6)), ((2, 3, 5, 4), (2, 3, 0, 4), (2, 3, 0, 6)),
]  # fmt: skip


@pytest.mark.parametrize("shapes", SHAPES)
def test_shapes(shapes):
    for dtype in TOLERANCE:
        parity(shapes, dtype=dtype)
    for options in ({"is_causal": True}, {"scale": -0.3}, {"dropout_p": 0.3}, {"dropout_p": 1.0},
                    {"dropout_p": 0.3, "is_causal": True}, {"dropout_p": -0.5}):  # fmt: skip
        parity(shapes, **options)


@pytest.mark.parametrize("shapes", SHAPES[:-1])
def test_masks(shapes):
    """Of bools and of numbers, with a row that may attend to nothing: zeros."""
    rng = np.random.default_rng(2)
    allow = rng.random((5, 7)) < 0.6
    allow[1] = False
    bias = np.where(allow, rng.normal(size=(5, 7)), -np.inf)
    for mask in (allow, bias, np.where(allow, 0.0, -1e9), allow[:1], allow[:, :1], allow[:1, 0:1]):
        parity(shapes, mask)
    parity(shapes, bias, dropout_p=0.2)
    parity(shapes, bias, mask_grad=True)
    parity(shapes, bias[:1], mask_grad=True)


@pytest.mark.parametrize("rows, columns", [(300, 1000), (1000, 300), (600, 600)])
def test_long_sequences_go_block_by_block(rows, columns):
    shapes = ((2, 2, rows, 4), (2, 2, columns, 4), (2, 2, columns, 5))
    rng = np.random.default_rng(3)
    parity(shapes)
    parity(shapes, is_causal=True)
    parity(shapes, dropout_p=0.5)
    parity(shapes, dropout_p=0.5, is_causal=True)
    parity(shapes, rng.random((2, 1, rows, columns)) < 0.5)
    parity(shapes, rng.normal(size=(2, 1, 1, columns)))


def test_a_mask_that_is_drawn_again_serves_every_body(monkeypatch):
    """As that of long rows; the composed body takes second derivatives and masks' gradients."""
    monkeypatch.setattr(attention_dropout, "_KEPT", 0)
    bias = np.random.default_rng(6).normal(size=(5, 7))
    for shapes in SHAPES[:-1]:
        parity(shapes, dropout_p=0.3)
        parity(shapes, bias, mask_grad=True, dropout_p=0.3)
    x = [gpunn.from_numpy(np.random.default_rng(i).normal(size=(2, 3, 2))).requires_grad_()
         for i in range(3)]  # fmt: skip

    def dropped(*x):
        gpunn.manual_seed(0)
        return attend(*x, dropout_p=0.5)

    assert gpunn.autograd.gradcheck(dropped, x) and gpunn.autograd.gradgradcheck(dropped, x)


@pytest.mark.skipif(gpunn.native.lib() is None, reason=gpunn.native.status())
def test_heads_are_joined_without_a_copy():
    """The result of heads that a view split off lies in memory as PyTorch's does."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    strides = []
    for T in (torch, gpunn):
        q = T.ones(2, 5, 12).reshape(2, 5, 3, 4).transpose(1, 2)
        y = T.nn.functional.scaled_dot_product_attention(q, q, q)
        strides.append((tuple(y.shape), tuple(y.stride())))
    assert strides[0] == strides[1]


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"dropout_p": 0.3}])
def test_grouped_heads(options):
    for q, k, v in ((8, 2, 2), (8, 2, 4), (8, 1, 1), (6, 6, 6)):
        shapes = (2, q, 5, 4), (2, k, 7, 4), (2, v, 7, 6)
        parity(shapes, enable_gqa=True, **options)
        parity([s[1:] for s in shapes], enable_gqa=True, **options)
        parity([shapes[0], *((1, *s[1:]) for s in shapes[1:])], enable_gqa=True, **options)
    allow = np.random.default_rng(4).random((2, 1, 5, 7)) < 0.7
    if "is_causal" not in options:
        parity(((2, 8, 5, 4), (2, 2, 7, 4), (2, 2, 7, 6)), allow, enable_gqa=True, **options)


def test_rows_that_see_nothing_are_zero_and_have_no_gradient():
    x = [gpunn.randn(1, 1, n, 2, requires_grad=True) for n in (2, 3, 3)]
    for mask in (gpunn.zeros(2, 3, dtype=gpunn.bool), gpunn.full((2, 3), -math.inf)):
        y = attend(*x, mask)
        grads = gpunn.autograd.grad(y.sum(), x)
        assert all((g == 0).all() for g in (y, *grads))


def test_keys_that_are_not_seen_may_hold_nan():
    q, k, v = (gpunn.randn(1, 4, 2) for _ in range(3))
    k[0, 2:] = math.nan
    assert attend(q, k, v, is_causal=True)[0, :2].isfinite().all()
    seen = gpunn.tensor([True, True, False, False])
    assert attend(q, k, v, seen.expand(4, 4)).isfinite().all()


def test_derivatives_of_both_orders():
    def leaf(*shape, seed):
        values = np.random.default_rng(seed).normal(size=shape)
        return gpunn.from_numpy(values).requires_grad_()

    mask = gpunn.tensor([[True, False, True], [False, False, False]])
    bias = leaf(2, 3, seed=9)
    x = leaf(2, 2, 2, seed=0), leaf(2, 3, 2, seed=1), leaf(2, 3, 3, seed=2)
    grouped = (leaf(4, 2, 2, seed=3), *x[1:])

    def dropped(*x):
        gpunn.manual_seed(0)
        return attend(*x, dropout_p=0.5)

    for f, inputs in [
        (lambda *x: attend(*x, mask), x), (lambda *x: attend(*x, is_causal=True), x),
        (lambda *x: attend(*x, is_causal=True, enable_gqa=True), grouped), (dropped, x),
        (lambda *x: attend(*x), (*x, bias)),
    ]:  # fmt: skip
        assert gpunn.autograd.gradcheck(f, inputs) and gpunn.autograd.gradgradcheck(f, inputs)


def test_an_input_changed_in_place_is_noticed():
    q, k, v = (gpunn.randn(1, 3, 2, requires_grad=True) for _ in range(3))
    mask = gpunn.zeros(3, 3)
    y = attend(q, k, v, mask)
    mask += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("program, words", [
    (lambda T, r, f: f(r(4), r(4), r(4)), "at least 2 dimensional, but got query.dim: 1"),
    (lambda T, r, f: f(r(5, 4), r(7, 3), r(7, 6)), r"cannot be multiplied \(5x4 and 3x7\)"),
    (lambda T, r, f: f(r(5, 4), r(7, 4), r(6, 6)), r"cannot be multiplied \(5x7 and 6x6\)"),
    (lambda T, r, f: f(r(2, 5, 4), r(2, 7, 3), r(2, 7, 4)),
     r"batch2 tensor to be: \[2, 4\] but got: \[2, 3\]"),
    (lambda T, r, f: f(r(2, 3, 5, 4), r(2, 2, 7, 4), r(2, 2, 7, 6)),
     r"tensor a \(3\) must match the size of tensor b \(2\) at non-singleton dimension 1"),
    (lambda T, r, f: f(r(5, 4), r(7, 4).double(), r(7, 6)),
     "query.dtype: float key.dtype: double and value.dtype: float"),
    (lambda T, r, f: f(r(5, 4), r(7, 4), r(7, 6).half()), "value.dtype: c10::Half"),
    (lambda T, r, f: f(*(r(1, 2, 5, 4).int(),) * 3), "expected scalar type Float but found Int"),
    (lambda T, r, f: f(*(r(5, 4).to(T.complex64),) * 3), "not implemented for 'ComplexFloat'"),
    (lambda T, r, f: f(r(5, 4), r(7, 4), r(7, 4), r(5, 7), is_causal=True),
     "Explicit attn_mask should not be set when is_causal=True"),
    (lambda T, r, f: f(r(5, 4), r(7, 4), r(7, 4), r(5, 7).long()),
     "attn_mask.dtype: long int and  query.dtype: float"),
    (lambda T, r, f: f(r(5, 4), r(7, 4), r(7, 4), r(5, 7).double()), "attn_mask.dtype: double"),
    (lambda T, r, f: f(r(2, 5, 4), r(2, 7, 4), r(2, 7, 4), r(5, 6)),
     r"tensor a \(7\) must match the size of tensor b \(6\) at non-singleton dimension 2"),
    (lambda T, r, f: f(r(1, 5, 4), r(1, 7, 4), r(1, 7, 4), r(2, 5, 7)),
     r"shape \[1, 5, 7\] doesn't match the broadcast shape \[2, 5, 7\]"),
    (lambda T, r, f: f(r(5, 4), r(7, 4), r(7, 4), [1]), "'attn_mask' .*must be Tensor, not"),
    (lambda T, r, f: f([1.0], r(7, 4), r(7, 4)), r"'query' \(position 1\) must be Tensor"),
    (lambda T, r, f: f(r(5, 4), r(7, 4), r(7, 4), scale="a"), "'scale' must be float, not str"),
    (lambda T, r, f: f(r(5, 4), r(7, 4), r(7, 4), None, 0.0, False, 0.5), "positional arguments"),
    (lambda T, r, f: f(r(5, 4), r(7, 4), r(7, 4), dropout_p=1.5), "0 and 1, but got 1.5"),
    (lambda T, r, f: f(r(8, 5, 4), r(3, 7, 4), r(3, 7, 4), enable_gqa=True),
     "must divide the number of heads in "),
    (lambda T, r, f: f(r(5, 4), r(7, 4), r(7, 4), enable_gqa=True), "Dimension out of range"),
])  # fmt: skip
def test_errors(program, words):
    refused(lambda T: program(T, T.ones, T.nn.functional.scaled_dot_product_attention), words)


def test_float32_masks_with_16_bit_inputs():
    q = gpunn.ones(1, 2, 4, dtype=gpunn.float16)
    assert attend(q, q, q, gpunn.zeros(2, 2)).dtype is gpunn.float16


def test_choice_of_backends_is_accepted():
    x = gpunn.ones(1, 2, 4)
    for backends in (SDPBackend.MATH, [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]):
        with sdpa_kernel(backends, set_priority=True):
            assert gpunn.equal(attend(x, x, x), x)
    with pytest.raises(AssertionError, match="Backend must be"), sdpa_kernel("flash"):
        pass
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = {k: int(v) for k, v in torch.nn.attention.SDPBackend.__members__.items()}
    assert {k: int(v) for k, v in SDPBackend.__members__.items()} == theirs
    assert str(SDPBackend.MATH) == str(torch.nn.attention.SDPBackend.MATH)


def test_the_node_has_a_name():
    x = gpunn.ones(1, 2, 4, requires_grad=True)
    assert "ScaledDotProduct" in attend(x, x, x).grad_fn.name()
