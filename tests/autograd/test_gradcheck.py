"""gradcheck finds wrong gradients, and says which."""

import pytest

import gpunn
from gpunn.autograd import gradcheck, gradgradcheck
from gpunn.autograd.gradcheck import GradcheckError


class Wrong(gpunn.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        return x * 2, y * 3

    @staticmethod
    def backward(ctx, a, b):
        return a * 2, b * 4


def _leaf(*values, dtype=gpunn.float64):
    return gpunn.tensor(list(values), dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("fast", [False, True])
def test_a_wrong_gradient_is_named(fast):
    x, y = _leaf(1.0, 2.0), _leaf(3.0)
    with pytest.raises(GradcheckError) as error:
        gradcheck(Wrong.apply, (x, y), fast_mode=fast)
    text = str(error.value)
    assert "Jacobian mismatch for output 1 with respect to input 1" in text
    assert "numerical:tensor([[3.0000]]" in text and "analytical:tensor([[4.]]" in text
    assert not gradcheck(Wrong.apply, (x, y), fast_mode=fast, raise_exception=False)
    assert gradcheck(lambda x, y: Wrong.apply(x, y)[0], (x, y), fast_mode=fast)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    "f",
    [gpunn.exp, gpunn.abs, lambda z: z * z.conj(), lambda z: z.real, lambda z: z.prod()],
    ids=["exp", "abs", "squared", "real", "prod"],
)
def test_complex_inputs(f, fast):
    z = _leaf(1 + 2j, 3 - 1j, dtype=gpunn.complex128)
    assert gradcheck(f, z, fast_mode=fast) and gradgradcheck(f, (z,), fast_mode=fast)


class WrongComplex(gpunn.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z * 2j

    @staticmethod
    def backward(ctx, g):
        return g * 2j  # the conjugate is missing


@pytest.mark.parametrize("fast", [False, True])
def test_a_wrong_complex_gradient(fast):
    z = _leaf(1 + 2j, dtype=gpunn.complex128)
    with pytest.raises(GradcheckError, match="part of complex outputs only, Jacobian mismatch"):
        gradcheck(WrongComplex.apply, z, fast_mode=fast)


def test_inputs_that_are_no_tensors_and_several_outputs():
    x = _leaf(0.3, 0.6)
    assert gradcheck(lambda x, n, s: (x**n, s, x.sum(), x > 0), (x, 3, "text"))


def test_what_it_refuses():
    x = _leaf(1.0, 2.0)
    with pytest.raises(ValueError, match="expects at least one input tensor to require gradient"):
        gradcheck(gpunn.exp, (gpunn.ones(2),))
    with pytest.raises(RuntimeError, match="The 0th input has a dimension with stride 0"):
        gradcheck(gpunn.exp, (x.expand(3, 2),))
    with pytest.raises(ValueError, match="forward-mode"):
        gradcheck(gpunn.exp, (x,), check_forward_ad=True)
    with pytest.warns(UserWarning, match="Input #0 requires gradient and is not a double"):
        gradcheck(gpunn.exp, (_leaf(1.0, dtype=gpunn.float32),), eps=1e-2, atol=1e-1, rtol=1e-1)


def test_an_output_without_gradient_must_not_depend_on_the_input():
    x = _leaf(1.0, 2.0)
    assert gradcheck(lambda x: (x > 0).double(), (x,))
    with pytest.raises(GradcheckError, match="Numerical gradient for function expected to be zero"):
        gradcheck(lambda x: x.detach() * 2, (x,))


def test_backward_passes_that_differ():
    class Random(gpunn.autograd.Function):
        count = 0

        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            Random.count += 1
            return g * (2 + 1e-7 * Random.count)

    x = _leaf(1.0)
    with pytest.raises(GradcheckError, match="Backward is not reentrant"):
        gradcheck(Random.apply, (x,))
    assert gradcheck(Random.apply, (x,), nondet_tol=1e-3)


def test_gradients_that_ignore_what_arrives():
    class Constant(gpunn.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 0 + 2

    with pytest.raises(GradcheckError, match="backward not multiplied by grad_output"):
        gradcheck(Constant.apply, (_leaf(1.0),))


def test_second_order_finds_a_constant_that_is_none():
    class Half(gpunn.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.x = x.detach()
            return x**2

        @staticmethod
        def backward(ctx, g):
            return g * 2 * ctx.x

    x = _leaf(1.0, 2.0)
    assert gradcheck(Half.apply, (x,))
    with pytest.raises(GradcheckError):
        gradgradcheck(Half.apply, (x,))
    assert gradgradcheck(gpunn.exp, (x,), gen_non_contig_grad_outputs=True)
    assert gradgradcheck(gpunn.exp, (x,), grad_outputs=(gpunn.ones(2).double(),))


def test_inputs_are_as_they_were():
    x = _leaf(1.0, 2.0)
    gradcheck(gpunn.exp, (x,))
    assert x.tolist() == [1.0, 2.0] and x.grad is None
