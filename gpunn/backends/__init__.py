"""Switches and questions about what computes, under the names of `torch.backends`.

One switch decides whether float32 products may run in TF32 (10 bits of mantissa instead of 23) on
tensor cores: `backends.cuda.allow_tf32`. `backends.cudnn.allow_tf32` and
`backends.cuda.matmul.allow_tf32` are the same switch. It is off, also for convolutions, where
PyTorch has it on: float32 means float32 unless a script asks for less.
`backends.cuda.benchmark` (and `backends.cudnn.benchmark`) lets a convolution time its tiles at the
first call with a shape; what was found is kept in the user's cache folder.

Source: https://docs.pytorch.org/docs/stable/backends.html

>>> gpunn.backends.cudnn.benchmark = True
>>> gpunn.backends.cuda.benchmark
True
>>> gpunn.backends.cudnn.benchmark = False
"""

from gpunn.backends import cpu, cuda, cudnn, mha, mkl, mkldnn, mps, openmp

__all__ = ["cpu", "cuda", "cudnn", "mha", "mkl", "mkldnn", "mps", "openmp"]
