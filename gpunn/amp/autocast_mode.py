"""The autocast context, what asks for and sets its state, and its help for custom Functions.

Source: https://docs.pytorch.org/docs/stable/amp.html
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import state
from gpunn.amp.lists import POLICIES
from gpunn.device import Device
from gpunn.dtypes import as_dtype
from gpunn.tensor import Tensor

__all__ = ["autocast", "autocast_decorator", "custom_bwd", "custom_fwd", "is_autocast_available"]


def is_autocast_available(device_type: str) -> bool:
    """Whether there is autocast for a type of device.

    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.amp.autocast_mode.is_autocast_available

    >>> gpunn.amp.is_autocast_available("cpu")
    True
    """
    return Device(device_type).type in POLICIES


def _known(device_type: Any) -> str:
    """`device_type`, which must be one that has autocast."""
    if not isinstance(device_type, str):
        raise TypeError(
            "argument 'device_type' (position 1) must be str, not "
            f"{type(device_type).__name__}: \"cuda\" or \"cpu\""
        )
    kind = Device(device_type).type
    if kind not in POLICIES:
        raise RuntimeError(f"unknown device type for autocast: {device_type}")
    return kind


def _flag(enabled: Any) -> bool:
    if not isinstance(enabled, bool):
        raise TypeError(f"enabled must be a bool (got {type(enabled).__name__})")
    return enabled


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether autocast is on in this thread, for a type of device; for "cuda" without one.

    >>> with gpunn.autocast("cpu"):
    ...     gpunn.is_autocast_enabled("cpu"), gpunn.is_autocast_enabled()
    (True, False)
    """
    return ("cuda" if device_type is None else _known(device_type)) in state.on


def set_autocast_enabled(device_type: Any, enabled: bool | None = None) -> None:
    """Turns autocast on or off in this thread; use `gpunn.autocast` instead.

    >>> gpunn.set_autocast_enabled("cpu", False)
    """
    if enabled is None:  # the older form, set_autocast_enabled(True)
        device_type, enabled = "cuda", device_type
    kind, enabled = _known(device_type), _flag(enabled)
    state.switch(state.on | {kind} if enabled else state.on - {kind})


def get_autocast_dtype(device_type: str) -> dtypes.dtype:
    """The 16-bit dtype of this thread's autocast on a type of device.

    >>> gpunn.get_autocast_dtype("cuda"), gpunn.get_autocast_dtype("cpu")
    (torch.float16, torch.bfloat16)
    """
    return state.dtype[_known(device_type)]


def set_autocast_dtype(device_type: str, dtype: Any) -> None:
    """Sets the 16-bit dtype of this thread's autocast; use `gpunn.autocast(..., dtype=)` instead.

    >>> gpunn.set_autocast_dtype("cpu", gpunn.bfloat16)
    """
    state.dtype[_known(device_type)] = as_dtype(dtype)


def is_autocast_cache_enabled() -> bool:
    """Whether casts of parameters are kept until the outermost context ends.

    >>> gpunn.is_autocast_cache_enabled()
    True
    """
    return state.cache_enabled


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Whether casts of parameters are kept; use `gpunn.autocast(..., cache_enabled=)` instead.

    >>> gpunn.set_autocast_cache_enabled(True)
    """
    state.cache_enabled = _flag(enabled)


def clear_autocast_cache() -> None:
    """Forgets this thread's casts of parameters.

    >>> gpunn.clear_autocast_cache()
    """
    state.cache.clear()


def autocast_increment_nesting() -> int:
    """Counts one more context around this thread; returns how many there are.

    >>> gpunn.autocast_increment_nesting(), gpunn.autocast_decrement_nesting()
    (1, 0)
    """
    state.nesting += 1
    return state.nesting


def autocast_decrement_nesting() -> int:
    """Counts one context less around this thread; returns how many there are."""
    state.nesting -= 1
    return state.nesting


def _deprecated(kind: str, old: str, new: str) -> None:
    warnings.warn(
        f"{old} is deprecated. Please use {new.format(kind)} instead.", DeprecationWarning,
        stacklevel=3,
    )  # fmt: skip


def is_autocast_cpu_enabled() -> bool:
    """`is_autocast_enabled("cpu")` under its old name; warns."""
    _deprecated("cpu", "gpunn.is_autocast_cpu_enabled()", "gpunn.is_autocast_enabled('{}')")
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """`set_autocast_enabled("cpu", enabled)` under its old name; warns."""
    _deprecated(
        "cpu", "gpunn.set_autocast_cpu_enabled(enabled)",
        "gpunn.set_autocast_enabled('{}', enabled)",
    )  # fmt: skip
    set_autocast_enabled("cpu", enabled)


def get_autocast_gpu_dtype() -> dtypes.dtype:
    """`get_autocast_dtype("cuda")` under its old name; warns."""
    _deprecated("cuda", "gpunn.get_autocast_gpu_dtype()", "gpunn.get_autocast_dtype('{}')")
    return get_autocast_dtype("cuda")


def get_autocast_cpu_dtype() -> dtypes.dtype:
    """`get_autocast_dtype("cpu")` under its old name; warns."""
    _deprecated("cpu", "gpunn.get_autocast_cpu_dtype()", "gpunn.get_autocast_dtype('{}')")
    return get_autocast_dtype("cpu")


def set_autocast_gpu_dtype(dtype: Any) -> None:
    """`set_autocast_dtype("cuda", dtype)` under its old name; warns."""
    _deprecated(
        "cuda", "gpunn.set_autocast_gpu_dtype(dtype)", "gpunn.set_autocast_dtype('{}', dtype)"
    )
    set_autocast_dtype("cuda", dtype)


def set_autocast_cpu_dtype(dtype: Any) -> None:
    """`set_autocast_dtype("cpu", dtype)` under its old name; warns."""
    _deprecated(
        "cpu", "gpunn.set_autocast_cpu_dtype(dtype)", "gpunn.set_autocast_dtype('{}', dtype)"
    )
    set_autocast_dtype("cpu", dtype)


# --- the context --------------------------------------------------------------------------


class autocast:  # noqa: N801 (PyTorch's name)
    """Within it, or in a function decorated with it, listed operations choose their dtype.

    Matrix products and convolutions run in 16 bits, losses, norms and exponentials in float32:
    `gpunn/amp/lists.py` is the table. float64, integers, and tensors on devices of another type
    are left alone. The state belongs to the thread. A parameter is cast once in the outermost
    context, and its gradient is float32. Leave the context before `backward()`.

    `device_type` is "cuda" or "cpu"; `dtype` float16 or bfloat16 (by default float16 for "cuda",
    bfloat16 for "cpu"); `enabled=False` makes an inner context that casts nothing;
    `cache_enabled=False` casts parameters at each use.
    Raises ValueError for a device type that is no string, RuntimeError for one that has no
    autocast; warns, and casts nothing, without CUDA or for another dtype.
    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.autocast

    >>> layer, x = nn.Linear(2, 2), gpunn.ones(1, 2)
    >>> with gpunn.autocast("cpu"):
    ...     y = layer(x)
    ...     loss = F.mse_loss(y, x)
    >>> y.dtype, loss.dtype
    (torch.bfloat16, torch.float32)
    >>> loss.backward()
    >>> layer.weight.grad.dtype
    torch.float32
    """

    def __init__(
        self, device_type: str, dtype: Any = None, enabled: bool = True,
        cache_enabled: bool | None = None,
    ):  # fmt: skip
        if not isinstance(device_type, str):
            raise ValueError(
                f"Expected `device_type` of type `str`, got: `{type(device_type)}`: "
                '"cuda" or "cpu", as tensor.device.type'
            )
        if not is_autocast_available(device_type):
            raise RuntimeError(
                f"User specified an unsupported autocast device_type '{device_type}'"
            )
        self.device = Device(device_type).type
        self.fast_dtype = get_autocast_dtype(device_type) if dtype is None else as_dtype(dtype)
        self._cache_enabled = state.cache_enabled if cache_enabled is None else cache_enabled
        self._enabled = bool(enabled) and self._can_be(self.device, self.fast_dtype)
        self._before: list[tuple[Any, ...]] = []

    @staticmethod
    def _can_be(kind: str, dtype: dtypes.dtype) -> bool:
        """Whether the context can be enabled; warns where it cannot."""
        if kind == "cuda":
            from gpunn import cuda

            if not cuda.is_available():
                warnings.warn(
                    "CUDA is not available. Disabling autocast. On the CPU use "
                    'autocast("cpu").', stacklevel=3,
                )  # fmt: skip
                return False
            if dtype is dtypes.bfloat16 and not cuda.is_bf16_supported():
                raise RuntimeError(
                    "Current CUDA Device does not support bfloat16. Please switch dtype to "
                    "float16."
                )
        elif dtype is not dtypes.bfloat16 and dtype is not dtypes.float16:
            warnings.warn(
                f"In {kind.upper()} autocast, but the target dtype is not supported. Disabling "
                f"autocast.\n{kind.upper()} Autocast only supports dtypes of torch.bfloat16, "
                f"torch.float16 currently, not {dtype}.", stacklevel=3,
            )  # fmt: skip
            return False
        return True

    def __enter__(self) -> autocast:
        kind = self.device
        self._before.append((kind in state.on, state.dtype[kind], state.cache_enabled))
        set_autocast_enabled(kind, self._enabled)
        state.dtype[kind] = self.fast_dtype
        state.nesting += 1
        state.cache_enabled = self._cache_enabled
        return self

    def __exit__(self, *exc: object) -> None:
        kind = self.device
        state.nesting -= 1
        if state.nesting == 0:
            state.cache.clear()
        enabled, state.dtype[kind], state.cache_enabled = self._before.pop()
        set_autocast_enabled(kind, enabled)

    def __call__(self, func: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(func):
            raise TypeError(
                f"autocast()(func) requires a callable, but got {type(func).__name__}. "
                "Did you mean to use autocast as a context manager? For example:\n"
                "    with gpunn.autocast(device_type=...):\n        output = model(input)"
            )
        return autocast_decorator(self, func)


def autocast_decorator(
    autocast_instance: autocast, func: Callable[..., Any]
) -> Callable[..., Any]:
    """`func`, run inside of the context: what `autocast(...)(func)` returns.

    >>> from gpunn.amp.autocast_mode import autocast_decorator
    >>> product = autocast_decorator(gpunn.autocast("cpu"), gpunn.mm)
    >>> product(gpunn.ones(1, 1), gpunn.ones(1, 1)).dtype
    torch.bfloat16
    """

    @functools.wraps(func)
    def run(*args: Any, **kwargs: Any) -> Any:
        with autocast_instance:
            return func(*args, **kwargs)

    return run


# --- custom Functions ---------------------------------------------------------------------


def _cast(value: Any, device_type: str, dtype: Any) -> Any:
    """The tensors of a device type in nested containers, in another dtype; not float64 ones."""
    if isinstance(value, Tensor):
        eligible = (
            value.dtype.is_floating_point and value.device.type == device_type
            and value.dtype is not dtypes.float64
        )  # fmt: skip
        return value.to(dtype) if eligible else value
    if isinstance(value, (str, bytes, np.ndarray)):
        return value
    if isinstance(value, Mapping):
        return {
            _cast(k, device_type, dtype): _cast(v, device_type, dtype) for k, v in value.items()
        }
    if isinstance(value, Iterable):
        items = (_cast(v, device_type, dtype) for v in value)
        return type(value)(items) if isinstance(value, (list, tuple)) else items  # type: ignore[call-arg]
    return value


def _check_type(device_type: Any) -> None:
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, device_type: str, cast_inputs: Any = None
) -> Any:
    """Decorates the `forward` of a custom Function that is used inside of autocast.

    With `cast_inputs`, a dtype, it runs with autocast off on float operands that are cast to it;
    without, in the autocast that is on. Outside of autocast it changes nothing.
    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.amp.custom_fwd

    >>> class Square(gpunn.autograd.Function):
    ...     @staticmethod
    ...     @gpunn.amp.custom_fwd(device_type="cpu", cast_inputs=gpunn.float32)
    ...     def forward(ctx, x):
    ...         return x * x
    >>> with gpunn.autocast("cpu"):
    ...     Square.apply(gpunn.ones(1, dtype=gpunn.bfloat16)).dtype
    torch.float32
    """
    _check_type(device_type)
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def run(*args: Any, **kwargs: Any) -> Any:
        ctx = args[0]
        ctx._dtype = get_autocast_dtype(device_type)
        on = is_autocast_enabled(device_type)
        ctx._fwd_used_autocast = on and cast_inputs is None
        if not on or cast_inputs is None:
            return fwd(*args, **kwargs)
        with autocast(device_type, enabled=False):
            return fwd(
                *_cast(args, device_type, cast_inputs), **_cast(kwargs, device_type, cast_inputs)
            )

    return run


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Any:
    """Decorates the `backward` of a custom Function: it runs in the autocast of its `forward`.

    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.amp.custom_bwd

    >>> class Product(gpunn.autograd.Function):
    ...     @staticmethod
    ...     @gpunn.amp.custom_fwd(device_type="cpu")
    ...     def forward(ctx, a, b):
    ...         ctx.save_for_backward(a, b)
    ...         return a @ b
    ...     @staticmethod
    ...     @gpunn.amp.custom_bwd(device_type="cpu")
    ...     def backward(ctx, g):
    ...         a, b = ctx.saved_tensors
    ...         return g @ b.T, a.T @ g
    """
    _check_type(device_type)
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def run(*args: Any, **kwargs: Any) -> Any:
        ctx = args[0]
        with autocast(device_type, enabled=ctx._fwd_used_autocast, dtype=ctx._dtype):
            return bwd(*args, **kwargs)

    return run
