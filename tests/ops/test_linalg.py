"""Matrix products and their errors."""

import numpy as np
import pytest
from check import check

import gpunn

rng = np.random.default_rng(0)
SHAPES = [
    ((3, 4), (4, 5)), ((4,), (4,)), ((3, 4), (4,)), ((4,), (4, 5)), ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4,)), ((4,), (2, 4, 5)), ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 3)), ((0, 4), (4, 5)), ((3, 0), (0, 5)), ((2, 3, 0), (0, 5)),
]  # fmt: skip


def arrays(*shapes):
    return [np.asarray(rng.normal(size=s)) for s in shapes]


@pytest.mark.parametrize("a, b", SHAPES)
def test_matmul(a, b):
    check(gpunn.matmul, arrays(a, b), np.matmul)


def test_matmul_as_operator_method_and_out():
    a, b = gpunn.ones(2, 3), gpunn.ones(3, 2)
    out = gpunn.empty(2, 2)
    assert gpunn.matmul(a, b, out=out) is out
    for y in (a @ b, a.matmul(b), a.mm(b), gpunn.linalg.matmul(a, b), out):
        assert y.tolist() == [[3, 3], [3, 3]]


@pytest.mark.parametrize("dtype", ["int64", "uint8", "complex64", "int32"])
def test_matmul_of_other_dtypes(dtype):
    a, b = (x.astype(dtype) for x in (rng.integers(0, 9, (2, 3, 4)), rng.integers(0, 9, (4, 2))))
    got = gpunn.from_numpy(a) @ gpunn.from_numpy(b)
    assert got.dtype is getattr(gpunn, dtype)
    np.testing.assert_array_equal(got.numpy(), a @ b)


def test_the_gradient_of_a_complex_product():
    a, b = (gpunn.tensor(rng.normal(size=s) + 1j * rng.normal(size=s), requires_grad=True)
            for s in ((2, 3, 4), (4, 2)))  # fmt: skip
    assert gpunn.autograd.gradcheck(gpunn.matmul, (a, b))
    assert gpunn.autograd.gradgradcheck(gpunn.matmul, (a, b))
    v = b[:, 0].detach().requires_grad_()
    assert gpunn.autograd.gradcheck(gpunn.vdot, (v, b[:, 1]))


def test_half_precision_is_rounded_once():
    a = gpunn.full((1, 4096), 0.1, dtype=gpunn.float16)
    exact = float(np.float16(0.1)) ** 2 * 4096
    assert (a @ a.T).item() == np.float16(exact)


@pytest.mark.parametrize(
    "a, b, message",
    [
        ((2, 3), (2, 3), r"mat1 and mat2 shapes cannot be multiplied \(2x3 and 2x3\)"),
        ((5, 2, 3), (2, 3), r"\(10x3 and 2x3\)"),
        ((2, 3), (5, 2, 3), r"batch2 tensor to be: \[5, 3\] but got: \[5, 2\]"),
        ((5, 2, 3), (4, 3, 2), r"The size of tensor a \(5\) must match the size of tensor b \(4\)"),
        ((2, 3), (2,), r"size mismatch, got input \(2\), mat \(2x3\), vec \(2\)"),
        ((2,), (3,), "inconsistent tensor size"),
        ((), (3,), "both arguments to matmul need to be at least 1D, but they are 0D and 1D"),
    ],
)
def test_shapes_that_do_not_fit(a, b, message):
    with pytest.raises(RuntimeError, match=message):
        gpunn.ones(a) @ gpunn.ones(b)


def test_dtypes_that_do_not_fit():
    one = gpunn.ones(2, 2)
    for a, b, message in (
        (one, one.double(), "expected m1 and m2 to have the same dtype, but got: float != double"),
        (one[0], one[0].half(), "dot : expected both vectors to have same dtype"),
        (one[None], one[None].long(), "expected scalar type Float but found Long"),
    ):
        with pytest.raises(RuntimeError, match=message):
            a @ b
    with pytest.raises(RuntimeError, match="not implemented for 'Bool'"):
        one.bool() @ one.bool()
    with pytest.raises(RuntimeError, match="same device"):
        one @ one.to("cpu:1")
    with pytest.raises(TypeError, match="must be Tensor, not int"):
        gpunn.matmul(one, 1)
    assert (one.to("cpu:1") @ one.to("cpu:1")).device.index == 1


def test_products_of_fixed_dimensions():
    check(gpunn.mm, arrays((3, 4), (4, 2)), np.matmul)
    check(gpunn.bmm, arrays((2, 3, 4), (2, 4, 5)), np.matmul)
    check(gpunn.mv, arrays((3, 4), (4,)), np.matmul)
    check(gpunn.dot, arrays((4,), (4,)), np.dot)
    check(gpunn.vdot, arrays((4,), (4,)), np.vdot)
    check(gpunn.outer, arrays((4,), (3,)), np.outer)
    check(gpunn.ger, arrays((4,), (3,)), np.outer)
    for shapes in (((4,), (4,)), ((2, 3, 4), (5, 4)), ((2, 4), (4,)), ((), (3,))):
        check(gpunn.inner, arrays(*shapes), np.inner)
    check(gpunn.chain_matmul, arrays((2, 3), (3, 4), (4, 2)), lambda a, b, c: a @ b @ c)
    one = gpunn.ones(1, 1)
    assert gpunn.chain_matmul(one) is one


@pytest.mark.parametrize(
    "name, shapes, message",
    [
        ("mm", ((3,), (3, 2)), "self must be a matrix"),
        ("mm", ((2, 3), (3,)), "mat2 must be a matrix"),
        ("bmm", ((2, 3), (1, 3, 2)), "batch1 must be a 3D tensor"),
        ("bmm", ((1, 2, 3), (2, 3, 2)), r"tensor to be: \[1, 3\] but got: \[2, 3\]"),
        ("mv", ((2,), (2,)), "vector \\+ matrix @ vector expected, got 1, 1, 1"),
        ("dot", ((2, 2), (2,)), "1D tensors expected, but got 2D and 1D tensors"),
        ("inner", ((2, 3), (2, 4)), "the last dimension must match on both input tensors"),
        ("outer", ((2, 3), (2,)), "outer: Expected 1-D argument self, but got 2-D"),
    ],
)
def test_dimensions_that_are_wanted(name, shapes, message):
    with pytest.raises(RuntimeError, match=message):
        getattr(gpunn, name)(*(gpunn.ones(s) for s in shapes))
