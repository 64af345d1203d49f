"""Hooks: the handle that removes one, and the pair of graph nodes behind a module's backward hooks.

Source: https://docs.pytorch.org/docs/stable/notes/modules.html#module-hooks
"""

from __future__ import annotations

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from gpunn import autograd
from gpunn.tensor import Tensor

__all__ = ["BackwardHook", "RemovableHandle", "unserializable_hook", "warn_if_has_hooks"]


def _reference(hooks: Any) -> Callable[[], Any]:
    """A weak reference where there can be one: a plain dict has none."""
    try:
        return weakref.ref(hooks)
    except TypeError:
        return lambda: hooks


class RemovableHandle:
    """Removes a hook: by `remove()`, or at the end of a `with` block.

    `hooks_dict` maps hook ids to hooks and is held weakly, as are `extra_dict` (one dictionary
    or a list of them), from which the same id goes.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.utils.hooks.RemovableHandle.html

    >>> layer = nn.Identity()
    >>> with layer.register_forward_hook(lambda module, args, output: output + 1):
    ...     layer(1)
    2
    >>> layer(1)
    1
    """

    next_id = 0

    def __init__(self, hooks_dict: Any, *, extra_dict: Any = None) -> None:
        self.hooks_dict_ref = _reference(hooks_dict)
        self.id = RemovableHandle.next_id
        RemovableHandle.next_id += 1
        extras = [extra_dict] if isinstance(extra_dict, dict) else extra_dict or []
        self.extra_dict_ref = tuple(map(_reference, extras))

    def remove(self) -> None:
        """Takes the hook out; nothing happens when it is out already."""
        for ref in (self.hooks_dict_ref, *self.extra_dict_ref):
            hooks = ref()
            if hooks is not None:
                hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def __getstate__(self) -> tuple[Any, int, tuple[Any, ...]]:
        return self.hooks_dict_ref(), self.id, tuple(ref() for ref in self.extra_dict_ref)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        hooks, self.id, *extras = state
        # A handle whose module is gone stays dead: nothing else holds the new dictionary.
        self.hooks_dict_ref = _reference(OrderedDict() if hooks is None else hooks)
        alive = [extra for extra in (extras[0] if extras else ()) if extra is not None]
        self.extra_dict_ref = tuple(map(_reference, alive))
        RemovableHandle.next_id = max(RemovableHandle.next_id, self.id + 1)


def unserializable_hook(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a tensor's hook as one that need not be saved, so that saving does not warn.

    >>> hook = gpunn.utils.hooks.unserializable_hook(lambda grad: grad * 2)
    """
    hook.__torch_unserializable__ = True  # type: ignore[attr-defined]
    return hook


def warn_if_has_hooks(tensor: Tensor) -> None:
    """Warns for each hook of `tensor` that will not be saved with it."""
    for hook in (tensor._extra.hooks if tensor._extra is not None else {}).values():
        if not hasattr(hook, "__torch_unserializable__"):
            warnings.warn(
                f"backward hook {hook!r} on tensor will not be serialized.  If this is expected, "
                f"you can decorate the function with @gpunn.utils.hooks.unserializable_hook to "
                f"suppress this warning",
                stacklevel=2,
            )


class BackwardHookFunction(autograd.Function):
    """The identity on tensors, whose backward passes the gradients on through `watch`."""

    @staticmethod
    def forward(
        ctx: Any, watch: Callable[..., Any], materialize: bool, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.watch = watch
        ctx.set_materialize_grads(materialize)
        ctx.mark_non_differentiable(*[t for t in tensors if not t.requires_grad])
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, None, *ctx.watch(grads))


class BackwardHook:
    """One call of a module with backward hooks: identities around its inputs and its outputs.

    The node around the outputs sees their gradients first and keeps them; the node around the
    inputs then has both and calls the hooks. Arguments that are no tensors count as None.
    """

    def __init__(
        self,
        module: Any,
        user_hooks: list[Callable[..., Any]],
        user_pre_hooks: list[Callable[..., Any]],
    ) -> None:
        self.module = module
        self.user_hooks = user_hooks
        self.user_pre_hooks = user_pre_hooks
        self.grad_outputs: tuple[Any, ...] | None = None
        self.n_inputs = self.n_outputs = -1
        self.input_at: list[int] | None = None
        self.output_at: list[int] = []

    def setup_input_hook(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, watched where one of them requires a gradient."""
        self.n_inputs = len(args)
        args, self.input_at = _watched(args, self._inputs_backward, True)
        return args

    def setup_output_hook(self, result: Any) -> Any:
        """The module's output (a tensor or a tuple with tensors in it), watched likewise."""
        outputs = result if isinstance(result, tuple) else (result,)
        self.n_outputs = len(outputs)
        outputs, at = _watched(outputs, self._outputs_backward, False)
        self.output_at = at or []
        return outputs if isinstance(result, tuple) else outputs[0]

    def _outputs_backward(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        outputs = _spread(grads, self.output_at, self.n_outputs)
        for hook in self.user_pre_hooks:
            changed = hook(self.module, outputs)
            if changed is None:
                continue
            if len(changed) != len(outputs):
                raise RuntimeError(
                    f"Backward pre hook returned an invalid number of grad_output, "
                    f"got {len(changed)}, but expected {len(outputs)}"
                )
            outputs = changed
        self.grad_outputs = outputs
        if self.input_at is None:
            self._fire_without_inputs()
        return tuple(outputs[i] for i in self.output_at)

    def _fire_without_inputs(self) -> None:
        """Calls the hooks now: no input requires a gradient, so no node of theirs ever will."""
        warnings.warn(
            "Full backward hook is firing when gradients are computed with respect to module "
            "outputs since no inputs require gradients. See https://docs.pytorch.org/docs/main/"
            "generated/torch.nn.Module.html#torch.nn.Module.register_full_backward_hook for more "
            "details.",
            stacklevel=2,
        )
        for hook in self.user_hooks:
            changed = hook(self.module, (None,) * self.n_inputs, self.grad_outputs)
            if changed is not None and not (
                isinstance(changed, tuple) and all(grad is None for grad in changed)
            ):
                raise RuntimeError(
                    "Backward hook for Modules where no input requires gradient should always "
                    "return None or None for all gradients."
                )
        self.grad_outputs = None

    def _inputs_backward(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.grad_outputs is None:  # gradients that did not come through the outputs
            return grads
        inputs = _spread(grads, self.input_at or [], self.n_inputs)
        for hook in self.user_hooks:
            changed = hook(self.module, inputs, self.grad_outputs)
            if changed is None:
                continue
            if len(changed) != len(inputs):
                raise RuntimeError(
                    f"Backward hook returned an invalid number of grad_input, "
                    f"got {len(changed)}, but expected {len(inputs)}"
                )
            inputs = changed
        self.grad_outputs = None
        return tuple(inputs[i] for i in self.input_at or [])


def _spread(values: tuple[Any, ...], at: list[int], size: int) -> tuple[Any, ...]:
    """A tuple of `size` with `values` at the places `at` and None elsewhere."""
    placed = dict(zip(at, values, strict=True))
    return tuple(placed.get(i) for i in range(size))


def _watched(
    args: tuple[Any, ...], watch: Callable[..., Any], materialize: bool
) -> tuple[tuple[Any, ...], list[int] | None]:
    """`args` with their tensors behind an identity node, and where these are, None if nowhere.

    A gradient that does not arrive is zeros for `watch` with `materialize`, else None.
    """
    at = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)]
    if not (autograd.is_grad_enabled() and any(args[i].requires_grad for i in at)):
        return args, None
    behind = BackwardHookFunction.apply(watch, materialize, *[args[i] for i in at])
    seen = dict(zip(at, behind, strict=True))
    values = [seen.get(i, arg) for i, arg in enumerate(args)]
    return (tuple(values) if type(args) is tuple else type(args)(*values)), at
