"""Module: the base class of all layers and models.

What it is made of: its members (`module_members.py`), its hooks (`module_hooks.py`), its state
(`module_state.py`), and here the call, the walks over nested modules, and conversions.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar

from gpunn import autograd, dtypes
from gpunn.device import Device
from gpunn.nn.module_hooks import (
    Hooks,
    call_hooked,
    register_module_backward_hook,
    register_module_buffer_registration_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)  # fmt: skip
from gpunn.nn.module_members import BUFFER, MODULE, PARAMETER, Members
from gpunn.nn.module_state import State, _IncompatibleKeys
from gpunn.nn.parameter import Parameter
from gpunn.ops._operands import no_array
from gpunn.tensor import Tensor

__all__ = [
    "Module", "_IncompatibleKeys", "register_module_backward_hook",
    "register_module_buffer_registration_hook",
    "register_module_forward_hook", "register_module_forward_pre_hook",
    "register_module_full_backward_hook", "register_module_full_backward_pre_hook",
    "register_module_module_registration_hook", "register_module_parameter_registration_hook",
]  # fmt: skip

M = TypeVar("M", bound="Module")
P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class _Forward(Protocol[P, R]):
    """What type checkers know a module by when it is called: its call takes what forward takes."""

    @property
    def forward(self) -> Callable[P, R]: ...


def _forward_unimplemented(self: Any, *input: Any) -> None:
    """What the module computes: to be defined by each subclass."""
    raise NotImplementedError(
        f'Module [{type(self).__name__}] is missing the required "forward" function'
    )


class Module(Members, Hooks, State):
    """The base class of layers and models.

    A subclass calls `super().__init__()`, assigns parameters and modules to attributes, which
    registers them, and defines `forward`; the module itself is called. `training` says in
    which mode it is. An error raised in a nested module carries a note with its path.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html

    >>> class Scale(nn.Module):
    ...     def __init__(self, factor):
    ...         super().__init__()
    ...         self.factor = nn.Parameter(gpunn.tensor(factor))
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> scale = Scale(2.0)
    >>> scale(gpunn.ones(2)).tolist()
    [2.0, 2.0]
    >>> [name for name, _ in scale.named_parameters()]
    ['factor']
    """

    dump_patches = False
    call_super_init = False
    training: bool
    forward: Callable[..., Any] = _forward_unimplemented

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init and (args or kwargs):
            name = f"{type(self).__name__}.__init__()"
            if kwargs:
                raise TypeError(f"{name} got an unexpected keyword argument '{next(iter(kwargs))}'")
            raise TypeError(f"{name} takes 1 positional argument but {len(args) + 1} were given")
        values = self.__dict__
        values["training"] = True
        values["_roles"] = {}
        values["_non_persistent_buffers_set"] = set()
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def __call__(self: _Forward[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            if self._hooked:  # type: ignore[attr-defined]
                return call_hooked(self, args, kwargs)
            return self.forward(*args, **kwargs)
        except Exception as error:
            better = no_array(error, type(self).__name__)
            _note_path(self, better or error)  # type: ignore[arg-type]
            if better is None:
                raise
            raise better.with_traceback(error.__traceback__) from None

    # --- walks --------------------------------------------------------------------------

    def _own(self, role: str) -> list[tuple[str, Any]]:
        """The names and values of the members that have this role."""
        values, roles = self.__dict__, self._roles
        return [(name, values[name]) for name, r in roles.items() if r == role] if roles else []

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once; only the module's own without `recurse`.

        >>> sum(p.numel() for p in nn.ParameterList([gpunn.ones(2, 3)]).parameters())
        6
        """
        for _, param in self.named_parameters(recurse=recurse):
            yield param

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """`parameters` with their dotted names, which start with `prefix`.

        >>> weights = nn.ParameterDict({"scale": gpunn.ones(2)})
        >>> [name for name, _ in nn.Sequential(weights).named_parameters(prefix="model")]
        ['model.0.scale']
        """
        return self._named_members(PARAMETER, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once; only the module's own without `recurse`."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """`buffers` with their dotted names, which start with `prefix`."""
        return self._named_members(BUFFER, prefix, recurse, remove_duplicate)

    def _named_members(
        self, role: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        """The members that have this role, with their dotted names, None left out."""
        seen = set()
        modules: Any = [(prefix, self)]
        if recurse:
            modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        for path, module in modules:
            values = module.__dict__
            for name, its_role in list(module._roles.items()):
                if its_role != role:
                    continue
                value = values[name]
                if value is None or value in seen:
                    continue
                if remove_duplicate:
                    seen.add(value)
                yield f"{path}.{name}" if path else name, value

    def children(self) -> Iterator[Module]:
        """The child modules, each once."""
        for _, module in self.named_children():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The child modules with their names, each once.

        >>> [name for name, _ in nn.Sequential(nn.Identity(), nn.Flatten()).named_children()]
        ['0', '1']
        """
        seen = set()
        for name, module in self._own(MODULE):
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all in it, each once unless `remove_duplicate` is False."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """`modules` with their dotted names, which start with `prefix`; those in `memo` left out.

        >>> [name for name, _ in nn.Sequential(nn.Sequential(nn.Flatten())).named_modules()]
        ['', '0', '0.0']
        """
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        values = self.__dict__
        for name, role in list(self._roles.items()):
            if role == MODULE and values[name] is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from values[name].named_modules(memo, path, remove_duplicate)

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Calls `fn` on every module in this one, children first, then on itself; returns itself.

        >>> _ = nn.Sequential(nn.Identity()).apply(lambda module: print(type(module).__name__))
        Identity
        Sequential
        """
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # --- modes --------------------------------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Sets `training` here and in all modules below, for dropout, batch norm and the like."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: M) -> M:
        """`train(False)`."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Sets `requires_grad` of all parameters: False freezes them."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or fills them with zeros."""
        if getattr(self, "_is_replica", False):
            warnings.warn(
                "Calling .zero_grad() from a module created with nn.DataParallel() has no effect. "
                "The parameters are copied (in a differentiable manner) from the original module. "
                "This means they are not leaf nodes in autograd and so don't accumulate gradients. "
                "If you need gradients in your forward method, consider using autograd.grad "
                "instead.",
                stacklevel=2,
            )
        for param in self.parameters():
            grad: Any = param.grad
            if set_to_none:
                param.grad = None
            elif grad is not None:
                if grad.grad_fn is not None:
                    grad.detach_()
                else:
                    grad.requires_grad_(False)
                grad.zero_()

    # --- conversions --------------------------------------------------------------------

    def _apply(self: M, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> M:
        """Replaces the values of all parameters, their gradients and buffers by `fn` of them."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        for _, param in self._own(PARAMETER):
            if param is None:
                continue
            grad = param.grad
            with autograd.no_grad():
                param.data = fn(param)
                if grad is not None:
                    grad.data = fn(grad)
        for name, buffer in self._own(BUFFER):
            if buffer is not None:
                self.__dict__[name] = fn(buffer)
        return self

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Moves to a device, casts to a floating dtype, or both, in place.

        `to(device, dtype, non_blocking)`, `to(dtype)` or `to(tensor)`, which takes the device
        and dtype of the tensor. Integer tensors are moved and not cast. Raises TypeError for a
        dtype that is not a floating one.

        >>> nn.ParameterList([gpunn.ones(2)]).to(gpunn.float64)[0].dtype
        torch.float64
        """
        device, dtype, non_blocking, memory_format = _parse_to(args, kwargs)
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(
                f"nn.Module.to only accepts floating point or complex dtypes, but got desired "
                f"dtype={dtype}"
            )

        def convert(t: Any) -> Tensor:
            cast = dtype if t.is_floating_point() or t.is_complex() else None
            if memory_format is not None and t.dim() in (4, 5):
                return t.to(device, cast, non_blocking, memory_format=memory_format)
            return t.to(device, cast, non_blocking)

        return self._apply(convert)

    def cpu(self: M) -> M:
        """Moves to the CPU, in place."""
        return self._apply(lambda t: t.cpu())  # type: ignore[attr-defined]

    def cuda(self: M, device: Any = None) -> M:
        """Moves to a GPU, the current one by default, in place."""
        return self._apply(lambda t: t.cuda(device))  # type: ignore[attr-defined]

    def type(self: M, dst_type: Any) -> M:
        """Casts every parameter and buffer, the integer ones too, in place."""
        return self._apply(lambda t: t.type(dst_type))  # type: ignore[attr-defined]

    def float(self: M) -> M:
        """Casts floating parameters and buffers to float32, in place."""
        return self._cast(dtypes.float32)

    def double(self: M) -> M:
        """Casts floating parameters and buffers to float64, in place."""
        return self._cast(dtypes.float64)

    def half(self: M) -> M:
        """Casts floating parameters and buffers to float16, in place."""
        return self._cast(dtypes.float16)

    def bfloat16(self: M) -> M:
        """Casts floating parameters and buffers to bfloat16, in place."""
        return self._cast(dtypes.bfloat16)

    def _cast(self: M, dtype: dtypes.dtype) -> M:
        return self._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)  # type: ignore[attr-defined]

    def to_empty(self: M, *, device: Any, recurse: bool = True) -> M:
        """Gives parameters and buffers uninitialised memory on `device`, without copying."""
        from gpunn.ops.create import empty_like

        return self._apply(lambda t: empty_like(t, device=device), recurse=recurse)

    def share_memory(self: M) -> M:
        """Moves parameters and buffers to memory that other processes share, in place."""
        return self._apply(lambda t: t.share_memory_())  # type: ignore[attr-defined]

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Changes nothing: there is no compiler here, and `forward` runs as it is written."""

    # --- the protocols of Python --------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # copy.copy hands over the original's own registries
        self.__dict__["_roles"] = dict(state["_roles"])
        self.__dict__["_non_persistent_buffers_set"] = set(state["_non_persistent_buffers_set"])

    def _replicate_for_data_parallel(self: M) -> M:
        """A copy without parameters that shares everything else, to be given other ones."""
        replica = type(self).__new__(type(self))
        Module.__setstate__(replica, self.__dict__)
        values = replica.__dict__
        for name, role in self._roles.items():
            if role == PARAMETER:
                del values["_roles"][name], values[name]
        values["_is_replica"] = True
        return replica

    def __dir__(self) -> list[str]:
        names = [*dir(type(self)), *self.__dict__]
        return sorted(name for name in names if not name[:1].isdigit())

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses: override it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {_addindent(repr(m), 2)}" for name, m in self._own(MODULE)]
        if len(lines) <= 1 and not children:
            return f"{self._get_name()}({extra})"
        return self._get_name() + "(\n  " + "\n  ".join(lines + children) + "\n)"

    def _repr_html_(self) -> str | None:  # what a notebook shows
        from gpunn.html_repr import module_html

        return module_html(self)


def _addindent(text: str, spaces: int) -> str:
    """`text` with all its lines but the first one indented; blank ones become empty."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * spaces + line if line.strip() else "" for line in rest)])


_TO_TYPES: dict[str, Any] = {
    "device": (str, int, Device), "dtype": dtypes.dtype, "tensor": Tensor, "non_blocking": bool,
}  # fmt: skip


def _parse_to(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The device, dtype, non_blocking and memory_format that arguments of `to` mean."""
    given = dict(kwargs)
    names = ["device", "dtype", "non_blocking", "copy"]
    if args and isinstance(args[0], Tensor):
        names[:2] = ["tensor"]
    elif args and isinstance(args[0], dtypes.dtype):
        del names[0]
    known = {*names, "device", "dtype", "tensor", "memory_format"}
    twice = given.keys() & names[: len(args)]
    given.update(zip(names, args, strict=False))
    if len(args) > len(names) or twice or not known.issuperset(given) or not all(
        value is None or isinstance(value, _TO_TYPES.get(name, object))
        for name, value in given.items()
    ):
        got = ", ".join([type(a).__name__ for a in args] + [f"{name}=" for name in kwargs])
        raise TypeError(
            f"to() received an invalid combination of arguments - got ({got}), but expected "
            f"(device, dtype, non_blocking, copy), (dtype, non_blocking, copy) or (tensor, "
            f"non_blocking, copy), with memory_format by name"
        )
    like = given.get("tensor")
    device, dtype = (
        (given.get("device"), given.get("dtype")) if like is None else (like.device, like.dtype)
    )
    return device, dtype, given.get("non_blocking", False), given.get("memory_format")


def _note_path(module: Module, error: Exception) -> None:
    """Notes on the error where in this module it was raised: `in encoder.layers.2.linear1`.

    Each module on the way out puts its own part in front; the outermost one has no name.
    """
    known = error.__dict__.get("_raised_in")  # id and class of the last module, path below it
    if known is not None and known[0] == id(module):
        return
    path = ""
    if known is not None:
        inner, kind, below = known
        names = (name for name, found in module.named_modules() if id(found) == inner)
        path = next(names, f"<{kind}>") + (f".{below}" if below else "")
        _set_note(error, f"in {below}", f"in {path}")
    error.__dict__["_raised_in"] = id(module), type(module).__name__, path


def _set_note(error: Exception, old: str, new: str) -> None:
    """Puts the note `new` in the place of `old`."""
    notes = error.__dict__.setdefault("__notes__", [])
    if old in notes:
        notes[notes.index(old)] = new
    else:
        notes.append(new)
    if sys.version_info < (3, 11) and error.args and str(error) == error.args[0]:
        # no notes are shown there: the message says it
        error.args = (error.args[0].removesuffix(f"\n{old}") + f"\n{new}", *error.args[1:])
