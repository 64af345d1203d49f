"""Multi-head attention: projections of query, key and value, attention in each head, a projection.

One path for training and evaluation, batched or not, either layout: heads are views of what the
projections give, and attention is `scaled_dot_product_attention` wherever nobody asks for the
weights. Rows that may attend to nothing give zeros, and zero gradient.
Source: Vaswani et al., "Attention Is All You Need" (2017).
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from gpunn.amp.casts import autocast_is_on
from gpunn.dtypes import F32
from gpunn.nn import init
from gpunn.nn.attention import scaled_dot_product_attention
from gpunn.nn.dropout import dropout
from gpunn.nn.linear import NonDynamicallyQuantizableLinear, linear
from gpunn.nn.module import Module
from gpunn.nn.pad import pad
from gpunn.nn.parameter import Parameter
from gpunn.nn.softmax import softmax
from gpunn.ops._rows import cast, half
from gpunn.ops.create import empty, zeros
from gpunn.ops.join import cat
from gpunn.tensor import Tensor

# --- masks: True, or -inf, hides a key ----------------------------------------------------


def _is_bool(mask: Any) -> bool:
    return bool(mask.array.dtype == np.bool_)


def _numbers(mask: Any, dtype: Any) -> Any:
    """A mask of bools as numbers to add to the scores."""
    if not _is_bool(mask):
        return mask
    return zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)  # type: ignore[attr-defined]


def check_masks(
    attn_mask: Any, padding: Any, dtype: Any, names: tuple[str, str]
) -> tuple[Any, Any]:
    """Both masks, as numbers of `dtype` where only one is of bools, which PyTorch's warning is for.

    AssertionError, with the mask's name, for another dtype. `names` are those of the arguments.

    >>> mask, padding = gpunn.zeros(2, 2).bool(), gpunn.tensor([[False, True]])
    >>> nn.multihead.check_masks(mask, padding, gpunn.float32, ("mask", "padding"))[1]
    tensor([[False,  True]])
    """
    for mask, name in ((padding, names[1]), (attn_mask, names[0])):
        if mask is not None and not _is_bool(mask) and not mask.is_floating_point():
            raise AssertionError(
                f"only bool and floating types of {name} are supported, got {mask.dtype}. Use "
                ".bool() for a mask where 1 means to ignore"
            )
    if attn_mask is None or padding is None or attn_mask.dtype is padding.dtype:
        return attn_mask, padding
    warnings.warn(
        f"Support for mismatched {names[1]} and {names[0]} is deprecated. Use same type for both "
        "instead.",
        stacklevel=4,
    )
    return _numbers(attn_mask, dtype), _numbers(padding, dtype)


def _merged(attn_mask: Any, padding: Any) -> Any:
    """One mask of two of the same kind; it broadcasts to (batch, heads, rows, columns)."""
    if attn_mask is None or padding is None:
        return padding if attn_mask is None else attn_mask
    return attn_mask | padding if _is_bool(attn_mask) else attn_mask + padding


class _Sizes(NamedTuple):
    batch: int
    rows: int
    columns: int
    heads: int
    width: int  # of a head


def _attention_mask(mask: Any, n: _Sizes, extra: int) -> Any:
    """attn_mask as (1 or batch, 1 or heads, rows, columns + extra)."""
    if mask is None:
        return None
    wanted: tuple[int, ...] = (n.rows, n.columns)
    if mask.ndim == 3:
        wanted = (n.batch * n.heads, *wanted)
    if tuple(mask.shape) != wanted:
        raise RuntimeError(
            f"The shape of the {mask.ndim}D attn_mask is {mask.shape}, but should be {wanted}."
        )
    lead = (1, 1) if mask.ndim == 2 else (n.batch, n.heads)
    mask = mask.reshape(*lead, n.rows, n.columns)
    return pad(mask, (0, extra)) if extra else mask


def _padding_mask(mask: Any, n: _Sizes, extra: int, columns: int) -> Any:
    """key_padding_mask as (batch, 1, 1, columns), of which `extra` are new and seen by all."""
    if mask is None:
        return None
    mask = mask.reshape(1, -1) if mask.ndim == 1 else mask
    mask = pad(mask, (0, extra)) if extra else mask
    for i, wanted in enumerate((n.batch, columns)):
        if mask.shape[i] != wanted:
            raise AssertionError(
                f"Expected key_padded_mask.shape[{i}] to be {wanted}, but got {mask.shape[i]} "
                f"(key_padding_mask is of (batch, keys), with {extra} columns appended)"
            )
    return mask.reshape(n.batch, 1, 1, columns)


# --- checks -------------------------------------------------------------------------------


def _check_dimensions(
    query: Any, key: Any, value: Any, padding: Any, attn_mask: Any, num_heads: int
) -> bool:
    """Whether there is a batch; AssertionError for dimensions that do not go together."""
    if query.ndim not in (2, 3):
        raise AssertionError(
            "query should be unbatched 2D or batched 3D tensor but received "
            f"{query.ndim}-D query tensor"
        )
    n = query.ndim
    given = f"For {'batched' if n == 3 else 'unbatched'} ({n}-D) `query`, expected"
    if key.ndim != n or value.ndim != n:
        raise AssertionError(
            f"{given} `key` and `value` to be {n}-D but found {key.ndim}-D and {value.ndim}-D "
            "tensors respectively"
        )
    if padding is not None and padding.ndim != n - 1:
        raise AssertionError(
            f"{given} `key_padding_mask` to be `None` or {n - 1}-D but found {padding.ndim}-D "
            "tensor instead"
        )
    if attn_mask is not None and attn_mask.ndim not in (2, 3):
        raise AssertionError(
            f"{given} `attn_mask` to be `None`, 2-D or 3-D but found {attn_mask.ndim}-D tensor "
            "instead"
        )
    if n == 2 and attn_mask is not None and attn_mask.ndim == 3:
        wanted = (num_heads, query.shape[0], key.shape[0])
        if tuple(attn_mask.shape) != wanted:
            raise AssertionError(
                f"Expected `attn_mask` shape to be {wanted} but got {tuple(attn_mask.shape)}"
            )
    return n == 3


def _sizes(
    query: Any, key: Any, value: Any, embed_dim: int, num_heads: int, first: bool, separate: bool
) -> _Sizes:
    """The sizes, once they are known to fit; `first`: the batch is the first dimension."""
    size = query.shape[-1]
    if size != embed_dim:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim}, but got {size}")
    if size % num_heads:
        raise AssertionError(f"embed_dim {size} not divisible by num_heads {num_heads}")
    if separate and key.shape[:-1] != value.shape[:-1]:
        raise AssertionError(
            f"key's sequence and batch dims {key.shape[:-1]} do not match value's "
            f"{value.shape[:-1]}"
        )
    if not separate and key.shape != value.shape:
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")
    if query.ndim == 2:
        return _Sizes(1, query.shape[0], key.shape[0], num_heads, size // num_heads)
    batch, time = (0, 1) if first else (1, 0)
    if query.shape[batch] != key.shape[batch]:
        n, shape = query.shape[batch], (key.shape[time], key.shape[batch], size)
        raise RuntimeError(
            f"shape '[{shape[0]}, {n * num_heads}, {size // num_heads}]' is invalid for input of "
            f"size {math.prod(shape)}: the batch of query {tuple(query.shape)} is {n}, that of key "
            f"{tuple(key.shape)} is {shape[1]} (batch_first={first})"
        )
    return _Sizes(query.shape[batch], query.shape[time], key.shape[time], num_heads,
                  size // num_heads)  # fmt: skip


# --- projections --------------------------------------------------------------------------


def _packed(query: Any, key: Any, value: Any, weight: Any, bias: Any) -> list[tuple[Any, int]]:
    """The projections by one weight matrix of query, key and value, each with how many it holds.

    What is projected twice or three times is multiplied once.
    """
    if key is value and query is key:
        return [(linear(query, weight, bias), 3)]
    size = query.shape[-1]
    parts = [(query, 1), (key, 2)] if key is value else [(query, 1), (key, 1), (value, 1)]
    sizes = [many * size for _, many in parts]
    weights = weight.split(sizes)
    biases = [None] * len(parts) if bias is None else bias.split(sizes)
    return [(linear(x, w, b), many)
            for (x, many), w, b in zip(parts, weights, biases, strict=True)]  # fmt: skip


def _separate(query: Any, key: Any, value: Any, weights: Any, bias: Any) -> list[tuple[Any, int]]:
    """The projections by three weight matrices."""
    size, found = query.shape[-1], []
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    rows = zip(("query", "key", "value"), (query, key, value), weights, biases, strict=True)
    for name, x, w, b in rows:
        if w is None:
            raise AssertionError(f"use_separate_proj_weight is True but {name[0]}_proj_weight is "
                                 "None")  # fmt: skip
        if tuple(w.shape) != (size, x.shape[-1]):
            raise AssertionError(
                f"expecting {name} weights shape of {(size, x.shape[-1])}, but got {w.shape}"
            )
        if b is not None and tuple(b.shape) != (size,):
            raise AssertionError(f"expecting {name} bias shape of {(size,)}, but got {b.shape}")
        found.append((linear(x, w, b), 1))
    return found


def _heads(projected: list[tuple[Any, int]], n: _Sizes, first: bool) -> list[Any]:
    """Query, key and value as views (batch, heads, length, width) of the projections."""
    found = []
    for x, many in projected:
        lead = x.shape[:-1] if x.ndim == 3 else (1, x.shape[0])
        parts = x.reshape(*lead, many, n.heads, n.width).unbind(2)
        found += [p.transpose(1, 2) if first else p.permute(1, 2, 0, 3) for p in parts]
    return found


def _static(x: Any, name: str, n: _Sizes) -> Any:
    """static_k or static_v (batch * heads, length, width) as (batch, heads, length, width)."""
    if x.shape[0] != n.batch * n.heads:
        raise AssertionError(
            f"expecting {name}.size(0) of {n.batch * n.heads}, but got {x.shape[0]}"
        )
    if x.shape[2] != n.width:
        raise AssertionError(f"expecting {name}.size(2) of {n.width}, but got {x.shape[2]}")
    return x.reshape(n.batch, n.heads, x.shape[1], n.width)


def _lengthened(x: Any, bias: Any, zero: bool, n: _Sizes) -> Any:
    """A key or value (batch, heads, length, width) with one entry more, or two, at its end."""
    more = []
    if bias is not None:
        more.append(bias.reshape(1, n.heads, 1, n.width).expand(n.batch, -1, -1, -1))
    if zero:
        more.append(zeros(n.batch, n.heads, 1, n.width, dtype=x.dtype, device=x.device))
    return cat([x, *more], 2) if more else x


# --- attention with its weights -----------------------------------------------------------


def _with_weights(q: Any, k: Any, v: Any, mask: Any, dropout_p: float) -> tuple[Any, Any]:
    """Attention, and its weights after dropout; scores of 16-bit numbers are float32."""
    dtype = q.array.dtype
    q, k = (cast(x, F32) for x in (q, k)) if half(dtype) else (q, k)
    scores = (q * math.sqrt(1 / q.shape[-1])) @ k.transpose(-2, -1)
    if mask is None:
        weights = softmax(scores, -1)
    else:
        hidden = mask if _is_bool(mask) else mask == -math.inf
        scores = scores.masked_fill(mask, -math.inf) if hidden is mask else scores + mask
        nothing = hidden.all(-1, keepdim=True)  # softmax of a row of -inf has no value
        weights = softmax(scores.masked_fill(nothing, 0.0), -1).masked_fill(nothing, 0.0)
    if not (autocast_is_on("cuda") and q.device.type == "cuda"):  # there softmax gives float32
        weights = cast(weights, dtype)
    if dropout_p > 0:
        weights = dropout(weights, dropout_p)
    return weights @ v, weights


def _joined(out: Any, shape: Any, first: bool, out_proj: Any) -> Tensor:
    """The heads side by side, in query's shape, and projected."""
    if first and len(shape) == 3 and type(out.array) is np.ndarray:
        # PyTorch's result lies in memory with the length first: dropout draws in that order
        shape = (shape[1], shape[0], shape[2])
        return linear(out.permute(2, 0, 1, 3).reshape(*shape), *out_proj).transpose(0, 1)
    out = out.transpose(1, 2) if first else out.permute(2, 0, 1, 3)
    return linear(out.reshape(*shape), *out_proj)


def _attend(
    query: Any, key: Any, value: Any, embed_dim: int, num_heads: int, in_proj: Any, extra: Any,
    dropout_p: float, out_proj: Any, key_padding_mask: Any, need_weights: bool, attn_mask: Any,
    average: bool, is_causal: bool, static: Any = (None, None), first: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """multi_head_attention_forward; `first`: the batch is the first dimension.

    in_proj: the packed weight or three weights, and the bias; extra: bias_k, bias_v and
    add_zero_attn; out_proj: weight and bias; static: static_k and static_v.
    """
    batched = _check_dimensions(query, key, value, key_padding_mask, attn_mask, num_heads)
    attn_mask, padding = check_masks(
        attn_mask, key_padding_mask, query.dtype, ("attn_mask", "key_padding_mask")
    )
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module "
            "method `generate_square_subsequent_mask` to create this mask."
        )
    causal = is_causal and padding is None and not need_weights  # the hint replaces the mask
    separate = isinstance(in_proj[0], tuple)
    first = first or not batched
    n = _sizes(query, key, value, embed_dim, num_heads, first, separate)
    project = _separate if separate else _packed
    q, k, v = _heads(project(query, key, value, *in_proj), n, first)
    bias_k, bias_v, zero = extra
    more = (bias_k is not None) + bool(zero)
    mask = None if causal else _attention_mask(attn_mask, n, more)
    k = k if static[0] is None else _static(static[0], "static_k", n)
    v = v if static[1] is None else _static(static[1], "static_v", n)
    k, v = _lengthened(k, bias_k, zero, n), _lengthened(v, bias_v, zero, n)
    mask = _merged(mask, _padding_mask(padding, n, more, k.shape[2]))
    if need_weights:
        out, weights = _with_weights(q, k, v, mask, dropout_p)
        weights = weights.mean(1) if average else weights
        weights = weights if batched else weights[0]
    else:
        seen = ~mask if mask is not None and _is_bool(mask) else mask
        out, weights = scaled_dot_product_attention(q, k, v, seen, dropout_p, causal), None
    return _joined(out, query.shape, first, out_proj), weights


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None,
    bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
    out_proj_bias: Tensor | None, training: bool = True, key_padding_mask: Tensor | None = None,
    need_weights: bool = True, attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None, v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None, static_v: Tensor | None = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """What `nn.MultiheadAttention` computes, with the weights as arguments: see there.

    Shapes: query (L, N, E), key (S, N, Ek), value (S, N, Ev), or all without N. in_proj_weight
    (3 E, E), or with `use_separate_proj_weight` q_, k_ and v_proj_weight (E, E), (E, Ek), (E, Ev);
    in_proj_bias (3 E); bias_k and bias_v (1, 1, E); static_k and static_v (N * heads, S,
    E / heads), which take the place of the projected key and value. Dropout when `training`.
    AssertionError or RuntimeError for shapes, masks and weights that do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html

    >>> x, w = gpunn.ones(3, 1, 2), gpunn.ones(6, 2)
    >>> y, weights = F.multi_head_attention_forward(
    ...     x, x, x, 2, 1, w, None, None, None, False, 0.0, gpunn.eye(2), None)
    >>> y[0], weights[0, 0]
    (tensor([[2., 2.]]), tensor([0.3333, 0.3333, 0.3333]))
    """
    for name, other, given in (("k", "v", (bias_k, bias_v)), ("v", "k", (bias_v, bias_k))):
        if given[0] is not None and given[1] is None:
            raise AssertionError(f"bias_{name} is set but bias_{other} is None")
    for what, static in (("key", static_k), ("value", static_v)):
        if bias_k is not None and static is not None:
            raise AssertionError(f"bias cannot be added to static {what}.")
    weight: Any = in_proj_weight
    if use_separate_proj_weight:
        weight = (q_proj_weight, k_proj_weight, v_proj_weight)
    elif in_proj_weight is None:
        raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
    return _attend(
        query, key, value, embed_dim_to_check, num_heads, (weight, in_proj_bias),
        (bias_k, bias_v, add_zero_attn), dropout_p if training else 0.0,
        (out_proj_weight, out_proj_bias), key_padding_mask, need_weights, attn_mask,
        average_attn_weights, is_causal, (static_k, static_v),
    )  # fmt: skip


# --- the module ---------------------------------------------------------------------------


class MultiheadAttention(Module):
    """Attention in `num_heads` heads of embed_dim / num_heads features, each with projections.

    Shapes: query (L, N, embed_dim), key (S, N, kdim), value (S, N, vdim); with `batch_first` N
    comes first; for one sequence there is no N. Returns the output, of query's shape, and the
    weights: their average over the heads (N, L, S), (N, num_heads, L, S) without
    `average_attn_weights`, None without `need_weights`, which is quicker and takes less memory.
    Masks hide keys: True means ignore (in `scaled_dot_product_attention` it means attend), numbers
    are added to the scores. key_padding_mask (N, S); attn_mask (L, S) or (N * num_heads, L, S).
    `is_causal` says that attn_mask is the causal one, so that it need not be read.
    `dropout` is of the weights, while training. `add_bias_kv` appends a learned entry to keys and
    values, `add_zero_attn` one of zeros.
    A row that may attend to nothing gives a zero for its heads, weights of zero and no gradient,
    where PyTorch gives NaN. Training and evaluation take the same path, with the same values.
    Parameters: in_proj_weight (3 embed_dim, embed_dim), or with other `kdim` or `vdim`
    q_proj_weight, k_proj_weight, v_proj_weight; in_proj_bias (3 embed_dim); out_proj, a Linear;
    bias_k and bias_v (1, 1, embed_dim). Matrices are Xavier-uniform, biases 0, bias_k and bias_v
    Xavier-normal. ValueError or AssertionError for sizes, RuntimeError for masks that do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html

    >>> attend = nn.MultiheadAttention(8, 2, batch_first=True)
    >>> x = gpunn.randn(4, 5, 8)
    >>> padding = gpunn.tensor([[False] * 3 + [True] * 2] * 4)
    >>> y, weights = attend(x, x, x, key_padding_mask=padding)
    >>> y.shape, weights.shape, weights[0, 0, 3:]
    (torch.Size([4, 5, 8]), torch.Size([4, 5, 5]), tensor([0., 0.], grad_fn=<SliceBackward0>))
    """

    __constants__ = ["batch_first"]
    in_proj_weight: Any
    in_proj_bias: Any
    q_proj_weight: Any
    k_proj_weight: Any
    v_proj_weight: Any
    bias_k: Any
    bias_v: Any

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
        add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                "embed_dim and num_heads must be greater than 0, got "
                f"embed_dim={embed_dim} and num_heads={num_heads} instead"
            )
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn
        if embed_dim % num_heads:
            raise AssertionError(
                f"embed_dim must be divisible by num_heads, got embed_dim={embed_dim} and "
                f"num_heads={num_heads}"
            )
        make = {"device": device, "dtype": dtype}
        shapes: dict[str, Any] = dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight"))
        if self._qkv_same_embed_dim:
            shapes["in_proj_weight"] = (3 * embed_dim, embed_dim)
        else:
            columns = (embed_dim, self.kdim, self.vdim)
            shapes = {name: (embed_dim, k) for name, k in zip(shapes, columns, strict=True)}
            shapes["in_proj_weight"] = None
        shapes["in_proj_bias"] = (3 * embed_dim,) if bias else None
        for name, shape in shapes.items():
            self.register_parameter(name, Parameter(empty(shape, **make)) if shape else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, **make)
        self.bias_k = Parameter(empty(1, 1, embed_dim, **make)) if add_bias_kv else None
        self.bias_v = Parameter(empty(1, 1, embed_dim, **make)) if add_bias_kv else None
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        names = ["in_proj"] if self._qkv_same_embed_dim else ["q_proj", "k_proj", "v_proj"]
        for name in names:
            init.xavier_uniform_(getattr(self, f"{name}_weight"))
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        if self.bias_k is not None:
            init.xavier_normal_(self.bias_k)
            init.xavier_normal_(self.bias_v)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"_qkv_same_embed_dim": True, **state})  # PyTorch 1.1 had no others

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None,
        average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        weight = self.in_proj_weight
        if not self._qkv_same_embed_dim:
            weight = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        return _attend(
            query, key, value, self.embed_dim, self.num_heads, (weight, self.in_proj_bias),
            (self.bias_k, self.bias_v, self.add_zero_attn), self.dropout if self.training else 0.0,
            (self.out_proj.weight, self.out_proj.bias), key_padding_mask, need_weights, attn_mask,
            average_attn_weights, is_causal, first=self.batch_first,
        )  # fmt: skip

    def merge_masks(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor
    ) -> tuple[Tensor | None, int | None]:
        """Both masks as one, and its kind: 1 the padding's, 2 (batch, heads, L, L), None neither.

        For query (batch, L, embed_dim), and masks of numbers where there are two.
        """
        if attn_mask is None:
            return key_padding_mask, None if key_padding_mask is None else 1
        batch, length = query.shape[:2]
        mask: Any = attn_mask
        if mask.ndim == 3:
            mask = mask.reshape(batch, -1, length, length)
        else:
            mask = mask.reshape(1, 1, length, length).expand(batch, self.num_heads, -1, -1)
        if key_padding_mask is not None:
            padding: Any = key_padding_mask
            mask = mask + padding.reshape(batch, 1, 1, length).expand(-1, self.num_heads, -1, -1)
        return mask, 2
