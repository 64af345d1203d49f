"""Functions of `gpunn.linalg` under PyTorch's older names: `gpunn.inverse`, `gpunn.svd`, ...

Each is the function of `gpunn.linalg`, or its older form, as a function and as a method.
"""

from __future__ import annotations

from gpunn.linalg.factoring import geqrf, householder_product, ormqr
from gpunn.linalg.factoring import legacy_cholesky as cholesky
from gpunn.linalg.factoring import legacy_qr as qr
from gpunn.linalg.least_squares import pinverse
from gpunn.linalg.lu_factors import det, logdet, lu_unpack, slogdet
from gpunn.linalg.lu_factors import legacy_lu as lu
from gpunn.linalg.lu_factors import legacy_lu_solve as lu_solve
from gpunn.linalg.powers import matrix_exp, matrix_power
from gpunn.linalg.powers import vander as _vander
from gpunn.linalg.solving import (
    cholesky_inverse,
    cholesky_solve,
    inv,
    triangular_solve,
)
from gpunn.linalg.spectral import legacy_svd as svd
from gpunn.linalg.spectral import pca_lowrank, svd_lowrank
from gpunn.tensor import Tensor

inverse = inv
orgqr = householder_product


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of a vector's elements as columns, from the highest unless `increasing`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.vander.html

    >>> gpunn.vander(gpunn.tensor([2, 3]), N=3)
    tensor([[4, 2, 1],
            [9, 3, 1]])
    """
    if x.array.ndim != 1:
        raise RuntimeError("x must be a one-dimensional tensor.")
    made = _vander(x, max(2, x.array.shape[0] if N is None else N))
    made = made[:, : x.array.shape[0] if N is None else N]  # type: ignore[index]
    return made if increasing else made.flip(1)  # type: ignore[attr-defined]


_METHODS = {
    "cholesky": cholesky, "cholesky_inverse": cholesky_inverse, "cholesky_solve": cholesky_solve,
    "det": det, "geqrf": geqrf, "inverse": inverse, "logdet": logdet, "lu": lu,
    "lu_solve": lu_solve, "matrix_exp": matrix_exp, "matrix_power": matrix_power, "orgqr": orgqr,
    "ormqr": ormqr, "pinverse": pinverse, "qr": qr, "slogdet": slogdet, "svd": svd,
    "triangular_solve": triangular_solve,
}  # fmt: skip
__all__ = [*_METHODS, "lu_unpack", "pca_lowrank", "svd_lowrank", "vander"]
for _name, _function in _METHODS.items():
    setattr(Tensor, _name, _function)
