"""Products, powers and exponentials of matrices, and small helpers of `gpunn.linalg`."""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace, result
from gpunn.dtypes import F32
from gpunn.linalg._common import (
    adjoint,
    check_floating,
    check_square,
    check_tensor,
    constant,
    give,
    identity,
    joined,
    lapack,
    tensor_vjp,
)
from gpunn.linalg.solving import inv
from gpunn.ops._rows import cast, half
from gpunn.ops.contract import _cross
from gpunn.ops.linalg import _c, matmul
from gpunn.tensor import Tensor

# --- powers ---------------------------------------------------------------------------------


def matrix_power(input: Tensor, n: int, *, out: Tensor | None = None) -> Tensor:
    """Square matrices to a whole power, by repeated squaring; the inverse's for n < 0.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.matrix_power.html

    >>> gpunn.linalg.matrix_power(gpunn.tensor([[1., 1.], [0., 1.]]), 5)
    tensor([[1., 5.],
            [0., 1.]])
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(
            "linalg_matrix_power(): argument 'n' (position 2) must be int, not "
            f"{type(n).__name__}"
        )
    check_square("linalg.matrix_power", input)
    base: Any = inv(input) if n < 0 else input
    n = abs(int(n))
    if n == 0:
        one = input.device.xp.zeros_like(input.array) + identity(input.array.shape[-1], input).array
        return give(constant(one, input), out, "matrix_power")
    made: Any = None
    while n:
        if n & 1:
            made = base if made is None else made @ base
        n >>= 1
        base = base @ base if n else base
    return give(made.clone() if made is input else made, out, "matrix_power")


_PADE = (
    64764752532480000, 32382376266240000, 7771770303897600, 1187353796428800, 129060195264000,
    10559470521600, 670442572800, 33522128640, 1323241920, 40840800, 960960, 16380, 182, 1,
)  # fmt: skip


def _exp_array(a: Any) -> Any:
    """Higham, The Scaling and Squaring Method for the Matrix Exponential Revisited (2005)."""
    xp = namespace(a)
    if a.size == 0:
        return a.copy()
    if half(a.dtype):
        return _exp_array(a.astype(F32)).astype(a.dtype)
    top = float(abs(a).sum(-2).max())
    squarings = max(0, math.ceil(math.log2(top / 5.37))) if 0 < top < math.inf else 0
    a = a / xp.asarray(2.0**squarings, a.real.dtype)
    one = xp.broadcast_to(xp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    b = [xp.asarray(c / _PADE[0], a.real.dtype) for c in _PADE]
    a2 = a @ a
    a4 = a2 @ a2
    a6 = a4 @ a2
    odd = a6 @ (b[13] * a6 + b[11] * a4 + b[9] * a2)
    odd = a @ (odd + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * one)
    even = a6 @ (b[12] * a6 + b[10] * a4 + b[8] * a2)
    even = even + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * one
    try:
        made = lapack("solve", even - odd, even + odd)
    except np.linalg.LinAlgError:  # only where something is not finite
        made = xp.full_like(a, np.nan)
    for _ in range(squarings):
        made = made @ made
    return made


@tensor_vjp((0,), name="LinalgMatrixExpBackward0")
def _matrix_exp_vjp(g: Any, a: Any) -> Any:
    """The corner of exp([[A^H, g], [0, A^H]]): Mathias (1996)."""
    turned = adjoint(a)
    n = a.array.shape[-1]
    block = joined([joined([turned, g], -1), joined([turned * 0, turned], -1)], -2)
    return matrix_exp(block)[..., :n, n:]


def matrix_exp(input: Tensor) -> Tensor:
    """The exponential of square matrices: I + A + A^2 / 2 + ...

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.matrix_exp.html

    >>> gpunn.linalg.matrix_exp(gpunn.tensor([[0., 1.], [0., 0.]]))
    tensor([[1., 1.],
            [0., 1.]])
    """
    check_square("linalg.matrix_exp", input)
    check_floating("linalg.matrix_exp", input, low=True)
    x = input.array
    return result(_exp_array(x), input, _matrix_exp_vjp, (input,), (x,))


# --- products -------------------------------------------------------------------------------


def _best_order(lengths: list[int]) -> list[list[int]]:
    """Where to split each range of matrices for the fewest multiplications."""
    n = len(lengths) - 1
    cost = [[0] * n for _ in range(n)]
    split = [[0] * n for _ in range(n)]
    for span in range(1, n):
        for i in range(n - span):
            j = i + span
            cost[i][j], split[i][j] = min(
                (cost[i][k] + cost[k + 1][j] + lengths[i] * lengths[k + 1] * lengths[j + 1], k)
                for k in range(i, j)
            )
    return split


def _check_multi_dot(tensors: Sequence[Tensor]) -> None:
    n = len(tensors)
    if n < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {n}")
    for i, t in enumerate(tensors):
        ends = i in (0, n - 1)
        if t.array.ndim != 2 and not (ends and t.array.ndim == 1):
            what = "the first or last tensor must be 1D or 2D" if ends else f"tensor {i} must be 2D"
            raise RuntimeError(f"multi_dot(): {what} but got {t.array.ndim}D")
        if t.array.dtype != tensors[0].array.dtype:
            raise RuntimeError(
                "multi_dot(): all tensors must have be the same dtype but tensor 0 is "
                f"{_c(tensors[0])} and tensor {i} {_c(t)}"
            )
    for i, (a, b) in enumerate(zip(tensors[:-1], tensors[1:], strict=True)):
        if a.array.shape[-1] != b.array.shape[0]:
            raise RuntimeError(
                f"multi_dot(): tensors {i} and {i + 1} with shapes {list(a.array.shape)} and "
                f"{list(b.array.shape)} cannot be multiplied"
            )


@autocasts("linalg_multi_dot")
def multi_dot(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
    """The product of two or more matrices, in the order of fewest multiplications.

    The first and the last may be vectors. RuntimeError where shapes or dtypes do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.multi_dot.html

    >>> gpunn.linalg.multi_dot([gpunn.ones(2, 3), gpunn.ones(3, 4), gpunn.ones(4)])
    tensor([12., 12.])
    """
    tensors = list(tensors)
    _check_multi_dot(tensors)
    first = tensors[0].array
    lengths = [first.shape[0] if first.ndim == 2 else 1]
    lengths += [t.array.shape[0] for t in tensors[1:]]
    lengths += [tensors[-1].array.shape[1] if tensors[-1].array.ndim == 2 else 1]
    split = _best_order(lengths)

    def product(i: int, j: int) -> Tensor:
        if i == j:
            return tensors[i]
        k = split[i][j]
        return matmul(product(i, k), product(k + 1, j))

    return give(product(0, len(tensors) - 1), out, "multi_dot")


@autocasts("linalg_vecdot")
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Tensor:
    """The dot products along a dimension, the first vectors conjugated; both broadcast.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.vecdot.html

    >>> gpunn.linalg.vecdot(gpunn.ones(2, 3), gpunn.ones(3))
    tensor([3., 3.])
    """
    check_tensor("linalg.vecdot", "x", x)
    check_tensor("linalg.vecdot", "y", y, 2)
    check_floating("linalg.vecdot", x, low=True)
    d = x.array.dtype
    if half(d):  # products are not rounded before they are summed
        x, y = cast(x, F32), cast(y, F32)
    made = ((x.conj() if x.is_complex() else x) * y).sum(dim)
    return give(cast(made, d) if half(d) else made, out, "linalg.vecdot")


def cross(
    input: Tensor, other: Tensor, *, dim: int = -1, out: Tensor | None = None
) -> Tensor:
    """The cross product of vectors of length 3 along `dim`; both broadcast.

    RuntimeError where the dimension has another length, or the numbers of dimensions differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.cross.html

    >>> gpunn.linalg.cross(gpunn.tensor([1, 0, 0]), gpunn.tensor([0, 1, 0]))
    tensor([0, 0, 1])
    """
    check_tensor("linalg.cross", "input", input)
    check_tensor("linalg.cross", "other", other, 2)
    return _cross(input, other, dim, out)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of matrices, a view: `gpunn.diagonal` of the last two dimensions.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.diagonal.html

    >>> gpunn.linalg.diagonal(gpunn.eye(2))
    tensor([1., 1.])
    """
    check_tensor("linalg.diagonal", "A", A)
    return A.diagonal(offset, dim1, dim2)


def vander(x: Tensor, N: int | None = None) -> Tensor:
    """The powers 0 to N - 1 of every element, along a new last dimension; N as long as x.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.vander.html

    >>> gpunn.linalg.vander(gpunn.tensor([2, 3]), N=3)
    tensor([[1, 2, 4],
            [1, 3, 9]])
    """
    check_tensor("linalg.vander", "x", x)
    if not x.array.ndim:
        x = x.reshape((1,))
    count = N if N is not None else x.array.shape[-1]
    if count <= 1:
        raise RuntimeError("N must be greater than 1.")
    if x.array.dtype.kind in "biu":
        x = cast(x, np.dtype(np.int64))
    columns: list[Any] = [x * 0 + 1, x]
    for _ in range(count - 2):
        columns.append(columns[-1] * x)
    return namespace(x).stack(columns[:count], -1)
