"""Questions about tensors and dtypes."""

import math

import pytest

import gpunn


def test_what_it_is():
    x = gpunn.ones(2, 3)
    assert gpunn.is_tensor(x) and not gpunn.is_tensor([1])
    assert gpunn.is_tensor(gpunn.nn.Parameter(x))
    assert gpunn.is_floating_point(x) and not gpunn.is_floating_point(x.long())
    assert gpunn.is_complex(x.cfloat()) and not gpunn.is_complex(x)
    assert gpunn.is_signed(x.long()) and not gpunn.is_signed(x.byte())
    assert gpunn.numel(x) == 6 and not gpunn.is_inference(x)
    assert gpunn.is_storage(x.untyped_storage()) and not gpunn.is_storage(x)
    for f in (gpunn.is_floating_point, gpunn.is_complex, gpunn.numel, gpunn.is_nonzero):
        with pytest.raises(TypeError, match="argument 'input' .* must be Tensor, not int"):
            f(1)


def test_nonzero():
    assert gpunn.is_nonzero(gpunn.tensor([2])) and not gpunn.tensor(0.0).is_nonzero()
    for x, message in ((gpunn.ones(2), "more than one value"), (gpunn.ones(0), "no values")):
        with pytest.raises(RuntimeError, match=message):
            gpunn.is_nonzero(x)


def test_the_same_memory():
    x = gpunn.ones(2, 3)
    assert x.is_same_size(gpunn.zeros(2, 3)) and not gpunn.is_same_size(x, x.T)
    assert x.is_set_to(x[:]) and not x.is_set_to(x.clone()) and not x.is_set_to(x[:1])
    assert x.dim_order() == (0, 1) and x.T.dim_order() == (1, 0)
    assert not x.is_mps and not x.is_sparse_csr


def test_result_type():
    small = gpunn.ones(2, dtype=gpunn.int8)
    for a, b, wanted in (
        (1, 2, "int64"), (1, 2.0, "float32"), (small, 1000, "int8"), (small, 1.5, "float32"),
        (small, gpunn.tensor(3), "int8"), (small, gpunn.ones(2).half(), "float16"),
        (gpunn.tensor(1.0, dtype=gpunn.float64), gpunn.ones(2), "float32"),
    ):  # fmt: skip
        assert gpunn.result_type(a, b) is getattr(gpunn, wanted)
    with pytest.raises(TypeError, match="invalid combination"):
        gpunn.result_type("a", 1)


def test_typename_and_constants():
    assert gpunn.typename(gpunn.ones(1).double()) == "torch.DoubleTensor"
    assert gpunn.typename([]) == "list" and gpunn.typename(math.sin) == "math.sin"
    assert gpunn.typename(gpunn.nn.Linear(1, 1)).endswith(".Linear")
    assert (gpunn.inf, gpunn.pi, gpunn.e, gpunn.newaxis) == (math.inf, math.pi, math.e, None)
    assert math.isnan(gpunn.nan)
    assert gpunn.ones(2)[:, gpunn.newaxis].shape == (2, 1)
