"""Parametrizations to use: weight norm, spectral norm, orthogonal matrices.

Source: https://docs.pytorch.org/docs/stable/nn.html#utilities
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, TypeVar

import gpunn
from gpunn import autograd
from gpunn.nn.distance import normalize
from gpunn.nn.module import Module
from gpunn.nn.utils.parametrize import register_parametrization
from gpunn.nn.utils.weight_norm import _weight_norm, norm_except_dim
from gpunn.tensor import Tensor

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


def _tensor_of(module: Module, name: str) -> Tensor:
    tensor = getattr(module, name, None)
    if not isinstance(tensor, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    return tensor


# --- weight norm -------------------------------------------------------------------------------


class _WeightNorm(Module):
    """Magnitudes (original0) times directions (original1)."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return _weight_norm(weight_v, weight_g, self.dim)  # type: ignore[no-any-return]

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Splits a tensor into magnitudes and directions: g * v / ||v||, one g for each index of `dim`.

    `dim` None gives the whole tensor one magnitude. They are
    `module.parametrizations.weight.original0` and `original1`; `load_state_dict` also takes the
    `weight_g` and `weight_v` of `nn.utils.weight_norm`. Returns the module. Raises ValueError for
    a name that is no parameter or buffer.
    Sources: https://arxiv.org/abs/1602.07868,
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrizations.weight_norm.html

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(20, 40))
    >>> layer.parametrizations.weight.original0.shape
    torch.Size([40, 1])
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def take_older_names(state_dict: Any, prefix: str, *rest: Any) -> None:
        older = [f"{prefix}{name}_g", f"{prefix}{name}_v"]
        if all(key in state_dict for key in older):
            for i, key in enumerate(older):
                state_dict[f"{prefix}parametrizations.{name}.original{i}"] = state_dict.pop(key)

    module._register_load_state_dict_pre_hook(take_older_names)
    return module


# --- spectral norm -----------------------------------------------------------------------------


class _SpectralNorm(Module):
    """A tensor divided by its largest singular value, which the power method follows."""

    _u: Any
    _v: Any

    def __init__(
        self, weight: Any, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ) -> None:
        super().__init__()
        ndim = len(weight.shape)
        if not -ndim <= dim < ndim:
            raise IndexError(
                f"Dimension out of range (expected to be in range of [-{ndim}, {ndim - 1}] but "
                f"got {dim})"
            )
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but got "
                f"n_power_iterations={n_power_iterations}"
            )
        self.dim = dim % ndim
        self.eps = eps
        if ndim > 1:
            self.n_power_iterations = n_power_iterations
            with autograd.no_grad():
                matrix = self._matrix(weight)
                for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
                    vector = matrix.new_empty(size).normal_(0, 1)
                    self.register_buffer(name, normalize(vector, dim=0, eps=eps))
                self._power_method(matrix, 15)

    def _matrix(self, weight: Any) -> Any:
        return weight.movedim(self.dim, 0).flatten(1)

    def _power_method(self, matrix: Any, iterations: int) -> None:
        """Improves the singular vectors, in place: the replicas of DataParallel share them."""
        with autograd.no_grad():
            for _ in range(iterations):
                normalize(matrix.mv(self._v), dim=0, eps=self.eps, out=self._u)
                normalize(matrix.H.mv(self._u), dim=0, eps=self.eps, out=self._v)

    def forward(self, weight: Any) -> Any:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = self._matrix(weight)
        if self.training:
            self._power_method(matrix, self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()  # the next call changes them before backward
        return weight / u.vdot(matrix.mv(v))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> M:  # fmt: skip
    """Divides a tensor by its largest singular value, as the matrix of `dim` against the rest.

    The value is followed by `n_power_iterations` of the power method at each access in training
    mode. `dim` is 0 by default, 1 for transposed convolutions. A vector is divided by its norm.
    Returns the module. Raises ValueError for a name that is no tensor and for
    `n_power_iterations` below 1, IndexError for `dim`.
    Sources: https://arxiv.org/abs/1802.05957,
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrizations.spectral_norm.html

    >>> layer = nn.utils.parametrizations.spectral_norm(nn.Linear(20, 40), n_power_iterations=5)
    >>> bool(gpunn.linalg.matrix_norm(layer.weight, 2) < 1.1)
    True
    """
    weight = _tensor_of(module, name)
    if dim is None:
        dim = 1 if getattr(module, "transposed", False) else 0
    normed = _SpectralNorm(weight, n_power_iterations, dim, eps)
    return register_parametrization(module, name, normed)


# --- orthogonal --------------------------------------------------------------------------------


class _OrthMaps(Enum):
    matrix_exp = auto()
    cayley = auto()
    householder = auto()


def _is_orthogonal(q: Any) -> bool:
    one = gpunn.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    return gpunn.allclose(q.mH @ q, one, atol=10.0 * q.shape[-2] * gpunn.finfo(q.dtype).eps)


def _orthogonalised(a: Any) -> Any:
    """The Q of the QR decomposition of a tall matrix whose R has a diagonal of no negative."""
    packed, tau = gpunn.geqrf(a)
    q = gpunn.linalg.householder_product(packed, tau)
    return q * packed.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)


class _Orthogonal(Module):
    """A matrix with orthonormal columns (rows, where it is wide) from an unconstrained one."""

    def __init__(self, weight: Any, orthogonal_map: _OrthMaps, *, use_trivialization: bool) -> None:
        super().__init__()
        if weight.is_complex() and orthogonal_map is _OrthMaps.householder:
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, x: Any) -> Any:
        wide = x.shape[-2] < x.shape[-1]
        if wide:
            x = x.mT
        by_reflections = self.orthogonal_map is _OrthMaps.householder
        q = self._reflected(x) if by_reflections else self._rotated(x)
        if hasattr(self, "base"):
            q = self.base @ q
        return q.mT if wide else q

    def _rotated(self, x: Any) -> Any:
        """The first columns of the rotation that a skew-symmetric matrix generates."""
        n, k = x.shape[-2:]
        x = x.tril()
        if n != k:
            x = gpunn.cat([x, x.new_zeros(*x.shape[:-1], n - k)], dim=-1)
        skew = x - x.mH
        if self.orthogonal_map is _OrthMaps.matrix_exp:
            q = gpunn.matrix_exp(skew)
        else:
            one = gpunn.eye(n, dtype=skew.dtype, device=skew.device)
            q = gpunn.linalg.solve(one - 0.5 * skew, one + 0.5 * skew)
        return q[..., :k] if n != k else q

    def _reflected(self, x: Any) -> Any:
        """The product of the reflections whose vectors lie below the diagonal, its signs on it."""
        vectors = x.tril(diagonal=-1)
        tau = 2.0 / (1.0 + (vectors * vectors).sum(dim=-2))
        signs = x.detach().diagonal(dim1=-2, dim2=-1).int()
        return gpunn.linalg.householder_product(vectors, tau) * signs.unsqueeze(-2)

    def right_inverse(self, q: Any) -> Any:
        if q.shape != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of "
                f"shape {q.shape}."
            )
        with autograd.no_grad():
            wide = q.shape[-2] < q.shape[-1]
            tall = q.mT if wide else q
            if hasattr(self, "base"):
                self.base = self._completed(tall)
                start = gpunn.zeros_like(q)  # of reflections, -1 on the diagonal is the identity
                start.diagonal(dim1=-2, dim2=-1).fill_(-1.0)
                return start
            packed = self._reflections(tall)
            return packed.mT if wide else packed

    def _completed(self, q: Any) -> Any:
        """A square orthogonal matrix that begins with `q`, made orthogonal where it is not."""
        n, k = q.shape[-2:]
        if n == k:
            return q.clone() if _is_orthogonal(q) else _orthogonalised(q)
        rest = gpunn.randn(*q.shape[:-2], n, n - k, dtype=q.dtype, device=q.device)
        return _orthogonalised(gpunn.cat([q, rest], dim=-1))

    def _reflections(self, q: Any) -> Any:
        """The vectors of the reflections whose product is `q`, and its signs on the diagonal."""
        if self.orthogonal_map is not _OrthMaps.householder:
            raise NotImplementedError(
                "It is not possible to assign to the matrix exponential or the Cayley "
                "parametrizations when use_trivialization=False."
            )
        packed, tau = gpunn.geqrf(q)
        diagonal = packed.diagonal(dim1=-2, dim2=-1)
        signs = diagonal.sign()
        diagonal.copy_(gpunn.where(tau == 0.0, -signs, signs))  # tau 0: LAPACK did not reflect
        return packed


def orthogonal(
    module: M, name: str = "weight", orthogonal_map: str | None = None, *,
    use_trivialization: bool = True,
) -> M:  # fmt: skip
    """Keeps a matrix, or each of a batch (..., m, n), orthogonal: unitary, where it is complex.

    Its columns are orthonormal, its rows where m < n. `orthogonal_map` computes it from an
    unconstrained matrix: "matrix_exp" (the default for square and complex ones), "cayley" or
    "householder" (the default for others). It starts from the tensor's value, made orthogonal;
    `use_trivialization` keeps that as a buffer, `base`, relative to which the matrix moves.
    Returns the module. Raises ValueError for a name that is no tensor, for a vector, for another
    map, and for "householder" of a complex tensor.
    Sources: https://arxiv.org/abs/1909.09501,
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrizations.orthogonal.html

    >>> layer = nn.utils.parametrizations.orthogonal(nn.Linear(20, 40))
    >>> gpunn.allclose(layer.weight.T @ layer.weight, gpunn.eye(20), atol=1e-5)
    True
    """
    weight: Any = _tensor_of(module, name)
    if weight.ndim < 2:
        raise ValueError(
            f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions."
        )
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square or weight.is_complex() else "householder"
    if orthogonal_map not in _OrthMaps.__members__:
        raise ValueError(
            'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: '
            f"{orthogonal_map}"
        )
    made = _Orthogonal(weight, _OrthMaps[orthogonal_map], use_trivialization=use_trivialization)
    return register_parametrization(module, name, made, unsafe=True)
