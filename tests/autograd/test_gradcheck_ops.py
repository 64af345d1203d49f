"""Every differentiable operation: first and second derivatives against finite differences.

CASES says what each is called with. `r(shape)` are distinct values from -1.3 to 1.7 without
zero, `p(shape)` the same from 0.3 to 1.6, `u(shape)` from -0.9 to 0.9; other arguments are as
they stand. A new operation gets a line in CASES, or in WITHOUT_GRADIENT.
"""

import importlib
import pkgutil
import warnings

import numpy as np
import pytest

import gpunn
import gpunn.ops
from gpunn.autograd import gradcheck, gradgradcheck


class Draw:
    """A recipe for an input that requires a gradient."""

    def __init__(self, low, high, shape):
        self.low, self.high, self.shape = low, high, shape

    def make(self, seed):
        count = int(np.prod(self.shape))
        values = np.linspace(self.low, self.high, count) * (1 - 0.013 * seed)  # no ties
        values = np.random.default_rng(seed).permutation(values)
        return gpunn.tensor(values.reshape(self.shape), dtype=gpunn.float64, requires_grad=True)


def r(*shape):
    return Draw(-1.317, 1.683, shape)


def p(*shape):
    return Draw(0.31, 1.63, shape)


def u(*shape):
    return Draw(-0.91, 0.83, shape)


def spd(f):
    """f of a symmetric positive-definite matrix made of its argument."""
    return lambda a, *rest: f(a @ a.mT + 2 * gpunn.eye(a.shape[-1], dtype=a.dtype), *rest)


def regular(f):
    """f of a matrix that can be inverted made of its argument."""
    return lambda a, *rest: f(a + 3 * gpunn.eye(a.shape[-1], dtype=a.dtype), *rest)


def cplx(f):
    """f of a complex tensor made of two real arguments."""
    return lambda a, b: f(gpunn.complex(a, b))


def each(names, *cases):
    """The same cases for several operations."""
    return dict.fromkeys(names.split(), cases)


def seeded(name, **named):
    """A function of nn.functional that draws the same numbers each time."""
    f = getattr(gpunn.nn.functional, name)
    return lambda *a: (gpunn.manual_seed(0), f(*a, **named))[1]


def quiet(name):
    """A function of nn.functional that warns of its name, without the warning."""

    def call(*arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(gpunn.nn.functional, name)(*arguments)

    return call


I = lambda *v: gpunn.tensor(v)  # noqa: E731, E741
B = gpunn.tensor([[True, False, True], [False, True, True]])
M = r(2, 3)
V = r(3)

CASES = {
    # one tensor, element by element
    **each(
        """abs angle arctan asinh atan ceil cos cosh deg2rad erf erfc exp exp2 expm1 fix floor frac
        nan_to_num neg positive rad2deg round sgn sigmoid sign sin sinc sinh square tan tanh
        trunc relu clone conj conj_physical real resolve_conj resolve_neg i0""",
        (M,),
    ),
    **each("log log10 log1p log2 reciprocal rsqrt sqrt lgamma digamma", (p(2, 3),)),
    **each("acos asin atanh erfinv", (u(2, 3),)),
    "acosh": [(Draw(1.2, 3.0, (2, 3)),)],
    "logit": [(Draw(0.1, 0.9, (2, 3)),), (Draw(0.1, 0.9, (2, 3)), 0.2)],
    "clamp": [(M, -0.5, 0.5), (M, r(3), None)],
    "clamp_max": [(M, 0.5)],
    "clamp_min": [(M, 0.5)],
    "frexp": [(p(2, 3),)],
    # two or three tensors
    **each("add mul sub", (M, r(2, 3)), (M, V), (V, 2.5)),
    **each(
        """maximum minimum fmax fmin atan2 hypot copysign logaddexp logaddexp2""",
        (M, r(2, 3)), (M, V),
    ),
    "true_divide": [(M, p(2, 3))],
    "div": [(M, p(2, 3)), (M, 2.5), (V, p(2, 1))],
    "pow": [(p(2, 3), r(3)), (M, 3), (p(3), 2.5), (lambda x: gpunn.pow(2.0, x), M)],
    "float_power": [(p(2, 3), r(3)), (M, 2)],
    "fmod": [(p(2, 3), 0.7)],
    "remainder": [(p(2, 3), 0.7), (Draw(2.1, 2.9, (3,)), Draw(0.8, 0.95, (3,)))],
    "rsub": [(M, r(3)), (M, 1.5)],
    "xlogy": [(M, p(2, 3))],
    "ldexp": [(M, I(1, 2, 3))],
    "addcmul": [(lambda a, b, c: gpunn.addcmul(a, b, c, value=0.7), M, r(2, 3), V)],
    "addcdiv": [(lambda a, b, c: gpunn.addcdiv(a, b, c, value=0.7), M, r(2, 3), p(3))],
    "lerp": [(M, r(2, 3), 0.3), (M, r(2, 3), r(3))],
    "where": [(lambda a, b: gpunn.where(B, a, b), M, V)],
    # reductions
    **each("sum mean nansum nanmean", (M,), (M, 0), (M, (0, 1), True), (r(),)),
    **each("amax amin std var std_mean var_mean", (M,), (M, 1)),
    "aminmax": [(M,), (lambda x: gpunn.aminmax(x, dim=1), M)],
    "prod": [(M,), (M, 1), (lambda x: gpunn.prod(x * I(0.0, 1.0, 2.0), 1), M)],
    "logsumexp": [(M, 1), (M, (0, 1), True)],
    "norm": [(M,), (M, 1), (M, 3, 1), (M, float("inf"), 0), (M, "nuc")],
    "dist": [(M, r(3)), (M, r(2, 3), 1)],
    "renorm": [(M, 2, 0, 0.9), (M, 1, 1, 0.5)],
    **each("max min median nanmedian", (M,), (M, 1)),
    "kthvalue": [(M, 2), (M, 1, 0)],
    "mode": [(M,)],
    "sort": [(M,), (M, 0, True)],
    "msort": [(M,)],
    "topk": [(M, 2), (r(9), 2)],
    "quantile": [(M, 0.4), (M, Draw(0.2, 0.7, (2,)), 1, True)],
    "nanquantile": [(M, 0.4, 1)],
    **each("cumsum cummax cummin logcumsumexp", (M, 0), (M, 1)),
    "cumprod": [(M, 1), (lambda x: gpunn.cumprod(x * I(1.0, 0.0, 2.0), 1), M)],
    "diff": [(M,), (M, 2), (M, 1, 0, r(1, 3))],
    # shapes and views
    **each(
        """adjoint t ravel fliplr flipud rot90 flatten alias_copy t_copy atleast_1d atleast_2d
        atleast_3d tril triu squeeze""",
        (M,),
    ),
    **each("broadcast_to expand_copy", (M, (4, 2, 3))),
    **each("reshape view_copy", (M, (3, 2))),
    **each("permute permute_copy", (M, (1, 0))),
    **each("swapaxes swapdims transpose transpose_copy moveaxis movedim", (M, 0, 1)),
    **each("unsqueeze unsqueeze_copy", (M, 1)),
    "squeeze_copy": [(r(2, 1, 3), 1)],
    "expand": [(lambda x: x.expand(4, 2, 3), M)],
    "expand_as": [(lambda x: x.expand_as(gpunn.zeros(4, 2, 3)), M)],
    "repeat": [(lambda x: x.repeat(2, 1, 2), M)],
    "tile": [(M, (2, 2))],
    "repeat_interleave": [(M, 2), (M, I(1, 2), 0)],
    "roll": [(M, 1), (M, (1, 2), (0, 1))],
    "flip": [(M, (0, 1))],
    "unflatten": [(r(6), 0, (2, 3))],
    "broadcast_tensors": [(M, V)],
    "narrow": [(M, 1, 1, 2)],
    "narrow_copy": [(M, 1, 1, 2)],
    **each("select select_copy", (M, 1, 2)),
    **each("chunk split split_copy tensor_split unsafe_chunk unsafe_split", (r(5, 2), 2)),
    **each("split_with_sizes split_with_sizes_copy unsafe_split_with_sizes", (r(5, 2), [2, 3])),
    "hsplit": [(r(2, 4), 2)],
    "vsplit": [(r(4, 2), 2)],
    "dsplit": [(r(1, 2, 4), 2)],
    **each("unbind unbind_copy", (M,)),
    "unfold": [(lambda x: x.unfold(0, 2, 1), V)],
    "unfold_copy": [(V, 0, 2, 1)],
    **each("as_strided as_strided_copy", (r(6), (2, 2), (2, 1), 1)),
    "as_strided_scatter": [(r(6), r(2, 2), (2, 2), (2, 1), 1)],
    **{
        name: [(lambda a, b, name=name: getattr(gpunn, name)([a, b]), M, r(2, 3))]
        for name in each(
            "cat concat concatenate stack hstack vstack dstack row_stack column_stack"
        )
    },
    "block_diag": [(M, V)],
    "cartesian_prod": [(V, r(2))],
    "combinations": [(V,)],
    "meshgrid": [(lambda a, b: gpunn.meshgrid(a, b, indexing="ij"), V, r(2))],
    "diag": [(V,), (r(3, 3),)],
    "diag_embed": [(M,)],
    "diagflat": [(M,)],
    "trace": [(r(3, 3),)],
    **each("diagonal diagonal_copy", (r(3, 3),), (r(2, 3, 3), 1, 1, 2)),
    "diagonal_scatter": [(r(3, 3), V)],
    # indexing
    "__getitem__": [
        (lambda x: x[1], M), (lambda x: x[:, ::2], M), (lambda x: x[I(0, 1, 0)], M),
        (lambda x: x[B], M), (lambda x: x[..., None, I(2, 0)], M),
    ],
    "__setitem__": [(lambda x, v: _set(x.clone(), v), M, V)],
    "gather": [(M, 1, gpunn.tensor([[0, 2, 2], [1, 1, 0]]))],
    "index_select": [(M, 1, I(0, 2, 2))],
    "take": [(M, I(0, 5, 5))],
    "take_along_dim": [(M, gpunn.tensor([[2, 0]]), 1)],
    "masked_select": [(M, B)],
    "masked_fill": [(M, B, 2.0), (M, B, r())],
    "masked_scatter": [(M, B, r(6))],
    "index_add": [(M, 1, I(0, 2), r(2, 2))],
    "index_copy": [(M, 1, I(0, 2), r(2, 2))],
    "index_fill": [(M, 1, I(0, 2), 3.0), (M, 1, I(0, 2), r())],
    "index_put": [(lambda x, v: gpunn.index_put(x, (I(0, 1), I(2, 2)), v), M, r(2)),
                  (lambda x, v: gpunn.index_put(x, (I(0, 0), I(2, 2)), v, True), M, r(2))],
    "put": [(M, I(1, 4), r(2)), (M, I(1, 1), r(2), True)],
    "select_scatter": [(M, V, 0, 1)],
    "slice_scatter": [(M, r(2, 2), 1, 1)],
    "scatter": [(M, 1, gpunn.tensor([[0, 2], [1, 0]]), r(2, 2))],
    "scatter_add": [(M, 1, gpunn.tensor([[0, 0], [1, 2]]), r(2, 2))],
    "scatter_reduce": [
        (lambda x, s, how=how: gpunn.scatter_reduce(x, 1, gpunn.tensor([[0, 0], [1, 2]]), s, how),
         p(2, 3), p(2, 2)) for how in ("sum", "mean", "amax", "amin")
    ],
    "index_reduce": [(lambda x, s: gpunn.index_reduce(x, 0, I(0, 0), s, "mean"), p(2, 3), p(2, 3))],
    "fill": [(M, r())],
    # complex numbers
    "complex": [(M, r(2, 3))],
    "polar": [(p(2, 3), M)],
    "imag": [(cplx(gpunn.imag), M, r(2, 3))],
    "view_as_complex": [(r(3, 2),)],
    "view_as_real": [(cplx(gpunn.view_as_real), V, r(3))],
    # products
    "matmul": [(M, r(3, 2)), (V, r(3)), (M, V), (r(2, 2, 3), r(3, 2))],
    "mm": [(M, r(3, 2))],
    "mv": [(M, V)],
    "dot": [(V, r(3))],
    "vdot": [(V, r(3))],
    "inner": [(M, r(4, 3))],
    "outer": [(V, r(2))],
    "bmm": [(r(2, 2, 3), r(2, 3, 2))],
    "addmm": [(V, M, r(3, 3))],
    "addmv": [(r(2), M, V)],
    "addr": [(M, r(2), V)],
    "addbmm": [(r(2, 2), r(2, 2, 3), r(2, 3, 2))],
    "baddbmm": [(r(2, 2, 2), r(2, 2, 3), r(2, 3, 2))],
    "chain_matmul": [(M, r(3, 2), r(2, 2))],
    "einsum": [("ij,kj->ik", M, r(4, 3)), ("ii->i", r(3, 3))],
    "kron": [(r(2, 2), r(1, 2))],
    "tensordot": [(M, r(3, 2), 1)],
    "cross": [(M, r(2, 3), 1)],
    # matrices
    "linalg.cholesky": [(spd(lambda a: gpunn.linalg.cholesky(a)), r(3, 3))],
    "linalg.det": [(r(3, 3),)],
    "linalg.slogdet": [(regular(lambda a: gpunn.linalg.slogdet(a)[1]), r(3, 3))],
    "logdet": [(spd(gpunn.logdet), r(3, 3))],
    "linalg.inv": [(regular(lambda a: gpunn.linalg.inv(a)), r(3, 3))],
    "linalg.solve": [(regular(lambda a, b: gpunn.linalg.solve(a, b)), r(3, 3), r(3, 2))],
    "linalg.solve_triangular": [
        (regular(lambda a, b: gpunn.linalg.solve_triangular(a.triu(), b, upper=True)),
         r(3, 3), r(3, 2))
    ],
    "linalg.qr": [(regular(lambda a: gpunn.linalg.qr(a)), r(3, 3))],
    "linalg.svdvals": [(lambda a: gpunn.linalg.svdvals(a), r(3, 2))],
    "linalg.eigvalsh": [(spd(lambda a: gpunn.linalg.eigvalsh(a)), r(3, 3))],
    "linalg.pinv": [(lambda a: gpunn.linalg.pinv(a), r(3, 2))],
    "linalg.matrix_power": [(lambda a: gpunn.linalg.matrix_power(a, 3), r(2, 2))],
    "linalg.vector_norm": [(lambda a, o=o: gpunn.linalg.vector_norm(a, o), M)
                           for o in (2, 1, 3, 0.5, float("inf"))],
    "linalg.matrix_norm": [(lambda a, o=o: gpunn.linalg.matrix_norm(a, o), r(3, 2))
                           for o in ("fro", "nuc", 1, 2)],
    "cholesky": [(spd(lambda a: gpunn.cholesky(a)), r(3, 3))],
    "cholesky_inverse": [(spd(lambda a: gpunn.cholesky_inverse(gpunn.cholesky(a))), r(3, 3))],
    "cholesky_solve": [
        (spd(lambda a, b: gpunn.cholesky_solve(b, gpunn.cholesky(a))), r(3, 3), r(3, 2))
    ],
    "det": [(r(3, 3),)],
    "inverse": [(regular(lambda a: gpunn.inverse(a)), r(3, 3))],
    "lu": [(regular(lambda a: gpunn.lu(a)[0]), r(3, 3))],
    "lu_solve": [
        (regular(lambda a, b: gpunn.lu_solve(b, *gpunn.linalg.lu_factor(a))), r(3, 3), r(3, 2))
    ],
    "lu_unpack": [
        (regular(lambda a: gpunn.lu_unpack(*gpunn.linalg.lu_factor(a))[1:]), r(3, 3))
    ],
    "matrix_exp": [(r(2, 2),)],
    "matrix_power": [(r(2, 2), 3), (regular(lambda a: gpunn.matrix_power(a, -2)), r(2, 2))],
    "pinverse": [(r(3, 2),)],
    "qr": [(regular(lambda a: gpunn.qr(a)), r(3, 3))],
    "slogdet": [(regular(lambda a: gpunn.slogdet(a)[1]), r(3, 3))],
    "svd": [(lambda a: _sign_free(*gpunn.svd(a)), r(3, 2))],
    "linalg.svd": [(lambda a: _sign_free(*gpunn.linalg.svd(a, False)), r(3, 2))],
    "linalg.eigh": [(spd(lambda a: _sign_free(*gpunn.linalg.eigh(a)[::-1])), r(3, 3))],
    "triangular_solve": [
        (regular(lambda a, b: gpunn.triangular_solve(b, a.triu())[0]), r(3, 3), r(3, 2))
    ],
    "linalg.householder_product": [
        (lambda a, t: gpunn.linalg.householder_product(a, t), r(3, 2), p(2))
    ],
    "orgqr": [(r(3, 2), p(2))],
    "linalg.multi_dot": [(lambda a, b, c: gpunn.linalg.multi_dot([a, b, c]), M, r(3, 2), r(2, 2))],
    "linalg.vecdot": [(lambda a, b: gpunn.linalg.vecdot(a, b), M, r(2, 3))],
    "linalg.tensorinv": [(lambda a: gpunn.linalg.tensorinv(a.reshape(2, 2, 4)), r(4, 4))],
    "vander": [(V, 3)],
    # layers
    "nn.functional.linear": [(M, r(4, 3)), (M, r(4, 3), r(4)), (V, r(4, 3))],
    "nn.functional.bilinear": [(r(2, 3), r(2, 2), r(2, 3, 2), r(2))],
    "nn.functional.scaled_dot_product_attention": [
        (r(2, 2, 3), r(2, 4, 3), r(2, 4, 2)), (r(2, 3), r(4, 3), r(4, 2), r(2, 4)),
        (r(2, 3), r(3, 3), r(3, 2), I([True, False, True], [False] * 3)),
        (r(3, 3), r(3, 3), r(3, 2), None, 0.0, True),
    ],
    "nn.functional.multi_head_attention_forward": [
        (lambda q, k, w, b, o, *kv, how=how: gpunn.nn.functional.multi_head_attention_forward(
            q, k, k, 4, 2, w, b, *kv, True, 0.0, o, None, **how),
         r(2, 1, 4), r(3, 1, 4), r(12, 4), u(12), u(4, 4), r(1, 1, 4), u(1, 1, 4))
        for how in ({"need_weights": False}, {"key_padding_mask": I([False, True, False]) > 0})
    ],
    "nn.functional.rotary_position_embedding": [(r(2, 3, 4),), (r(3, 2), None, 10.0, True)],
    "nn.functional.conv1d": [(r(2, 2, 5), r(3, 2, 3), r(3)),
                             (r(1, 2, 6), r(2, 1, 2), None, 2, 1, 2, 2)],
    "nn.functional.conv2d": [(r(1, 2, 4, 4), r(2, 2, 3, 3), r(2)),
                             (r(1, 2, 5, 4), r(2, 1, 2, 2), None, 2, 1, 1, 2)],
    "nn.functional.conv3d": [(r(1, 1, 3, 3, 3), r(2, 1, 2, 2, 2), r(2))],
    "nn.functional.conv_tbc": [(r(4, 2, 2), r(3, 2, 2), r(2), 1)],
    "nn.functional.conv_transpose1d": [(r(2, 2, 3), r(2, 2, 3), r(2)),
                                       (r(1, 2, 3), r(2, 1, 2), None, 2, 1, 1, 2)],
    "nn.functional.conv_transpose2d": [(r(1, 2, 3, 3), r(2, 2, 2, 2), r(2)),
                                       (r(1, 2, 3, 2), r(2, 1, 2, 2), r(2), 1, 1, 1, 2, 2)],
    "nn.functional.conv_transpose3d": [(r(1, 1, 2, 2, 2), r(1, 2, 2, 2, 2), r(2))],
    "convolution": [
        (lambda x, w: gpunn.convolution(x, w, None, [2], [1], [1], True, [1], 1), r(1, 2, 3),
         r(2, 1, 2))
    ],
    "nn.functional.unfold": [(r(1, 2, 3, 4), 2), (r(2, 4, 4), (2, 3), (2, 1), 1, 2)],
    "nn.functional.fold": [(r(1, 4, 4), 3, 2), (r(6, 9), 5, (2, 3), (2, 1), 1, 2)],
    "nn.functional.max_pool1d": [(r(1, 2, 6), 2), (r(1, 2, 6), 3, 1, 1)],
    "nn.functional.max_pool2d": [(r(1, 2, 4, 4), 2), (r(1, 1, 4, 4), 3, 2, 1)],
    "nn.functional.max_pool3d": [(r(1, 1, 2, 4, 4), 2)],
    **{
        f"nn.functional.{kind}max_pool{d}d_with_indices": [(r(1, 1, *(4,) * d), 2)]
        for kind in ("", "adaptive_") for d in (1, 2, 3)
    },
    **{
        f"nn.functional.fractional_max_pool{d}d_with_indices": [
            (lambda x, d=d: getattr(
                gpunn.nn.functional, f"fractional_max_pool{d}d_with_indices"
            )(x, 2, 2, _random_samples=gpunn.full((1, 1, d), 0.5, dtype=x.dtype)),
             r(1, 1, *(4,) * d))
        ]
        for d in (2, 3)
    },
    "nn.functional.avg_pool1d": [(r(1, 2, 6), 2), (r(1, 2, 6), 3, 2, 1)],
    "nn.functional.avg_pool2d": [(r(1, 2, 4, 4), 2), (r(1, 1, 4, 4), 3, 2, 1)],
    "nn.functional.avg_pool3d": [(r(1, 1, 2, 4, 4), 2)],
    **{
        f"nn.functional.adaptive_{kind}_pool{d}d": [(r(1, 2, *(5,) * d), 2), (r(1, *(2,) * d), 3)]
        for kind in ("avg", "max") for d in (1, 2)
    },
    "nn.functional.adaptive_avg_pool3d": [(r(1, 1, 3, 4, 4), (2, 3, None))],
    "nn.functional.adaptive_max_pool3d": [(r(1, 1, 3, 4, 4), (2, 3, None))],
    "nn.functional.lp_pool1d": [(p(1, 2, 6), 2, 2), (p(1, 2, 6), 3, 3, 1)],
    "nn.functional.lp_pool2d": [(p(1, 1, 4, 4), 2, 2), (r(1, 1, 4, 4), float("inf"), 2)],
    "nn.functional.lp_pool3d": [(p(1, 2, 4, 4), 1.5, 2)],
    "nn.functional.max_unpool1d": [
        (lambda x: gpunn.nn.functional.max_unpool1d(x, I(0, 3, 5)[None], 2), r(1, 3))
    ],
    "nn.functional.max_unpool2d": [
        (lambda x: gpunn.nn.functional.max_unpool2d(x, I(0, 3, 13, 15).reshape(1, 2, 2), 2),
         r(1, 2, 2))
    ],
    "nn.functional.max_unpool3d": [
        (lambda x: gpunn.nn.functional.max_unpool3d(x, I(0, 15).reshape(1, 2, 1, 1), 2),
         r(1, 2, 1, 1))
    ],
    **{
        f"nn.functional.fractional_max_pool{d}d": [
            (lambda x, d=d: (gpunn.manual_seed(0), getattr(
                gpunn.nn.functional, f"fractional_max_pool{d}d")(x, 2, output_size=2))[1],
             r(1, 2, *(5 - d // 2,) * d))
        ] for d in (2, 3)
    },
    "rnn_tanh_cell": [(r(2, 3), r(2, 2), u(2, 3), u(2, 2), u(2), u(2))],
    "rnn_relu_cell": [(r(2, 3), r(2, 2), u(2, 3), u(2, 2))],
    "lstm_cell": [
        (lambda x, h, c, *w: gpunn.lstm_cell(x, (h, c), *w),
         r(2, 3), r(2, 2), r(2, 2), u(8, 3), u(8, 2), u(8), u(8)),
        (lambda x, c, *w: gpunn.lstm_cell(x, (c, c), *w)[1], r(1, 2), r(1, 1), u(4, 2), u(4, 1)),
    ],
    "gru_cell": [(r(2, 3), r(2, 2), u(6, 3), u(6, 2), u(6), u(6))],
    "nn.functional.embedding": [(lambda w: gpunn.nn.functional.embedding(I(0, 2, 2), w), r(3, 2))],
    "nn.functional.embedding_bag": [
        (lambda w, how=how: gpunn.nn.functional.embedding_bag(I(0, 2, 2, 1), w, I(0, 3), mode=how),
         r(3, 2)) for how in ("sum", "mean", "max")
    ],
    "nn.functional.gelu": [
        (M,), (lambda x: gpunn.nn.functional.gelu(x, approximate="tanh"), M),
    ],
    "nn.functional.silu": [(M,)],
    "nn.functional.dropout": [(lambda x: (gpunn.manual_seed(0), gpunn.nn.functional.dropout(x))[1],
                               r(3, 4))],
    **each(
        """nn.functional.relu6 nn.functional.hardtanh nn.functional.hardsigmoid
        nn.functional.hardswish nn.functional.hardshrink nn.functional.softshrink
        nn.functional.leaky_relu nn.functional.selu nn.functional.logsigmoid nn.functional.mish
        nn.functional.softsign nn.functional.tanhshrink""",
        (M,),
    ),
    "nn.functional.elu": [(M,), (M, 0.7)],
    "nn.functional.celu": [(M,), (M, 0.7)],
    "nn.functional.softplus": [(M,), (M, 2.0, 1.1)],
    "nn.functional.threshold": [(M, 0.5, 2.0)],
    "nn.functional.prelu": [(M, r(3)), (V, r(1)), (r(2, 3, 2), r(3))],
    "nn.functional.rrelu": [(M,), (seeded("rrelu", training=True), M)],
    "nn.functional.glu": [(r(2, 4),), (r(4, 3), 0)],
    "nn.functional.softmin": [(M, 1), (M, 0)],
    "nn.functional.gumbel_softmax": [(seeded("gumbel_softmax", tau=0.7, dim=0), M)],
    **{
        f"nn.functional.{name}": [(seeded(name, training=True), r(*shape))]
        for name, shape in (
            ("dropout1d", (2, 2, 3)), ("dropout2d", (2, 2, 1, 3)), ("dropout3d", (2, 2, 1, 1, 3)),
            ("alpha_dropout", (3, 4)), ("feature_alpha_dropout", (2, 2, 3)),
        )
    },
    "nn.functional.softmax": [(M, 1), (M, 0)],
    "nn.functional.log_softmax": [(M, 1), (M, 0)],
    "nn.functional.cross_entropy": [
        (M, I(0, 2)), (M, Draw(0.1, 0.4, (2, 3))),
        (lambda x: gpunn.nn.functional.cross_entropy(x, I(0, 2), label_smoothing=0.1,
                                                     reduction="none"), M),
    ],
    "nn.functional.nll_loss": [(M, I(0, 2))],
    **each("nn.functional.mse_loss nn.functional.l1_loss", (M, u(2, 3))),
    "nn.functional.smooth_l1_loss": [
        (M, u(2, 3)), (lambda a, b: gpunn.nn.functional.smooth_l1_loss(a, b, beta=0.3), M, u(2, 3)),
    ],
    "nn.functional.huber_loss": [(M, u(2, 3)), (M, u(2, 3), "sum", 0.3)],
    "poisson_nll_loss": [(M, p(2, 3), True, True, 1e-8, 1), (p(2, 3), p(2, 3), False, False, 0, 0)],
    "nn.functional.gaussian_nll_loss": [(M, u(2, 3), p(2, 3)), (M, u(2, 3), p(2), True)],
    "kl_div": [(M, p(2, 3), 2), (lambda a, b: gpunn.kl_div(a, b, log_target=True), M, u(2, 3))],
    "margin_ranking_loss": [(M, u(2, 3), I([1], [-1]), 0.1)],
    "hinge_embedding_loss": [(M, I([1], [-1]), 0.5)],
    "nn.functional.soft_margin_loss": [(M, u(2, 3))],
    "nn.functional.multilabel_soft_margin_loss": [(M, u(2, 3), Draw(0.2, 0.8, (3,)))],
    "cosine_embedding_loss": [(M, u(2, 3), I(1, -1), -0.4)],
    "nn.functional.multi_margin_loss": [(M, I(0, 2)), (M, I(0, 2), 2, 0.7, p(3))],
    "nn.functional.multilabel_margin_loss": [(M, I([0, 2, -1], [1, -1, 0]))],
    "triplet_margin_loss": [(M, u(2, 3), r(2, 3)), (M, u(2, 3), r(2, 3), 2.0, 3.0, 1e-6, True)],
    "nn.functional.triplet_margin_with_distance_loss": [(M, u(2, 3), r(2, 3))],
    "nn.functional.linear_cross_entropy": [
        (lambda x, w, b, o=o, how=how: gpunn.nn.functional.linear_cross_entropy(
            x, w, I(0, 2, -100, 1), linear_bias=b, reduction=how, options=o),
         r(4, 3), r(5, 3), u(5))
        for o in (None, gpunn.nn.LinearCrossEntropyOptions(batch_chunk_size=3))
        for how in ("mean", "none")
    ],
    "nn.functional.ctc_loss": [  # its gradient is that of the logits
        (lambda x, how=how: gpunn.nn.functional.ctc_loss(
            x.log_softmax(-1), I([1, 1], [2, 1]), (5, 3), (2, 1), reduction=how), r(5, 2, 3))
        for how in ("mean", "none")
    ],
    "cosine_similarity": [(M, u(2, 3)), (M, u(3), 0)],
    "pairwise_distance": [(M, u(2, 3)), (M, u(3), 3.0, 1e-6, True)],
    "pdist": [(r(4, 2),), (r(4, 2), 1.5), (r(3, 2), 1)],
    "nn.functional.binary_cross_entropy": [(Draw(0.1, 0.9, (3,)), Draw(0.2, 0.8, (3,)))],
    "nn.functional.binary_cross_entropy_with_logits": [(M, Draw(0.2, 0.8, (2, 3)))],
    "nn.functional.normalize": [(M,), (M, 1.0, 0)],
    "nn.functional.pad": [(M, (1, 2)), (r(1, 2, 3), (1, 1), "reflect"),
                          (r(1, 2, 3), (1, 1), "replicate"), (r(1, 2, 3), (1, 1), "circular")],
    "nn.functional.pixel_shuffle": [(r(1, 4, 2, 1), 2)],
    "nn.functional.pixel_unshuffle": [(r(1, 1, 2, 4), 2)],
    **each("nn.functional.channel_shuffle nn.functional.native_channel_shuffle", (r(1, 4, 2), 2)),
    "nn.functional.grid_sample": [
        (r(1, 2, 3, 2), r(1, 1, 3, 2), "bilinear", "zeros", False),
        (r(1, 1, 3, 2), r(1, 2, 2, 2), "bilinear", "reflection", True),
        (r(1, 1, 3, 4), r(1, 1, 3, 2), "bicubic", "border", False),
        (r(1, 1, 2, 2, 2), r(1, 1, 1, 3, 3), "bilinear", "border", False),
        (r(1, 1, 2, 2), r(1, 1, 2, 2), "nearest", "zeros", False),
    ],
    "nn.functional.affine_grid": [
        (r(2, 2, 3), (2, 1, 2, 3), False), (r(1, 3, 4), (1, 1, 2, 2, 3), True),
    ],
    "nn.functional.interpolate": [
        (lambda x, size, mode, more: gpunn.nn.functional.interpolate(x, size, mode=mode, **more),
         r(*shape), size, mode, more)
        for shape, size, mode, more in (
            ((1, 2, 3), 5, "nearest", {}), ((1, 2, 4), 3, "linear", {}),
            ((1, 1, 2, 3), (3, 2), "bilinear", {"align_corners": True}),
            ((1, 1, 3, 4), (2, 5), "bicubic", {}), ((1, 1, 2, 2, 2), 3, "trilinear", {}),
            ((1, 1, 5, 4), (2, 3), "bicubic", {"antialias": True}),
        )
    ],
    **{
        f"nn.functional.{name}": [(quiet(name), r(1, 1, 2, 3), 4)]
        for name in ("upsample", "upsample_nearest", "upsample_bilinear")
    },
    "nn.functional.batch_norm": [
        (lambda x, w, b: gpunn.nn.functional.batch_norm(x, None, None, w, b, True), r(4, 2), r(2),
         r(2))
    ],
    "nn.functional.layer_norm": [(r(3, 4), (4,), r(4), r(4)), (r(2, 2, 3), (2, 3))],
    "nn.functional.rms_norm": [(r(3, 4), (4,), r(4)), (r(2, 3), (3,))],
    "nn.functional.group_norm": [(r(2, 4, 2), 2, r(4), r(4)), (r(2, 4), 2)],
    "nn.functional.instance_norm": [
        (lambda x, w, b: gpunn.nn.functional.instance_norm(x, None, None, w, b), r(2, 2, 3), r(2),
         r(2))
    ],
    "nn.functional.local_response_norm": [(r(2, 3, 2), 2, 0.5)],
}  # fmt: skip


def _sign_free(u, s, *rest):
    """Singular vectors are unique up to a sign: their squares are functions of the matrix."""
    return s, u**2, *(v.abs() ** 2 for v in rest)


#: Results that are integers, bools or no tensors; new tensors; numbers and classes; operations
#: that PyTorch gives no gradient, and those that draw random numbers.
WITHOUT_GRADIENT = """
    all any allclose equal isclose isin eq ge gt le lt ne logical_and logical_not logical_or
    logical_xor bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
    bitwise_xor isfinite isinf isnan isneginf isposinf isreal signbit is_conj is_neg is_complex
    is_floating_point is_inference is_nonzero is_same_size is_signed is_storage is_tensor
    argmax argmin argsort argwhere nonzero nonzero_static count_nonzero bincount bucketize
    searchsorted unravel_index histc histogram histogramdd unique unique_consecutive numel
    gcd lcm floor_divide result_type typename broadcast_shapes
    empty empty_like empty_permuted empty_strided full full_like ones ones_like zeros zeros_like
    as_tensor asarray from_numpy frombuffer from_dlpack to_dlpack scalar_tensor tensor eye arange
    range linspace logspace tril_indices triu_indices bartlett_window blackman_window
    hamming_window hann_window kaiser_window one_hot
    e inf nan pi newaxis set_default_tensor_type tensortype FloatTensor DoubleTensor HalfTensor
    BFloat16Tensor LongTensor IntTensor ShortTensor CharTensor ByteTensor BoolTensor
    ComplexFloatTensor ComplexDoubleTensor
    heaviside nextafter geqrf ormqr pca_lowrank svd_lowrank
    nn.functional.sinusoidal_position_encoding
    """

#: Operations whose gradient PyTorch gives no gradient.
ONCE = {"nn.functional.ctc_loss"}


def _set(x, v):
    x[1] = v
    x[0, I(0, 2)] = v[:2] * 2
    return x


def _resolve(name):
    found = gpunn
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _id(case):
    return f"{case[0]}-{case[1]}"


def _operations():
    """The public operations, by the function they are: aliases count once."""
    found = {}
    for module in pkgutil.iter_modules(gpunn.ops.__path__):
        for name in getattr(importlib.import_module(f"gpunn.ops.{module.name}"), "__all__", []):
            found.setdefault(id(getattr(gpunn, name)), set()).add(name)
    for name in dir(gpunn.nn.functional):
        function = getattr(gpunn.nn.functional, name)
        if not name.startswith("_") and callable(function):
            found.setdefault(id(function), set()).add(f"nn.functional.{name}")
    return list(found.values())


def test_every_operation_has_a_case_or_no_gradient():
    known = set(CASES) | set(WITHOUT_GRADIENT.split())
    known |= {f"nn.functional.{n}" for n in known}
    missing = [sorted(names) for names in _operations()
               if not names & known and not any(n.endswith("_") for n in names)]  # fmt: skip
    assert not missing, f"add a line to CASES or WITHOUT_GRADIENT: {missing}"


def _pairs():
    return [(name, k) for name, cases in CASES.items() for k in range(len(cases))]


@pytest.mark.parametrize("case", _pairs(), ids=_id)
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_are_those_of_finite_differences(case, order):
    name, k = case
    arguments = CASES[name][k]
    if callable(arguments[0]):
        f, arguments = arguments[0], arguments[1:]
    else:
        f = _resolve(name)
    inputs = [a.make(i) if isinstance(a, Draw) else a for i, a in enumerate(arguments)]
    if order == 1:
        assert gradcheck(f, inputs)
    elif name in ONCE:
        with pytest.raises(RuntimeError, match="derivative for aten::.*_backward is not impl"):
            gradgradcheck(f, inputs)
    else:
        assert gradgradcheck(f, inputs)
