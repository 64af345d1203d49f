"""Parity with PyTorch: cases from PyTorch's own generators, run on both packages and compared."""
