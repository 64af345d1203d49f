"""Scaled dot-product attention: softmax(query keyᵀ scale + mask) value.

On the CPU a block of query rows at a time, small enough for the cache, so that no matrix of all
scores has to fit in memory. On a GPU the kernels of kernels/attention.cu make one pass over the
keys. Rows that may attend to nothing give zeros, and zero gradient.
Sources: Vaswani et al., "Attention Is All You Need" (2017); Dao, "FlashAttention-2" (2023).
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gpunn import draw_integers
from gpunn.autograd.graph import needs as is_recorded
from gpunn.autograd.graph import result, unbroadcast, vjp
from gpunn.cuda.kernels import attention as kernels
from gpunn.dtypes import F32
from gpunn.generator import default_for, philox4x32
from gpunn.nn.softmax import softmax, softmax_array
from gpunn.ops._rows import cast, half, not_a_tensor, proper, size_error
from gpunn.tensor import Tensor, wrap

_BLOCK = 1 << 18  # scores computed at a time: they stay in the cache
_KEPT = 1 << 24  # up to so many weights are kept for the backward pass, else computed again


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


# --- dropout ------------------------------------------------------------------------------


def _draw(shape: tuple[int, ...], keep: float, device: Any) -> Any:
    """Which weights stay: on the CPU a bool array, on a GPU the (seed, counter) they come from."""
    if keep == 1:
        return None
    if not device.uses_kernels:
        return draw_integers.bernoulli(shape, np.dtype(np.bool_), None, keep, device=device)
    *batch, rows, columns = shape
    tiles = math.prod(batch) * -(-rows // 16) * -(-columns // 16)
    seed, offset = default_for(device).reserve(256 * tiles)
    return seed, offset // 4


def philox_keep(
    seed: int, counter: int, shape: tuple[int, ...], keep: float, xp: Any = np
) -> Any:
    """Which weights the GPU keeps: a bool array of `shape` (..., rows, columns).

    Every 16 x 16 tile of a matrix takes 64 counters of the Philox stream, tiles in order. Counter
    8 i + j gives the words of elements (i, j), (i, j + 8), (i + 8, j), (i + 8, j + 8): the four
    that one thread of a tensor-core product holds, of the matrix as of its transpose. A weight
    stays where its word is below keep * 2**32.

    >>> int(gpunn.nn.attention.philox_keep(0, 0, (100, 100), 0.5).sum())
    4998
    """
    *batch, rows, columns = shape
    high, wide, many = -(-rows // 16), -(-columns // 16), math.prod(batch)
    counters = xp.zeros((many * high * wide * 64, 2), np.uint64)
    counters[:, 0] = xp.arange(counter, counter + len(counters), dtype=np.uint64)
    words = philox4x32(counters, seed, xp).reshape(many, high, wide, 8, 8, 2, 2)
    words = words.transpose(0, 1, 5, 3, 2, 6, 4).reshape(many, 16 * high, 16 * wide)
    kept = words[:, :rows, :columns] < np.uint64(kernels.threshold(keep))
    return kept.reshape(shape)


# --- NumPy --------------------------------------------------------------------------------


def _flat(x: Any, call: Call, grouped: bool) -> Any:
    """(heads, rows, width) of an array in which dimensions may be missing, and heads shared."""
    tail = x.shape[-2:]
    if grouped and call.group > 1:
        lead = (*call.batch[:-1], call.batch[-1] // call.group)
        x = np.broadcast_to(np.broadcast_to(x, lead + tail)[..., None, :, :],
                            (*lead, call.group, *tail))  # fmt: skip
    else:
        x = np.broadcast_to(x, call.batch + tail)
    return x.reshape(-1, *tail).astype(F32 if half(x.dtype) else x.dtype, copy=False)


def _unflat(g: Any, like: Any, call: Call, grouped: bool) -> Any:
    """The gradient of an array from that of its `_flat` form."""
    tail = like.shape[-2:]
    if grouped and call.group > 1:
        g = g.reshape(*call.batch[:-1], -1, call.group, *tail).sum(axis=-3)
    else:
        g = g.reshape(call.batch + tail)
    return unbroadcast(g, like.shape).astype(like.dtype, copy=False)


class _Mask:
    """A mask that is read a block at a time, and never repeated over its missing dimensions."""

    def __init__(self, mask: np.ndarray, batch: tuple[int, ...]):
        mask = mask.reshape((1,) * (len(batch) + 2 - mask.ndim) + mask.shape)
        lead = mask.shape[:-2]
        self.parts = mask.reshape(-1, *mask.shape[-2:])
        index = np.arange(len(self.parts)).reshape(lead)
        self.index = np.broadcast_to(index, batch).reshape(-1)

    def put_on(self, scores: np.ndarray, heads: slice, rows: slice) -> Any:
        """Masks the scores; returns which rows (heads, rows, 1) may attend to nothing."""
        parts = self.parts if len(self.parts) == 1 else self.parts[self.index[heads]]
        if parts.shape[1] > 1:
            parts = parts[:, rows]
        if parts.dtype == np.bool_:
            np.copyto(scores, -np.inf, where=~parts)
        else:
            scores += parts
            parts = parts != -np.inf
        return ~parts.any(axis=-1, keepdims=True)


def _blocks(heads: int, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Slices of heads, or of the rows of one head, with about _BLOCK scores each."""
    together = max(1, _BLOCK // max(rows * columns, 1))
    height = rows if together > 1 else max(16, _BLOCK // max(columns, 1))
    for i in range(0, heads, together):
        for r in range(0, rows, height):
            yield slice(i, min(i + together, heads)), slice(r, min(r + height, rows))


def _weights(q: Any, k: Any, mask: _Mask | None, heads: slice, rows: slice, causal: bool) -> Any:
    """The softmax of a block of scores; when causal only the columns that a row can see."""
    if causal:
        k = k[:, : rows.stop]
    scores = np.matmul(q[heads, rows], k[heads].swapaxes(1, 2))
    if causal:  # row by row: quicker than a masked write
        for i in range(min(scores.shape[1], scores.shape[2] - rows.start - 1)):
            scores[:, i, rows.start + i + 1 :] = -np.inf
    dead = None if mask is None else mask.put_on(scores, heads, rows)
    weights = softmax_array(scores, 2)
    if dead is not None and dead.any():
        np.copyto(weights, 0, where=dead)
    return weights


def _forward(
    q: Any, k: Any, v: Any, mask: Any, drop: Any, call: Call, keep_weights: bool
) -> tuple[Any, list[Any] | None]:
    """The output and, where they are few and wanted, the weights of each block."""
    dtype, shape = q.dtype, (*call.batch, q.shape[-2], v.shape[-1])
    q, k, v = _flat(q, call, False) * call.scale, _flat(k, call, True), _flat(v, call, True)
    masked = None if mask is None else _Mask(mask, call.batch)
    drop = None if drop is None else drop.reshape(len(q), q.shape[1], -1)
    out = np.empty((len(q), q.shape[1], v.shape[2]), q.dtype)
    few = keep_weights and len(q) * q.shape[1] * k.shape[1] <= _KEPT
    kept: list[Any] | None = [] if few else None
    for heads, rows in _blocks(len(q), q.shape[1], k.shape[1]):
        weights = _weights(q, k, masked, heads, rows, call.causal)
        if kept is not None:
            kept.append(weights)
        if drop is not None:
            weights = weights * drop[heads, rows, : weights.shape[2]]
        np.matmul(weights, v[heads, : weights.shape[2]], out=out[heads, rows])
    if drop is not None and call.keep:
        out /= out.dtype.type(call.keep)
    return out.reshape(shape).astype(dtype, copy=False), kept


def _backward(
    g: Any, q: Any, k: Any, v: Any, out: Any, mask: Any, drop: Any, call: Call, kept: Any
) -> tuple[Any, Any, Any]:
    """The gradients of query, key and value, block by block as in `_forward`."""
    like = q, k, v
    q, k, v = _flat(q, call, False) * call.scale, _flat(k, call, True), _flat(v, call, True)
    g, out = _flat(g, call, False), _flat(out, call, False)
    masked = None if mask is None else _Mask(mask, call.batch)
    drop = None if drop is None else drop.reshape(len(q), q.shape[1], -1)
    dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    scale = q.dtype.type(1 / call.keep if drop is not None and call.keep else 1)
    for i, (heads, rows) in enumerate(_blocks(len(q), q.shape[1], k.shape[1])):
        p = kept[i] if kept else _weights(q, k, masked, heads, rows, call.causal)
        seen = slice(0, p.shape[2])
        gb = g[heads, rows]
        ds = np.matmul(gb, v[heads, seen].swapaxes(1, 2))
        used = p
        if drop is not None:
            used = p * drop[heads, rows, seen]
            used *= scale
            ds *= drop[heads, rows, seen]
            ds *= scale
        dv[heads, seen] += np.matmul(used.swapaxes(1, 2), gb)
        ds -= (gb * out[heads, rows]).sum(axis=2, keepdims=True)
        ds *= p
        np.matmul(ds, k[heads, seen], out=dq[heads, rows])
        dk[heads, seen] += np.matmul(ds.swapaxes(1, 2), q[heads, rows])
    dq *= q.dtype.type(call.scale)
    return (
        _unflat(dq, like[0], call, False), _unflat(dk, like[1], call, True),
        _unflat(dv, like[2], call, True),
    )  # fmt: skip


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
        return _backward(g, q, k, v, out, mask, drop, call, kept)
    return kernels.attention_backward(g, q, k, v, out, kept, mask, drop, call, needs)


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
    place where `dropout_p` > 0; on the CPU its mask is PyTorch's for the same seed.
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
    drop = _draw((*batch, rows, columns), call.keep, query.device)
    arrays = query.array, key.array, value.array
    shared = _broadcast(batch, value.array.shape[:-2], group) == batch  # else value has more
    if not is_recorded(attn_mask) and shared and columns and query.array.dtype.kind in "fV":
        mask = None if attn_mask is None else attn_mask.array
        recorded = any(is_recorded(x) for x in (query, key, value))
        if type(query.array) is np.ndarray:
            found: Any = _forward(*arrays, mask, drop, call, recorded)
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
