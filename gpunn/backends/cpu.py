"""What the processor offers.

Source: https://docs.pytorch.org/docs/stable/backends.html#torch-backends-cpu
"""

from __future__ import annotations


def get_cpu_capability() -> str:
    """The widest instructions that the processor has: "DEFAULT", "AVX2", "AVX512", "NEON", ...

    Source: https://docs.pytorch.org/docs/stable/backends.html#torch.backends.cpu.get_cpu_capability

    >>> gpunn.backends.cpu.get_cpu_capability() in (
    ...     "DEFAULT", "AVX2", "AVX512", "NEON", "SVE", "VSX", "Z VECTOR")
    True
    """
    from numpy._core._multiarray_umath import __cpu_features__ as has

    for feature, name in (
        ("AVX512_SKX", "AVX512"), ("AVX2", "AVX2"), ("SVE", "SVE"), ("NEON", "NEON"),
        ("VSX", "VSX"), ("VX", "Z VECTOR"),
    ):  # fmt: skip
        if has.get(feature):
            return name
    return "DEFAULT"
