"""What PyTorch has beside its older names of mixed precision on CUDA."""

import gpunn
from gpunn.cuda.amp.common import amp_definitely_not_available


def test_it_says_whether_there_is_no_device(emulated):
    assert not amp_definitely_not_available()
    assert gpunn.cuda.amp.amp_definitely_not_available is amp_definitely_not_available
