"""Pruning: masks that set parts of a parameter to zero before each forward.

A pruned `weight` is computed from the parameter `weight_orig` and the buffer `weight_mask`.
Source: https://docs.pytorch.org/tutorials/intermediate/pruning_tutorial.html
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any, TypeVar

from gpunn.nn.module import Module
from gpunn.nn.utils.convert_parameters import parameters_to_vector
from gpunn.nn.utils.pruning_method import BasePruningMethod, PruningContainer, along, prunes
from gpunn.ops.create import ones_like, zeros_like
from gpunn.ops.order import kthvalue, topk
from gpunn.ops.reduce import norm
from gpunn.random import rand, rand_like
from gpunn.tensor import Tensor

__all__ = [
    "BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured",
    "PruningContainer", "RandomStructured", "RandomUnstructured", "custom_from_mask",
    "global_unstructured", "identity", "is_pruned", "l1_unstructured", "ln_structured",
    "random_structured", "random_unstructured", "remove",
]  # fmt: skip

M = TypeVar("M", bound=Module)
Amount = int | float


# --- amounts -----------------------------------------------------------------------------------


def _check_amount(amount: Any) -> None:
    whole, real = isinstance(amount, numbers.Integral), isinstance(amount, numbers.Real)
    if not real:
        raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
    if amount < 0 or (not whole and amount > 1):
        raise ValueError(
            f"amount={amount} should either be a float in the range [0, 1] or a non-negative "
            "integer"
        )


def _count(amount: Any, size: int) -> int:
    """How many of `size` units an amount, a number or a fraction of them, means."""
    whole = isinstance(amount, numbers.Integral)
    count: int = amount if whole else round(amount * size)
    if count > size:
        raise ValueError(
            f"amount={count} should be smaller than the number of parameters to prune={size}"
        )
    return int(count)


def _check_channels(t: Any, dim: int) -> None:
    if t.dim() <= 1:
        raise ValueError(
            "Structured pruning can only be applied to multidimensional tensors. Found tensor of "
            f"shape {t.shape} with {t.dim()} dims"
        )
    if dim >= t.dim():
        raise IndexError(f"Invalid index {dim} for tensor of size {t.shape}")


# --- the methods -------------------------------------------------------------------------------


class Identity(BasePruningMethod):
    """Prunes nothing: a mask of ones.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.Identity.html

    >>> nn.utils.prune.Identity().prune(gpunn.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        return default_mask

    @classmethod
    def apply(cls, module: Module, name: str) -> Any:  # type: ignore[override]
        return super().apply(module, name)


class _Amount(BasePruningMethod):
    """A method that prunes an amount: a number, or a fraction from 0 to 1."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: Amount) -> None:
        _check_amount(amount)
        self.amount = amount


class RandomUnstructured(_Amount):
    """Prunes entries at random.

    Raises TypeError for an `amount` that is no number, ValueError for one out of range.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.RandomUnstructured.html

    >>> pruned = nn.utils.prune.RandomUnstructured(amount=3).prune(gpunn.ones(8))
    >>> int((pruned == 0).sum())
    3
    """

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        count = _count(self.amount, t.numel())
        mask = default_mask.clone()
        if count:
            drawn: Any = rand_like(t)
            mask.view(-1)[topk(drawn.view(-1), k=count).indices] = 0
        return mask

    @classmethod
    def apply(cls, module: Module, name: str, amount: Amount) -> Any:  # type: ignore[override]
        return super().apply(module, name, amount=amount)


class L1Unstructured(_Amount):
    """Prunes the entries of the smallest magnitude.

    Raises TypeError for an `amount` that is no number, ValueError for one out of range.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.L1Unstructured.html

    >>> nn.utils.prune.L1Unstructured(amount=1).prune(gpunn.tensor([-1.0, 0.5, 2.0]))
    tensor([-1.,  0.,  2.])
    """

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        count = _count(self.amount, t.numel())
        mask = default_mask.clone()
        if count:
            mask.view(-1)[topk(t.abs().reshape(-1), k=count, largest=False).indices] = 0
        return mask

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Module, name: str, amount: Amount, importance_scores: Tensor | None = None
    ) -> Any:
        return super().apply(module, name, amount=amount, importance_scores=importance_scores)


def _channels_mask(t: Any, dim: int, kept: Any, default_mask: Any) -> Any:
    mask: Any = zeros_like(t)
    mask[along(dim, kept, t.dim())] = 1
    return mask * default_mask.to(mask.dtype)


class RandomStructured(BasePruningMethod):
    """Prunes whole channels along `dim` at random.

    Raises TypeError for an `amount` that is no number, ValueError for one out of range and for a
    tensor of one dimension, IndexError for `dim`.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.RandomStructured.html

    >>> pruned = nn.utils.prune.RandomStructured(amount=1, dim=0).prune(gpunn.ones(3, 2))
    >>> sorted(pruned.sum(1).tolist())
    [0.0, 2.0, 2.0]
    """

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Amount, dim: int = -1) -> None:
        _check_amount(amount)
        self.amount = amount
        self.dim = dim

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        _check_channels(t, self.dim)
        channels = t.shape[self.dim]
        count = _count(self.amount, channels)
        if not count:
            return default_mask
        drawn: Any = rand(channels)
        kept = drawn > kthvalue(drawn, k=count).values
        return _channels_mask(t, self.dim, kept.to(t.device), default_mask)

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Module, name: str, amount: Amount, dim: int = -1
    ) -> Any:
        return super().apply(module, name, amount=amount, dim=dim)


class LnStructured(BasePruningMethod):
    """Prunes the whole channels along `dim` that have the smallest `n`-norm.

    Raises TypeError for an `amount` that is no number, ValueError for one out of range and for a
    tensor of one dimension, IndexError for `dim`.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.LnStructured.html

    >>> t = gpunn.tensor([[1.0, 1.0], [3.0, 0.0], [2.0, 2.0]])
    >>> nn.utils.prune.LnStructured(amount=1, n=1, dim=0).prune(t)
    tensor([[0., 0.],
            [3., 0.],
            [2., 2.]])
    """

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Amount, n: Any, dim: int = -1) -> None:
        _check_amount(amount)
        self.amount = amount
        self.n = n
        self.dim = dim

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        _check_channels(t, self.dim)
        channels = t.shape[self.dim]
        count = _count(self.amount, channels)
        if not count:
            return default_mask
        dim = self.dim % t.dim()
        norms: Any = norm(t, p=self.n, dim=[d for d in range(t.dim()) if d != dim])
        kept = topk(norms, k=channels - count, largest=True).indices
        return _channels_mask(t, dim, kept, default_mask)

    @classmethod
    def apply(  # type: ignore[override]
        cls, module: Module, name: str, amount: Amount, n: Any, dim: int,
        importance_scores: Tensor | None = None,
    ) -> Any:  # fmt: skip
        return super().apply(
            module, name, amount=amount, n=n, dim=dim, importance_scores=importance_scores
        )


class CustomFromMask(BasePruningMethod):
    """Prunes what a given mask says. Raises AssertionError for a mask of another shape.

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.CustomFromMask.html

    >>> nn.utils.prune.CustomFromMask(gpunn.tensor([0, 1])).prune(gpunn.tensor([3.0, 4.0]))
    tensor([0., 4.])
    """

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        if default_mask.shape != self.mask.shape:
            raise AssertionError(
                f"default_mask shape {default_mask.shape} must match self.mask shape "
                f"{self.mask.shape}"
            )
        return default_mask * self.mask.to(dtype=default_mask.dtype)  # type: ignore[attr-defined]

    @classmethod
    def apply(cls, module: Module, name: str, mask: Tensor) -> Any:  # type: ignore[override]
        return super().apply(module, name, mask=mask)


# --- functions ---------------------------------------------------------------------------------


def identity(module: M, name: str) -> M:
    """Gives a parameter a mask of ones; returns the module.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.identity.html

    >>> nn.utils.prune.identity(nn.Linear(2, 3), "bias").bias_mask
    tensor([1., 1., 1.])
    """
    Identity.apply(module, name)
    return module


def random_unstructured(module: M, name: str, amount: Amount) -> M:
    """Prunes entries of a parameter at random: a number of them, or a fraction.

    Returns the module.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.random_unstructured.html

    >>> layer = nn.utils.prune.random_unstructured(nn.Linear(2, 3), "weight", amount=1)
    >>> int((layer.weight_mask == 0).sum())
    1
    """
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(
    module: M, name: str, amount: Amount, importance_scores: Tensor | None = None
) -> M:
    """Prunes the entries of a parameter of the smallest magnitude, or with the smallest scores.

    Returns the module.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.l1_unstructured.html

    >>> layer = nn.utils.prune.l1_unstructured(nn.Linear(2, 3), "weight", amount=0.2)
    >>> list(layer.state_dict())
    ['bias', 'weight_orig', 'weight_mask']
    """
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: M, name: str, amount: Amount, dim: int) -> M:
    """Prunes whole channels along `dim` of a parameter at random; returns the module.

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.random_structured.html

    >>> layer = nn.utils.prune.random_structured(nn.Linear(5, 3), "weight", amount=3, dim=1)
    >>> int((layer.weight.sum(dim=0) == 0).sum())
    3
    """
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: M, name: str, amount: Amount, n: Any, dim: int,
    importance_scores: Tensor | None = None,
) -> M:  # fmt: skip
    """Prunes the whole channels along `dim` of a parameter that have the smallest `n`-norm.

    Returns the module.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.ln_structured.html

    >>> layer = nn.utils.prune.ln_structured(nn.Conv2d(5, 3, 2), "weight", amount=2, n=2, dim=1)
    >>> int((layer.weight.abs().sum(dim=(0, 2, 3)) == 0).sum())
    2
    """
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def global_unstructured(
    parameters: Any, pruning_method: Any, importance_scores: Any = None, **kwargs: Any
) -> None:
    """Prunes several parameters, pairs of a module and a name, as if they were one vector.

    `pruning_method` is an unstructured one, made with `kwargs`; `importance_scores` maps pairs to
    tensors of the parameters' shapes. Raises TypeError for other kinds of methods and arguments.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.global_unstructured.html

    >>> model = nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 1))
    >>> both = [(model[0], "weight"), (model[1], "weight")]
    >>> prune = nn.utils.prune
    >>> prune.global_unstructured(both, prune.L1Unstructured, amount=10)
    >>> sum(int((layer.weight == 0).sum()) for layer in model)
    10
    """
    if not isinstance(parameters, Iterable):
        raise TypeError("global_unstructured(): parameters is not an Iterable")
    scores_of = {} if importance_scores is None else importance_scores
    if not isinstance(scores_of, dict):
        raise TypeError("global_unstructured(): importance_scores must be of type dict")
    pairs = list(parameters)
    tensors = [getattr(module, name) for module, name in pairs]
    scores = parameters_to_vector(
        [scores_of.get(pair, t) for pair, t in zip(pairs, tensors, strict=True)]
    )
    masks = parameters_to_vector(
        [getattr(m, f"{n}_mask", ones_like(t)) for (m, n), t in zip(pairs, tensors, strict=True)]
    )
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method '
            f"{pruning_method} of type {method.PRUNING_TYPE}"
        )
    mask = PruningContainer(method).compute_mask(scores, masks)
    start = 0
    for (module, name), tensor in zip(pairs, tensors, strict=True):
        end = start + tensor.numel()
        custom_from_mask(module, name, mask[start:end].view(tensor.shape))
        start = end


def custom_from_mask(module: M, name: str, mask: Tensor) -> M:
    """Prunes a parameter with a mask of its shape; returns the module.

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.custom_from_mask.html

    >>> mask = gpunn.tensor([0, 1, 0])
    >>> nn.utils.prune.custom_from_mask(nn.Linear(5, 3), "bias", mask).bias_mask
    tensor([0., 1., 0.])
    """
    CustomFromMask.apply(module, name, mask)
    return module


def remove(module: M, name: str) -> M:
    """Makes a pruned tensor the parameter, for good. Raises ValueError where none is pruned.

    Returns the module.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.remove.html

    >>> layer = nn.utils.prune.random_unstructured(nn.Linear(5, 7), "weight", amount=0.2)
    >>> list(nn.utils.prune.remove(layer, "weight").state_dict())
    ['bias', 'weight']
    """
    for key, hook in module._forward_pre_hooks.items():
        if prunes(hook) and hook._tensor_name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(
        f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed"
    )


def is_pruned(module: Module) -> bool:
    """Whether a parameter of the module, or of one in it, is pruned.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.is_pruned.html

    >>> nn.utils.prune.is_pruned(nn.Linear(5, 7))
    False
    """
    return any(prunes(h) for m in module.modules() for h in m._forward_pre_hooks.values())
