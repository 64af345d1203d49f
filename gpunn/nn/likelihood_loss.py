"""Losses that are negative log-likelihoods of numbers: Poisson's, Gauss's, and the divergence."""

from __future__ import annotations

import math
import warnings
from typing import Any

from gpunn.amp.casts import autocasts
from gpunn.nn.cross_entropy import NLLLoss
from gpunn.nn.distance import at_least
from gpunn.nn.reduction import Loss, pick_reduction, reduced
from gpunn.tensor import Tensor

# --- Poisson ------------------------------------------------------------------------------


@autocasts("poisson_nll_loss")
def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False,
    size_average: Any = None, eps: float = 1e-8, reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """exp(x) - t x of log-rates x and counts t, or x - t log(x + eps) of rates x.

    `full` adds Stirling's approximation of log(t!), t log t - t + 0.5 log(2 pi t), where t > 1.
    Shapes: any two that broadcast. dtypes: numeric, a floating result.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.poisson_nll_loss.html

    >>> F.poisson_nll_loss(gpunn.tensor([0.0]), gpunn.tensor([2.0]))
    tensor(1.)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    losses = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        losses = losses + stirling.masked_fill(target <= 1, 0)
    return reduced(losses, reduction)


class PoissonNLLLoss(Loss):
    """The negative log-likelihood of counts: see `nn.functional.poisson_nll_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PoissonNLLLoss.html

    >>> nn.PoissonNLLLoss(log_input=False)(gpunn.tensor([1.0]), gpunn.tensor([2.0]))
    tensor(1.)
    """

    __constants__ = ["log_input", "full", "eps", "reduction"]

    def __init__(
        self, log_input: bool = True, full: bool = False, size_average: Any = None,
        eps: float = 1e-8, reduce: Any = None, reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        return poisson_nll_loss(
            log_input, target, log_input=self.log_input, full=self.full, eps=self.eps,
            reduction=self.reduction,
        )  # fmt: skip


# --- Gauss --------------------------------------------------------------------------------


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """0.5 (log v + (input - target)^2 / v) of variances v, which are at least `eps`.

    `full` adds 0.5 log(2 pi). The gradient passes `eps` by: it is that of v itself.
    Shapes: input and target that broadcast; var input's, or without its last dimension, or with a
    1 in one dimension, or a float. ValueError for another shape and for a negative variance (on a
    GPU, as in PyTorch, the host waits to look).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.gaussian_nll_loss.html

    >>> F.gaussian_nll_loss(gpunn.tensor([1.0]), gpunn.tensor([3.0]), gpunn.tensor([1.0]))
    tensor(2.)
    """
    number = isinstance(var, (float, int))
    if (var < 0) if number else (var.array < 0).any():
        raise ValueError("var has negative entry/entries")
    if number:
        var = input.new_full(input.shape, var)
    shape, given = input.array.shape, var.array.shape
    if given != shape:
        if given == shape[:-1]:
            var = var.unsqueeze(-1)
        elif len(given) != len(shape) or sum(
            v for n, v in zip(shape, given, strict=True) if n != v
        ) != 1:  # fmt: skip
            raise ValueError("var is of incorrect size")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not valid")
    var = at_least(var, eps)
    losses = 0.5 * (var.log() + (input - target) ** 2 / var)  # type: ignore[attr-defined]
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return reduced(losses, reduction)


class GaussianNLLLoss(Loss):
    """The negative log-likelihood of normal numbers: see `nn.functional.gaussian_nll_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GaussianNLLLoss.html

    >>> nn.GaussianNLLLoss()(gpunn.tensor([1.0]), gpunn.tensor([3.0]), gpunn.tensor([1.0]))
    tensor(2.)
    """

    __constants__ = ["full", "eps", "reduction"]

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean"):
        super().__init__(None, None, reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        return gaussian_nll_loss(
            input, target, var, full=self.full, eps=self.eps, reduction=self.reduction
        )


# --- divergence ---------------------------------------------------------------------------


@autocasts("kl_div")
def kl_div(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", log_target: bool = False,
) -> Tensor:  # fmt: skip
    """t (log t - x) of log-probabilities x and probabilities t (their logarithms: `log_target`).

    `reduction` may be "batchmean" too, the sum divided by the first size: the divergence by its
    definition, while "mean" divides by all elements, and warns as in PyTorch.
    Shapes: any two that broadcast. RuntimeError for integers and complex numbers.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.kl_div.html

    >>> x = gpunn.tensor([[0.5, 0.5]]).log()
    >>> F.kl_div(x, gpunn.tensor([[1.0, 0.0]]), reduction="batchmean")
    tensor(0.6931)
    """
    legacy = size_average is not None or reduce is not None
    if not legacy and reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size."
            "'batchmean' divides only by the batch size, and aligns with the KL div math "
            "definition.'mean' will be changed to behave the same as 'batchmean' in the next major "
            "release.",
            stacklevel=2,
        )
    by_batch = reduction == "batchmean"
    how = pick_reduction("sum" if by_batch and not legacy else reduction, size_average, reduce)
    for wrong, kinds in (("Complex", "c"), ("Integral", "biu")):
        if input.array.dtype.kind in kinds or target.array.dtype.kind in kinds:
            raise RuntimeError(f"kl_div: {wrong} inputs not supported.")
    if log_target:
        losses = target.exp() * (target - input)
    else:
        losses = target.xlogy(target) - target * input
    loss = reduced(losses, how)
    return loss / input.array.shape[0] if by_batch and input.ndim else loss  # type: ignore[operator]


class KLDivLoss(Loss):
    """The Kullback-Leibler divergence: see `nn.functional.kl_div`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.KLDivLoss.html

    >>> loss = nn.KLDivLoss(reduction="batchmean", log_target=True)
    >>> loss(gpunn.tensor([[0.5, 0.5]]).log(), gpunn.tensor([[0.5, 0.5]]).log())
    tensor(0.)
    """

    def __init__(
        self, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
        log_target: bool = False,
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class NLLLoss2d(NLLLoss):
    """`NLLLoss` under its deprecated name.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     nn.NLLLoss2d()(gpunn.tensor([[-1.0, -2.0]]), gpunn.tensor([1]))
    tensor(2.)
    """

    def __init__(
        self, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100,
        reduce: Any = None, reduction: str = "mean",
    ):  # fmt: skip
        warnings.warn(
            "`NLLLoss2d` has been deprecated. Please use `NLLLoss` instead as a drop-in "
            "replacement and see https://pytorch.org/docs/main/nn.html#torch.nn.NLLLoss for more "
            "details.",
            FutureWarning,
            stacklevel=2,
        )
        super().__init__(weight, size_average, ignore_index, reduce, reduction)
