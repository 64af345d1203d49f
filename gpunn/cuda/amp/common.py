"""What PyTorch has beside its older names of mixed precision on CUDA."""

from gpunn.cuda.detect import is_available

__all__ = ["amp_definitely_not_available"]


def amp_definitely_not_available() -> bool:
    """Whether there is no CUDA device.

    Source: https://github.com/pytorch/pytorch/blob/main/torch/cuda/amp/common.py

    >>> from gpunn.cuda.amp.common import amp_definitely_not_available
    >>> amp_definitely_not_available() == (not gpunn.cuda.is_available())
    True
    """
    return not is_available()
