"""Layers, containers, losses: PyTorch's `torch.nn`."""

from gpunn.nn.parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter
