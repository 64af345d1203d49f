"""The errors of gpunn.distributed are PyTorch's."""

import pytest

from gpunn.distributed import errors


def test_families_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    for name in errors.__all__:
        ours, theirs = getattr(errors, name), getattr(torch.distributed, name)
        assert [c.__name__ for c in ours.__mro__] == [c.__name__ for c in theirs.__mro__]


def test_all_are_runtime_errors():
    for name in errors.__all__:
        with pytest.raises(RuntimeError, match="rank 2"):
            raise getattr(errors, name)("rank 2 is gone")
