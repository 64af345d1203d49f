"""GLU against its formula and PyTorch."""

import numpy as np
from both import refused, same
from check import check
from emulated import on_both

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

x = np.random.default_rng(0).normal(size=(4, 6))


def test_values_and_gradients():
    check(F.glu, [x], lambda x: x[:, :3] / (1 + np.exp(-x[:, 3:])), rtol=1e-2)
    check(lambda x: F.glu(x, 0), [x], lambda x: x[:2] / (1 + np.exp(-x[2:])), rtol=1e-2)


def test_an_empty_dimension():
    assert F.glu(gpunn.ones(2, 0)).shape == (2, 0)


def test_16_bits_are_rounded_once():
    z = gpunn.from_numpy(x).bfloat16()
    assert gpunn.equal(F.glu(z), F.glu(z.float()).bfloat16())


def test_what_is_refused():
    refused(lambda T: T.nn.functional.glu(T.ones(3)), "must be even, but dimension 0 is size 3")
    refused(lambda T: T.nn.functional.glu(T.tensor(1.0)), "glu does not support scalars")
    refused(lambda T: T.nn.functional.glu(T.ones(2).long()), "glu_cpu.*'Long'")
    refused(lambda T: T.nn.functional.glu(T.ones(2, 2), 2), "Dimension out of range")


def test_module():
    same(lambda T: repr(T.nn.GLU(1)))
    same(lambda T: T.nn.GLU(0)(T.tensor([[1.0, 2.0], [3.0, 4.0]])))
    assert nn.GLU().dim == -1


def test_on_a_gpu(emulated):
    on_both(F.glu, [x], dtypes=("float32", "bfloat16"))
    on_both(lambda x: F.glu(x, 0), [x], dtypes=("float64",))
