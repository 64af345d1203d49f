"""Parametrizations: a tensor of a module computed, at each access, from another one.

The module's class is replaced by a subclass of its own, `Parametrized...`, which has a property
where the tensor was; what the tensor is computed from lives in `module.parametrizations`.
Source: https://docs.pytorch.org/docs/stable/nn.html#parametrizations
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from gpunn import autograd
from gpunn.nn.container import ModuleDict, ModuleList
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.tensor import Tensor

__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization",
    "remove_parametrizations", "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]  # fmt: skip

M = TypeVar("M", bound=Module)

_cache_depth = 0
_cache: dict[tuple[int, str], tuple[Any, Tensor]] = {}  # the module too, to keep its id its own


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Inside, each parametrized tensor is computed once, at its first access, and then reused.

    For weights that one forward reads several times, as recurrent and shared ones.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.cached.html

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    >>> with nn.utils.parametrize.cached():
    ...     layer.weight is layer.weight
    True
    """
    global _cache_depth
    _cache_depth += 1
    try:
        yield
    finally:
        _cache_depth -= 1
        if not _cache_depth:
            _cache.clear()


def _register(module: Module, name: str, tensor: Any) -> None:
    """Registers a tensor as what it is, a parameter or a buffer."""
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


def _become(tensor: Tensor, value: Tensor) -> None:
    """Gives a tensor the values of another one; it stays the object that optimizers know."""
    if tensor is not value:
        tensor.data = value.detach()
        autograd.touch(tensor)


def _refuse_change(what: str, flag: str, before: tuple[str, Any], after: tuple[str, Any]) -> None:
    """Raises ValueError where a parametrization changes the dtype or the shape."""
    (old_name, old), (new_name, new) = before, after
    if old != new:
        raise ValueError(
            f"Registering a parametrization may not change the {what} of the tensor, unless "
            f"{flag} is enabled.\n{old_name}: {old}\n{new_name}: {new}"
        )


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, in order, with the tensors that the first one gets.

    `register_parametrization` makes it: `module.parametrizations.weight`. It has `original`, or
    `original0`, `original1`, ... where the first parametrization's `right_inverse` returns several
    tensors. Called without arguments, it returns the parametrized tensor. Raises ValueError for a
    parametrization that changes dtype or shape, unless `unsafe`.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.ParametrizationList.html

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    >>> magnitudes = layer.parametrizations.weight.original0
    >>> magnitudes.shape
    torch.Size([2, 1])
    """

    original: Tensor
    unsafe: bool

    def __init__(
        self, modules: Sequence[Module], original: Tensor, unsafe: bool = False
    ) -> None:
        if len(modules) == 0:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        shape, dtype = original.shape, original.dtype
        new = self._inverse_of(original)
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if self.is_tensor else len(new)
        if self.is_tensor:
            self._keep_one(original, new)
        else:
            self._keep_several(original, new)
        if not unsafe:
            self._check_forward(shape, dtype)

    def _inverse_of(self, original: Tensor) -> Any:
        """What the parametrizations would compute `original` from: itself, if they do not say."""
        new: Any = original
        with autograd.no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    with contextlib.suppress(NotImplementedError):
                        new = module.right_inverse(new)
        if not isinstance(new, (Tensor, Sequence)):
            raise ValueError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                f"Got {type(new).__name__}"
            )
        return new

    def _keep_one(self, original: Tensor, new: Tensor) -> None:
        for what in ("dtype", "device"):
            if getattr(original, what) != getattr(new, what):
                raise ValueError(
                    f"When `right_inverse` outputs one tensor, it may not change the {what}.\n"
                    f"original.{what}: {getattr(original, what)}\n"
                    f"right_inverse(original).{what}: {getattr(new, what)}"
                )
        _become(original, new)
        _register(self, "original", original)

    def _keep_several(self, original: Tensor, new: Sequence[Any]) -> None:
        for i, part in enumerate(new):
            if not isinstance(part, Tensor):
                raise ValueError(
                    "'right_inverse' must return a Tensor or a Sequence of tensors (list, "
                    f"tuple...). Got element {i} of the sequence with type {type(part).__name__}."
                )
            if isinstance(original, Parameter):  # a new one, which no optimizer knows yet
                part = Parameter(part, original.requires_grad)
            part.requires_grad_(original.requires_grad)
            _register(self, f"original{i}", part)

    def _check_forward(self, shape: Any, dtype: Any) -> None:
        value = self()
        if not isinstance(value, Tensor):
            raise ValueError(
                f"A parametrization must return a tensor. Got {type(value).__name__}."
            )
        for what, old, new in (("dtype", dtype, value.dtype), ("shape", shape, value.shape)):
            _refuse_change(
                what, "`unsafe` flag", (f"unparametrized {what}", old),
                (f"parametrized {what}", new),
            )  # fmt: skip

    def right_inverse(self, value: Tensor) -> None:
        """Stores what makes `value` the parametrized tensor; assigning to the tensor calls it.

        Raises RuntimeError where a parametrization has no `right_inverse`.
        """
        new: Any = value
        with autograd.no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(
                        f"parametrization {type(module).__name__} does not implement "
                        "right_inverse."
                    )
                new = module.right_inverse(new)
        if self.is_tensor:
            self._store_one(new)
        else:
            self._store_several(new)

    def _store_one(self, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise ValueError(f"`right_inverse` should return a tensor. Got {type(value).__name__}")
        if value.dtype != self.original.dtype:
            raise ValueError(
                f"The tensor returned by `right_inverse` has dtype {value.dtype} while `original` "
                f"has dtype {self.original.dtype}"
            )
        _become(self.original, value)

    def _store_several(self, values: Any) -> None:
        if not isinstance(values, Sequence):
            raise ValueError(
                f"'right_inverse' must return a sequence of tensors. Got {type(values).__name__}."
            )
        if len(values) != self.ntensors:
            raise ValueError(
                f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. "
                f"Got a sequence of length {len(values)}."
            )
        for i, part in enumerate(values):
            original = getattr(self, f"original{i}")
            if not isinstance(part, Tensor):
                raise ValueError(
                    f"'right_inverse' must return a sequence of tensors. Got element {i} of type "
                    f"{type(part).__name__}."
                )
            if part.dtype != original.dtype:
                raise ValueError(
                    f"Tensor {i} returned by `right_inverse` has dtype {part.dtype} while "
                    f"`original{i}` has dtype {original.dtype}"
                )
            _become(original, part)

    def _originals(self) -> list[Tensor]:
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def forward(self) -> Tensor:
        first, *rest = self
        value = first(*self._originals())
        for module in rest:
            value = module(value)
        return value  # type: ignore[no-any-return]


# --- the class of a parametrized module --------------------------------------------------------


def _deepcopy(self: Any, memo: dict[int, Any]) -> Any:
    if id(self) not in memo:
        kind: Any = type(self)
        memo[id(self)] = replica = kind.__new__(kind)
        replica.__dict__.update(copy.deepcopy(self.__dict__, memo))
    return memo[id(self)]


def _getstate(self: Any) -> Any:
    raise RuntimeError(
        "Serialization of parametrized modules is only supported through state_dict(). See:\n"
        "https://docs.pytorch.org/docs/stable/notes/serialization.html"
    )


def _property(name: str) -> property:
    """What stands in the class for a parametrized tensor."""

    def read(self: Any) -> Tensor:
        compute = self.parametrizations[name]
        if not _cache_depth:
            return compute()  # type: ignore[no-any-return]
        key = id(self), name
        if key not in _cache:
            _cache[key] = self, compute()
        return _cache[key][1]

    def assign(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(read, assign)


def _set_class(module: Any, base: type, names: Sequence[str]) -> None:
    """Makes the module an instance of a new subclass of `base` with these tensors parametrized.

    Copies of the module keep the class they have, so it is replaced and never changed.
    """
    members: dict[str, Any] = {name: _property(name) for name in names}
    members["__getstate__"] = _getstate
    if not hasattr(base, "__deepcopy__"):
        members["__deepcopy__"] = _deepcopy
    members["__module__"] = base.__module__
    module.__class__ = type(f"Parametrized{base.__name__}", (base,), members)


def register_parametrization(
    module: M, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> M:
    """Makes `module.weight` what `parametrization` computes from it, at every access.

    The tensor itself stays the same object and moves to `module.parametrizations.weight.original`.
    More parametrizations of one tensor are applied in the order of registration. With a method
    `right_inverse(tensor)`, returning one tensor or several, a parametrization says what the tensor
    starts from and what an assignment to it stores. The new tensors of one that returns several
    are unknown to an optimizer made earlier. Returns the module.

    Raises ValueError for a name that is no parameter or buffer and, unless `unsafe`, for a
    parametrization that changes the dtype or shape; AttributeError for a parameter that is None.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.register_parametrization.html

    >>> class Symmetric(nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).T
    >>> layer = nn.utils.parametrize.register_parametrization(
    ...     nn.Linear(3, 3), "weight", Symmetric())
    >>> gpunn.allclose(layer.weight, layer.weight.T)
    True
    >>> list(layer.state_dict())
    ['bias', 'parametrizations.weight.original']
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        if not unsafe:
            _check_next(module, tensor_name, parametrization)
        known: Any = module.parametrizations[tensor_name]  # type: ignore[attr-defined]
        known.append(parametrization)
        known.unsafe |= unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        original = getattr(module, tensor_name)
        if original is None:
            raise AttributeError(
                f"'NoneType' object has no attribute 'shape': '{tensor_name}' of {module} is None"
            )
        listed = ParametrizationList([parametrization], original, unsafe)
        delattr(module, tensor_name)
        base = type_before_parametrizations(module)
        if not is_parametrized(module):
            module.parametrizations = ModuleDict()  # type: ignore[attr-defined]
        lists: Any = module.parametrizations  # type: ignore[attr-defined]
        lists[tensor_name] = listed
        _set_class(module, base, list(lists))
    else:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element "
            f"with name '{tensor_name}'"
        )
    return module


def _check_next(module: Any, name: str, parametrization: Any) -> None:
    """Raises unless a further parametrization keeps dtype and shape, back and forth."""
    before = getattr(module, name)
    after = parametrization(before)
    if not isinstance(after, Tensor):
        raise ValueError(f"A parametrization must return a tensor. Got {type(after).__name__}.")
    for what in ("dtype", "shape"):
        _refuse_change(
            what, "the `unsafe` flag", (f"module.{name}.{what}", getattr(before, what)),
            (f"parametrization(module.{name}).{what}", getattr(after, what)),
        )  # fmt: skip
    if not hasattr(parametrization, "right_inverse"):
        return
    try:
        back = parametrization.right_inverse(after)
    except NotImplementedError:
        return
    if not isinstance(back, Tensor):
        raise ValueError(
            f"parametrization.right_inverse must return a tensor. Got: {type(back).__name__}"
        )
    for what in ("dtype", "shape"):
        if getattr(back, what) != getattr(before, what):
            raise ValueError(
                f"The tensor returned by parametrization.right_inverse must have the same {what} "
                f"as module.{name}, unless the `unsafe` flag is enabled.\n"
                f"module.{name}.{what}: {getattr(before, what)}\n"
                f"returned {what}: {getattr(back, what)}"
            )


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module has a parametrization, of the tensor `tensor_name` if that is given.

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.is_parametrized.html

    >>> nn.utils.parametrize.is_parametrized(nn.Linear(3, 2))
    False
    """
    lists = getattr(module, "parametrizations", None)
    if not isinstance(lists, ModuleDict):
        return False
    return len(lists) > 0 if tensor_name is None else tensor_name in lists


def remove_parametrizations(
    module: M, tensor_name: str, leave_parametrized: bool = True
) -> M:
    """Makes a parametrized tensor an ordinary one again; returns the module.

    It keeps the value that the parametrizations gave it or, without `leave_parametrized`, gets
    that of the original. It is the same object as the original, except for parametrizations that
    have several originals: then it is a new parameter, and `leave_parametrized=False` raises
    ValueError, as does a tensor that is not parametrized.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.remove_parametrizations.html

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    >>> nn.utils.parametrize.remove_parametrizations(layer, "weight")
    Linear(in_features=3, out_features=2, bias=True)
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    lists: Any = module.parametrizations  # type: ignore[attr-defined]
    left = _left_over(module, tensor_name, lists[tensor_name], leave_parametrized)
    base = type_before_parametrizations(module)
    del lists[tensor_name]
    if len(lists):
        _set_class(module, base, list(lists))
    else:
        delattr(module, "parametrizations")
        module.__class__ = base  # type: ignore[assignment]
    _register(module, tensor_name, left)
    return module


def _left_over(module: Module, name: str, listed: Any, leave_parametrized: bool) -> Any:
    """The tensor that stays when a tensor's parametrizations go."""
    if listed.is_tensor:
        if leave_parametrized:
            with autograd.no_grad():
                _become(listed.original, getattr(module, name))
        return listed.original
    if not leave_parametrized:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is "
            "parametrized in terms of a sequence of tensors."
        )
    value = getattr(module, name)
    return Parameter(value) if value.requires_grad else value


def type_before_parametrizations(module: Module) -> type:
    """The class that a module has, or had before it was parametrized.

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.type_before_parametrizations.html

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    >>> nn.utils.parametrize.type_before_parametrizations(layer) is nn.Linear
    True
    """
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: M, tensor_name: str | None = None
) -> M:
    """Registers the parametrizations of one module on another one, with what they start from.

    The modules then share both. Of one tensor where `tensor_name` is given, otherwise of all; a
    tensor that `to_module` does not have is made. Returns `to_module`.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.transfer_parametrizations_and_params.html

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    >>> other = nn.Linear(3, 2)
    >>> _ = nn.utils.parametrize.transfer_parametrizations_and_params(layer, other)
    >>> gpunn.equal(other.weight, layer.weight)
    True
    """
    if not is_parametrized(from_module):
        return to_module
    lists: Any = from_module.parametrizations  # type: ignore[attr-defined]
    for name in list(lists) if tensor_name is None else [tensor_name]:
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name)))
        for parametrization in lists[name]:
            register_parametrization(to_module, name, parametrization)
        made: Any = to_module.parametrizations[name]  # type: ignore[attr-defined]
        for key in [k for k in lists[name]._roles if k.startswith("original")]:
            setattr(made, key, getattr(lists[name], key))
    return to_module
