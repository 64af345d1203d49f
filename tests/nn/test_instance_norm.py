"""Instance normalisation as PyTorch's."""

import numpy as np
import pytest
from both import refused, same
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)
SHAPES = {1: (2, 3, 5), 2: (2, 3, 4, 2), 3: (2, 3, 2, 2, 2)}


def values(T, *shape):
    return ((T.arange(float(np.prod(shape))) * 7) % 11 - 4).reshape(shape)


@pytest.mark.parametrize("shape", list(SHAPES.values()))
def test_values_and_gradients(shape):
    def normal(x, w, b):
        axes, along = tuple(range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)
        unit = x - x.mean(axes, keepdims=True)
        unit = unit / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
        return unit * w.reshape(along) + b.reshape(along)

    arrays = [rng.normal(size=shape) + 1, rng.normal(size=3), rng.normal(size=3)]
    check(lambda x, w, b: F.instance_norm(x, None, None, w, b), arrays, normal, rtol=8e-2)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", [
    {}, {"affine": True}, {"affine": True, "bias": False}, {"track_running_stats": True},
    {"affine": True, "track_running_stats": True, "momentum": 0.3}, {"momentum": None},
])  # fmt: skip
def test_module(dims, options):
    def program(T):
        m = getattr(T.nn, f"InstanceNorm{dims}d")(3, **options)
        x = values(T, *SHAPES[dims])
        found = [repr(m), m(x), m(x + 1), m(x[0])]
        found += [(k, v) for k, v in m.state_dict().items()]
        return found, m.eval()(x), m(x[0])

    same(program)


@pytest.mark.parametrize("given, match", [
    ({"running_mean": 3}, "running_mean and running_var must either both be None or neither"),
    ({"running_var": 3}, "running_mean and running_var must either both be None or neither be No"),
    ({"weight": 2}, "weight should contain 6 elements not 4"),
    ({"bias": 4}, "bias should contain 6 elements not 8"),
    ({"running_mean": 2, "running_var": 3}, "running_mean should contain 6 elements not 4"),
    ({"use_input_stats": False}, "Expected running_mean and running_var to be defined when use_in"),
])  # fmt: skip
def test_errors(given, match):
    def program(T):
        made = {k: T.ones(v) if type(v) is int else v for k, v in given.items()}
        T.nn.functional.instance_norm(T.ones(2, 3, 4), **made)

    refused(program, match)


@pytest.mark.parametrize("shape", [(2, 3, 1), (2, 3), (2,)])
def test_one_value_has_no_statistics(shape):
    refused(lambda T: T.nn.functional.instance_norm(T.ones(shape)),
            "Expected more than 1 spatial element when training")  # fmt: skip


def test_errors_of_modules():
    refused(lambda T: T.nn.InstanceNorm1d(3)(T.ones(2, 3, 4, 5)), r"expected 2D or 3D input \(got")
    refused(lambda T: T.nn.InstanceNorm3d(3)(T.ones(2, 3)), r"expected 4D or 5D input \(got 2D")
    refused(lambda T: T.nn.InstanceNorm2d(3, affine=True)(T.ones(2, 4, 2, 2)),
            r"expected input's size at dim=1 to match num_features \(3\), but got: 4")  # fmt: skip
    with pytest.warns(UserWarning, match="input's size at dim=1 does not match num_features"):
        nn.InstanceNorm2d(3)(gpunn.randn(2, 4, 2, 2))


def test_states_of_old_files():
    def program(T):
        T.nn.InstanceNorm1d(2).load_state_dict({"running_mean": T.zeros(2)})

    refused(program, r'Unexpected running stats buffer\(s\) "running_mean" for InstanceNorm1d with')


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}])
def test_lazy(dims, options):
    def program(T):
        m = getattr(T.nn, f"LazyInstanceNorm{dims}d")(**options)
        before = repr(m), sorted(m.state_dict())
        y = m(values(T, *SHAPES[dims]))
        return before, repr(m), type(m).__name__, y, [(k, v) for k, v in m.state_dict().items()]

    same(program)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (2, 0, 4)])
def test_empty(shape):
    same(lambda T: T.nn.functional.instance_norm(T.ones(*shape)))
