"""What all of linear algebra shares: the error, the checks, return types, VJPs in Tensors."""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace, result, vjp
from gpunn.device import CPU, Device
from gpunn.ops._rows import half, proper, write_out
from gpunn.tensor import ARRAY_TYPES, Tensor, wrap


class LinAlgError(RuntimeError):
    """A matrix for which there is no answer: singular, not positive-definite, not finite.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.LinAlgError.html

    >>> try:
    ...     gpunn.linalg.inv(gpunn.zeros(1, 1))
    ... except gpunn.linalg.LinAlgError as error:
    ...     print(str(error)[:42])
    linalg.inv: The diagonal element 1 is zero
    """


# --- checks -------------------------------------------------------------------------------


def check_tensor(name: str, argument: str, x: Any, place: int = 1) -> None:
    """TypeError for what is no Tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name.replace('.', '_')}(): argument '{argument}' (position {place}) must be Tensor, "
            f"not {type(x).__name__}"
        )


def check_matrix(name: str, x: Any, argument: str = "A") -> None:
    """RuntimeError for fewer than two dimensions."""
    check_tensor(name, argument, x)
    if x.array.ndim < 2:
        raise RuntimeError(
            f"{name}: The input tensor {argument} must have at least 2 dimensions. "
            f"(its shape is {list(x.array.shape)})"
        )


def check_square(name: str, x: Any, argument: str = "A") -> None:
    """RuntimeError for what is no batch of square matrices."""
    check_matrix(name, x, argument)
    n, m = x.array.shape[-2:]
    if n != m:
        raise RuntimeError(
            f"{name}: {argument} must be batches of square matrices, but they are {n} by {m} "
            "matrices"
        )


def check_floating(name: str, x: Tensor, low: bool = False) -> None:
    """RuntimeError for integers, and unless `low` for half precision."""
    if x.array.dtype.kind in "biu":
        raise RuntimeError(
            f"{name}: Expected a floating point or complex tensor as input. Got {proper(x.dtype)}"
        )
    if half(x.array.dtype) and not low:
        raise NotImplementedError(
            f"{name}: Low precision dtypes not supported, it is \"not implemented for "
            f"'{proper(x.dtype)}'\". Got {proper(x.dtype)}"
        )


def check_same_dtype(name: str, a: Tensor, b: Tensor, of: tuple[str, str] = ("A", "B")) -> None:
    """RuntimeError for operands of two dtypes."""
    if a.array.dtype != b.array.dtype:
        raise RuntimeError(
            f"{name}: Expected {of[0]} and {of[1]} to have the same dtype, but found {of[0]} of "
            f"type {proper(a.dtype)} and {of[1]} of type {proper(b.dtype)} instead"
        )


def batch_element(index: int, shape: Sequence[int]) -> str:
    """ "(Batch element 3): " for an error; empty for a single matrix."""
    return f"(Batch element {index}): " if len(shape) > 2 else ""


# --- results ------------------------------------------------------------------------------


def return_type(name: str, *fields: str) -> Any:
    """PyTorch's named tuple of a function with several results."""
    made = namedtuple(name, fields)  # type: ignore[misc]
    made.__module__ = "torch.return_types"

    def show(self: Any) -> str:
        lines = ",\n".join(f"{field}={value!r}" for field, value in zip(fields, self, strict=True))
        return f"torch.return_types.{name}(\n{lines})"

    made.__repr__ = show  # type: ignore[method-assign, assignment]
    return made


def give(made: Any, out: Any, name: str) -> Any:
    """A result, or the tensors of `out=` filled with it."""
    if out is None:
        return made
    if isinstance(made, Tensor):
        return write_out(out, made, name)
    return type(made)(*(write_out(o, v, name) for o, v in zip(out, made, strict=True)))


# --- raw arrays ---------------------------------------------------------------------------


def lapack(name: str, *args: Any, **kwargs: Any) -> Any:
    """`numpy.linalg`'s or `cupy.linalg`'s function; np.linalg.LinAlgError where it has none."""
    xp = namespace(args[0])
    if xp is np:
        return getattr(np.linalg, name)(*args, **kwargs)
    import cupyx

    function = getattr(xp.linalg, name, None)
    if function is None:  # CuPy without it: on the host
        made = getattr(np.linalg, name)(*(a.get() for a in args), **kwargs)
        return tuple(map(xp.asarray, made)) if isinstance(made, tuple) else xp.asarray(made)
    with cupyx.errstate(linalg="raise"):
        return function(*args, **kwargs)


def device_of(array: Any) -> Device:
    """The device of a raw array."""
    return CPU if type(array) is np.ndarray else Device("cuda", array.device.id)


# --- VJPs in Tensors ------------------------------------------------------------------------


def tensor_vjp(saves: Sequence[int | None] = (), name: str | None = None) -> Callable[..., Any]:
    """A VJP written with Tensors only: raw arrays are wrapped before and unwrapped after.

    Linear algebra is never so small that this counts, and one formula serves all orders.
    """

    def declare(function: Callable[..., Any]) -> Any:
        def run(g: Any, *saved: Any) -> Any:
            parts = g if isinstance(g, (list, tuple)) else [g]
            if any(isinstance(p, Tensor) for p in parts):
                return function(g, *map(lift, saved))
            made = function([lift(p) for p in g] if parts is g else lift(g), *map(lift, saved))
            return tuple(map(lower, made)) if isinstance(made, tuple) else lower(made)

        run.__name__ = function.__name__
        return vjp(saves, name=name)(run)

    return declare


def lift(x: Any) -> Any:
    """A raw array as a Tensor; anything else as it is."""
    if isinstance(x, np.generic):
        return wrap(np.asarray(x))
    return wrap(x, device_of(x)) if type(x) in ARRAY_TYPES else x


def lower(x: Any) -> Any:
    """A Tensor's raw array."""
    return x.array if isinstance(x, Tensor) else x


@tensor_vjp((0,), name="ZerosBackward0")
def _constant_vjp(g: Any, x: Any) -> Any:
    return x * 0


def constant(array: Any, x: Tensor) -> Tensor:
    """A result that does not depend on x's values, but counts as one that does."""
    return result(array, x, _constant_vjp, (x,), (x.array,))


# --- matrices -----------------------------------------------------------------------------


def adjoint(x: Any) -> Any:
    """The conjugate transpose."""
    x = x.transpose(-2, -1)
    return x.conj() if x.is_complex() else x


def diagonal_of(x: Any) -> Any:
    """The main diagonals."""
    return x.diagonal(0, -2, -1)


def as_diagonal(x: Any) -> Any:
    """Matrices with x on the main diagonal."""
    return x.diag_embed()


def identity(n: int, like: Tensor, columns: int | None = None) -> Tensor:
    """The identity in the dtype and on the device of `like`."""
    made = like.device.xp.eye(n, columns, dtype=like.array.dtype)
    return wrap(made, like.device)


def real_part(x: Any) -> Any:
    """The real part, of a real tensor itself."""
    return x.real if x.is_complex() else x


def joined(parts: list[Any], dim: int) -> Any:
    """Tensors side by side."""
    return namespace(parts[0]).cat(parts, dim)


def common_batch(a: Any, b: Any) -> tuple[Any, Any]:
    """Two batches of matrices broadcast to one batch shape."""
    if a.array.shape[:-2] == b.array.shape[:-2]:
        return a, b
    try:
        batch = np.broadcast_shapes(a.array.shape[:-2], b.array.shape[:-2])
    except ValueError:
        from gpunn.ops._rows import size_error

        raise size_error(a.array.shape[:-2], b.array.shape[:-2]) from None
    return a.expand(*batch, *a.array.shape[-2:]), b.expand(*batch, *b.array.shape[-2:])
