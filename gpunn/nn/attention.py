"""Scaled dot-product attention: softmax(query keyᵀ scale + mask) value.

A block of the scores at a time, on the CPU (kernels/attention.cpp, or attention_numpy.py) as on a
GPU (kernels/attention.cu): no matrix of all scores exists, and memory is linear in the lengths.
Rows that may attend to nothing give zeros, and zero gradient.
Sources: Vaswani et al., "Attention Is All You Need" (2017); Dao, "FlashAttention-2" (2023).
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gpunn import native
from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import needs as is_recorded
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import attention as kernels
from gpunn.dtypes import F32
from gpunn.nn import attention_numpy
from gpunn.nn.attention_dropout import Redrawn, draw_kept, philox_keep
from gpunn.nn.softmax import softmax
from gpunn.ops._rows import cast, half, not_a_tensor, proper, size_error
from gpunn.tensor import Tensor, wrap


class Call(NamedTuple):
    """What an attention is beside its arrays.

    `batch` is the shape of the scores without their last two dimensions; each head of key and
    value serves `group` heads of the query. Weights are kept with probability `keep`.
    """

    batch: tuple[int, ...]
    group: int
    scale: float
    causal: bool
    keep: float


# --- the operation ------------------------------------------------------------------------


def _composed(
    q: Tensor, k: Tensor, v: Tensor, out: Any, mask: Any, drop: Any, call: Call, kept: Any = None
) -> Tensor:
    """The same in plain operations: for second derivatives and whatever has no quicker body."""
    dtype = q.array.dtype
    if half(dtype):
        q, k, v = cast(q, F32), cast(k, F32), cast(v, F32)
    if call.group > 1 and k.shape[-3:-2] != (1,) and k.ndim > 2:
        k, v = (x.repeat_interleave(call.group, -3) for x in (k, v))  # type: ignore[attr-defined]
    scores = (q * call.scale) @ k.swapaxes(-2, -1)  # type: ignore[operator]
    scores, dead = _masked(scores, mask, call.causal)
    weights = softmax(scores, -1)
    if dead is not None:
        weights = weights.masked_fill(dead, 0.0)
    if isinstance(drop, tuple):
        drop = philox_keep(drop[0], drop[1], tuple(scores.shape), call.keep, xp=q.device.xp)
    elif isinstance(drop, Redrawn):
        drop = drop.whole()
    if drop is not None:
        weights = weights * wrap(drop / q.array.dtype.type(call.keep or 1), q.device)  # type: ignore[operator]
    return cast(weights @ v, dtype)  # type: ignore[operator]


def _masked(scores: Any, mask: Any, causal: bool) -> tuple[Any, Any]:
    """The masked scores, and which rows may attend to nothing: theirs are zeros."""
    xp, device = scores.device.xp, scores.device
    if causal:
        hidden = ~xp.tri(*scores.shape[-2:], dtype=bool)
        return scores.masked_fill(wrap(hidden, device), -math.inf), None
    if mask is None:
        return scores, None
    mask = mask if isinstance(mask, Tensor) else wrap(mask, device)
    if mask.array.dtype == np.bool_:
        hidden = ~mask.array
        scores = scores.masked_fill(wrap(hidden, device), -math.inf)
    else:
        scores = scores + cast(mask, scores.array.dtype)
        hidden = mask.array == -xp.inf
    dead = wrap(hidden.all(axis=-1, keepdims=True), device)
    return scores.masked_fill(dead, 0.0), dead


@vjp((0, 1, 2, -1, None, None, None, None), composed=_composed, masked=True,
     name="ScaledDotProductAttentionBackward0")  # fmt: skip
def _attention_vjp(
    g: Any, q: Any, k: Any, v: Any, out: Any, mask: Any, drop: Any, call: Call, kept: Any,
    needs: tuple[bool, ...],
) -> Any:  # fmt: skip
    if type(g) is np.ndarray:
        known = g, q, k, v, out, kept, mask
        found = native.attention_backward(*known, getattr(drop, "marks", drop), call, needs)
        return found or attention_numpy.attention_backward(*known, drop, call)
    return kernels.attention_backward(g, q, k, v, out, kept, mask, drop, call, needs)


@autocasts("scaled_dot_product_attention")
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(query keyᵀ * scale + mask) value, each weight dropped with probability `dropout_p`.

    Shapes: query (..., L, E), key (..., S, E), value (..., S, Ev), result (..., L, Ev); the
    leading dimensions broadcast. `attn_mask` broadcasts to (..., L, S): bool, True where a query
    may attend to a key (the opposite of MultiheadAttention's masks), or numbers that are added to
    the scores. `is_causal`: row i sees keys 0 to i. `scale` is 1 / sqrt(E) unless given.
    `enable_gqa`: query has a multiple of the heads (dimension -3) of key and value, and each of
    these serves as many heads of the query, in order. A row that may attend to nothing is zero.
    dtypes: floating, the same for all; 16-bit ones are computed in float32. Dropout always takes
    place where `dropout_p` > 0; on the CPU its mask is PyTorch's for the same seed. Memory is
    linear in L and S, with dropout too: all L S weights exist only for the gradient of
    `attn_mask` and for derivatives of second order. Where the C++ library is in use the result
    lies in memory as the query does, so that heads that view and transpose split off are joined
    again without a copy.
    RuntimeError for shapes, dtypes, devices and masks that do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html

    >>> q = gpunn.zeros(1, 2, 4)
    >>> F.scaled_dot_product_attention(q, q, gpunn.tensor([[[1.], [3.]]]), is_causal=True)
    tensor([[[1.],
             [2.]]])
    """
    _check(query, key, value, attn_mask, dropout_p, is_causal, scale)
    key, value, batch, group = _heads(query, key, value, enable_gqa)
    rows, columns = query.array.shape[-2], key.array.shape[-2]
    _check_sizes(query, key, value, attn_mask, (*batch, rows, columns))
    width = query.array.shape[-1]
    factor = 1 / math.sqrt(width or 1) if scale is None else float(scale)
    call = Call(batch, group, factor, bool(is_causal), 1 - max(dropout_p, 0.0))
    drop = draw_kept((*batch, rows, columns), call.keep, query.device)
    arrays = query.array, key.array, value.array
    shared = _broadcast(batch, value.array.shape[:-2], group) == batch  # else value has more
    if not is_recorded(attn_mask) and shared and columns and query.array.dtype.kind in "fV":
        mask = None if attn_mask is None else attn_mask.array
        found: Any
        if type(query.array) is np.ndarray:
            marks = getattr(drop, "marks", drop)
            found = native.attention_forward(*arrays, mask, marks, call)
            found = found or attention_numpy.attention_forward(*arrays, mask, drop, call)
        else:
            found = kernels.attention_forward(*arrays, mask, drop, call)
        if found is not None:
            out, kept = found
            saved = (*arrays, out, mask, drop, call, kept)
            return result(out, query, _attention_vjp, (query, key, value), saved)
    return _composed(query, key, value, None, attn_mask, drop, call)


# --- checks -------------------------------------------------------------------------------

_NAMES = {
    "float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16",
    "int64": "long int", "int32": "int", "complex64": "c10::complex<float>",
    "complex128": "c10::complex<double>",
}  # fmt: skip


def _dtype_name(x: Tensor) -> str:
    return _NAMES.get(x.dtype.name, x.dtype.name)


def _check(
    query: Any, key: Any, value: Any, mask: Any, dropout_p: float, causal: bool, scale: Any
) -> None:
    """What PyTorch checks first: types, dtypes, devices, numbers of dimensions, the mask."""
    name = "scaled_dot_product_attention"
    for i, (label, x) in enumerate((("query", query), ("key", key), ("value", value))):
        if not isinstance(x, Tensor):
            raise not_a_tensor(name, x, label, i + 1)
    if not (query.dtype is key.dtype is value.dtype):
        raise _differ("dtype", *map(_dtype_name, (query, key, value)))
    if not (query.device is key.device is value.device):
        raise _differ("device type", query.device, key.device, value.device)
    if min(query.array.ndim, key.array.ndim, value.array.ndim) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be  at least 2 dimensional, but got "
            f"query.dim: {query.array.ndim} key.dim: {key.array.ndim} and value.dim: "
            f"{value.array.ndim} instead. The dimensions are (..., length, size of a head)."
        )
    if mask is not None:
        _check_mask(query, mask, causal)
    if scale is not None and not isinstance(scale, (int, float, np.number)):
        raise TypeError(f"{name}(): argument 'scale' must be float, not {type(scale).__name__}")
    if dropout_p > 1:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {dropout_p}")
    kind = query.array.dtype.kind
    if kind == "c":
        raise NotImplementedError(
            f"\"softmax_lastdim_kernel_impl\" not implemented for '{proper(query.dtype)}'"
        )
    if kind not in "fV":
        raise RuntimeError(f"expected scalar type Float but found {proper(query.dtype)}")


def _differ(what: str, *found: Any) -> RuntimeError:
    label = what.split()[0]
    return RuntimeError(
        f"Expected query, key, and value to have the same {what}, but got query.{label}: "
        f"{found[0]} key.{label}: {found[1]} and value.{label}: {found[2]} instead."
    )


def _check_mask(query: Tensor, mask: Any, causal: bool) -> None:
    if not isinstance(mask, Tensor):
        raise TypeError(
            "scaled_dot_product_attention(): argument 'attn_mask' must be Tensor, not "
            f"{type(mask).__name__}"
        )
    if mask.dtype is not query.dtype and mask.dtype.name not in ("bool", "float32"):
        raise RuntimeError(
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
            f"attn_mask.dtype: {_dtype_name(mask)} and  query.dtype: {_dtype_name(query)} instead."
        )
    if mask.device is not query.device:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but query is on {query.device} and "
            f"attn_mask on {mask.device}. Use .to() to move one of them."
        )
    if causal:
        raise RuntimeError(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when "
            "is_causal=True. Put the causal mask into attn_mask, or leave one of them out."
        )


def _heads(
    query: Tensor, key: Any, value: Any, gqa: bool
) -> tuple[Tensor, Tensor, tuple[int, ...], int]:
    """(key, value, batch shape of the scores, heads of query for each head of key and value)."""
    q, k, v = query.array.shape, key.array.shape, value.array.shape
    if gqa:
        for shape in (q, k, v):
            if len(shape) < 3:
                raise IndexError("Dimension out of range (expected to be in range of [-2, 1], but "
                                 "got -3): enable_gqa needs a dimension of heads")  # fmt: skip
        if not (k[-3] and v[-3]) or q[-3] % k[-3] or q[-3] % v[-3]:
            raise RuntimeError(
                "Number of heads in key and value must divide the number of heads in query, got "
                f"{k[-3]} and {v[-3]} for {q[-3]}"
            )
        if k[-3] == v[-3]:
            group = q[-3] // k[-3]
            lead = _broadcast(q[:-3], k[:-3])
            return key, value, (*lead, q[-3]), group
        key, value = (x.repeat_interleave(q[-3] // x.shape[-3], -3) for x in (key, value))
        return key, value, (*_broadcast(q[:-3], k[:-3]), q[-3]), 1
    batch = _broadcast(q[:-2], k[:-2])
    one = all(len(s) < 3 or s[-3] == 1 for s in (k, v))  # one head for all of the query's
    return key, value, batch, batch[-1] if batch and one and batch[-1] else 1


def _broadcast(a: tuple[int, ...], b: tuple[int, ...], group: int = 1) -> tuple[int, ...]:
    """The shape that both broadcast to; b's last dimension counts `group` times."""
    if group > 1 and b:
        b = (*b[:-1], b[-1] * group)
    if a == b:
        return a
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        raise size_error(a, b) from None


def _check_sizes(query: Tensor, key: Tensor, value: Tensor, mask: Any, shape: Any) -> None:
    """That the matrix products exist, and that the mask fits the scores."""
    (rows, width), (columns, other) = query.array.shape[-2:], key.array.shape[-2:]
    many, length = math.prod(shape[:-2]), value.array.shape[-2]
    if width != other:
        raise _no_product(shape, (rows, width), (other, columns), [many, width], [many, other])
    if columns != length:
        tail = (length, value.array.shape[-1])
        raise _no_product(shape, (rows, columns), tail, [many, columns], [many, length])
    if mask is not None:
        both = _broadcast(shape, mask.array.shape)
        if both != shape:
            raise RuntimeError(
                f"output with shape {list(shape)} doesn't match the broadcast shape {list(both)}: "
                f"attn_mask has shape {list(mask.array.shape)}"
            )


def _no_product(shape: Any, a: Any, b: Any, want: Any, got: Any) -> RuntimeError:
    if len(shape) == 2:
        text = f"mat1 and mat2 shapes cannot be multiplied ({a[0]}x{a[1]} and {b[0]}x{b[1]})"
    else:
        text = "Expected size for first two dimensions of batch2 tensor to be: "
        text += f"{want} but got: {got}."
    return RuntimeError(
        f"{text} scaled_dot_product_attention: query is (..., L, E), key (..., S, E) and value "
        f"(..., S, Ev)"
    )


# --- PyTorch's choice of backends ---------------------------------------------------------


class SDPBackend(enum.IntEnum):
    """PyTorch's names of its implementations of attention. gpunn has one for each device.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.attention.SDPBackend.html

    >>> gpunn.nn.attention.SDPBackend.MATH
    <SDPBackend.MATH: 0>
    """

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4
    __str__ = enum.Enum.__str__


@contextlib.contextmanager
def sdpa_kernel(
    backends: list[SDPBackend] | SDPBackend, set_priority: bool = False
) -> Iterator[dict[str, Any]]:
    """Accepted so that scripts run: gpunn has one implementation per device, which stays in use.

    AssertionError for anything but an SDPBackend or a list.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.attention.sdpa_kernel.html

    >>> from gpunn.nn.attention import SDPBackend, sdpa_kernel
    >>> with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
    ...     y = F.scaled_dot_product_attention(*[gpunn.ones(1, 2, 4)] * 3)
    """
    if not isinstance(backends, (list, SDPBackend)):
        raise AssertionError(
            "Backend must be an instance of SDPBackend or a list of SDPBackend instances, got "
            f"{type(backends).__name__}"
        )
    yield {}
