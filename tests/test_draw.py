"""Draws of real numbers: PyTorch's numbers in value, dtype, shape and state after them."""

import math

import ml_dtypes
import numpy as np
import pytest

from gpunn import draw
from gpunn.device import _ARRAY_MODULE, Device
from gpunn.generator import Generator

torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

_ARRAY_MODULE.setdefault("emulated", lambda device: np)
EMULATED = Device("emulated")
KINDS = {
    "float32": np.dtype(np.float32), "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip
EPS = {"float32": 1e-6, "float64": 1e-14, "float16": 1e-3, "bfloat16": 8e-3}
SIZES = [*range(1, 101), 1000, 4099, 100_003]

# name: (our draw, its arguments, PyTorch's method); exact where no logarithm or sine is in it.
DRAWS = {
    "rand": (draw.uniform, (), lambda t, g: t.uniform_(generator=g)),
    "uniform": (draw.uniform, (-0.3, 0.7), lambda t, g: t.uniform_(-0.3, 0.7, generator=g)),
    "randn": (draw.normal, (), lambda t, g: t.normal_(generator=g)),
    "normal": (draw.normal, (0.3, 0.02), lambda t, g: t.normal_(0.3, 0.02, generator=g)),
    "log_normal": (draw.log_normal, (0.1, 0.5), lambda t, g: t.log_normal_(0.1, 0.5, generator=g)),
    "exponential": (draw.exponential, (1.5,), lambda t, g: t.exponential_(1.5, generator=g)),
    "cauchy": (draw.cauchy, (1.0, 2.0), lambda t, g: t.cauchy_(1.0, 2.0, generator=g)),
}
EXACT = {("rand", kind) for kind in KINDS} | {
    ("uniform", kind) for kind in ("float32", "float16", "bfloat16")
}


def values(array):
    return np.asarray(array, np.float64)


def theirs_as_array(tensor):
    return tensor.double().numpy()


def same_state(ours, theirs):
    """Equal states, but for the rounding of the normal number that is kept back."""
    a, b = ours.get_state().array, theirs.get_state().numpy().copy()
    spare, expected = (s[5024:5032].view(np.float64)[0] for s in (a, b))
    b[5024:5032] = a[5024:5032]
    return np.array_equal(a, b) and math.isclose(spare, expected, rel_tol=1e-14, abs_tol=1e-14)


def pair(seed):
    return Generator().manual_seed(seed), torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DRAWS)
def test_parity(name, kind):
    function, args, method = DRAWS[name]
    ours, theirs = pair(2**32 + 5)
    for n in SIZES:
        expected = theirs_as_array(method(torch.empty(n, dtype=getattr(torch, kind)), theirs))
        found = function((n,), KINDS[kind], ours, *args)
        assert found.dtype == KINDS[kind] and found.shape == (n,)
        if (name, kind) in EXACT:
            assert np.array_equal(values(found), expected), n
        else:
            np.testing.assert_allclose(values(found), expected, rtol=EPS[kind], atol=EPS[kind])
        assert same_state(ours, theirs), n


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_keep_the_second_normal_number(kind):
    ours, theirs = pair(3)
    dtype = KINDS[kind]
    for n in (1, 3, 15, 16, 5, 17, 1, 0, 2, 31, 7):
        for name in ("randn", "rand", "log_normal", "exponential"):
            function, args, method = DRAWS[name]
            expected = theirs_as_array(method(torch.empty(n, dtype=getattr(torch, kind)), theirs))
            np.testing.assert_allclose(
                values(function((n,), dtype, ours, *args)), expected, EPS[kind], EPS[kind]
            )
            assert same_state(ours, theirs), (n, name)


def test_large_float32_normals_differ_by_rounding_only():
    ours, theirs = pair(0)
    found = draw.normal((1 << 18,), np.float32, ours)
    expected = torch.randn(1 << 18, generator=theirs).numpy()
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("kind, size", [("complex64", 3), ("complex64", 40), ("complex128", 40)])
def test_complex(kind, size):
    ours, theirs = pair(7)
    dtype = np.dtype(kind)
    tensor = torch.empty(size, 2, dtype=getattr(torch, kind))
    found = draw.uniform((size, 2), dtype, ours)
    assert found.dtype == dtype
    assert np.array_equal(found, tensor.uniform_(generator=theirs).numpy())
    found, expected = draw.normal((size, 2), dtype, ours), tensor.normal_(generator=theirs).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert draw.uniform((), dtype, ours).shape == ()


LAYOUTS = {
    "transposed": lambda a: a.T,
    "every second": lambda a: a[::2, ::2],
    "permuted": lambda a: a.reshape(5, 2, 8).transpose(2, 0, 1),
    "permuted back": lambda a: a.reshape(5, 2, 8).transpose(1, 2, 0),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_order_of_memory(name, layout):
    function, args, method = DRAWS[name]
    ours, theirs = pair(1)
    base = torch.zeros(10, 8)
    target = {
        "transposed": base.t(), "every second": base[::2, ::2],
        "permuted": base.view(5, 2, 8).permute(2, 0, 1),
        "permuted back": base.view(5, 2, 8).permute(1, 2, 0),
    }[layout]  # fmt: skip
    method(target, theirs)
    found = draw.like(LAYOUTS[layout](np.zeros((10, 8), np.float32)), function, ours, *args)
    np.testing.assert_allclose(found, target.numpy(), rtol=1e-6, atol=1e-6)
    assert same_state(ours, theirs)


def test_like_of_other_dtype_and_no_dimensions():
    assert draw.like(np.zeros(()), draw.uniform, dtype=np.float32).dtype == np.float32
    strides = draw.like(np.zeros((2, 3)).T, draw.normal).strides
    assert strides == torch.randn_like(torch.zeros(2, 3, dtype=torch.double).t()).numpy().strides


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4)])
def test_shapes(shape):
    for function, args, _ in DRAWS.values():
        assert function(shape, np.float32, None, *args).shape == shape


def test_bounds_are_never_reached():
    found = draw.uniform((1 << 16,), np.float16, Generator(), 0.0, 1.0)
    assert found.min() >= 0 and found.max() < 1
    found = draw.uniform((1 << 16,), KINDS["bfloat16"], Generator(), 1.0, 1.0625)
    assert found.max() < 1.0625
    assert (draw.uniform((3,), np.float32, None, 2.0, 2.0) == 2).all()
    assert (draw.normal((20,), np.float32, None, 5.0, 0.0) == 5).all()
    assert not np.signbit(draw.normal((20,), np.float32, None, 0.0, 0.0)).any()


@pytest.mark.parametrize(
    "function, dtype, args, method, error, message",
    [
        (draw.uniform, "float32", (2, 1), "uniform_", RuntimeError, "but found from=2 > to=1"),
        (draw.uniform, "float32", (0, 1e39), "uniform_", RuntimeError, "to is out of bounds for"),
        (draw.uniform, "float32", (math.nan, 1), "uniform_", RuntimeError, "from is out of bounds"),
        (draw.uniform, "float32", (-3e38, 3e38), "uniform_", RuntimeError,
         r"to-from <= std::numeric_limits<Float>::max\(\), but found to=3e\+38 and from=-3e\+38"),
        (draw.uniform, "int32", (), "uniform_", NotImplementedError, "not implemented for 'Int'"),
        (draw.uniform, "bool", (), "uniform_", NotImplementedError, "not implemented for 'Bool'"),
        (draw.normal, "float32", (0, -1), "normal_", RuntimeError,
         "normal expects std >= 0.0, but found std -1"),
        (draw.normal, "float32", (0, math.nan), "normal_", RuntimeError, "but found std nan"),
        (draw.normal, "int64", (), "normal_", NotImplementedError,
         "\"normal_kernel_cpu\" not implemented for 'Long'"),
        (draw.log_normal, "float32", (0, 0), "log_normal_", RuntimeError,
         "log_normal_ expects std > 0.0, but found std=0"),
        (draw.log_normal, "int32", (), "log_normal_", NotImplementedError,
         "\"log_normal_cpu\" not implemented for 'Int'"),
        (draw.exponential, "float32", (0,), "exponential_", RuntimeError,
         "exponential_ expects lambda > 0.0, but found lambda=0"),
        (draw.exponential, "int32", (), "exponential_", RuntimeError,
         "Exponential distribution is a continuous probability distribution. dtype must be a "
         "floating point but you specified Int"),
        (draw.cauchy, "float32", (0, -1), "cauchy_", RuntimeError,
         "cauchy_ expects sigma > 0.0, but found sigma=-1"),
        (draw.cauchy, "int32", (), "cauchy_", RuntimeError,
         "Cauchy distribution is a continuous probability distribution"),
    ],
)  # fmt: skip
def test_errors(function, dtype, args, method, error, message):
    with pytest.raises(error, match=message):
        function((3,), np.dtype(dtype), None, *args)
    with pytest.raises(error, match=message):
        getattr(torch.empty(3, dtype=getattr(torch, dtype)), method)(*args)


def test_a_generator_must_be_one():
    with pytest.raises(TypeError, match="generator must be a gpunn.Generator, not int"):
        draw.uniform((3,), np.float32, 3)


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_counter_stream_has_the_right_moments(kind):
    def draws(function, *args):
        generator = Generator(EMULATED).manual_seed(5)
        return function((40_001,), KINDS[kind], generator, *args, device=EMULATED)

    u, z = draws(draw.uniform, -1.0, 3.0), draws(draw.normal, 1.0, 2.0)
    assert abs(u.mean() - 1) < 0.02 and abs(u.var() - 16 / 12) < 0.02
    assert -1 <= u.min() < -0.99 and 2.99 < u.max() < 3
    assert abs(z.mean() - 1) < 0.03 and abs(z.std() - 2) < 0.03
    assert abs(((z - 1) ** 3).mean()) < 0.4 and abs((((z - 1) / 2) ** 4).mean() - 3) < 0.2
    assert abs(draws(draw.exponential, 2.0).mean() - 0.5) < 0.01
    assert abs(np.median(draws(draw.cauchy, 3.0, 1.0)) - 3) < 0.03
    assert abs(np.log(draws(draw.log_normal, 0.5, 1.0)).mean() - 0.5) < 0.02


def test_counter_stream_does_not_depend_on_what_was_kept():
    generator = Generator(EMULATED).manual_seed(5)
    first = draw.normal((7,), np.float32, generator, device=EMULATED)
    assert generator.get_offset() == 8
    generator.set_offset(0)
    again = draw.normal((9,), np.float32, generator, device=EMULATED)
    assert np.array_equal(first, again[:7])
