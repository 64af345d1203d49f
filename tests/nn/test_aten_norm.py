"""The normalisations of the top namespace."""

import pytest
from both import same

import gpunn


def test_their_arguments_are_pytorchs():
    def program(T):
        x, c = T.arange(24.0).reshape(2, 3, 4), T.tensor([1.0, 2.0, 3.0])
        mean, variance = T.zeros(3), T.ones(3)
        return [
            T.layer_norm(x, (4,), None, None, 1e-3, False), T.rms_norm(x, (4,)),
            T.group_norm(x, 3, c, c, 1e-3, False),
            T.batch_norm(x, c, None, mean, variance, True, 0.3, 1e-3, False),
            T.instance_norm(x, None, c, mean, variance, True, 0.3, 1e-3, False), mean, variance,
        ]  # fmt: skip

    same(program)


def test_missing_arguments():
    with pytest.raises(TypeError):
        gpunn.batch_norm(gpunn.ones(2, 3))
