"""torch.linalg: factors, solutions, norms and spectra of (batches of) matrices.

On the CPU NumPy's LAPACK does the work, on CUDA devices cuSOLVER by way of CuPy. Every
differentiable function has gradients of any order.
Source: https://docs.pytorch.org/docs/stable/linalg.html
"""

from gpunn.linalg._common import LinAlgError
from gpunn.linalg.factoring import cholesky, cholesky_ex, householder_product, qr
from gpunn.linalg.ldl import ldl_factor, ldl_factor_ex, ldl_solve
from gpunn.linalg.least_squares import lstsq, pinv
from gpunn.linalg.lu_factors import det, lu, lu_factor, lu_factor_ex, lu_solve, slogdet
from gpunn.linalg.norms import cond, matrix_norm, matrix_rank, norm, vector_norm
from gpunn.linalg.powers import cross, diagonal, matrix_exp, matrix_power, multi_dot, vander, vecdot
from gpunn.linalg.solving import (
    inv,
    inv_ex,
    solve,
    solve_ex,
    solve_triangular,
    tensorinv,
    tensorsolve,
)
from gpunn.linalg.spectral import eig, eigh, eigvals, eigvalsh, svd, svdvals
from gpunn.ops.linalg import matmul

__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh",
    "eigvals", "eigvalsh", "householder_product", "inv", "inv_ex", "ldl_factor", "ldl_factor_ex",
    "ldl_solve", "lstsq", "lu", "lu_factor", "lu_factor_ex", "lu_solve", "matmul", "matrix_exp",
    "matrix_norm", "matrix_power", "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet",
    "solve", "solve_ex", "solve_triangular", "svd", "svdvals", "tensorinv", "tensorsolve", "vander",
    "vecdot", "vector_norm",
]  # fmt: skip
