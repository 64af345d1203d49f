"""Convolution: against a loop in NumPy, and NumPy's path against the C++ library's."""

import itertools

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import native
from gpunn.nn import columns

rng = np.random.default_rng(0)


def slow_conv(x, w, b, stride, padding, dilation, groups):
    """The definition, one output place at a time."""
    dims = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0)] + [(p, p) for p in padding])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
    out = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *out))
    per = w.shape[0] // groups
    for place in itertools.product(*map(range, out)):
        window = tuple(
            slice(place[i] * stride[i], place[i] * stride[i] + reach[i], dilation[i])
            for i in range(dims)
        )
        seen = x[(slice(None), slice(None), *window)].reshape(x.shape[0], groups, -1)
        for o in range(w.shape[0]):
            y[(slice(None), o, *place)] = seen[:, o // per] @ w[o].reshape(-1)
    return y if b is None else y + b.reshape(-1, *[1] * dims)


CASES = [
    ((2, 4, 9), (6, 4, 3), (1,), (0,), (1,), 1),
    ((2, 4, 9), (6, 2, 3), (2,), (2,), (2,), 2),
    ((2, 4, 7, 6), (6, 4, 3, 2), (1, 1), (0, 0), (1, 1), 1),
    ((2, 4, 7, 6), (6, 2, 3, 3), (2, 1), (1, 2), (1, 2), 2),
    ((1, 3, 5, 5), (3, 1, 3, 3), (1, 1), (1, 1), (1, 1), 3),
    ((2, 2, 5, 4, 4), (4, 2, 2, 3, 1), (2, 1, 1), (1, 1, 0), (1, 1, 2), 1),
]


@pytest.fixture(params=["native", "numpy"])
def path(request, monkeypatch):
    """Both ways to the same numbers."""
    if request.param == "numpy":
        for name in ("conv_forward", "conv_input_grad", "conv_weight_grad"):
            monkeypatch.setattr(native, name, lambda *a, **k: None)
    elif native.lib() is None:
        pytest.skip(f"no C++ library: {native.status()}")
    return request.param


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv_is_the_definition(case, path):
    x_shape, w_shape, stride, padding, dilation, groups = case
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(stride)]
    arrays = [rng.normal(size=x_shape), rng.normal(size=w_shape), rng.normal(size=w_shape[0])]
    check(
        lambda x, w, b: function(x, w, b, stride, padding, dilation, groups), arrays,
        lambda x, w, b: slow_conv(x, w, b, stride, padding, dilation, groups), rtol=5e-2,
    )  # fmt: skip


def test_columns_in_several_chunks(path, monkeypatch):
    monkeypatch.setattr(columns, "COLUMN_BYTES", 1)
    x, w = rng.normal(size=(5, 2, 6, 6)), rng.normal(size=(3, 2, 3, 3))
    check(F.conv2d, [x, w], lambda x, w: slow_conv(x, w, None, (1, 1), (0, 0), (1, 1), 1),
          dtypes=("float64",))  # fmt: skip


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [3, 4])
def test_same_keeps_the_size_and_pads_more_behind(kernel, dilation):
    x = gpunn.arange(10.0).reshape(1, 1, 10)
    w = gpunn.ones(1, 1, kernel)
    y = F.conv1d(x, w, padding="same", dilation=dilation)
    total = dilation * (kernel - 1)
    padded = np.pad(x.numpy()[0, 0], (total // 2, total - total // 2))
    taps = [padded[i * dilation : i * dilation + 10] for i in range(kernel)]
    np.testing.assert_allclose(y.numpy()[0, 0], sum(taps))


def test_unbatched_input():
    x, w = gpunn.randn(3, 8, 8), gpunn.randn(4, 3, 3, 3)
    assert gpunn.equal(F.conv2d(x, w), F.conv2d(x.unsqueeze(0), w)[0])


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.conv2d(gpunn.zeros(2, 4, 9, 9), gpunn.zeros(8, 3, 3, 3)), RuntimeError,
         "expected input.2, 4, 9, 9. to have 3 channels, but got 4"),
        (lambda: F.conv2d(gpunn.zeros(9, 9), gpunn.zeros(8, 3, 3, 3)), RuntimeError,
         "Expected 3D .unbatched. or 4D"),
        (lambda: F.conv1d(gpunn.zeros(1, 1, 2), gpunn.zeros(1, 1, 3)), RuntimeError,
         "Kernel size can't be greater than actual input size"),
        (lambda: F.conv2d(gpunn.zeros(1, 1, 4, 4), gpunn.zeros(1, 1, 3, 3).double()), RuntimeError,
         "should be the same"),
        (lambda: F.conv2d(gpunn.zeros(1, 1, 4, 4), gpunn.zeros(1, 1, 3, 3), stride=0), RuntimeError,
         "non-positive stride"),
        (lambda: F.conv2d(gpunn.zeros(1, 1, 4, 4), gpunn.zeros(1, 1, 3, 3), gpunn.zeros(2)),
         RuntimeError, "expected bias to be 1-dimensional with 1 elements"),
        (lambda: F.conv2d(gpunn.zeros(1, 1, 4, 4), gpunn.zeros(1, 1, 3, 3), padding="some"),
         RuntimeError, "Invalid padding string"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_channels_last_in_tbc():
    x, w, b = gpunn.randn(5, 2, 3), gpunn.randn(2, 3, 4), gpunn.randn(4)
    wanted = F.conv1d(x.permute(1, 2, 0), w.permute(2, 1, 0), b, padding=1).permute(2, 0, 1)
    assert gpunn.equal(gpunn.conv_tbc(x, w, b, 1), wanted) and wanted.shape == (6, 2, 4)
    with pytest.raises(RuntimeError, match="Input must have 3 dims: time, batch, in_channel"):
        F.conv_tbc(x[0], w, b)
    with pytest.raises(RuntimeError, match="Weight tensor must have 3 dims"):
        F.conv_tbc(x, w[0], b)
    with pytest.raises(RuntimeError, match="is not == dim 1 in the weight tensor"):
        F.conv_tbc(x, w[:, :2], b)
    with pytest.raises(RuntimeError, match="Bias size must equal dim 2 in the weight tensor"):
        F.conv_tbc(x, w, b[:3])


def test_depthwise_then_pointwise_is_a_convolution_of_low_rank():
    x, depth, point = gpunn.randn(2, 3, 6, 6), gpunn.randn(3, 1, 3, 3), gpunn.randn(5, 3, 1, 1)
    both = F.conv2d(F.conv2d(x, depth, padding=1, groups=3), point)
    whole = point * depth.reshape(1, 3, 3, 3)
    np.testing.assert_allclose(both.numpy(), F.conv2d(x, whole, padding=1).numpy(), atol=1e-4)


def test_the_gradient_of_a_bias_in_half_precision_is_rounded_once():
    x, w = gpunn.ones(1, 1, 1000), gpunn.ones(1, 1, 1)
    for function in (F.conv1d, F.conv_transpose1d):
        b = gpunn.zeros(1, dtype=gpunn.bfloat16, requires_grad=True)
        function(x.bfloat16(), w.bfloat16(), b).sum().backward()
        assert b.grad.item() == 1000
