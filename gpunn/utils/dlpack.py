"""PyTorch's path of the DLPack functions: `from gpunn.utils.dlpack import from_dlpack`."""

from gpunn.ops.interop import from_dlpack, to_dlpack

__all__ = ["from_dlpack", "to_dlpack"]
