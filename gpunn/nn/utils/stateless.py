"""A module called with other tensors in the place of its parameters and buffers.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.stateless.functional_call.html
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from gpunn.nn.module import Module
from gpunn.nn.module_members import MODULE
from gpunn.tensor import Tensor

__all__ = ["functional_call"]

Tensors = dict[str, Tensor]
_ABSENT: Any = object()


def functional_call(
    module: Module, parameters_and_buffers: Tensors, args: Any = None,
    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """`gpunn.func.functional_call` under its old name; warns.

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.stateless.functional_call.html

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     nn.utils.stateless.functional_call(
    ...         nn.Linear(1, 1, bias=False), {"weight": gpunn.ones(1, 1)}, gpunn.ones(1))
    tensor([1.])
    """
    warnings.warn(
        "`torch.nn.utils.stateless.functional_call` is deprecated as of PyTorch 2.0 and will be "
        "removed in a future version of PyTorch. Please use `torch.func.functional_call` instead "
        "which is a drop-in replacement.",
        FutureWarning,
        stacklevel=2,
    )
    return call_with(module, parameters_and_buffers, args, kwargs, tie_weights, strict)


def call_with(
    module: Module, tensors: Tensors, args: Any, kwargs: dict[str, Any] | None,
    tie_weights: bool, strict: bool,
) -> Any:  # fmt: skip
    """What both `functional_call`s do."""
    if type(module).__name__ == "DataParallel":
        raise RuntimeError("The stateless API can't be used with nn.DataParallel module")
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    given = _with_tied(module, tensors) if tie_weights else tensors
    if strict:
        _check_names(module, given)
    with _replaced(module, given, tensors):
        return module(*args, **(kwargs or {}))


def _named_tensors(module: Module) -> Tensors:
    """All parameters and buffers under all their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _with_tied(module: Module, tensors: Tensors) -> Tensors:
    """`tensors` with the other names that the module has for the tensors that they replace."""
    names_of: dict[Tensor, list[str]] = {}
    for name, tensor in _named_tensors(module).items():
        names_of.setdefault(tensor, []).append(name)
    given = dict(tensors)
    for names in names_of.values():
        values = {id(tensors[name]): tensors[name] for name in names if name in tensors}
        if len(values) > 1:
            raise ValueError(
                f"functional_call got multiple values for keys {sorted(names)}, which are tied. "
                "Consider using tie_weights=False"
            )
        for value in values.values():
            given.update(dict.fromkeys(names, value))
    return given


def _check_names(module: Module, tensors: Tensors) -> None:
    known = _named_tensors(module)
    unexpected = sorted(tensors.keys() - known.keys())
    missing = sorted(known.keys() - tensors.keys())
    errors = [
        f"{what} key(s): {', '.join(map(repr, names))}."
        for what, names in (("Unexpected", unexpected), ("Missing", missing))
        if names
    ]
    if errors:
        raise RuntimeError(
            "Error(s) in reparametrizing for {}:\n\t{}".format(
                module._get_name(), "\n\t".join(errors)
            )
        )


@contextlib.contextmanager
def _replaced(module: Module, tensors: Tensors, given: Tensors) -> Iterator[None]:
    """Inside, the module has `tensors`; what it put in their places then goes to `given`."""
    own: dict[str, Any] = {}
    try:
        for name, tensor in tensors.items():
            own[name] = _swap(module, name, tensor)
        yield
    finally:
        for name, tensor in own.items():
            after = _swap(module, name, tensor)
            if name in given and after is not _ABSENT:
                given[name] = after


def _swap(root: Module, path: str, tensor: Any) -> Any:
    """Puts a tensor at a dotted path, and returns what was there."""
    if not (tensor is None or tensor is _ABSENT or isinstance(tensor, Tensor)):
        raise TypeError(f"{tensor} is not an instance of torch.Tensor")
    prefix, _, name = path.rpartition(".")
    module = root.get_submodule(prefix)
    if module._roles.get(name, MODULE) != MODULE:  # a parameter or buffer: of any kind of tensor
        values = module.__dict__
        before, values[name] = values[name], tensor
        return before
    before = getattr(module, name, _ABSENT)
    if not (before is None or before is _ABSENT or isinstance(before, Tensor)):
        raise TypeError(f"attribute `{name}`: {before} is not an instance of torch.Tensor")
    if tensor is not _ABSENT:
        setattr(module, name, tensor)
    elif before is not _ABSENT:
        delattr(module, name)
    return before
