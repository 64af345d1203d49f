"""What a pruning method is, and several of them one after the other: see prune.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from gpunn.nn.module import Module
from gpunn.ops.create import ones_like
from gpunn.tensor import Tensor

__all__ = ["BasePruningMethod", "PruningContainer"]


def check_shape(scores: Any, t: Any, of: str) -> None:
    if scores.shape != t.shape:
        raise AssertionError(
            f"importance_scores should have the same shape as {of}, got {scores.shape} vs {t.shape}"
        )


class BasePruningMethod(ABC):
    """A way to prune: the hook that multiplies a parameter by its mask before each forward.

    A subclass defines `compute_mask(t, default_mask)` and the class attribute `PRUNING_TYPE`:
    "unstructured" is given the entries that are not pruned yet, "structured" the channels along
    its attribute `dim`, "global" everything.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.BasePruningMethod.html

    >>> class Negative(nn.utils.prune.BasePruningMethod):
    ...     PRUNING_TYPE = "unstructured"
    ...     def compute_mask(self, t, default_mask):
    ...         return default_mask * (t >= 0)
    >>> layer = nn.Linear(3, 2)
    >>> _ = Negative.apply(layer, "weight")
    >>> bool((layer.weight >= 0).all())
    True
    """

    _tensor_name: str | None = None

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._name(module), self.apply_mask(module))

    def _name(self, module: Module, when: str = "") -> str:
        if self._tensor_name is None:
            raise AssertionError(f"Module {module} has to be pruned{when}")
        return self._tensor_name

    @abstractmethod
    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask for a tensor of scores `t`, within the earlier `default_mask` of its shape."""

    def apply_mask(self, module: Module) -> Any:
        """The parameter with its mask applied. Raises AssertionError before `apply`."""
        name = self._name(module)
        mask, original = getattr(module, name + "_mask"), getattr(module, name + "_orig")
        return mask.to(original.dtype) * original

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Prunes a parameter, further where it is pruned already; returns the hook.

        `args` and `kwargs` make the method. The mask is computed from `importance_scores`, of
        the parameter's shape, or the parameter. Raises AssertionError for another shape.
        """
        method = _with_earlier(cls(*args, **kwargs), module, name)
        original = getattr(module, name)
        scores = original if importance_scores is None else importance_scores
        check_shape(scores, original, f"parameter {name} of {module}")
        first = not isinstance(method, PruningContainer)
        if first:
            module.register_parameter(name + "_orig", original)
            del module._parameters[name]
            mask = ones_like(original)
        else:
            mask = getattr(module, name + "_mask").detach().clone()
        try:
            mask = method.compute_mask(scores, default_mask=mask)
            module.register_buffer(name + "_mask", mask)
            setattr(module, name, method.apply_mask(module))
            module.register_forward_pre_hook(method)
        except Exception:
            if first:
                del module._parameters[name + "_orig"]
                module.register_parameter(name, original)
            raise
        return method

    def prune(
        self, t: Any, default_mask: Any = None, importance_scores: Tensor | None = None
    ) -> Any:
        """A tensor times the mask that this method computes for it, without any module."""
        scores = t if importance_scores is None else importance_scores
        check_shape(scores, t, "tensor t")
        mask = ones_like(t) if default_mask is None else default_mask
        return t * self.compute_mask(scores, default_mask=mask)

    def remove(self, module: Module) -> None:
        """Makes the pruned tensor the parameter; what was pruned stays zero."""
        name = self._name(module, " before pruning can be removed")
        pruned = self.apply_mask(module)
        if hasattr(module, name):
            delattr(module, name)
        original = module._parameters[name + "_orig"]
        original.data = pruned.data
        del module._parameters[name + "_orig"], module._buffers[name + "_mask"]
        setattr(module, name, original)


def _with_earlier(method: Any, module: Module, name: str) -> Any:
    """The method, or the container of the earlier hooks of this parameter and the method."""
    method._tensor_name = name
    hooks = module._forward_pre_hooks
    earlier = [k for k, h in hooks.items() if prunes(h) and h._tensor_name == name]
    if len(earlier) > 1:
        raise AssertionError(
            f"Avoid adding multiple pruning hooks to the same tensor {name} of module {module}. "
            "Use a PruningContainer."
        )
    if not earlier:
        return method
    old = hooks.pop(earlier[0])
    container = old if isinstance(old, PruningContainer) else PruningContainer(old)
    container.add_pruning_method(method)
    return container


def prunes(hook: Any) -> bool:
    return isinstance(hook, BasePruningMethod)


class PruningContainer(BasePruningMethod):
    """Pruning methods applied one after the other to one parameter.

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.prune.PruningContainer.html

    >>> layer = nn.Linear(3, 2)
    >>> for _ in range(2):
    ...     _ = nn.utils.prune.l1_unstructured(layer, "weight", amount=1)
    >>> len(next(iter(layer._forward_pre_hooks.values())))
    2
    """

    def __init__(self, *args: Any) -> None:
        self._pruning_methods: tuple[Any, ...] = ()
        if len(args) == 1:
            self._tensor_name = args[0]._tensor_name
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: Any) -> None:
        """Adds a method. Raises TypeError for what is none, ValueError for another parameter's."""
        if method is not None:
            if not prunes(method):
                raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
            if self._tensor_name != method._tensor_name:
                raise ValueError(
                    "Can only add pruning methods acting on the parameter named "
                    f"'{self._tensor_name}' to PruningContainer {self}. Found "
                    f"'{method._tensor_name}'"
                )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pruning_methods)

    def __getitem__(self, index: Any) -> Any:
        return self._pruning_methods[index]

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask of the last method, for what `default_mask` leaves, combined with it."""
        method = self._pruning_methods[-1]
        part = _open_to(method, t, default_mask)
        combined = default_mask.to(t.dtype).clone()
        partial = method.compute_mask(t[part], default_mask=default_mask[part])
        combined[part] = partial.to(combined.dtype)
        return combined


def _open_to(method: Any, t: Any, mask: Any) -> Any:
    """The index of what a further method may look at."""
    if method.PRUNING_TYPE == "unstructured":
        return mask == 1
    if method.PRUNING_TYPE == "global":
        return (slice(None),) * t.dim()
    if method.PRUNING_TYPE != "structured":
        raise ValueError(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}")
    if not hasattr(method, "dim"):
        raise AttributeError(
            'Pruning methods of PRUNING_TYPE "structured" need to have the attribute `dim` defined.'
        )
    dim = method.dim + t.dim() if method.dim < 0 else method.dim
    if dim < 0:
        raise IndexError(f"Index is out of bounds for tensor with dimensions {t.dim()}")
    kept = mask.sum(dim=[d for d in range(t.dim()) if d != dim]) != 0
    return along(dim, kept, t.dim())


def along(dim: int, index: Any, ndim: int) -> tuple[Any, ...]:
    """The index that takes `index` of one dimension and all of the others."""
    parts: list[Any] = [slice(None)] * ndim
    parts[dim] = index
    return tuple(parts)
