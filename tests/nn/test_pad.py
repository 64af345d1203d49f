"""Padding against NumPy's."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F

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
        (lambda: F.pad(gpunn.zeros(1, 3), (1, 0), "reflect", 2.0), ValueError, "value argument"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()
