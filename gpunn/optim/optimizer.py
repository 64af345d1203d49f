"""The base of all optimizers: parameter groups, state, state dictionaries and hooks.

Source: https://docs.pytorch.org/docs/stable/optim.html
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, TypeAlias

import numpy as np

from gpunn import autograd, cuda, dtypes
from gpunn.autograd import touch
from gpunn.cuda.kernels import faults
from gpunn.device import Device
from gpunn.tensor import Tensor, wrap
from gpunn.utils.hooks import RemovableHandle

__all__ = [
    "Optimizer",
    "register_optimizer_step_post_hook",
    "register_optimizer_step_pre_hook",
    "required",
]

ParamsT: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
StateDict: TypeAlias = dict[str, Any]


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()  # a default that every parameter group has to give itself

_global_optimizer_pre_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
_global_optimizer_post_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
_HOOK_TABLES = (
    "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks", "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks", "_optimizer_load_state_dict_post_hooks",
)  # fmt: skip


def _register(
    table: OrderedDict[int, Callable[..., Any]], hook: Callable[..., Any], prepend: bool = False
) -> RemovableHandle:
    handle = RemovableHandle(table)
    table[handle.id] = hook
    if prepend:
        table.move_to_end(handle.id, last=False)
    return handle


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Calls `hook(optimizer, args, kwargs)` before the step of every optimizer.

    A hook may return the arguments to step with, `(args, kwargs)`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.register_step_pre_hook.html

    >>> from gpunn.optim.optimizer import register_optimizer_step_pre_hook
    >>> handle = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: print("step"))
    >>> gpunn.optim.SGD([gpunn.ones(1)]).step()
    step
    >>> handle.remove()
    """
    return _register(_global_optimizer_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Calls `hook(optimizer, args, kwargs)` after the step of every optimizer.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.register_step_post_hook.html

    >>> from gpunn.optim.optimizer import register_optimizer_step_post_hook
    >>> handle = register_optimizer_step_post_hook(lambda optimizer, args, kwargs: print("done"))
    >>> gpunn.optim.SGD([gpunn.ones(1)]).step()
    done
    >>> handle.remove()
    """
    return _register(_global_optimizer_post_hooks, hook)


def _hooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` with its hooks around it, and the note that it was called (for the schedulers)."""

    @functools.wraps(step)
    def run(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        self._opt_called = True
        if not (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
        ):
            return step(self, *args, **kwargs)
        if type(self).step is not run:  # a subclass's step called this one: its hooks have run
            return step(self, *args, **kwargs)
        return _step_with_hooks(step, (self, *args), kwargs)

    run.hooked = True  # type: ignore[attr-defined]
    return run


def _step_with_hooks(
    step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    optimizer = args[0]
    before = optimizer._optimizer_step_pre_hooks.values()
    for hook in [*_global_optimizer_pre_hooks.values(), *before]:
        changed = hook(optimizer, args, kwargs)
        if changed is None:
            continue
        if not (isinstance(changed, tuple) and len(changed) == 2):
            raise RuntimeError(
                f"{step} must return None or a tuple of (new_args, new_kwargs), but got {changed}."
            )
        args, kwargs = changed
    out = step(*args, **kwargs)
    after = optimizer._optimizer_step_post_hooks.values()
    for hook in [*after, *_global_optimizer_post_hooks.values()]:
        hook(optimizer, args, kwargs)
    return out


class Optimizer:
    """Base class of the optimizers.

    `params` is an iterable of tensors, of (name, tensor) pairs, or of dictionaries, one for each
    parameter group, whose key "params" holds such an iterable and whose other keys replace
    `defaults` for that group. A subclass writes `step`.

    Attributes: `param_groups` (list of dictionaries), `state` (parameter to dictionary),
    `defaults`.
    Raises TypeError for what is no tensor, ValueError for an empty list, for a tensor that an
    operation made, and for a parameter in two groups.
    Source: https://docs.pytorch.org/docs/stable/optim.html#torch.optim.Optimizer

    >>> class Sign(gpunn.optim.Optimizer):
    ...     @gpunn.no_grad()
    ...     def step(self):
    ...         for group in self.param_groups:
    ...             for p in group["params"]:
    ...                 p -= group["lr"] * p.grad.sign()
    >>> p = gpunn.tensor([1.0, -1.0], requires_grad=True)
    >>> (3 * p).sum().backward()
    >>> Sign([p], {"lr": 0.5}).step()
    >>> p
    tensor([ 0.5000, -1.5000], requires_grad=True)
    """

    _opt_called = False  # whether step() was called; the schedulers ask
    state: defaultdict[Any, Any]
    param_groups: list[dict[str, Any]]
    _optimizer_step_pre_hooks: OrderedDict[int, Callable[..., Any]]
    _optimizer_step_post_hooks: OrderedDict[int, Callable[..., Any]]
    _optimizer_state_dict_pre_hooks: OrderedDict[int, Callable[..., Any]]
    _optimizer_state_dict_post_hooks: OrderedDict[int, Callable[..., Any]]
    _optimizer_load_state_dict_pre_hooks: OrderedDict[int, Callable[..., Any]]
    _optimizer_load_state_dict_post_hooks: OrderedDict[int, Callable[..., Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        step = cls.__dict__.get("step")
        if step is not None and not hasattr(step, "hooked"):
            cls.step = _hooked(step)  # type: ignore[method-assign]

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._make_hook_tables()
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or "
                f"dicts, but got {_typename(params)}. Pass [tensor]."
            )
        self.state = defaultdict(dict)
        self.param_groups = []
        groups: list[Any] = list(params)
        if len(groups) == 0:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _make_hook_tables(self) -> None:
        for name in _HOOK_TABLES:
            self.__dict__.setdefault(name, OrderedDict())

    def __getstate__(self) -> StateDict:
        return {
            "defaults": self.defaults, "state": self.state, "param_groups": self.param_groups,
        }  # fmt: skip

    def __setstate__(self, state: StateDict) -> None:
        self.__dict__.update(state)
        self._make_hook_tables()
        for group in self.param_groups:  # options that an older checkpoint does not have
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def __repr__(self) -> str:
        groups = ""
        for i, group in enumerate(self.param_groups):
            groups += f"\nParameter Group {i}\n"
            groups += "".join(f"    {k}: {group[k]}\n" for k in sorted(group) if k != "params")
        return f"{type(self).__name__} ({groups})"

    # --- steps ------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters once. `closure` computes the loss, which `step` returns, anew."""
        raise NotImplementedError(f"{type(self).__name__} has no step(): write it in the subclass")

    def _evaluate(self, closure: Callable[[], Any] | None) -> Any:
        """The loss that the closure computes, with gradients recorded.

        Raises the error of a bad index that a kernel has met, before a step changes anything.
        """
        loss = None
        if closure is not None:
            with autograd.enable_grad():
                loss = closure()
        faults.raise_pending()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Removes the gradients of all parameters, or fills them with zeros.

        >>> p = gpunn.ones(1, requires_grad=True)
        >>> p.backward()
        >>> gpunn.optim.SGD([p]).zero_grad()
        >>> p.grad is None
        True
        """
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p._grad = None
                elif p._grad is not None:
                    _fill_with_zeros(p._grad)

    # --- parameter groups -------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group: a dictionary with "params" and the options that differ from the defaults.

        >>> optimizer = gpunn.optim.SGD([gpunn.ones(1)], lr=0.1)
        >>> optimizer.add_param_group({"params": [gpunn.ones(2)], "lr": 0.01})
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.1, 0.01]
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the "
                "ordering of tensors in sets will change between runs. Please use a list instead."
            )
        entries = [params] if isinstance(params, Tensor) else list(params)
        names = [entry[0] for entry in entries if isinstance(entry, tuple)]
        params = [entry[1] if isinstance(entry, tuple) else entry for entry in entries]
        param_group["params"] = params
        if names:
            if len(names) != len(params):
                raise ValueError(
                    "all optimizer params should be with/without names. Some param names are "
                    f"missing: {len(names)} names for {len(params)} parameters"
                )
            param_group["param_names"] = names
        for p in params:
            self._check_param(p)
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(
                    "parameter group didn't specify a value of required optimization parameter "
                    f"{name}"
                )
            param_group.setdefault(name, default)
        self._check_disjoint(param_group)
        self.param_groups.append(param_group)

    def _check_param(self, p: Any) -> None:
        if not isinstance(p, Tensor):
            raise TypeError(
                f"optimizer can only optimize Tensors, but one of the params is {_typename(p)}"
            )
        if not (self.defaults.get("differentiable") or p.is_leaf or p.retains_grad):  # type: ignore[attr-defined]
            raise ValueError("can't optimize a non-leaf Tensor")

    def _check_disjoint(self, param_group: dict[str, Any]) -> None:
        """Names in all groups or in none, and no parameter twice."""
        params = set(param_group["params"])
        if len(params) != len(param_group["params"]):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; "
                "in future, this will cause an error",
                stacklevel=4,
            )
        for group in self.param_groups:
            if ("param_names" in param_group) != ("param_names" in group):
                which = "with" if "param_names" in param_group else "without"
                raise ValueError(
                    "all optimizer param groups should be with/without names. "
                    f"cannot add param group {which} names to the optimizer"
                )
            if not params.isdisjoint(group["params"]):
                raise ValueError("some parameters appear in more than one parameter group")

    # --- state dictionaries -----------------------------------------------------------------

    def state_dict(self) -> StateDict:
        """{"state": {number: state}, "param_groups": [...]}, parameters numbered in order.

        The tensors in it are the optimizer's own, not copies.

        >>> optimizer = gpunn.optim.SGD([gpunn.ones(1)], lr=0.1, momentum=0.9)
        >>> optimizer.state_dict()["param_groups"][0]["params"]
        [0]
        """
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        number: dict[int, int] = {}
        groups, start = [], 0
        for group in self.param_groups:
            packed = {key: value for key, value in group.items() if key != "params"}
            for i, p in enumerate(group["params"], start):
                number.setdefault(id(p), i)
            packed["params"] = [number[id(p)] for p in group["params"]]
            start += len(group["params"])
            groups.append(packed)
        state = {number[id(k)] if isinstance(k, Tensor) else k: v for k, v in self.state.items()}
        result: StateDict = {"state": state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            changed = hook(self, result)
            result = result if changed is None else changed
        return result

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Takes over what `state_dict` of an optimizer of the same parameters returned.

        Tensors are copied to the device and, all but the step counts, to the dtype of their
        parameter; other arrays (`torch.Tensor`s, say) become tensors. ValueError where the
        numbers of groups or of parameters differ.

        >>> p = gpunn.ones(1)
        >>> optimizer = gpunn.optim.Adam([p], lr=1.0)
        >>> optimizer.load_state_dict(gpunn.optim.Adam([p], lr=0.25).state_dict())
        >>> optimizer.param_groups[0]["lr"]
        0.25
        """
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        groups, saved = self.param_groups, deepcopy(state_dict["param_groups"])
        _check_sizes(groups, saved)
        flat = itertools.chain.from_iterable
        of_number = dict(
            zip(flat(g["params"] for g in saved), flat(g["params"] for g in groups), strict=True)
        )
        group_of = {number: group for group in saved for number in group["params"]}
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in of_number:
                state[of_number[key]] = _restored(value, of_number[key], group_of[key])
            else:
                state[key] = value
        for group, new in zip(groups, saved, strict=True):
            new["params"] = group["params"]
            if "param_names" in group:
                new.setdefault("param_names", group["param_names"])
        self.__setstate__({"state": state, "param_groups": saved})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    # --- hooks ------------------------------------------------------------------------------

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls `hook(optimizer, args, kwargs)` before each step; it may return new ones."""
        return _register(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls `hook(optimizer, args, kwargs)` after each step."""
        return _register(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(
        self, hook: Callable[[Optimizer], None], prepend: bool = False
    ) -> RemovableHandle:
        """Calls `hook(optimizer)` before `state_dict` collects; `prepend` puts it first."""
        return _register(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[[Optimizer, StateDict], StateDict | None], prepend: bool = False
    ) -> RemovableHandle:
        """Calls `hook(optimizer, state_dict)` on the result, which it may replace."""
        return _register(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[[Optimizer, StateDict], StateDict | None], prepend: bool = False
    ) -> RemovableHandle:
        """Calls `hook(optimizer, state_dict)` on what is to be loaded, which it may replace."""
        return _register(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[[Optimizer], None], prepend: bool = False
    ) -> RemovableHandle:
        """Calls `hook(optimizer)` after a state was loaded."""
        return _register(self._optimizer_load_state_dict_post_hooks, hook, prepend)


def on(device: Device, function: Callable[..., Any], *args: Any) -> Any:
    """The function's result, computed with a CUDA device as the current one."""
    if device.type == "cpu":
        return function(*args)
    with cuda.device(device):
        return function(*args)


def check_options(
    lr: float | Tensor, eps: float = 0.0, betas: tuple[Any, ...] = (), **others: float
) -> None:
    """Raises ValueError for negative options ("Invalid learning rate: -1") and wrong betas."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not lr >= 0.0:  # type: ignore[operator]
        raise ValueError(f"Invalid learning rate: {lr}")
    if not eps >= 0.0:
        raise ValueError(f"Invalid epsilon value: {eps}")
    for i, beta in enumerate(betas):
        if isinstance(beta, Tensor) and beta.numel() != 1:
            raise ValueError(f"Tensor betas[{i}] must be 1-element")
        if not (beta >= 0.0 and beta < 1.0):
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
    for name, value in others.items():
        if not value >= 0.0:
            raise ValueError(f"Invalid {name} value: {value}")


def _typename(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _fill_with_zeros(grad: Tensor) -> None:
    if grad.is_sparse:
        grad.zero_()  # type: ignore[attr-defined]
        return
    grad.node, grad._requires_grad = None, False
    if getattr(grad.array.flags, "writeable", True):
        grad.array.fill(0)
    else:  # a broadcast gradient, of backward(create_graph=True)
        grad.array = np.zeros_like(grad.array)
    touch(grad)


def _check_sizes(groups: list[dict[str, Any]], saved: list[dict[str, Any]]) -> None:
    if len(groups) != len(saved):
        raise ValueError(
            "loaded state dict has a different number of parameter groups: "
            f"{len(saved)}, the optimizer has {len(groups)}"
        )
    for i, (group, new) in enumerate(zip(groups, saved, strict=True)):
        if len(group["params"]) != len(new["params"]):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of "
                f"optimizer's group: group {i} has {len(new['params'])} parameters there, "
                f"{len(group['params'])} here"
            )


def _restored(value: Any, p: Tensor, group: dict[str, Any], key: Any = None) -> Any:
    """A copy of a saved value, its tensors moved to the parameter's device and dtype."""
    if isinstance(value, dict):
        return {k: _restored(v, p, group, k) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_restored(v, p, group) for v in value)
    if not isinstance(value, Tensor):
        if not hasattr(value, "__array__") or isinstance(value, np.generic):
            return value
        value = wrap(np.asarray(value))
    dtype, device = value.dtype, p.device
    if key != "step":
        dtype = p.dtype if p.dtype.is_floating_point else dtype
    elif group.get("capturable") or group.get("fused"):
        dtype = dtypes.float32
    else:
        device = value.device
    return value.detach().to(dtype=dtype, device=device, copy=True)
