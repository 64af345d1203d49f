"""Transformers: layers of attention and a feed-forward network, stacks of them, both stacks.

Training and evaluation take the same path. There are no nested tensors: `enable_nested_tensor`
and `mask_check` of the encoder are accepted and change nothing.
Sources: Vaswani et al., "Attention Is All You Need" (2017); Xiong et al., "On Layer Normalization
in the Transformer Architecture" (2020), for `norm_first`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

from gpunn.nn import init
from gpunn.nn.activation import GELU, ReLU, gelu, relu
from gpunn.nn.container import ModuleList
from gpunn.nn.dropout import Dropout
from gpunn.nn.layer_norm import LayerNorm
from gpunn.nn.linear import Linear
from gpunn.nn.module import Module
from gpunn.nn.multihead import MultiheadAttention, check_masks
from gpunn.ops.create import full
from gpunn.tensor import Tensor

# --- masks --------------------------------------------------------------------------------


def _generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
    """The causal mask (sz, sz): 0 where a row may attend, -inf (True, of bools) after it."""
    return full((sz, sz), float("-inf"), dtype=dtype, device=device).triu(1)  # type: ignore[attr-defined, no-any-return]


def _get_seq_len(src: Tensor, batch_first: bool) -> int:
    return src.shape[1 if batch_first and src.ndim == 3 else 0]


def _detect_is_causal_mask(
    mask: Any, is_causal: bool | None = None, size: int | None = None
) -> bool:
    """`is_causal` where it is said; else whether the mask is the causal one (of that size)."""
    if is_causal is not None or mask is None:
        return is_causal is True
    n = mask.shape[-2] if size is None else size
    if tuple(mask.shape) != (n, n):
        return False
    causal = _generate_square_subsequent_mask(n, mask.device, mask.dtype)
    return bool((mask == causal).all())


# --- layers -------------------------------------------------------------------------------


def _get_activation_fn(activation: str) -> Callable[[Tensor], Tensor]:
    if activation not in ("relu", "gelu"):
        raise RuntimeError(f"activation should be relu/gelu, not {activation}")
    return relu if activation == "relu" else gelu


class _Layer(Module):
    """The parts of an encoder's and of a decoder's layer."""

    __constants__ = ["norm_first"]
    _attentions: tuple[str, ...]
    norm1: Any
    norm2: Any
    norm3: Any
    dropout1: Any
    dropout2: Any
    dropout3: Any

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = relu, layer_norm_eps: float = 1e-5,
        batch_first: bool = False, norm_first: bool = False, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        make = {"device": device, "dtype": dtype}
        for name in self._attentions:
            part = MultiheadAttention(
                d_model, nhead, dropout=dropout, bias=bias, batch_first=batch_first, **make
            )
            setattr(self, name, part)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **make)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **make)
        self.norm_first = norm_first
        blocks = range(1, len(self._attentions) + 2)
        for i in blocks:
            setattr(self, f"norm{i}", LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **make))
        for i in blocks:
            setattr(self, f"dropout{i}", Dropout(dropout))
        given = activation
        self.activation: Any = _get_activation_fn(given) if isinstance(given, str) else given

    def _attend(
        self, attention: Any, x: Tensor, memory: Tensor, mask: Any, padding: Any, is_causal: bool
    ) -> Tensor:
        return attention(  # type: ignore[no-any-return]
            x, memory, memory, attn_mask=mask, key_padding_mask=padding, need_weights=False,
            is_causal=is_causal,
        )[0]  # fmt: skip

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))  # type: ignore[no-any-return]


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward network, each with dropout, a residual sum and a LayerNorm.

    Shapes: src (S, N, d_model), with `batch_first` (N, S, d_model), or (S, d_model); the result
    has the same. src_mask (S, S) or (N * nhead, S, S) and src_key_padding_mask (N, S) hide keys:
    True means ignore, numbers are added to the scores. `is_causal` says that src_mask is causal.
    `activation`: "relu", "gelu" or a function. `norm_first`: the norm before each part, not after
    the sum. RuntimeError for another activation's name and masks that do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerEncoderLayer.html

    >>> layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    >>> layer(gpunn.randn(2, 5, 16)).shape
    torch.Size([2, 5, 16])
    """

    _attentions = ("self_attn",)
    self_attn: Any

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = relu, layer_norm_eps: float = 1e-5,
        batch_first: bool = False, norm_first: bool = False, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__(
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
            norm_first, bias, device, dtype,
        )  # fmt: skip
        known = self.activation
        is_relu, is_gelu = (known is f or isinstance(known, m)
                            for f, m in ((relu, ReLU), (gelu, GELU)))  # fmt: skip
        self.activation_relu_or_gelu = 1 if is_relu else 2 if is_gelu else 0

    def forward(
        self, src: Tensor, src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        mask, padding = check_masks(
            src_mask, src_key_padding_mask, src.dtype, ("src_mask", "src_key_padding_mask")
        )
        x: Any = src
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), mask, padding, is_causal=is_causal)
            return x + self._ff_block(self.norm2(x))  # type: ignore[no-any-return]
        x = self.norm1(x + self._sa_block(x, mask, padding, is_causal=is_causal))
        return self.norm2(x + self._ff_block(x))  # type: ignore[no-any-return]

    def _sa_block(
        self, x: Tensor, attn_mask: Any, key_padding_mask: Any, is_causal: bool = False
    ) -> Tensor:
        y = self._attend(self.self_attn, x, x, attn_mask, key_padding_mask, is_causal)
        return self.dropout1(y)  # type: ignore[no-any-return]

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout2(self._feed_forward(x))  # type: ignore[no-any-return]


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the encoder's output, a feed-forward network.

    Each with dropout, a residual sum and a LayerNorm.
    Shapes: tgt (T, N, d_model) and memory (S, N, d_model), with `batch_first` N first, or both
    without N; the result has tgt's. Masks hide keys: tgt_mask (T, T), memory_mask (T, S), or each
    with N * nhead in front; tgt_key_padding_mask (N, T), memory_key_padding_mask (N, S). True
    means ignore, numbers are added to the scores. `tgt_is_causal` and `memory_is_causal` say that
    the mask is causal. The other arguments are TransformerEncoderLayer's.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerDecoderLayer.html

    >>> layer = nn.TransformerDecoderLayer(16, 4, 32, batch_first=True)
    >>> layer(gpunn.randn(2, 3, 16), memory=gpunn.randn(2, 5, 16)).shape
    torch.Size([2, 3, 16])
    """

    _attentions = ("self_attn", "multihead_attn")
    self_attn: Any
    multihead_attn: Any

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        own = tgt_mask, tgt_key_padding_mask, tgt_is_causal
        other = memory_mask, memory_key_padding_mask, memory_is_causal
        x: Any = tgt
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), *own)
            x = x + self._mha_block(self.norm2(x), memory, *other)
            return x + self._ff_block(self.norm3(x))  # type: ignore[no-any-return]
        x = self.norm1(x + self._sa_block(x, *own))
        x = self.norm2(x + self._mha_block(x, memory, *other))
        return self.norm3(x + self._ff_block(x))  # type: ignore[no-any-return]

    def _sa_block(
        self, x: Tensor, attn_mask: Any, key_padding_mask: Any, is_causal: bool = False
    ) -> Tensor:
        y = self._attend(self.self_attn, x, x, attn_mask, key_padding_mask, is_causal)
        return self.dropout1(y)  # type: ignore[no-any-return]

    def _mha_block(
        self, x: Tensor, mem: Tensor, attn_mask: Any, key_padding_mask: Any,
        is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        y = self._attend(self.multihead_attn, x, mem, attn_mask, key_padding_mask, is_causal)
        return self.dropout2(y)  # type: ignore[no-any-return]

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout3(self._feed_forward(x))  # type: ignore[no-any-return]


# --- stacks -------------------------------------------------------------------------------


def _get_clones(module: Module, N: int) -> ModuleList:
    """N copies of a layer, each with weights of its own (which start equal)."""
    return ModuleList([copy.deepcopy(module) for _ in range(N)])


def _why_not_nested(layer: Any) -> str:
    """What keeps PyTorch from nested tensors with this layer; its warning says so."""
    if not isinstance(layer, TransformerEncoderLayer):
        return "encoder_layer was not TransformerEncoderLayer"
    attention = layer.self_attn
    reasons = (
        (layer.norm_first, ".norm_first was True"),
        (not attention.batch_first, ".self_attn.batch_first was not True(use batch_first for "
                                    "better inference performance)"),
        (not attention._qkv_same_embed_dim, ".self_attn._qkv_same_embed_dim was not True"),
        (attention.in_proj_bias is None, ".self_attn was passed bias=False"),
        (not layer.activation_relu_or_gelu, ".activation_relu_or_gelu was not True"),
        (layer.norm1.eps != layer.norm2.eps, ".norm1.eps was not equal to encoder_layer.norm2.eps"),
        (attention.num_heads % 2 == 1, ".self_attn.num_heads is odd"),
    )  # fmt: skip
    return next((f"encoder_layer{text}" for holds, text in reasons if holds), "")


class TransformerEncoder(Module):
    """`num_layers` copies of an encoder layer, one after the other, and a norm.

    Shapes and masks: see TransformerEncoderLayer. `is_causal` None finds out whether `mask` is the
    causal one. The copies start with equal weights. `enable_nested_tensor` and `mask_check` change
    nothing here; the UserWarning is PyTorch's, about its own way. Padded places hold what their
    queries attend to, where PyTorch may give zeros.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerEncoder.html

    >>> layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    >>> encoder = nn.TransformerEncoder(layer, num_layers=2)
    >>> causal = nn.Transformer.generate_square_subsequent_mask(5)
    >>> encoder(gpunn.randn(2, 5, 16), mask=causal).shape
    torch.Size([2, 5, 16])
    """

    __constants__ = ["norm"]

    def __init__(
        self, encoder_layer: Module, num_layers: int, norm: Module | None = None,
        enable_nested_tensor: bool = True, mask_check: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.layers = _get_clones(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm
        reason = _why_not_nested(encoder_layer)
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check
        self.use_nested_tensor = enable_nested_tensor and not reason
        if enable_nested_tensor and reason:
            warnings.warn(
                "enable_nested_tensor is True, but self.use_nested_tensor is False because "
                f"{reason}",
                stacklevel=2,
            )

    def forward(
        self, src: Tensor, mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, is_causal: bool | None = None,
    ) -> Tensor:  # fmt: skip
        mask, padding = check_masks(
            mask, src_key_padding_mask, src.dtype, ("mask", "src_key_padding_mask")
        )
        first: Any = self.layers[0]
        length = _get_seq_len(src, first.self_attn.batch_first)
        causal = _detect_is_causal_mask(mask, is_causal, length)
        output = src
        for layer in self.layers:
            output = layer(output, src_mask=mask, is_causal=causal, src_key_padding_mask=padding)
        return output if self.norm is None else self.norm(output)


class TransformerDecoder(Module):
    """`num_layers` copies of a decoder layer, one after the other, and a norm.

    Shapes and masks: see TransformerDecoderLayer. `tgt_is_causal` None finds out whether
    `tgt_mask` is the causal one. The copies start with equal weights.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerDecoder.html

    >>> layer = nn.TransformerDecoderLayer(16, 4, 32)
    >>> decoder = nn.TransformerDecoder(layer, num_layers=2)
    >>> decoder(gpunn.randn(3, 2, 16), gpunn.randn(5, 2, 16)).shape
    torch.Size([3, 2, 16])
    """

    __constants__ = ["norm"]

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None):
        super().__init__()
        self.layers = _get_clones(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        first: Any = self.layers[0]
        length = _get_seq_len(tgt, first.self_attn.batch_first)
        causal = _detect_is_causal_mask(tgt_mask, tgt_is_causal, length)
        output = tgt
        for layer in self.layers:
            output = layer(
                output, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=causal,
                memory_is_causal=memory_is_causal,
            )  # fmt: skip
        return output if self.norm is None else self.norm(output)


class Transformer(Module):
    """An encoder of the source, and a decoder of the target that attends to what the encoder gives.

    Shapes: src (S, N, d_model) and tgt (T, N, d_model), with `batch_first` N first, or both
    without N; the result has tgt's. Masks hide keys (True means ignore, numbers are added to the
    scores): src_mask (S, S), tgt_mask (T, T), memory_mask (T, S), each also with N * nhead in
    front, and the key_padding_masks of src, tgt and memory (N, S), (N, T), (N, S). A decoder that
    must not look ahead needs `tgt_mask=nn.Transformer.generate_square_subsequent_mask(T)`.
    `src_is_causal` and `tgt_is_causal` None find out whether a mask is causal. `custom_encoder`
    and `custom_decoder` take the place of the stacks. Weights are Xavier-uniform.
    RuntimeError for src and tgt of other batches or features.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Transformer.html

    >>> model = nn.Transformer(16, 4, 2, 2, 32, batch_first=True)
    >>> model(gpunn.randn(2, 5, 16), gpunn.randn(2, 3, 16)).shape
    torch.Size([2, 3, 16])
    """

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6,
        num_decoder_layers: int = 6, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = relu, custom_encoder: Any = None,
        custom_decoder: Any = None, layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        make = {"device": device, "dtype": dtype}
        layer = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
                 norm_first, bias)  # fmt: skip
        if custom_encoder is None:
            one = TransformerEncoderLayer(*layer, **make)
            norm = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **make)
            custom_encoder = TransformerEncoder(one, num_encoder_layers, norm)
        self.encoder = custom_encoder
        if custom_decoder is None:
            other = TransformerDecoderLayer(*layer, **make)
            norm = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **make)
            custom_decoder = TransformerDecoder(other, num_decoder_layers, norm)
        self.decoder = custom_decoder
        self._reset_parameters()
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def _reset_parameters(self) -> None:
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: Any = None, dtype: Any = None
    ) -> Tensor:
        """The causal mask (sz, sz): row i may attend to columns 0 to i; the others hold -inf.

        >>> nn.Transformer.generate_square_subsequent_mask(2)
        tensor([[0., -inf],
                [0., 0.]])
        """
        return _generate_square_subsequent_mask(sz, device, dtype)

    def forward(
        self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        batch = 0 if self.batch_first else 1
        if src.ndim == 3 and src.shape[batch] != tgt.shape[batch]:
            raise RuntimeError(
                f"the batch number of src and tgt must be equal, got {tuple(src.shape)} and "
                f"{tuple(tgt.shape)} (batch_first={self.batch_first})"
            )
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise RuntimeError(
                "the feature number of src and tgt must be equal to d_model, got "
                f"{tuple(src.shape)} and {tuple(tgt.shape)} for d_model={self.d_model}"
            )
        memory = self.encoder(
            src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        return self.decoder(  # type: ignore[no-any-return]
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )  # fmt: skip
