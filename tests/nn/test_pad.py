"""Padding against NumPy's."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)
MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pad", [(2, 1), (1, 2, 0, 3)])
def test_modes(mode, pad):
    shape = (2, 3, 4, 5)[: 3 if len(pad) == 2 else 4]
    pairs = [(0, 0)] * (len(shape) - len(pad) // 2)
    pairs += [(pad[i], pad[i + 1]) for i in reversed(range(0, len(pad), 2))]
    check(lambda x: F.pad(x, pad, mode), [rng.normal(size=shape)],
          lambda x: np.pad(x, pairs, mode=MODES[mode]))  # fmt: skip


def test_constants_of_other_types():
    x = gpunn.ones(2)
    assert F.pad(x, (1, 0), value=gpunn.tensor(2.0)).tolist() == [2, 1, 1]
    assert gpunn.constant_pad_nd(x, (1, 0), gpunn.tensor(2.0)).tolist() == [2, 1, 1]
    assert gpunn.constant_pad_nd(x + 0j, (0, 1), 1j).tolist() == [1, 1, 1j]


def test_constant_value_and_negative_counts():
    assert F.pad(gpunn.tensor([1, 2, 3]), (1, -1), value=7).tolist() == [7, 1, 2]


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.pad(gpunn.zeros(3), (1,)), RuntimeError, "divisible by 2"),
        (lambda: F.pad(gpunn.zeros(3), (1, 1, 1, 1)), RuntimeError, "less than or equal to two"),
        (lambda: F.pad(gpunn.zeros(3), (-2, -2)), RuntimeError, "negative output size"),
        (lambda: F.pad(gpunn.zeros(1, 3), (3, 0), "reflect"), RuntimeError, "should be less than"),
        (lambda: F.pad(gpunn.zeros(1, 3), (4, 0), "circular"), RuntimeError, "wrapping around"),
        (lambda: F.pad(gpunn.zeros(1, 3), (1, 0), "mirror"), NotImplementedError, "Unrecognised"),
        (lambda: F.pad(gpunn.zeros(1, 3), (1, 0), "reflect", 2.0), RuntimeError, "value argument"),
        (lambda: F.pad(gpunn.zeros(1, 3), (-3, 1), "circular"), RuntimeError, "empty dimension"),
        (lambda: F.pad(gpunn.zeros(1, 3), (-2, -1), "replicate"), RuntimeError, "is too small"),
        (lambda: F.pad(gpunn.zeros(2, 0, 3), (1, 1), "reflect"), RuntimeError, "Expected 2D or 3D"),
        (lambda: F.pad(gpunn.zeros(3), (1, 1), "reflect"), NotImplementedError, "not supported"),
        (lambda: F.pad(gpunn.zeros(1, 3), (1.5, 1)), TypeError, "element of type float at pos 0"),
        (lambda: F.pad(gpunn.zeros(1, 3), (True, 1)), TypeError, "element of type bool at pos 0"),
        (lambda: F.pad(gpunn.zeros(1, 3), 1), TypeError, "must be tuple of ints, not int"),
        (lambda: F.pad(gpunn.zeros(3), (1, 1), value=1j), TypeError, "must be float, not complex"),
        (lambda: F.pad(gpunn.zeros(1, 3) > 0, (1, 0), "reflect"), NotImplementedError, "'Bool'"),
        (lambda: nn.CircularPad1d(1)(gpunn.zeros(3)), ValueError, "expected 2D or 3D input"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "name, mode", [("Zero", "constant"), ("Constant", "constant"), ("Reflection", "reflect"),
                   ("Replication", "edge"), ("Circular", "wrap")],
)  # fmt: skip
def test_modules(name, mode, dims):
    cls, x = getattr(nn, f"{name}Pad{dims}d"), rng.normal(size=(2, 3, 4, 5)[: dims + 1])
    counts = (1, 2, 2, 0, 1, 1)[: 2 * dims]
    more = {"constant_values": 7.0} if name == "Constant" else {}
    pairs = [(0, 0), *((counts[i], counts[i + 1]) for i in reversed(range(0, 2 * dims, 2)))]
    layer = cls(counts, *more.values())
    check(layer, [x], lambda x: np.pad(x, pairs, mode, **more))
    assert cls(1, *more.values()).padding == (1,) * (2 * dims)
    shown = f"padding={counts}, value=7.0" if more else f"{counts}"
    assert repr(layer) == f"{name}Pad{dims}d({shown})"


def test_zero_padding_is_a_constant_padding():
    layer = nn.ZeroPad2d(1)
    assert isinstance(layer, nn.ConstantPad2d) and layer.value == 0.0
