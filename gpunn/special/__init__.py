"""Special functions, as in torch.special: error functions, gamma, Bessel, polynomials.

On the CPU they are computed with NumPy in float64 and rounded to the dtype (erf in float32); on a
GPU with CuPy's own functions where it has them.
Source: https://docs.pytorch.org/docs/stable/special.html
"""

from gpunn.nn.softmax import log_softmax as log_softmax
from gpunn.nn.softmax import softmax as softmax
from gpunn.ops.powers import xlogy as xlogy
from gpunn.ops.reduce import logsumexp as logsumexp
from gpunn.ops.transcend import exp2 as exp2
from gpunn.ops.transcend import expm1 as expm1
from gpunn.ops.transcend import log1p as log1p
from gpunn.ops.transcend import logit as logit
from gpunn.ops.transcend import round as round  # noqa: A004
from gpunn.ops.transcend import sigmoid as expit
from gpunn.ops.transcend import sinc as sinc
from gpunn.special.bessel import airy_ai as airy_ai
from gpunn.special.bessel import bessel_j0 as bessel_j0
from gpunn.special.bessel import bessel_j1 as bessel_j1
from gpunn.special.bessel import bessel_y0 as bessel_y0
from gpunn.special.bessel import bessel_y1 as bessel_y1
from gpunn.special.bessel import i0 as i0
from gpunn.special.bessel import i0e as i0e
from gpunn.special.bessel import i1 as i1
from gpunn.special.bessel import i1e as i1e
from gpunn.special.bessel import modified_bessel_i0 as modified_bessel_i0
from gpunn.special.bessel import modified_bessel_i1 as modified_bessel_i1
from gpunn.special.bessel import modified_bessel_k0 as modified_bessel_k0
from gpunn.special.bessel import modified_bessel_k1 as modified_bessel_k1
from gpunn.special.bessel import scaled_modified_bessel_k0 as scaled_modified_bessel_k0
from gpunn.special.bessel import scaled_modified_bessel_k1 as scaled_modified_bessel_k1
from gpunn.special.bessel import spherical_bessel_j0 as spherical_bessel_j0
from gpunn.special.entropy import entr as entr
from gpunn.special.entropy import xlog1py as xlog1py
from gpunn.special.erf import erf as erf
from gpunn.special.erf import erfc as erfc
from gpunn.special.erf import erfcx as erfcx
from gpunn.special.erf import erfinv as erfinv
from gpunn.special.erf import log_ndtr as log_ndtr
from gpunn.special.erf import ndtr as ndtr
from gpunn.special.erf import ndtri as ndtri
from gpunn.special.gamma import digamma as digamma
from gpunn.special.gamma import digamma as psi
from gpunn.special.gamma import igamma as gammainc
from gpunn.special.gamma import igammac as gammaincc
from gpunn.special.gamma import lgamma as gammaln
from gpunn.special.gamma import mvlgamma as multigammaln
from gpunn.special.gamma import polygamma as polygamma
from gpunn.special.gamma import zeta as zeta
from gpunn.special.polynomials import chebyshev_polynomial_t as chebyshev_polynomial_t
from gpunn.special.polynomials import chebyshev_polynomial_u as chebyshev_polynomial_u
from gpunn.special.polynomials import chebyshev_polynomial_v as chebyshev_polynomial_v
from gpunn.special.polynomials import chebyshev_polynomial_w as chebyshev_polynomial_w
from gpunn.special.polynomials import hermite_polynomial_h as hermite_polynomial_h
from gpunn.special.polynomials import hermite_polynomial_he as hermite_polynomial_he
from gpunn.special.polynomials import laguerre_polynomial_l as laguerre_polynomial_l
from gpunn.special.polynomials import legendre_polynomial_p as legendre_polynomial_p
from gpunn.special.polynomials import (
    shifted_chebyshev_polynomial_t as shifted_chebyshev_polynomial_t,
)
from gpunn.special.polynomials import (
    shifted_chebyshev_polynomial_u as shifted_chebyshev_polynomial_u,
)
from gpunn.special.polynomials import (
    shifted_chebyshev_polynomial_v as shifted_chebyshev_polynomial_v,
)
from gpunn.special.polynomials import (
    shifted_chebyshev_polynomial_w as shifted_chebyshev_polynomial_w,
)

__all__ = [
    "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "chebyshev_polynomial_t",
    "chebyshev_polynomial_u", "chebyshev_polynomial_v", "chebyshev_polynomial_w", "digamma", "entr",
    "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1", "gammainc", "gammaincc", "gammaln",
    "hermite_polynomial_h", "hermite_polynomial_he", "i0", "i0e", "i1", "i1e",
    "laguerre_polynomial_l", "legendre_polynomial_p", "log1p", "log_ndtr", "log_softmax", "logit",
    "logsumexp", "modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0",
    "modified_bessel_k1", "multigammaln", "ndtr", "ndtri", "polygamma", "psi", "round",
    "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "shifted_chebyshev_polynomial_t",
    "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v",
    "shifted_chebyshev_polynomial_w", "sinc", "softmax", "spherical_bessel_j0", "xlog1py", "xlogy",
    "zeta",
]  # fmt: skip
