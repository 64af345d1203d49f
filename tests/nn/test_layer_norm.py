"""Layer and RMS normalisation as PyTorch's."""

import pytest
from both import refused, same

import gpunn
import gpunn.nn.functional as F
from gpunn import nn


def values(T, *shape, dtype="float32"):
    n = 1
    for size in shape:
        n *= size
    x = T.arange(n, dtype=T.float64)
    return ((x * 7) % 11 - 4).reshape(shape).to(getattr(T, dtype))


@pytest.mark.parametrize("shape", [(2, 3, 4), (4,), (1, 3, 4)])
def test_shapes_of_rows(shape):
    for last in {shape[-1:], shape[-2:], shape}:
        same(lambda T, last=last: T.nn.functional.layer_norm(values(T, *shape), last))
        same(lambda T, last=last: T.nn.functional.rms_norm(values(T, *shape), last))


@pytest.mark.parametrize("eps", [None, 1e-3, 1])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
def test_rms_norm(eps, dtype):
    def program(T):
        x = values(T, 3, 4, dtype=dtype) * 1e-4
        return T.nn.functional.rms_norm(x, (4,), None, eps).to(T.complex128).abs()

    same(program)


@pytest.mark.parametrize("x, w", [
    ("float16", "float32"), ("float32", "float16"), ("float32", "float64"), ("bfloat16", "float16"),
    ("float64", "float32"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_rms_norm_takes_any_weight(x, w):
    def program(T):
        a, b = values(T, 3, 4, dtype=x).requires_grad_(), values(T, 4, dtype=w).requires_grad_()
        y = T.nn.functional.rms_norm(a, (4,), b)
        y.sum().backward()
        return [str(t.dtype) for t in (y, a.grad, b.grad)], y.float().round(decimals=1)

    same(program)


def test_errors():
    layer = lambda *a: lambda T: T.nn.functional.layer_norm(T.ones(2, 3), *a)  # noqa: E731
    rms = lambda *a: lambda T: T.nn.functional.rms_norm(T.ones(2, 3), *a)  # noqa: E731
    refused(layer((4,)), r"normalized_shape=\[4\], expected input with shape \[\*, 4\]")
    refused(rms((4,)), r"normalized_shape=\[4\], expected input with shape \[\*4\]")
    refused(layer(()), "Expected normalized_shape to be at least 1-dimensional")
    refused(layer(3), "must be tuple of ints, not int")
    refused(layer([3.0]), "but found element of type float at pos 0")
    refused(lambda T: T.nn.functional.layer_norm(T.ones(2, 3), (3,), T.ones(2)),
            r"Expected weight to be of same shape as normalized_shape")  # fmt: skip
    refused(lambda T: T.nn.functional.layer_norm(T.ones(2, 3), (3,), None, T.ones(2)),
            r"Expected bias to be of same shape as normalized_shape")  # fmt: skip
    refused(lambda T: T.nn.functional.layer_norm([1.0], (1,)), "must be Tensor, not list")
    for f in ("layer_norm", "rms_norm"):
        refused(lambda T, f=f: getattr(T.nn.functional, f)(T.ones(2, 3).long(), (3,)),
                "not implemented for 'Long'")  # fmt: skip


@pytest.mark.parametrize("x, w, b, match", [
    ("float32", "float64", "float64", "expect parameter to have scalar type of Float"),
    ("float64", "float32", "float32", "all inputs must share same datatype"),
    ("float16", "bfloat16", "bfloat16", "expect parameter to have scalar type of Float"),
    ("float32", "float32", "float16", "expected scalar type Float but found Half"),
    ("float16", "float16", "float32", "expected scalar type Half but found Float"),
])  # fmt: skip
def test_dtypes_that_do_not_mix(x, w, b, match):
    def program(T):
        weight, bias = (T.ones(3, dtype=getattr(T, d)) for d in (w, b))
        T.nn.functional.layer_norm(T.ones(2, 3, dtype=getattr(T, x)), (3,), weight, bias)

    refused(program, match)


def test_a_parameter_elsewhere():
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        F.layer_norm(gpunn.ones(2, 3), (3,), gpunn.ones(3, device="cpu:1"))


@pytest.mark.parametrize("options", [
    {}, {"eps": 1e-3}, {"bias": False}, {"elementwise_affine": False},
    {"elementwise_affine": False, "bias": True},
])  # fmt: skip
def test_layer_norm_module(options):
    def program(T):
        m = T.nn.LayerNorm((3, 4), **options)
        state = [(k, tuple(v.shape), v.tolist()) for k, v in m.state_dict().items()]
        return repr(m), state, [n for n, _ in m.named_parameters()], m(values(T, 2, 3, 4))

    same(program)


@pytest.mark.parametrize("options", [{}, {"eps": 1e-3}, {"elementwise_affine": False}])
def test_rms_norm_module(options):
    def program(T):
        m = T.nn.RMSNorm(4, **options, dtype=T.float64)
        state = [(k, str(v.dtype), v.tolist()) for k, v in m.state_dict().items()]
        return repr(m), state, m(values(T, 2, 4, dtype="float64"))

    same(program)


def test_reset_parameters():
    for m in (nn.LayerNorm(3), nn.RMSNorm(3)):
        for p in m.parameters():
            p.data.fill_(5)
        m.reset_parameters()
        assert m.weight.tolist() == [1, 1, 1]
        assert getattr(m, "bias", None) is None or m.bias.tolist() == [0, 0, 0]


def test_empty():
    def program(T):
        found = []
        for shape in ((0, 4), (3, 0)):
            x, w = T.ones(*shape, requires_grad=True), T.ones(shape[1], requires_grad=True)
            y = T.nn.functional.layer_norm(x, shape[1:], w)
            y.sum().backward()
            found += [y, x.grad, w.grad, T.nn.functional.rms_norm(x, shape[1:], w)]
        return found

    same(program)
