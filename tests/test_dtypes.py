"""dtypes and their promotion."""

import pickle

import numpy as np
import pytest

import gpunn
from gpunn import dtypes

F, D, H, B, L = gpunn.float32, gpunn.float64, gpunn.float16, gpunn.bfloat16, gpunn.int64


@pytest.mark.parametrize(
    "a, b, wanted",
    [
        (L, F, F), (L, H, H), (gpunn.uint8, gpunn.int8, gpunn.int16), (H, B, F), (F, D, D),
        (gpunn.bool, gpunn.uint8, gpunn.uint8), (gpunn.complex64, D, gpunn.complex128),
        (gpunn.complex64, H, gpunn.complex64), (gpunn.uint8, gpunn.int32, gpunn.int32),
    ],
)  # fmt: skip
def test_promotion(a, b, wanted):
    assert gpunn.promote_types(a, b) is wanted and gpunn.promote_types(b, a) is wanted


def test_numbers_and_0_dim_tensors_count_only_by_category():
    x = gpunn.ones(2)
    assert (x + 1.0).dtype is F and (x + gpunn.tensor(1.0, dtype=D)).dtype is F
    assert (gpunn.ones(2, dtype=L) + 1.5).dtype is F
    assert (gpunn.ones(2, dtype=L) + gpunn.tensor(1.5, dtype=D)).dtype is D
    assert (x + 1j).dtype is gpunn.complex64
    assert (gpunn.ones(2, dtype=gpunn.int32) / 2).dtype is F
    assert gpunn.ones(2, dtype=gpunn.int32).sum().dtype is L
    assert (gpunn.ones(2, dtype=B) * 2.0).dtype is B
    assert (gpunn.ones(2, dtype=H) + gpunn.ones(2, dtype=B)).dtype is F


def test_bfloat16_is_summed_in_float32():
    assert gpunn.ones(65536, dtype=B).sum().item() == 65536
    assert gpunn.ones(65536, dtype=B).mean().item() == 1
    a = gpunn.full((1, 4096), 1.0, dtype=B)
    assert (a @ a.T).item() == 4096


def test_unsigned_types_do_not_mix():
    with pytest.raises(RuntimeError, match="uint16"):
        gpunn.promote_types(gpunn.uint16, gpunn.int32)


def test_default_dtype():
    assert gpunn.tensor(1.0).dtype is F
    try:
        gpunn.set_default_dtype(D)
        assert gpunn.tensor(1.0).dtype is D and gpunn.zeros(1).dtype is D
    finally:
        gpunn.set_default_dtype(F)
    with pytest.raises(TypeError, match="floating-point"):
        gpunn.set_default_dtype(L)


def test_limits():
    assert gpunn.finfo(B).eps == 0.0078125 and gpunn.finfo(F).bits == 32
    assert gpunn.iinfo(gpunn.uint8).max == 255
    with pytest.raises(TypeError, match="iinfo"):
        gpunn.finfo(L)
    with pytest.raises(TypeError, match="finfo"):
        gpunn.iinfo(F)


def test_each_is_one_object_with_pytorchs_name():
    for d in dtypes.ALL:
        assert pickle.loads(pickle.dumps(d)) is d and repr(d) == f"torch.{d.name}"
        assert dtypes.of(d.numpy) is d


def test_numpy_types_without_counterpart_are_named():
    with pytest.raises(TypeError, match="can't convert np.ndarray of type"):
        gpunn.from_numpy(np.array(["a"]))


def test_can_cast():
    assert gpunn.can_cast(D, F) and not gpunn.can_cast(F, L) and gpunn.can_cast(L, gpunn.int8)
    x = gpunn.ones(2, dtype=L)
    with pytest.raises(RuntimeError, match="result type Float can't be cast to the desired output"):
        x += 1.5
    assert x.tolist() == [1, 1]
