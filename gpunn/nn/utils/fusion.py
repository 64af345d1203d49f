"""Batch norm merged into the convolution or linear layer before it, for inference.

Source: https://docs.pytorch.org/docs/stable/nn.html#utilities
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.ops.create import ones_like, zeros_like
from gpunn.tensor import Tensor

__all__ = [
    "fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights",
]  # fmt: skip

M = TypeVar("M", bound=Module)


def _check_modes(layer: Module, bn: Any) -> None:
    if layer.training or bn.training:
        raise AssertionError(
            "Fusion only for eval! Batch norm in training mode depends on the batch: call eval() "
            "on both modules"
        )
    if bn.running_mean is None or bn.running_var is None:
        raise AssertionError("bn.running_mean and bn.running_var must not be None")


def _fused(layer: M, bn: Any, weights: Any, *more: Any) -> M:
    fused: Any = copy.deepcopy(layer)
    fused.weight, fused.bias = weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, *more
    )
    return fused  # type: ignore[no-any-return]


def fuse_conv_bn_eval(conv: M, bn: Module, transpose: bool = False) -> M:
    """A new convolution that computes what `conv` and then `bn` compute in eval mode.

    A transposed convolution is known by itself, whatever `transpose` says. Raises AssertionError
    for modules in training mode and batch norm without running statistics.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.fuse_conv_bn_eval.html

    >>> conv, bn = nn.Conv2d(3, 4, 3).eval(), nn.BatchNorm2d(4).eval()
    >>> x = gpunn.randn(2, 3, 8, 8)
    >>> fused = nn.utils.fuse_conv_bn_eval(conv, bn)
    >>> gpunn.allclose(fused(x), bn(conv(x)), atol=1e-6)
    True
    """
    _check_modes(conv, bn)
    transpose = transpose or getattr(conv, "transposed", False)
    return _fused(conv, bn, fuse_conv_bn_weights, transpose)


def fuse_conv_bn_weights(
    conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
    bn_w: Tensor | None, bn_b: Tensor | None, transpose: bool = False,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """The weight and bias of a convolution followed by batch norm.

    `conv_w` is (out, in / groups, ...) or, with `transpose`, (in, out / groups, ...); the others
    are (out,); None stands for a bias or shift of 0 and a scale of 1. Both results are of the
    dtypes of the convolution's.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.fuse_conv_bn_weights.html

    >>> var, mean = gpunn.full((2,), 4.0), gpunn.ones(2)
    >>> w, b = nn.utils.fuse_conv_bn_weights(
    ...     gpunn.ones(2, 1, 1), None, mean, var, 0.0, None, None)
    >>> w.flatten().tolist(), b.tolist()
    ([0.5, 0.5], [-0.5, -0.5])
    """
    w: Any = conv_w
    b: Any = zeros_like(bn_rm) if conv_b is None else conv_b
    bias_dtype = w.dtype if conv_b is None else b.dtype
    scale: Any = ones_like(bn_rm) if bn_w is None else bn_w
    shift: Any = zeros_like(bn_rm) if bn_b is None else bn_b
    inverse_std = (bn_rv + bn_eps).rsqrt()  # type: ignore[operator]
    factor = scale * inverse_std
    if transpose:  # rows are grouped: each group has its own columns of the outputs
        groups = factor.numel() // w.shape[1]
        factor = factor.reshape(groups, 1, -1).expand(groups, w.shape[0] // groups, -1)
        factor = factor.reshape(*w.shape[:2], *[1] * (w.dim() - 2))
    else:
        factor = factor.reshape(-1, *[1] * (w.dim() - 1))
    fused_w = (w * factor).to(w.dtype)
    fused_b = ((b - bn_rm) * inverse_std * scale + shift).to(bias_dtype)
    return Parameter(fused_w, w.requires_grad), Parameter(fused_b, b.requires_grad)


def fuse_linear_bn_eval(linear: M, bn: Module) -> M:
    """A new linear layer that computes what `linear` and then `bn` compute in eval mode.

    Raises AssertionError for modules in training mode, batch norm without running statistics, and
    one whose number of features is neither that of the outputs nor 1.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.fuse_linear_bn_eval.html

    >>> linear, bn = nn.Linear(3, 4).eval(), nn.BatchNorm1d(4).eval()
    >>> x = gpunn.randn(2, 3)
    >>> gpunn.allclose(nn.utils.fuse_linear_bn_eval(linear, bn)(x), bn(linear(x)), atol=1e-6)
    True
    """
    outputs, features = linear.out_features, bn.num_features  # type: ignore[attr-defined]
    if features not in (1, outputs):
        raise AssertionError(
            "To fuse, linear.out_features == bn.num_features or bn.num_features == 1, got "
            f"linear.out_features={outputs} and bn.num_features={features}"
        )
    _check_modes(linear, bn)
    return _fused(linear, bn, fuse_linear_bn_weights)


def fuse_linear_bn_weights(
    linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
    bn_w: Tensor | None, bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:  # fmt: skip
    """The weight and bias of a linear layer followed by batch norm.

    `linear_w` is (out, in), the others (out,) or (1,); None stands for a bias or shift of 0 and a
    scale of 1. Both results are of the dtypes of the linear layer's.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.fuse_linear_bn_weights.html

    >>> var, one, zero = gpunn.full((2,), 4.0), gpunn.ones(2), gpunn.zeros(2)
    >>> w, b = nn.utils.fuse_linear_bn_weights(gpunn.ones(2, 1), zero, one, var, 0.0, one, zero)
    >>> w.tolist(), b.tolist()
    ([[0.5], [0.5]], [-0.5, -0.5])
    """
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)
