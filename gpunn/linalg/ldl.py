"""LDL factors of symmetric and Hermitian matrices, with the pivoting of Bunch and Kaufman (1977).

NumPy has none: the steps and the packing are those of LAPACK's sytf2 and hetf2 for the lower
triangle, one matrix after another on the host. There are no gradients, as in PyTorch.
"""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.autograd.graph import result, results
from gpunn.device import CPU, to_host, transfer
from gpunn.linalg._common import (
    batch_element,
    check_floating,
    check_matrix,
    check_square,
    common_batch,
    give,
    return_type,
)
from gpunn.ops._rows import not_implemented
from gpunn.tensor import Tensor

_ALPHA = (1 + math.sqrt(17)) / 8

# --- one matrix -------------------------------------------------------------------------------


def _size(x: Any) -> Any:
    return abs(x.real) + abs(x.imag)


def _choose(a: Any, k: int) -> tuple[int, int]:
    """(the row to exchange, 1 or 2): which pivot step k takes, of one or two rows."""
    n, top = a.shape[0], _size(a[k, k])
    if k == n - 1:
        return k, 1
    i = k + 1 + int(_size(a[k + 1 :, k]).argmax())
    column = _size(a[i, k])
    if max(top, column) == 0 or np.isnan(top) or top >= _ALPHA * column:
        return k, 1
    row = max(_size(a[i, k:i]).max(), _size(a[i + 1 :, i]).max(initial=0))
    if top >= _ALPHA * column * (column / row):
        return k, 1
    return (i, 1) if _size(a[i, i]) >= _ALPHA * row else (i, 2)


def _exchange(a: Any, k: int, step: int, p: int, hermitian: bool) -> None:
    """Rows and columns k + step - 1 and p of the lower triangle change places."""
    q = k + step - 1
    if p == q:
        return
    a[p + 1 :, [q, p]] = a[p + 1 :, [p, q]]
    between = a[q + 1 : p, q].copy()
    a[q + 1 : p, q] = a[p, q + 1 : p].conj() if hermitian else a[p, q + 1 : p]
    a[p, q + 1 : p] = between.conj() if hermitian else between
    if hermitian:
        a[p, q] = a[p, q].conj()
    a[q, q], a[p, p] = a[p, p], a[q, q]
    if step == 2:
        a[k + 1, k], a[p, k] = a[p, k], a[k + 1, k]


def _block(a: Any, k: int, hermitian: bool) -> Any:
    """The diagonal block of two rows at k."""
    low = a[k + 1, k]
    return np.array([[a[k, k], low.conj() if hermitian else low], [low, a[k + 1, k + 1]]])


def _factor(a: Any, hermitian: bool) -> tuple[Any, int]:
    """(pivots, info) of one matrix, whose lower triangle becomes L and D."""
    n, info, k = a.shape[0], 0, 0
    pivots = np.zeros(n, np.int32)
    if hermitian:
        a[np.arange(n), np.arange(n)] = a.diagonal().real
    while k < n:
        p, step = _choose(a, k)
        _exchange(a, k, step, p, hermitian)
        rest = slice(k + step, n)
        x = a[rest, k : k + step].copy()
        if step == 1 and a[k, k] == 0:
            info = info or k + 1
        else:
            d = a[k : k + 1, k : k + 1] if step == 1 else _block(a, k, hermitian)
            columns = np.linalg.solve(d.T, x.T).T
            a[rest, k : k + step] = columns
            a[rest, rest] -= columns @ (x.conj().T if hermitian else x.T)
        pivots[k : k + step] = p + 1 if step == 1 else -(p + 1)
        k += step
    return pivots, info


def _solve(a: Any, pivots: Any, b: Any, hermitian: bool) -> None:
    """b becomes the solution: through L, D and L's transpose, with the exchanges."""
    n, k = a.shape[0], 0
    while k < n:
        step = 1 if pivots[k] > 0 else 2
        q, p = k + step - 1, abs(int(pivots[k])) - 1
        b[[q, p]] = b[[p, q]]
        part = slice(k, k + step)
        b[k + step :] -= a[k + step :, part] @ b[part]
        if step == 1:
            b[k] /= a[k, k]
        else:
            b[part] = np.linalg.solve(_block(a, k, hermitian), b[part])
        k += step
    while k > 0:
        step = 1 if pivots[k - 1] > 0 else 2
        part = slice(k - step, k)
        columns = a[k:, part].conj() if hermitian else a[k:, part]
        b[part] -= columns.T @ b[k:]
        q, p = k - 1, abs(int(pivots[k - 1])) - 1
        b[[q, p]] = b[[p, q]]
        k -= step


# --- batches ------------------------------------------------------------------------------------

_Ex = return_type("linalg_ldl_factor_ex", "LD", "pivots", "info")
_Pair = return_type("linalg_ldl_factor", "LD", "pivots")
_NONE = not_implemented("linalg_ldl_factor_ex")


def ldl_factor_ex(
    input: Tensor, *, hermitian: bool = False, check_errors: bool = False, out: Any = None
) -> Any:
    """(LD, pivots, info): `ldl_factor` without an exception for zeros in D.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.ldl_factor_ex.html

    >>> gpunn.linalg.ldl_factor_ex(gpunn.zeros(1, 1)).info
    tensor(1, dtype=torch.int32)
    """
    check_square("torch.linalg.ldl_factor_ex", input)
    check_floating("torch.linalg.ldl_factor_ex", input)
    shape, where = input.array.shape, input.device
    ld = np.tril(to_host(input.array))
    flat = ld.reshape(math.prod(shape[:-2]), *shape[-2:])
    found = [_factor(a, hermitian and a.dtype.kind == "c") for a in flat]
    pivots = np.array([p for p, _ in found], np.int32).reshape(shape[:-1])
    info = np.array([i for _, i in found], np.int32).reshape(shape[:-2])
    if check_errors and info.any():
        bad = int((info.reshape(-1) != 0).argmax())
        raise RuntimeError(
            f"torch.linalg.ldl_factor_ex: {batch_element(bad, shape)}D[{info.reshape(-1)[bad]}] is "
            "zero: the matrix is singular and the factors solve no equation."
        )
    ld = np.tril(ld)  # above the diagonal lies what the steps left over
    ld, pivots, info = (transfer(a, CPU, where) for a in (ld, pivots, info))
    made = _Ex(
        results((ld,), input, _NONE, (input,))[0], result(pivots, input), result(info, input)
    )
    return give(made, out, "linalg.ldl_factor_ex")


def ldl_factor(input: Tensor, *, hermitian: bool = False, out: Any = None) -> Any:
    """(LD, pivots): the unit lower factor L and the block diagonal D of A = L @ D @ L^T, packed.

    hermitian: A = L @ D @ L^H. Shapes: (*, n, n) gives (*, n, n) and (*, n); two equal negative
    pivots stand for a block of two rows. Only the lower triangle is read. RuntimeError for zeros
    in D. Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.ldl_factor.html

    >>> gpunn.linalg.ldl_factor(gpunn.eye(2)).pivots
    tensor([1, 2], dtype=torch.int32)
    """
    made = ldl_factor_ex(input, hermitian=hermitian, check_errors=True)
    return give(_Pair(made.LD, made.pivots), out, "linalg.ldl_factor")


def ldl_solve(
    LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False, out: Tensor | None = None
) -> Tensor:
    """X with A @ X = B, for A given by `ldl_factor`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.ldl_solve.html

    >>> factors = gpunn.linalg.ldl_factor(gpunn.full((1, 1), 2.))
    >>> gpunn.linalg.ldl_solve(*factors, gpunn.ones(1, 1))
    tensor([[0.5000]])
    """
    check_square("torch.linalg.ldl_solve", LD, "LD")
    check_floating("torch.linalg.ldl_solve", LD)
    check_matrix("torch.linalg.ldl_solve", B, "B")
    if LD.array.shape[-2] != B.array.shape[-2]:
        (n, m), (k, r) = LD.array.shape[-2:], B.array.shape[-2:]
        raise RuntimeError(
            "Incompatible matrix sizes for torch.linalg.ldl_solve: each A matrix is "
            f"{n} by {m} but each b matrix is {k} by {r}"
        )
    factors, right = common_batch(LD, B)
    a, x = to_host(factors.array), to_host(right.array).copy()
    order = np.broadcast_to(to_host(pivots.array), a.shape[:-1])
    count = math.prod(a.shape[:-2])
    parts = (v.reshape(count, *v.shape[len(a.shape) - 2 :]) for v in (a, order, x))
    for matrix, swaps, b in zip(*parts, strict=True):
        _solve(matrix, swaps, b, hermitian and matrix.dtype.kind == "c")
    rule = not_implemented("linalg_ldl_solve")
    made = result(transfer(x, CPU, LD.device), LD, rule, (LD, B))
    return give(made, out, "linalg.ldl_solve")
