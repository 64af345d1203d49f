"""Adam."""

from __future__ import annotations

from typing import Any

from gpunn.optim.elementwise import Elementwise, Rule, number, scalar, zeros_like
from gpunn.optim.optimizer import ParamsT, check_options
from gpunn.tensor import Tensor

__all__ = ["Adam"]


def _adam(
    xp: Any, p: Any, g: Any, m: Any, v: Any,
    rest1: Any, beta2: Any, rest2: Any, eps: Any, lr: Any,
) -> None:  # fmt: skip
    m += (g - m) * rest1
    v *= beta2
    v += g * g * rest2
    p -= m / (xp.sqrt(v) + eps) * lr


def _amsgrad(
    xp: Any, p: Any, g: Any, m: Any, v: Any, v_max: Any,
    rest1: Any, beta2: Any, rest2: Any, eps: Any, lr: Any,
) -> None:  # fmt: skip
    m += (g - m) * rest1
    v *= beta2
    v += g * g * rest2
    v_max[...] = xp.maximum(v_max, v)
    p -= m / (xp.sqrt(v_max) + eps) * lr


class Adam(Elementwise):
    """Adam: steps by the mean of the gradient over the root of the mean of its square.

    m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², θ ← θ - γ m̂ / (√v̂ + ε), where m̂ = m / (1 - β₁ᵗ)
    and v̂ = v / (1 - β₂ᵗ) undo the bias of starting from 0. With `amsgrad`, the largest v so far
    takes the place of v. `weight_decay` λ adds λθ to g, or with `decoupled_weight_decay` first
    shrinks θ by 1 - γλ. `foreach`, `fused` and `capturable` are accepted and change nothing.
    Raises ValueError for options out of range, RuntimeError for sparse gradients.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html,
    https://arxiv.org/abs/1412.6980, AMSGrad: https://openreview.net/forum?id=ryQu7f-RZ

    >>> p = gpunn.tensor([1.0], requires_grad=True)
    >>> optimizer = gpunn.optim.Adam([p], lr=0.1)
    >>> (2 * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.9000], requires_grad=True)
    """

    _has_fused = True
    _instead_of_sparse = ", please consider SparseAdam instead"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        for name, value in (("lr", lr), ("betas[0]", betas[0]), ("betas[1]", betas[1])):
            if isinstance(value, Tensor) and foreach and not capturable:
                raise ValueError(
                    f"{name} as a Tensor is not supported for capturable=False and foreach=True"
                )
        check_options(lr, eps, betas, weight_decay=weight_decay)
        if not (
            all(isinstance(b, float) for b in betas) or all(isinstance(b, Tensor) for b in betas)
        ):
            raise ValueError("betas must be either both floats or both Tensors")
        super().__init__(params, {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        })  # fmt: skip

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        state = {"step": scalar(0.0), "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_like(p)
        return state

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        if group["amsgrad"]:
            return _amsgrad, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
        return _adam, ("exp_avg", "exp_avg_sq")

    def _coefficients(self, group: dict[str, Any], t: float) -> tuple[Any, ...]:
        beta1, beta2 = number(group, "betas")
        # γ m̂ / (√v̂ + ε) = γ √c₂ / c₁ · m / (√v + √c₂ ε) with c = 1 - βᵗ: two passes fewer
        root2 = (1 - beta2**t) ** 0.5
        lr = number(group, "lr") * root2 / (1 - beta1**t)
        return 1 - beta1, beta2, 1 - beta2, group["eps"] * root2, lr

    def _fused(self, library: Any, group: dict[str, Any], ticks: Any, *columns: list[Any]) -> bool:
        params, grads, exp_avgs, exp_avg_sqs, *largest = columns
        beta1, beta2 = number(group, "betas")
        return library.adam_step(
            params, grads, exp_avgs, exp_avg_sqs, step=ticks[0], lr=number(group, "lr"),
            beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=number(group, "weight_decay"),
            decoupled=group["decoupled_weight_decay"], maximize=group["maximize"],
            max_exp_avg_sqs=largest[0] if largest else None,
        )  # fmt: skip
