"""Muon: momentum whose matrix is made orthogonal before each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd import touch
from gpunn.optim.elementwise import apply, zeros_like
from gpunn.optim.optimizer import Optimizer, ParamsT, on
from gpunn.tensor import Tensor

__all__ = ["Muon"]


def _bf16(x: Any) -> Any:
    """x rounded to bfloat16, as float32: PyTorch's iteration, at the speed of float32 products."""
    return x.astype(dtypes.BF16).astype(np.float32)


def _orthogonal(
    xp: Any, x: Any, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Any:
    """U Vᵀ of x = U S Vᵀ, roughly: Newton-Schulz moves all singular values towards 1.

    Each step maps a singular value s to as + bs³ + cs⁵.
    """
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    x = _bf16(x.T if tall else x)
    x = _bf16(x / max(float(_bf16(xp.asarray(xp.linalg.norm(x)))), eps))
    for _ in range(steps):
        gram = _bf16(x @ x.T)
        x = _bf16(a * x + _bf16(b * gram + c * (gram @ gram)) @ x)
    return x.T if tall else x


def _muon(
    xp: Any, p: Any, g: Any, b: Any, mu: float, nesterov: bool, coefficients: Any, steps: int,
    eps: float, keep: float, lr: float,
) -> None:  # fmt: skip
    b += (g - b) * (1 - mu)
    update = g + (b - g) * mu if nesterov else b
    update = _orthogonal(xp, update, coefficients, steps, eps)
    p *= keep
    p -= update * lr


class Muon(Optimizer):
    """Muon, for the matrices of hidden layers: momentum, orthogonalised by Newton-Schulz.

    b ← μ b + (1 - μ) g, u = (1 - μ) g + μ b with `nesterov`, else b; θ ← (1 - γλ) θ - γ' U Vᵀ(u).
    γ' = γ √max(1, rows / columns), or 0.2 γ √max(rows, columns) with
    `adjust_lr_fn="match_rms_adamw"`. Give biases and embeddings to another optimizer.
    Raises ValueError for options out of range and for parameters that are no matrices.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html,
    https://kellerjordan.github.io/posts/muon/

    >>> layer = nn.Linear(3, 2, bias=False)
    >>> optimizer = gpunn.optim.Muon(layer.parameters(), lr=0.1)
    >>> layer(gpunn.ones(1, 3)).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not lr >= 0.0:  # type: ignore[operator]
            raise ValueError(f"Learning rate should be >= 0 but is: {lr}")
        if not momentum >= 0.0:
            raise ValueError(f"momentum should be >= 0 but is: {momentum}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight decay should be >= 0 but is: {weight_decay}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        super().__init__(params, {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        })  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(
                        "Muon only supports 2D parameters whereas we found a parameter with size: "
                        f"{p.shape}"
                    )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have a gradient; returns the closure's loss."""
        loss = self._evaluate(closure)
        for group in self.param_groups:
            if group["ns_steps"] >= 100:
                raise ValueError(
                    "Number of steps must be less than 100 for computational efficiency, "
                    f"ns_steps is {group['ns_steps']}"
                )
            if len(group["ns_coefficients"]) != 3:
                raise ValueError("Coefficients must be a tuple of exactly 3 values")
            for p in group["params"]:
                if p._grad is not None:
                    on(p.device, self._update, group, p, p._grad)
        return loss

    def _update(self, group: dict[str, Any], p: Tensor, grad: Tensor) -> None:
        if p.dtype.is_complex:
            raise RuntimeError("Muon does not support complex parameters")
        if grad.is_sparse:
            raise RuntimeError("Muon does not support sparse gradients")
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = zeros_like(p)
        lr, (rows, columns) = float(group["lr"]), p.array.shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        else:
            scale = math.sqrt(max(1, rows / columns))
        apply(_muon, p.device.xp, [p.array, grad.array, state["momentum_buffer"].array], [
            group["momentum"], group["nesterov"], group["ns_coefficients"], group["ns_steps"],
            group["eps"], 1 - lr * group["weight_decay"], lr * scale,
        ])  # fmt: skip
        touch(p)
