"""A module's hooks: their registration, and the call of a module that has some.

`Module.__call__` tests one flag, `_hooked`, and calls `forward` when it is False. The flag is a
class attribute, set when a hook for all modules is registered; a module's own hooks set it in
the instance. It falls back to False at the first call that finds no hook left.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from gpunn.tensor import Tensor
from gpunn.utils.hooks import BackwardHook, RemovableHandle

Hook = Callable[..., Any]
_MIXED = "Cannot use both regular backward hooks and full backward hooks {where}. {advice}"

_global_buffer_registration_hooks: dict[int, Hook] = OrderedDict()
_global_module_registration_hooks: dict[int, Hook] = OrderedDict()
_global_parameter_registration_hooks: dict[int, Hook] = OrderedDict()
registration_hooks = {
    "buffer": _global_buffer_registration_hooks,
    "module": _global_module_registration_hooks,
    "parameter": _global_parameter_registration_hooks,
}
_global_backward_pre_hooks: dict[int, Hook] = OrderedDict()
_global_backward_hooks: dict[int, Hook] = OrderedDict()
_global_is_full_backward_hook: bool | None = None
_global_forward_pre_hooks: dict[int, Hook] = OrderedDict()
_global_forward_hooks: dict[int, Hook] = OrderedDict()
_global_forward_hooks_always_called: dict[int, bool] = OrderedDict()
_global_forward_hooks_with_kwargs: dict[int, bool] = OrderedDict()


class HookDict:
    """The descriptor of a module's hooks of one kind: a dictionary, made when first asked for."""

    def __init__(self, runs_in_call: bool = True) -> None:
        self.runs_in_call = runs_in_call

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        if module is None:
            return self
        found = module.__dict__.get(self.name)
        if found is None:
            found = module.__dict__.setdefault(self.name, OrderedDict())
        if self.runs_in_call:  # whoever asks may add a hook to it
            module.__dict__["_hooked"] = True
        return found

    def __set__(self, module: Any, hooks: dict[int, Any]) -> None:
        module.__dict__[self.name] = hooks
        if self.runs_in_call:
            module.__dict__["_hooked"] = True


class WrappedHook:
    """A hook that gets its module first, without keeping it alive."""

    def __init__(self, hook: Hook, module: Any = None) -> None:
        self.hook = hook
        self.with_module = module is not None
        functools.update_wrapper(self, hook)
        self.module = weakref.ref(module) if module is not None else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.module is None:
            return self.hook(*args, **kwargs)
        module = self.module()
        if module is None:
            raise RuntimeError("You are trying to call the hook of a dead Module!")
        return self.hook(module, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {"hook": self.hook, "module": self.module() if self.module else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["hook"], state["module"])  # type: ignore[misc]


def add_hook(hooks: Any, hook: Hook, *flags: Any, prepend: bool = False) -> RemovableHandle:
    """Adds a hook and its id to each of `flags`; the handle removes it from all of them."""
    handle = RemovableHandle(hooks, extra_dict=list(flags))
    hooks[handle.id] = hook
    for flag in flags:
        flag[handle.id] = True
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


class Hooks:
    """What a Module can do with hooks."""

    _hooked = False
    _is_full_backward_hook: bool | None = None
    _backward_pre_hooks = HookDict()
    _backward_hooks = HookDict()
    _forward_hooks = HookDict()
    _forward_hooks_with_kwargs = HookDict()
    _forward_hooks_always_called = HookDict()
    _forward_pre_hooks = HookDict()
    _forward_pre_hooks_with_kwargs = HookDict()
    _state_dict_hooks = HookDict(runs_in_call=False)
    _state_dict_pre_hooks = HookDict(runs_in_call=False)
    _load_state_dict_pre_hooks = HookDict(runs_in_call=False)
    _load_state_dict_post_hooks = HookDict(runs_in_call=False)

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Calls `hook(module, args)` before each `forward`.

        What it returns, when not None, replaces the positional arguments. `with_kwargs` makes it
        `hook(module, args, kwargs)`, which returns None or `(args, kwargs)`; `prepend` puts it
        before the module's other ones. Returns a handle with `remove()`.

        >>> double = nn.Identity()
        >>> handle = double.register_forward_pre_hook(lambda module, args: args[0] * 2)
        >>> double(3)
        6
        """
        flags = [self._forward_pre_hooks_with_kwargs] if with_kwargs else []
        return add_hook(self._forward_pre_hooks, hook, *flags, prepend=prepend)

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:  # fmt: skip
        """Calls `hook(module, args, output)` after each `forward`.

        What it returns, when not None, replaces the output. `with_kwargs` makes it
        `hook(module, args, kwargs, output)`; `always_call` calls it, with the output None, also
        when the call raises. Returns a handle with `remove()`.

        >>> shapes = []
        >>> layer = nn.Flatten()
        >>> handle = layer.register_forward_hook(lambda m, args, out: shapes.append(out.shape))
        >>> _ = layer(gpunn.ones(2, 3, 4))
        >>> shapes
        [torch.Size([2, 12])]
        """
        flags = [self._forward_hooks_with_kwargs] if with_kwargs else []
        flags += [self._forward_hooks_always_called] if always_call else []
        return add_hook(self._forward_hooks, hook, *flags, prepend=prepend)

    def register_full_backward_pre_hook(
        self, hook: Hook, prepend: bool = False
    ) -> RemovableHandle:
        """Calls `hook(module, grad_output)` before the module's gradients are computed.

        `grad_output` is a tuple, None for outputs that are no tensors; what the hook returns,
        when not None, replaces it. Returns a handle with `remove()`.
        """
        return add_hook(self._backward_pre_hooks, hook, prepend=prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(module, grad_input, grad_output)` when the module's gradients are computed.

        Both are tuples, None for what is no tensor; `grad_input` covers positional arguments.
        What the hook returns, when not None, replaces `grad_input`. When no input requires a
        gradient it is called, with a warning, as soon as those of the outputs are known.
        Modules with such hooks get and return views: changing them in place is an error.
        Returns a handle with `remove()`. Raises RuntimeError beside a non-full backward hook.

        >>> norms = []
        >>> layer = nn.Identity()
        >>> handle = layer.register_full_backward_hook(lambda m, gi, go: norms.append(go[0].norm()))
        >>> layer(gpunn.ones(4, requires_grad=True)).sum().backward()
        >>> norms
        [tensor(2.)]
        """
        self._set_full_backward(True)
        return add_hook(self._backward_hooks, hook, prepend=prepend)

    def register_backward_hook(self, hook: Hook) -> RemovableHandle:
        """The deprecated kind: `grad_input` is that of the last operation of `forward` alone.

        Use `register_full_backward_hook`. Raises RuntimeError beside a full backward hook.
        """
        self._set_full_backward(False)
        return add_hook(self._backward_hooks, hook)

    def _set_full_backward(self, full: bool) -> None:
        if self._is_full_backward_hook is (not full):
            raise RuntimeError(
                _MIXED.format(where="on a single Module", advice="Please use only one of them.")
            )
        self._is_full_backward_hook = full

    def _register_state_dict_hook(self, hook: Hook) -> RemovableHandle:
        """Calls `hook(module, state_dict, prefix, local_metadata)` at the end of `state_dict`.

        What it returns for the module that `state_dict` was called on, when not None, is
        returned instead.
        """
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError(
                "Cannot register the same function as the state dict post hook that was "
                "previously registered via register_state_dict_post_hook"
            )
        return add_hook(self._state_dict_hooks, hook)

    def register_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Calls `hook(module, state_dict, prefix, local_metadata)` at the end of `state_dict`.

        It may change the dictionary and must return None.
        """
        hook._from_public_api = True  # type: ignore[attr-defined]
        return add_hook(self._state_dict_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Calls `hook(module, prefix, keep_vars)` at the start of `state_dict`."""
        return add_hook(self._state_dict_pre_hooks, hook)

    def _register_load_state_dict_pre_hook(
        self, hook: Hook, with_module: bool = False
    ) -> RemovableHandle:
        """`register_load_state_dict_pre_hook` for hooks that take no module, by default."""
        wrapped = WrappedHook(hook, self if with_module else None)
        return add_hook(self._load_state_dict_pre_hooks, wrapped)

    def register_load_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Calls a hook before `load_state_dict` copies this module's own entries.

        `hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
        error_msgs)` may change each of them.
        """
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def register_load_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Calls `hook(module, incompatible_keys)` after `load_state_dict` filled this module.

        It may change the two lists of keys, which decide whether a strict load raises, and must
        return None.
        """
        return add_hook(self._load_state_dict_post_hooks, hook)


# --- hooks for all modules ---------------------------------------------------------------------


def _add_global(hooks: Any, hook: Hook, *flags: Any) -> RemovableHandle:
    handle = add_hook(hooks, hook, *flags)
    Hooks._hooked = True
    return handle


def register_module_buffer_registration_hook(hook: Hook) -> RemovableHandle:
    """Calls `hook(module, name, buffer)` whenever any module registers a buffer.

    What it returns, when not None, is registered instead. Returns a handle with `remove()`.
    """
    return add_hook(_global_buffer_registration_hooks, hook)


def register_module_module_registration_hook(hook: Hook) -> RemovableHandle:
    """Calls `hook(module, name, submodule)` whenever any module registers a child module.

    What it returns, when not None, is registered instead. Returns a handle with `remove()`.
    """
    return add_hook(_global_module_registration_hooks, hook)


def register_module_parameter_registration_hook(hook: Hook) -> RemovableHandle:
    """Calls `hook(module, name, param)` whenever any module registers a parameter.

    What it returns, when not None, is registered instead. Returns a handle with `remove()`.
    """
    return add_hook(_global_parameter_registration_hooks, hook)


def register_module_forward_pre_hook(hook: Hook) -> RemovableHandle:
    """`Module.register_forward_pre_hook` for all modules, called before their own ones."""
    return _add_global(_global_forward_pre_hooks, hook)


def register_module_forward_hook(
    hook: Hook, *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """`Module.register_forward_hook` for all modules, called before their own ones."""
    flags = [_global_forward_hooks_with_kwargs] if with_kwargs else []
    flags += [_global_forward_hooks_always_called] if always_call else []
    return _add_global(_global_forward_hooks, hook, *flags)


def register_module_full_backward_pre_hook(hook: Hook) -> RemovableHandle:
    """`Module.register_full_backward_pre_hook` for all modules, called before their own ones."""
    return _add_global(_global_backward_pre_hooks, hook)


def register_module_backward_hook(hook: Hook) -> RemovableHandle:
    """`Module.register_backward_hook` for all modules: deprecated, as it is."""
    _set_global_full_backward(False)
    return _add_global(_global_backward_hooks, hook)


def register_module_full_backward_hook(hook: Hook) -> RemovableHandle:
    """`Module.register_full_backward_hook` for all modules, called before their own ones."""
    _set_global_full_backward(True)
    return _add_global(_global_backward_hooks, hook)


def _set_global_full_backward(full: bool) -> None:
    global _global_is_full_backward_hook
    if _global_is_full_backward_hook is (not full):
        raise RuntimeError(
            _MIXED.format(where="as a global Module hook", advice="Please use only one of them.")
        )
    _global_is_full_backward_hook = full


# --- the call ----------------------------------------------------------------------------------

_NONE: dict[int, Any] = {}


def _has_global_hooks() -> bool:
    return bool(
        _global_forward_pre_hooks or _global_forward_hooks or _has_global_backward_hooks()
    )


def _has_global_backward_hooks() -> bool:
    return bool(_global_backward_pre_hooks or _global_backward_hooks)


def _has_hooks(own: dict[str, Any]) -> bool:
    get = own.get
    return bool(
        get("_forward_hooks") or get("_forward_pre_hooks") or get("_backward_hooks")
        or get("_backward_pre_hooks")
    )  # fmt: skip


def call_hooked(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a module whose `_hooked` flag is set."""
    own = module.__dict__
    if not (_has_hooks(own) or _has_global_hooks()):
        own.pop("_hooked", None)
        Hooks._hooked = _has_global_hooks()
        if _has_hooks(own):  # another thread registered one meanwhile
            own["_hooked"] = True
        return module.forward(*args, **kwargs)
    call = _HookedCall(module, args, kwargs)
    try:
        return call.run()
    except Exception:
        call.run_always_called()
        raise


class _HookedCall:
    """One call of a module with hooks: what it was given, and its result so far."""

    def __init__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.module = module
        self.args = args
        self.kwargs = kwargs
        self.result: Any = None
        self.called: set[int] = set()

    def own(self, kind: str) -> dict[int, Any]:
        return self.module.__dict__.get(kind, _NONE)

    def run(self) -> Any:
        own, watch, partial = self.module.__dict__, None, None
        if own.get("_backward_hooks") or own.get("_backward_pre_hooks") or (
            _has_global_backward_hooks()
        ):
            watch, partial = self.backward_hooks()
        if own.get("_forward_pre_hooks") or _global_forward_pre_hooks:
            self.run_pre_hooks()
        if watch is not None:
            self.args = watch.setup_input_hook(self.args)
        self.result = self.module.forward(*self.args, **self.kwargs)
        if own.get("_forward_hooks") or _global_forward_hooks:
            for hook_id, hook, with_kwargs, _ in self.forward_hooks():
                self.called.add(hook_id)
                self.run_forward_hook(hook, with_kwargs)
        if watch is not None:
            if not isinstance(self.result, (Tensor, tuple)):
                warnings.warn(
                    f"For backward hooks to be called, module output should be a Tensor or a "
                    f"tuple of Tensors but received {type(self.result)}",
                    stacklevel=4,
                )
            self.result = watch.setup_output_hook(self.result)
        if partial:
            _hook_last_node(self.module, partial, self.args, self.result)
        return self.result

    def backward_hooks(self) -> tuple[BackwardHook | None, list[Hook]]:
        """What runs the full backward hooks, if there are any, and the deprecated other ones."""
        kinds: dict[bool, list[Hook]] = {True: [], False: []}
        if _global_backward_hooks:
            kinds[bool(_global_is_full_backward_hook)] += _global_backward_hooks.values()
        own = self.own("_backward_hooks")
        if own:
            kinds[bool(self.module._is_full_backward_hook)] += own.values()
        before = [*_global_backward_pre_hooks.values(), *self.own("_backward_pre_hooks").values()]
        full = kinds[True]
        watch = BackwardHook(self.module, full, before) if full or before else None
        return watch, kinds[False]

    def run_pre_hooks(self) -> None:
        with_kwargs = self.own("_forward_pre_hooks_with_kwargs")
        own = self.own("_forward_pre_hooks")
        for hook_id, hook in (*_global_forward_pre_hooks.items(), *own.items()):
            if hook_id in with_kwargs:
                changed = hook(self.module, self.args, self.kwargs)
                if changed is None:
                    continue
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(
                        f"forward pre-hook must return None or a tuple of (new_args, "
                        f"new_kwargs), but got {changed}."
                    )
                self.args, self.kwargs = changed
            else:
                changed = hook(self.module, self.args)
                if changed is not None:
                    self.args = changed if isinstance(changed, tuple) else (changed,)

    def forward_hooks(self) -> list[tuple[int, Hook, bool, bool]]:
        """Each forward hook's id, itself, whether it takes kwargs, whether it is always called."""
        own = self.own
        with_kwargs = {**_global_forward_hooks_with_kwargs, **own("_forward_hooks_with_kwargs")}
        always = {**_global_forward_hooks_always_called, **own("_forward_hooks_always_called")}
        hooks = (*_global_forward_hooks.items(), *own("_forward_hooks").items())
        return [(i, hook, i in with_kwargs, i in always) for i, hook in hooks]

    def run_forward_hook(self, hook: Hook, with_kwargs: bool) -> None:
        extra = (self.kwargs,) if with_kwargs else ()
        changed = hook(self.module, self.args, *extra, self.result)
        if changed is not None:
            self.result = changed

    def run_always_called(self) -> None:
        """After an error: the hooks that are called nevertheless and were not yet."""
        for hook_id, hook, with_kwargs, always in self.forward_hooks():
            if not always or hook_id in self.called:
                continue
            try:
                self.run_forward_hook(hook, with_kwargs)
            except Exception as error:
                kind = "global module" if hook_id in _global_forward_hooks else "module"
                warnings.warn(
                    f"{kind} forward hook with ``always_call=True`` raised an exception that was "
                    f"silenced as another error was raised in forward: {error}",
                    stacklevel=4,
                )


def _hook_last_node(module: Any, hooks: list[Hook], args: Any, result: Any) -> None:
    """Registers non-full backward hooks on the operation that made the result."""
    first = result
    while not isinstance(first, Tensor):
        if isinstance(first, dict):
            first = next(v for v in first.values() if isinstance(v, Tensor))
        else:
            first = first[0]
    node: Any = first.grad_fn  # type: ignore[attr-defined]
    if node is None:
        return
    for hook in hooks:
        node.register_hook(WrappedHook(hook, module))
    reason = _incomplete(args, result, node)
    if reason is not None:
        what, missing = reason
        warnings.warn(
            f"Using {what} is deprecated and will be removed in future versions. This hook will "
            f"be missing some {missing}. Please use register_full_backward_hook to get the "
            f"documented behavior.",
            FutureWarning,
            stacklevel=5,
        )


def _incomplete(args: Any, result: Any, node: Any) -> tuple[str, str] | None:
    """What a non-full hook on `node` does not see, and why."""
    a, non_full = "a non-full backward hook when", "non-full backward hooks on a Module that does"
    results = result if isinstance(result, tuple) else (result,)
    if not all(isinstance(r, Tensor) for r in results):
        return f"{non_full} not return a single Tensor or a tuple of Tensors", "of the grad_output"
    if not all(isinstance(i, Tensor) for i in args):
        return f"{non_full} not take as input a single Tensor or a tuple of Tensors", (
            "of the grad_input"
        )
    makers = {r.grad_fn for r in results} - {None}
    if len(makers) > 1:
        return f"{a} outputs are generated by different autograd Nodes", "grad_output"
    if node not in makers:
        return f"{a} outputs are nested in python data structure", "grad_output"
    if {i.grad_fn for i in args} - {None} != {n[0] for n in node.next_functions}:
        return f"{a} the forward contains multiple autograd Nodes", "grad_input"
    return None
