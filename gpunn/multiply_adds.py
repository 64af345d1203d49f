"""How many multiplications with an addition a call of a module takes, for `gpunn.summary`.

A row for each class: what its one call costs, from the module, its inputs and its output. Biases
are not counted, nor are activations, pooling, dropout and losses; norms are one for each element.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpunn.tensor import Tensor

__all__ = ["multiply_adds"]

Rule = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], int]


def multiply_adds(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """The multiply-adds of a call of this class of modules; None where no rule knows them.

    `out` may be a tuple or list whose first entry is the tensor that counts.

    >>> from gpunn.multiply_adds import multiply_adds
    >>> layer, x = nn.Linear(3, 2), gpunn.ones(4, 3)
    >>> multiply_adds(layer, (x,), {}, layer(x))
    24
    """
    while isinstance(out, (tuple, list)) and out:
        out = out[0]
    for kind in type(module).__mro__:
        if kind.__module__.split(".")[0] == "gpunn" and kind.__name__ in _RULES:
            try:
                return _RULES[kind.__name__](module, args, kwargs, out)
            except (AttributeError, IndexError, KeyError, StopIteration, TypeError):
                return None  # a subclass whose forward takes or returns something else
    return None


def _linear(module: Any, args: Any, kwargs: Any, out: Any) -> int:
    return int(out.numel() * module.in_features)


def _bilinear(module: Any, args: Any, kwargs: Any, out: Any) -> int:
    return int(out.numel() * module.in1_features * module.in2_features)


def _conv(module: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Each output, or input where it is transposed, meets the weights of one channel."""
    ends = _first(args, kwargs) if module.transposed else out
    return int(ends.numel() * math.prod(module.weight.shape[1:]))


def _per_element(module: Any, args: Any, kwargs: Any, out: Any) -> int:
    return int(out.numel())


def _none(module: Any, args: Any, kwargs: Any, out: Any) -> int:
    return 0


def _recurrent(module: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Each step of each sequence meets every weight once."""
    x = _first(args, kwargs)
    x = getattr(x, "data", x) if not isinstance(x, Tensor) else x  # a PackedSequence
    steps = x.numel() // x.shape[-1]
    return int(steps) * sum(
        p.numel() for name, p in module.named_parameters() if name.startswith("weight")
    )


def _attention(module: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Projections of query, key, value and result, scores, and their weighted values."""
    given = {**dict(zip(("query", "key", "value"), args, strict=False)), **kwargs}
    query, key, value = (given[name] for name in ("query", "key", "value"))
    size = module.embed_dim
    axis = -2 if module.batch_first or query.dim() == 2 else 0
    rows, columns = query.shape[axis], key.shape[axis]
    batch = query.numel() // (rows * size)
    projections = (2 * query.numel() + key.numel() + value.numel()) * size
    columns += (module.bias_k is not None) + module.add_zero_attn
    return int(projections + 2 * batch * rows * columns * size)


def _first(args: Any, kwargs: Any) -> Any:
    return args[0] if args else next(iter(kwargs.values()))


_RULES: dict[str, Rule] = {
    "Linear": _linear, "Bilinear": _bilinear, "_ConvNd": _conv, "Embedding": _none,
    "EmbeddingBag": _none, "PReLU": _per_element,
    "_NormBase": _per_element, "GroupNorm": _per_element, "LayerNorm": _per_element,
    "RMSNorm": _per_element, "_SwitchableNorm": _per_element,
    "RNNBase": _recurrent, "RNN": _recurrent, "LSTM": _recurrent, "GRU": _recurrent,
    "RNNCellBase": _recurrent, "MultiheadAttention": _attention, "ParametrizationList": _none,
}  # fmt: skip
