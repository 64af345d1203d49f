"""Type aliases: PyTorch's names, of the same parts."""

import pytest

import gpunn
from gpunn.nn import common_types


def test_as_pytorch():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    names = [n for n in dir(torch.nn.common_types) if n.startswith("_") and n.endswith("_t")]
    assert len(names) > 15
    for name in names:
        theirs = str(getattr(torch.nn.common_types, name)).replace("~T", "~_T")
        ours = str(getattr(common_types, name)).replace("gpunn.tensor.Tensor", "torch.Tensor")
        assert ours == theirs.replace("torch._tensor.Tensor", "torch.Tensor"), name


def test_they_annotate():
    def f(kernel_size: common_types._size_2_t) -> gpunn.Tensor: ...

    assert f.__annotations__["kernel_size"] == int | tuple[int, int]
