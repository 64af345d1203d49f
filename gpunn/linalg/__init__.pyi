"""Written by `python -m tests.typed.make_stubs`: linear algebra."""

from gpunn.tensor import Tensor
from gpunn.linalg._common import LinAlgError as LinAlgError
from gpunn.linalg.factoring import cholesky as cholesky
from gpunn.linalg.factoring import cholesky_ex as cholesky_ex
from gpunn.linalg.norms import cond as cond
from gpunn.linalg.powers import cross as cross
from gpunn.linalg.lu_factors import det as det
from gpunn.linalg.powers import diagonal as diagonal
from gpunn.linalg.spectral import eig as eig
from gpunn.linalg.spectral import eigh as eigh
from gpunn.linalg.spectral import eigvals as eigvals
from gpunn.linalg.spectral import eigvalsh as eigvalsh
from gpunn.linalg.factoring import householder_product as householder_product
from gpunn.linalg.solving import inv as inv
from gpunn.linalg.solving import inv_ex as inv_ex
from gpunn.linalg.ldl import ldl_factor as ldl_factor
from gpunn.linalg.ldl import ldl_factor_ex as ldl_factor_ex
from gpunn.linalg.ldl import ldl_solve as ldl_solve
from gpunn.linalg.least_squares import lstsq as lstsq
from gpunn.linalg.lu_factors import lu as lu
from gpunn.linalg.lu_factors import lu_factor as lu_factor
from gpunn.linalg.lu_factors import lu_factor_ex as lu_factor_ex
from gpunn.linalg.lu_factors import lu_solve as lu_solve
from gpunn.ops.linalg import matmul as matmul
from gpunn.linalg.powers import matrix_exp as matrix_exp
from gpunn.linalg.norms import matrix_norm as matrix_norm
from gpunn.linalg.powers import matrix_power as matrix_power
from gpunn.linalg.norms import matrix_rank as matrix_rank
from gpunn.linalg.powers import multi_dot as multi_dot
from gpunn.linalg.norms import norm as norm
from gpunn.linalg.least_squares import pinv as pinv
from gpunn.linalg.factoring import qr as qr
from gpunn.linalg.lu_factors import slogdet as slogdet
from gpunn.linalg.solving import solve as solve
from gpunn.linalg.solving import solve_ex as solve_ex
from gpunn.linalg.solving import solve_triangular as solve_triangular
from gpunn.linalg.spectral import svd as svd
from gpunn.linalg.spectral import svdvals as svdvals
from gpunn.linalg.solving import tensorinv as tensorinv
from gpunn.linalg.solving import tensorsolve as tensorsolve
from gpunn.linalg.powers import vander as vander
from gpunn.linalg.powers import vecdot as vecdot
from gpunn.linalg.norms import vector_norm as vector_norm

