"""The windows of a pooling: where each lies in the input, and how many there are."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace as ns

Ints = tuple[int, ...]


class Windows:
    """The geometry of one pooling: where each tap of the window lies in the padded input."""

    __slots__ = ("size", "kernel", "stride", "padding", "dilation", "out")

    def __init__(
        self, name: str, size: Ints, kernel: Any, stride: Any, padding: Any, dilation: Any,
        ceil_mode: bool,
    ):  # fmt: skip
        d = len(size)
        self.size = size
        self.kernel = spread(kernel, d, name, "kernel_size")
        self.stride = self.kernel if stride is None or stride == [] or stride == () else spread(
            stride, d, name, "stride"
        )  # fmt: skip
        self.padding = spread(padding, d, name, "padding")
        self.dilation = spread(dilation, d, name, "dilation")
        self._check(name)
        self.out = tuple(
            length(*row, ceil_mode)
            for row in zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        if any(n < 1 for n in self.out):
            raise RuntimeError(
                f"{name}: input of spatial size {size} with kernel {self.kernel} gives an output "
                f"size of {self.out}: Output size is too small"
            )

    def _check(self, name: str) -> None:
        if any(k <= 0 for k in self.kernel):
            raise RuntimeError(f"{name}: kernel size should be greater than zero, but got "
                               f"{self.kernel}")  # fmt: skip
        if any(s <= 0 for s in self.stride):
            raise RuntimeError(f"{name}: stride should not be zero, but got {self.stride}")
        if any(d <= 0 for d in self.dilation):
            raise RuntimeError(f"{name}: dilation should be greater than zero, but got "
                               f"{self.dilation}")  # fmt: skip
        for k, p, d in zip(self.kernel, self.padding, self.dilation, strict=True):
            if p < 0:
                raise RuntimeError(f"pad must be non-negative, but got pad: {p} ({name})")
            if p > ((k - 1) * d + 1) // 2:
                raise RuntimeError(
                    "pad should be at most half of effective kernel size, but got pad="
                    f"{p}, kernel_size={k} and dilation={d} ({name})"
                )
            if p > k // 2:
                raise RuntimeError(
                    f"{name}() padding should be smaller than or equal to half of kernel size, but "
                    f"got padding={p} and kernel_size={k}"
                )

    def taps(self) -> Any:
        return product(*map(range, self.kernel))

    def place(self, tap: Ints) -> tuple[Any, ...]:
        """The slices of the padded input that this tap of all windows reads."""
        return (..., *(
            slice(t * d, t * d + s * (n - 1) + 1, s)
            for t, d, s, n in zip(tap, self.dilation, self.stride, self.out, strict=True)
        ))  # fmt: skip

    def edges(self) -> list[tuple[int, int]]:
        """How far the windows reach beyond the input, before and behind, by dimension."""
        pairs = []
        for i, n in enumerate(self.size):
            reach = (self.out[i] - 1) * self.stride[i] + (self.kernel[i] - 1) * self.dilation[i] + 1
            pairs.append((self.padding[i], max(reach - n - self.padding[i], 0)))
        return pairs

    def padded(self, x: Any, value: Any) -> Any:
        """x with what the windows reach beyond its edges."""
        pairs = self.edges()
        if not any(a or b for a, b in pairs):
            return x
        lead = [(0, 0)] * (x.ndim - len(self.size))
        return ns(x).pad(x, lead + pairs, constant_values=value)

    def padded_shape(self, lead: Ints) -> Ints:
        """The shape of a padded array whose first dimensions are `lead`."""
        return lead + tuple(a + n + b for n, (a, b) in zip(self.size, self.edges(), strict=True))

    def unpadded(self, x: Any) -> Any:
        """The part of a padded array that is the input."""
        return x[(..., *(slice(p, p + n) for p, n in zip(self.padding, self.size, strict=True)))]

    def counts(self, include_pad: bool) -> Any:
        """How many entries each window averages over."""
        total: Any = 1
        for axis, (n, k, s, p, m) in enumerate(
            zip(self.size, self.kernel, self.stride, self.padding, self.out, strict=True)
        ):
            start = np.arange(m) * s - p
            end = np.minimum(start + k, n + p)
            if not include_pad:
                start, end = np.maximum(start, 0), np.minimum(end, n)
            total = total * (end - start).reshape((-1,) + (1,) * (len(self.size) - 1 - axis))
        return total


def length(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    span = n + 2 * p - d * (k - 1) - 1
    if not ceil_mode:
        return span // s + 1
    m = -(-span // s) + 1
    return m - 1 if (m - 1) * s >= n + p else m  # no window starts in the padding behind


def spread(value: Any, dims: int, name: str, what: str) -> Ints:
    if isinstance(value, (int, np.integer)):
        return (int(value),) * dims
    values = tuple(int(v) for v in value)
    if len(values) == 1:
        return values * dims
    if len(values) != dims:
        raise RuntimeError(
            f"{name}: {what} must either be a single int, or a tuple of {dims} ints, got {values}"
        )
    return values


def check_input(name: str, x: Any, dims: int) -> None:
    if x.ndim not in (dims + 1, dims + 2) or 0 in x.shape[-dims - 1 :]:
        raise RuntimeError(
            f"{name}(): Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with optional 0 "
            f"dim batch size for input, but got: {list(x.shape)}"
        )
