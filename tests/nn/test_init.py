"""nn.init: PyTorch's numbers for PyTorch's seeds."""

import numpy as np
import pytest

import gpunn
from gpunn import nn

FILLS = [
    ("uniform_", (3, 5), {}),
    ("uniform_", (40,), {"a": -2.0, "b": 3.0}),
    ("normal_", (3, 5), {}),
    ("normal_", (7, 9), {"mean": 1.0, "std": 0.1}),
    ("trunc_normal_", (50, 3), {}),
    ("trunc_normal_", (3, 4), {"mean": 1.0, "std": 2.0, "a": -1.0, "b": 1.5}),
    ("trunc_normal_", (60,), {"a": 1.5, "b": 4.0}),
    ("trunc_normal_", (5, 8), {"mean": 0.0, "std": 1.0, "a": -0.1, "b": 0.2}),
    ("constant_", (2, 3), {"val": 0.3}),
    ("ones_", (2, 3), {}),
    ("zeros_", (2, 3), {}),
    ("eye_", (3, 5), {}),
    ("eye_", (5, 3), {}),
    ("dirac_", (4, 3, 5), {}),
    ("dirac_", (4, 3, 2, 3), {}),
    ("dirac_", (6, 3, 3, 3, 4), {"groups": 2}),
    ("xavier_uniform_", (5, 4), {"gain": 1.7}),
    ("xavier_uniform_", (5, 4, 3, 3), {}),
    ("xavier_normal_", (5, 4, 3), {"gain": 0.5}),
    ("kaiming_uniform_", (5, 4, 3, 3), {"a": 5**0.5}),
    ("kaiming_uniform_", (5, 4), {"mode": "fan_out", "nonlinearity": "relu"}),
    ("kaiming_normal_", (6, 7), {"nonlinearity": "tanh"}),
    ("kaiming_normal_", (6, 7, 2), {"mode": "FAN_OUT", "a": 0.2}),
    ("sparse_", (10, 6), {"sparsity": 0.35, "std": 0.5}),
    ("sparse_", (3, 4), {"sparsity": 0.0}),
]  # fmt: skip


def filled(T, name, shape, options, dtype="float32"):
    T.manual_seed(3)
    t = T.nn.Parameter(T.zeros(shape, dtype=getattr(T, dtype)))
    returned = getattr(T.nn.init, name)(t, **options)
    assert returned is t and t.requires_grad and t.grad_fn is None
    return np.asarray(t.detach().to(T.float64).numpy()), T.rand(3).numpy()


@pytest.mark.parametrize(("name", "shape", "options"), FILLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_numbers_as_torch(name, shape, options, dtype):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    ours, after = filled(gpunn, name, shape, options, dtype)
    theirs, after_theirs = filled(torch, name, shape, options, dtype)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(after, after_theirs)


@pytest.mark.parametrize("shape", [(4, 4), (3, 7), (7, 3), (4, 3, 2), (1, 5)])
def test_orthogonal(shape):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    ours, _ = filled(gpunn, "orthogonal_", shape, {"gain": 1.5})
    theirs, _ = filled(torch, "orthogonal_", shape, {"gain": 1.5})
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    flat = ours.reshape(shape[0], -1) / 1.5
    product = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_",
     "kaiming_uniform_", "kaiming_normal_", "orthogonal_"],
)  # fmt: skip
def test_generators(name):
    fill = getattr(nn.init, name)
    gpunn.manual_seed(0)
    state = gpunn.get_rng_state().tolist()
    first = fill(gpunn.empty(4, 5), generator=gpunn.Generator().manual_seed(5))
    again = fill(gpunn.empty(4, 5), generator=gpunn.Generator().manual_seed(5))
    other = fill(gpunn.empty(4, 5), generator=gpunn.Generator().manual_seed(6))
    assert first.tolist() == again.tolist() != other.tolist()
    assert gpunn.get_rng_state().tolist() == state


def test_sparse_takes_the_values_of_a_generator_and_the_places_of_the_default_one():
    gpunn.manual_seed(0)
    t = nn.init.sparse_(gpunn.empty(6, 2), 0.5, generator=gpunn.Generator().manual_seed(1))
    assert (t == 0).sum(0).tolist() == [3, 3]


def test_half_precision_stays_in_bounds(same_as_torch):
    def scenario(T):
        T.manual_seed(0)
        found = []
        for dtype in (T.float16, T.bfloat16):
            t = T.nn.init.trunc_normal_(T.empty(200, dtype=dtype), a=-0.7, b=0.9)
            found.append((str(t.dtype), bool((t >= -0.703125).all()), bool((t <= 0.90).all())))
        return found

    same_as_torch(scenario)


def test_calculate_gain(same_as_torch, error):
    def scenario(T):
        gain = T.nn.init.calculate_gain
        names = ["linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
                 "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]  # fmt: skip
        found = [gain(name) for name in names] + [gain("leaky_relu", 2), gain("leaky_relu", 0.3)]
        return found + [error(gain, "nope"), error(gain, "leaky_relu", True),
                        error(gain, "leaky_relu", "x")]  # fmt: skip

    same_as_torch(scenario)


def test_errors(same_as_torch, error):
    def scenario(T):
        init, flat, square = T.nn.init, T.ones(3), T.ones(3, 3)
        return [
            error(init.eye_, flat), error(init.dirac_, square), error(init.orthogonal_, flat),
            error(init.sparse_, flat, 0.5), error(init.xavier_uniform_, flat),
            error(init.xavier_normal_, flat), error(init.kaiming_normal_, flat),
            error(init.kaiming_uniform_, square, mode="fan"),
            error(init.kaiming_uniform_, square, nonlinearity="nope"),
            error(init.dirac_, T.ones(3, 2, 2), groups=2),
        ]  # fmt: skip

    same_as_torch(scenario)


def test_warnings():
    for fill in (nn.init.kaiming_uniform_, nn.init.kaiming_normal_):
        with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op"):
            assert fill(gpunn.empty(0, 3)).shape == (0, 3)
    with pytest.warns(UserWarning, match="mean is more than 2 std from"):
        nn.init.trunc_normal_(gpunn.empty(3), mean=10.0)
    assert nn.init.orthogonal_(gpunn.empty(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    "name",
    ["uniform", "normal", "constant", "eye", "dirac", "xavier_uniform", "xavier_normal",
     "kaiming_uniform", "kaiming_normal", "orthogonal", "sparse"],
)  # fmt: skip
def test_deprecated_names(name):
    arguments = {"constant": (0.5,), "sparse": (0.5,)}.get(name, ())
    t = gpunn.empty((2, 2, 3) if name == "dirac" else (2, 3))
    old = getattr(nn.init, name)
    message = f"`nn.init.{name}` is now deprecated in favor of `nn.init.{name}_`"
    with pytest.warns(FutureWarning, match=message):
        assert old(t, *arguments) is t
    assert old.__name__ == name
