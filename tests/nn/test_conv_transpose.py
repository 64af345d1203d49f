"""Transposed convolution: its definition, its sizes, the modules."""

import itertools

import numpy as np
import pytest
from both import same
from check import check
from emulated import on_both

import gpunn
import gpunn.nn.functional as F
from gpunn import native, nn

rng = np.random.default_rng(0)


def slow_transpose(x, w, b, stride, padding, output_padding, groups, dilation):
    """The definition: each entry of x adds its multiple of the kernel to the result."""
    places, taps = x.shape[2:], w.shape[2:]
    least = [(n - 1) * s + d * (k - 1) + 1
             for n, k, s, d in zip(places, taps, stride, dilation, strict=True)]  # fmt: skip
    wide = [n + e for n, e in zip(least, output_padding, strict=True)]
    y = np.zeros((x.shape[0], w.shape[1] * groups, *wide))
    split = x.reshape(x.shape[0], groups, -1, *places), w.reshape(groups, -1, *w.shape[1:])
    for place in itertools.product(*map(range, places)):
        for tap in itertools.product(*map(range, taps)):
            steps = zip(place, stride, tap, dilation, strict=True)
            at = tuple(p * s + t * d for p, s, t, d in steps)
            part = np.einsum("ngc,gco->ngo", split[0][(..., *place)], split[1][(..., *tap)])
            y[(..., *at)] += part.reshape(x.shape[0], -1)
    y = y[(..., *(slice(p, n - p) for p, n in zip(padding, wide, strict=True)))]
    return y if b is None else y + b.reshape(-1, *[1] * len(places))


CASES = [  # x, w, stride, padding, output_padding, groups, dilation
    ((2, 4, 5), (4, 3, 3), (1,), (0,), (0,), 1, (1,)),
    ((2, 4, 5), (4, 3, 3), (3,), (2,), (2,), 2, (2,)),
    ((2, 3, 4), (3, 2, 2), (1,), (0,), (1,), 1, (2,)),  # more windows than x has places
    ((2, 4, 3, 4), (4, 2, 3, 2), (2, 1), (1, 0), (1, 0), 2, (1, 1)),
    ((1, 3, 3, 3), (3, 1, 3, 3), (2, 2), (1, 1), (1, 1), 3, (1, 2)),
    ((1, 2, 2, 3, 2), (2, 2, 2, 3, 1), (2, 1, 1), (0, 1, 0), (1, 0, 0), 1, (1, 1, 2)),
]


@pytest.fixture(params=["native", "numpy"])
def path(request, monkeypatch):
    """Both ways to the same numbers."""
    if request.param == "numpy":
        for name in ("conv_forward", "conv_input_grad", "conv_weight_grad"):
            monkeypatch.setattr(native, name, lambda *a, **k: None)
    elif native.lib() is None:
        pytest.skip(f"no C++ library: {native.status()}")


def _function(dims):
    return getattr(F, f"conv_transpose{dims}d")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_transposed_is_the_definition(case, path):
    x_shape, w_shape, *how = case
    b = rng.normal(size=w_shape[1] * how[3])
    check(
        lambda x, w, b: _function(len(how[0]))(x, w, b, *how),
        [rng.normal(size=x_shape), rng.normal(size=w_shape), b],
        lambda x, w, b: slow_transpose(x, w, b, *how), rtol=5e-2,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_a_device(emulated, case):
    x_shape, w_shape, *how = case
    arrays = [rng.normal(size=s) for s in (x_shape, w_shape, (w_shape[1] * how[3],))]
    on_both(lambda x, w, b: _function(len(how[0]))(x, w, b, *how), arrays,
            rtol={"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1})  # fmt: skip


def test_complex_numbers_and_integers():
    x, w = (rng.normal(size=s) + 1j * rng.normal(size=s) for s in ((1, 2, 3), (2, 2, 2)))
    how = ((2,), (0,), (1,), 1, (1,))
    got = F.conv_transpose1d(gpunn.from_numpy(x), gpunn.from_numpy(w), None, *how)
    parts = [slow_transpose(getattr(x, i), getattr(w, j), None, *how) for i, j in
             (("real", "real"), ("imag", "imag"), ("real", "imag"), ("imag", "real"))]  # fmt: skip
    np.testing.assert_allclose(got.numpy(), parts[0] - parts[1] + 1j * (parts[2] + parts[3]))
    ones = gpunn.ones(1, 1, 2, dtype=gpunn.int64)
    assert F.conv_transpose1d(ones, ones, ones[0, 0, :1]).tolist() == [[[2, 3, 2]]]
    with pytest.raises(NotImplementedError, match="not implemented for 'Int'"):
        F.conv_transpose1d(ones.int(), ones.int())


def test_it_is_the_gradient_of_the_convolution():
    x = gpunn.randn(2, 4, 6, 7, requires_grad=True, dtype=gpunn.float64)
    w = gpunn.randn(6, 2, 3, 2, dtype=gpunn.float64)
    y = F.conv2d(x, w, stride=2, padding=1, groups=2)
    g = gpunn.randn(*y.shape, dtype=gpunn.float64)
    y.backward(g)
    back = F.conv_transpose2d(g, w, stride=2, padding=1, output_padding=(1, 1), groups=2)
    np.testing.assert_allclose(back.numpy(), x.grad.numpy(), atol=1e-12)


def test_unbatched_and_empty_input():
    x, w = gpunn.randn(3, 4, 4), gpunn.randn(3, 2, 3, 3)
    assert gpunn.equal(F.conv_transpose2d(x, w), F.conv_transpose2d(x.unsqueeze(0), w)[0])
    assert F.conv_transpose2d(gpunn.zeros(0, 3, 4, 4), w).shape == (0, 2, 6, 6)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"output_padding": -1}, "negative output_padding is not supported"),
        ({"output_padding": 1}, "output padding must be smaller than either stride or dilation"),
        ({"output_padding": (1, 1, 1)}, "expected output_padding to be a single integer value"),
        ({"padding": 5}, r"Calculated output size per channel: \(-3 x -3\). Output size is too"),
        ({"bias": gpunn.zeros(3)}, "Given transposed=1, weight of size .* with 2 elements"),
    ],
)
def test_errors_of_the_transposed_alone(options, words):
    with pytest.raises(RuntimeError, match=words):
        F.conv_transpose2d(gpunn.zeros(1, 4, 5, 5), gpunn.zeros(4, 2, 3, 3), **options)
    with pytest.raises(TypeError, match="must be tuple of ints, not str"):
        F.conv_transpose2d(gpunn.zeros(1, 4, 5, 5), gpunn.zeros(4, 2, 3, 3), padding="same")


def test_torch_level_convolution():
    x, w, up = gpunn.randn(1, 4, 5, 5), gpunn.randn(6, 2, 3, 3), gpunn.randn(4, 3, 3, 3)
    plain = gpunn.convolution(x, w, None, [2], [1], [1], False, [0], 2)
    assert gpunn.equal(plain, gpunn.conv2d(x, w, None, 2, 1, 1, 2))
    back = gpunn.convolution(x, up, None, [2, 2], [1, 1], [1, 1], True, [1, 1], 2)
    assert gpunn.equal(back, gpunn.conv_transpose2d(x, up, None, 2, 1, 1, 2))
    with pytest.raises(TypeError, match="argument 'stride' .position 4. must be tuple of ints"):
        gpunn.convolution(x, w, None, 1, [0], [1], False, [0], 2)
    with pytest.raises(RuntimeError, match="Expected 4-dimensional input for 4-dimensional"):
        gpunn.convolution(x[0], w, None, [1], [0], [1], False, [0], 2)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_values_and_two_gradients_are_pytorchs(name, dtype):
    def program(T):
        def numbers(*shape):
            count = T.arange(int(np.prod(shape)), dtype=T.float64) % 7 - 3
            turned = count * (1 + 2j) if dtype.startswith("complex") else count
            return turned.reshape(shape).requires_grad_()

        inputs = numbers(2, 4, 5, 4), numbers(4, 2, 3, 2), numbers(4)
        how = ((1, 0), 2, (1, 2)) if name == "conv_transpose2d" else ((1, 2), 2)
        y = getattr(T, name)(*inputs, (2, 1), (1, 0), *how)
        first = T.autograd.grad((y * y.conj()).real.sum(), inputs, create_graph=True)
        size = sum((g * g.conj()).real.sum() for g in first)
        return y, first, T.autograd.grad(size, inputs)

    same(program)


# --- sizes --------------------------------------------------------------------------------

NUMBERS = [(k, s, p, d) for k in (1, 2, 3, 5) for s in (1, 2, 3) for p in (0, 1, 2)
           for d in (1, 2)]  # fmt: skip


def _size(function, *arguments, **options):
    """The size of a result, or the error's type."""
    try:
        return function(*arguments, **options).shape[2]
    except RuntimeError:
        return RuntimeError


@pytest.mark.parametrize("k, s, p, d", NUMBERS)
def test_sizes_are_pytorchs(k, s, p, d):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    for n in (1, 4, 7, 8):
        ours, theirs = gpunn.zeros(1, 1, n), torch.zeros(1, 1, n)
        tap, their_tap = gpunn.zeros(1, 1, k), torch.zeros(1, 1, k)
        how = {"stride": s, "padding": p, "dilation": d}
        got = _size(F.conv1d, ours, tap, **how)
        assert got == _size(torch.conv1d, theirs, their_tap, **how), n
        for extra in range(4):
            how["output_padding"] = extra
            got = _size(F.conv_transpose1d, ours, tap, **how)
            assert got == _size(torch.conv_transpose1d, theirs, their_tap, **how), (n, extra)


@pytest.mark.parametrize("n", [7, 8, 9])
@pytest.mark.parametrize("s", [1, 2, 3])
def test_output_size_undoes_a_convolution(n, s):
    down, up = nn.Conv2d(2, 3, 3, s, 1), nn.ConvTranspose2d(3, 2, 3, s, 1)
    x = gpunn.zeros(1, 2, n, n)
    small = down(x)
    assert up(small, output_size=x.size()).shape == x.shape
    assert up(small, output_size=(n, n)).shape == up(small, (1, 2, n, n)).shape == x.shape
    assert up(small[0], output_size=[2, n, n]).shape == x.shape[1:]


# --- modules ------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_module_is_the_function(dims):
    gpunn.manual_seed(0)
    layer = getattr(nn, f"ConvTranspose{dims}d")(4, 6, 3, 2, 1, 1, 2, dilation=2)
    assert layer.weight.shape == (4, 3, *(3,) * dims) and layer.bias.shape == (6,)
    assert list(layer.state_dict()) == ["weight", "bias"] and layer.transposed
    bound = 1 / np.sqrt(3 * 3**dims)
    assert layer.weight.abs().max() <= bound and layer.bias.abs().max() <= bound
    x = gpunn.randn(2, 4, *(3,) * dims)
    wanted = _function(dims)(x, layer.weight, layer.bias, 2, 1, 1, 2, 2)
    assert gpunn.equal(layer(x), wanted)
    assert layer(x).shape == (2, 6, *(8,) * dims)


def test_repr_names_only_what_is_not_the_default():
    layer = nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, False, 2)
    assert repr(layer) == (
        "ConvTranspose2d(4, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), "
        "dilation=(2, 2), output_padding=(1, 1), groups=2, bias=False)"
    )
    lazy = nn.LazyConvTranspose1d(4, 3, output_padding=1)
    text = "LazyConvTranspose1d(0, 4, kernel_size=(3,), stride=(1,), output_padding=(1,))"
    assert repr(lazy) == text


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: nn.ConvTranspose1d(4, 6, 3, padding_mode="reflect"),
         'Only "zeros" padding mode is supported for ConvTranspose1d'),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=0), "groups must be a positive integer"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=3), "in_channels must be divisible by groups"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, groups=4), "out_channels must be divisible by groups"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, 2)(gpunn.zeros(1, 4, 5, 5), [15, 11]),
         r"requested an output size of \[15, 11\], but valid sizes range from \[11, 11\] to "
         r"\[12, 12\] \(for an input of torch.Size\(\[5, 5\]\)\)"),
        (lambda: nn.ConvTranspose2d(4, 6, 3, 2)(gpunn.zeros(1, 4, 5, 5), [15]),
         r"ConvTranspose2D: for 4D input, output_size must have 2 or 4 elements \(got 1\)"),
        (lambda: nn.LazyConvTranspose2d(4, 3, groups=2)(gpunn.zeros(1, 3, 5, 5)),
         "in_channels must be divisible by groups"),
    ],
)  # fmt: skip
def test_errors_of_modules(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_lazy_takes_the_channels_of_the_first_input():
    layer = nn.LazyConvTranspose2d(4, 3, 2, groups=2)
    assert layer(gpunn.zeros(1, 6, 5, 5), output_size=(12, 11)).shape == (1, 4, 12, 11)
    assert layer.weight.shape == (6, 2, 3, 3) and type(layer) is nn.ConvTranspose2d
    with pytest.raises(RuntimeError, match="Expected 3D .unbatched. or 4D"):
        nn.LazyConvTranspose2d(4, 3)(gpunn.zeros(5, 5))
