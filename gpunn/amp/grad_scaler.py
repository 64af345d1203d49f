"""GradScaler: keeps small float16 gradients from vanishing by scaling the loss.

Source: https://docs.pytorch.org/docs/stable/amp.html#gradient-scaling
"""

from __future__ import annotations

import inspect
import math
import warnings
import weakref
from collections import defaultdict
from collections.abc import Iterable
from enum import Enum
from typing import Any

import numpy as np

from gpunn.autograd.graph import touch
from gpunn.device import Device
from gpunn.tensor import Tensor, wrap

__all__ = ["GradScaler", "OptState"]

_scaling: weakref.WeakSet[GradScaler] = weakref.WeakSet()  # those with gradients to unscale


def note_clipping(parameters: Iterable[Any]) -> None:
    """Tells the scalers which gradients were clipped while they may still have been scaled."""
    if _scaling:
        ids = {id(p) for p in parameters}
        for scaler in list(_scaling):
            scaler._clipped |= ids


class OptState(Enum):
    """What was done with an optimizer since the last `update()`."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


def _fresh_state() -> dict[str, Any]:
    return {"stage": OptState.READY, "found_inf_per_device": {}}


class GradScaler:
    """Multiplies losses by a factor, divides the gradients by it, and adapts the factor.

    `scaler.scale(loss).backward()`, then `scaler.step(optimizer)`, which leaves a step out where
    a gradient is inf or NaN, then `scaler.update()`: the scale becomes `backoff_factor` times as
    large after a step that was left out, `growth_factor` times after `growth_interval` steps that
    were not. To look at gradients or clip them, call `scaler.unscale_(optimizer)` before.

    `device` is the type of the losses' device, "cuda" or "cpu". With `enabled=False`, and for
    "cuda" without CUDA (with a warning), all of it does nothing but step.
    Raises AssertionError for factors on the wrong side of 1.
    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.amp.GradScaler

    >>> p = gpunn.ones(1, requires_grad=True)
    >>> optimizer, scaler = gpunn.optim.SGD([p], lr=1.0), gpunn.amp.GradScaler("cpu")
    >>> scaler.scale((p * 0.5).sum()).backward()
    >>> p.grad
    tensor([32768.])
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> p
    tensor([0.5000], requires_grad=True)
    """

    def __init__(
        self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        self._device = device
        self._enabled = enabled
        if enabled and device == "cuda":
            from gpunn import cuda

            if not cuda.is_available():
                warnings.warn(
                    "gpunn.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling. "
                    'On the CPU use GradScaler("cpu").', stacklevel=2,
                )  # fmt: skip
                self._enabled = False
        if not self._enabled:
            return
        if growth_factor <= 1.0:
            raise AssertionError(f"The growth factor must be > 1.0. (got {growth_factor})")
        if backoff_factor >= 1.0:
            raise AssertionError(f"The backoff factor must be < 1.0. (got {backoff_factor})")
        self._init_scale = init_scale
        self._scale: Tensor | None = None  # made on the device of the first loss
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._init_growth_tracker = 0
        self._growth_tracker: Tensor | None = None
        self._per_optimizer_states: dict[int, dict[str, Any]] = defaultdict(_fresh_state)
        self._clipped: set[int] = set()  # ids of parameters clipped since the last update

    # --- scaling ----------------------------------------------------------------------------

    def scale(self, outputs: Any) -> Any:
        """A loss, or losses in nested lists, tuples and iterables, times the scale.

        Raises ValueError for anything else.

        >>> scaler = gpunn.amp.GradScaler("cpu", init_scale=8.0)
        >>> scaler.scale([gpunn.tensor(1.0), gpunn.tensor(2.0)])
        [tensor(8.), tensor(16.)]
        """
        if not self._enabled:
            return outputs
        _scaling.add(self)
        return self._scaled(outputs)

    def _scaled(self, outputs: Any) -> Any:
        if isinstance(outputs, Tensor):
            if self._scale is None:
                self._make_scale(outputs.device)
            return outputs * self._scale.to(outputs.device)  # type: ignore[operator,union-attr]
        if isinstance(outputs, Iterable):
            made = map(self._scaled, outputs)
            return type(outputs)(made) if isinstance(outputs, (list, tuple)) else made  # type: ignore[call-arg]
        raise ValueError(
            f"outputs must be a Tensor or an iterable of Tensors, not {type(outputs).__name__}"
        )

    def _make_scale(self, device: Device) -> None:
        if self._growth_tracker is not None:
            raise AssertionError("_growth_tracker initialized before _scale")
        self._scale = _number(self._init_scale, np.float32, device)
        self._growth_tracker = _number(self._init_growth_tracker, np.int32, device)

    def _check_scale_growth_tracker(self, funcname: str) -> tuple[Tensor, Tensor]:
        for name in ("_scale", "_growth_tracker"):
            if getattr(self, name) is None:
                raise AssertionError(
                    f"Attempted {funcname} but {name} is None.  This may indicate your script did "
                    "not use scaler.scale(loss or outputs) earlier in the iteration."
                )
        return self._scale, self._growth_tracker  # type: ignore[return-value]

    # --- unscaling --------------------------------------------------------------------------

    def unscale_(self, optimizer: Any) -> None:
        """Divides the gradients of the optimizer's parameters by the scale, in place.

        Once an iteration and optimizer, after the last `backward()`: before clipping or looking
        at gradients; `step` does it otherwise. RuntimeError the second time and after `step`;
        ValueError for float16 gradients (the parameters should be float32, autocast casts them).

        >>> p = gpunn.ones(1, requires_grad=True)
        >>> optimizer, scaler = gpunn.optim.SGD([p], lr=1.0), gpunn.amp.GradScaler("cpu")
        >>> scaler.scale((p * 0.5).sum()).backward()
        >>> scaler.unscale_(optimizer)
        >>> p.grad
        tensor([0.5000])
        """
        if not self._enabled:
            return
        scale, _ = self._check_scale_growth_tracker("unscale_")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.UNSCALED:
            raise RuntimeError(
                "unscale_() has already been called on this optimizer since the last update()."
            )
        if state["stage"] is OptState.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        self._warn_of_clipping(optimizer)
        inverse = scale.double().reciprocal().float()  # type: ignore[attr-defined]
        state["found_inf_per_device"] = self._unscale_grads_(optimizer, inverse, False)
        state["stage"] = OptState.UNSCALED

    def _warn_of_clipping(self, optimizer: Any) -> None:
        clipped = self._clipped
        if clipped and any(id(p) in clipped for g in optimizer.param_groups for p in g["params"]):
            warnings.warn(
                "gradients were clipped while they were still multiplied by the GradScaler's "
                "scale: call scaler.unscale_(optimizer) before clip_grad_norm_ or "
                "clip_grad_value_.", stacklevel=4,
            )  # fmt: skip

    def _unscale_grads_(
        self, optimizer: Any, inverse: Tensor | None, allow_fp16: bool
    ) -> dict[Device, Tensor]:
        """Multiplies all gradients, without waiting for a GPU; which devices hold one that is inf
        or NaN, as 0.0 or 1.0."""
        by_device: dict[Device, list[Tensor]] = {}
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    grad = self._values(p, allow_fp16)
                    by_device.setdefault(grad.device, []).append(grad)
        found = {}
        for device, grads in by_device.items():
            factor = None if inverse is None else inverse.to(device).array  # type: ignore[attr-defined]
            bad = _on(device, _unscale, device.xp, [g.array for g in grads], factor)
            for grad in grads if factor is not None else ():
                touch(grad)
            found[device] = wrap(bad, device)
        return found

    @staticmethod
    def _values(p: Tensor, allow_fp16: bool) -> Any:
        """The gradient's dense tensor of values."""
        grad: Any = p.grad
        half = grad.dtype.name == "float16"
        if half and not allow_fp16:
            raise ValueError(
                "Attempting to unscale FP16 gradients. Keep the parameters in float32 and let "
                "autocast cast them: do not call model.half() with a GradScaler."
            )
        if not grad.is_sparse:
            return grad
        if half:  # sums of rows may overflow: they are to be seen
            p.grad = grad = grad.coalesce()
        grad._entries = grad._entries.copy()  # they may be one value, repeated without memory
        return grad._values()

    # --- stepping ---------------------------------------------------------------------------

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """`optimizer.step(*args, **kwargs)` with unscaled gradients, where all are finite.

        Returns what the step returns, None where it was left out. RuntimeError for a closure,
        and for a second step of the same optimizer before `update()`.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError(
                "Closure use is not currently supported if GradScaler is enabled."
            )
        self._check_scale_growth_tracker("step")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            returned = self._step_that_unscales(optimizer, state, args, kwargs)
        else:
            if state["stage"] is OptState.READY:
                self.unscale_(optimizer)
            if not state["found_inf_per_device"]:
                raise AssertionError("No inf checks were recorded for this optimizer.")
            returned = self._maybe_opt_step(optimizer, state, *args, **kwargs)
        state["stage"] = OptState.STEPPED
        return returned

    def _maybe_opt_step(
        self, optimizer: Any, optimizer_state: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        if any(found.item() for found in optimizer_state["found_inf_per_device"].values()):
            return None
        return optimizer.step(*args, **kwargs)

    def _step_that_unscales(
        self, optimizer: Any, state: dict[str, Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """The step of an optimizer that says it unscales and skips by itself."""
        if "grad_scaler" in inspect.signature(optimizer.step).parameters:
            warnings.warn(
                "GradScaler is going to stop passing itself as a keyword argument to the passed "
                "optimizer: read the attributes `grad_scale` and `found_inf` in step() instead.",
                FutureWarning, stacklevel=3,
            )  # fmt: skip
            return optimizer.step(*args, **{**kwargs, "grad_scaler": self})
        scale, _ = self._check_scale_growth_tracker("step")
        if state["stage"] is OptState.READY:
            self._check_inf_per_device(optimizer)
        found = [t.to(scale.device) for t in state["found_inf_per_device"].values()]  # type: ignore[attr-defined]
        given = getattr(optimizer, "grad_scale", None)
        if state["stage"] is not OptState.UNSCALED:
            given = scale if given is None else scale * given  # type: ignore[operator]
        optimizer.grad_scale, optimizer.found_inf = given, sum(found)
        returned = optimizer.step(*args, **kwargs)
        del optimizer.grad_scale, optimizer.found_inf
        return returned

    def _check_inf_per_device(self, optimizer: Any) -> dict[Device, Tensor]:
        """Looks for inf and NaN without changing a gradient."""
        self._check_scale_growth_tracker("_check_inf_per_device")
        found = self._unscale_grads_(optimizer, None, True)
        self._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = found
        return found

    def _found_inf_per_device(self, optimizer: Any) -> dict[Device, Tensor]:
        return self._per_optimizer_states[id(optimizer)]["found_inf_per_device"]

    # --- the scale --------------------------------------------------------------------------

    def update(self, new_scale: Any = None) -> None:
        """Adapts the scale: at the end of the iteration, after the `step` of all optimizers.

        `new_scale`, a float or a tensor of one element, is the scale from now on.
        AssertionError before the first `scale()`, where no gradient was looked at, and for a
        tensor that requires a gradient or is on a device of another type.

        >>> scaler = gpunn.amp.GradScaler("cpu")
        >>> loss = scaler.scale(gpunn.tensor(1.0))
        >>> scaler.update(4.0)
        >>> scaler.get_scale()
        4.0
        """
        if not self._enabled:
            return
        scale, tracker = self._check_scale_growth_tracker("update")
        if new_scale is not None:
            scale.fill_(self._new_scale(new_scale))  # type: ignore[attr-defined]
        else:
            found = [
                t for state in self._per_optimizer_states.values()
                for t in state["found_inf_per_device"].values()
            ]  # fmt: skip
            if not found:
                raise AssertionError("No inf checks were recorded prior to update.")
            self._adapt(scale, tracker, any(t.item() for t in found))
        self._per_optimizer_states = defaultdict(_fresh_state)
        self._clipped = set()
        _scaling.discard(self)

    def _new_scale(self, value: Any) -> float:
        if isinstance(value, float):
            return value
        if value.device.type != self._device or value.numel() != 1 or value.requires_grad:
            raise AssertionError(
                "new_scale should be a float or a 1-element torch.cuda.FloatTensor or "
                f"torch.FloatTensor with requires_grad=False. (got {value!r} for a scaler of "
                f"{self._device} losses)"
            )
        return value.item()

    def _adapt(self, scale: Tensor, tracker: Tensor, found_inf: bool) -> None:
        """One step of the scale: down after inf or NaN, up after enough steps without."""
        count, now = int(tracker.item()) + 1, np.float32(scale.item())
        if found_inf:
            count, now = 0, np.float32(now * self._backoff_factor)
        elif count == self._growth_interval:
            grown = np.float32(now * self._growth_factor)
            count, now = 0, grown if math.isfinite(grown) else now
        scale.fill_(float(now))  # type: ignore[attr-defined]
        tracker.fill_(count)  # type: ignore[attr-defined]

    def _get_scale_async(self) -> Tensor | None:
        return self._scale

    def get_scale(self) -> float:
        """The scale; 1.0 where scaling is disabled."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else self._scale.item()

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by after enough steps without inf or NaN."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Sets the growth factor."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by after inf or NaN."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Sets the backoff factor."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """The number of steps without inf or NaN after which the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Sets the growth interval."""
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        tracker = self._growth_tracker
        return self._init_growth_tracker if tracker is None else tracker.item()

    def is_enabled(self) -> bool:
        """Whether it scales."""
        return self._enabled

    # --- checkpoints ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Scale, factors, interval and the number of steps since the scale changed; {} disabled.

        Take it after `update()`.

        >>> gpunn.amp.GradScaler("cpu").state_dict()["scale"]
        65536.0
        """
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned; RuntimeError for an empty dictionary."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled "
                "instance of GradScaler."
            )
        self._init_scale = state_dict["scale"]
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._init_growth_tracker = state_dict["_growth_tracker"]
        if self._scale is not None:
            self._scale.fill_(self._init_scale)  # type: ignore[attr-defined]
        if self._growth_tracker is not None:
            self._growth_tracker.fill_(self._init_growth_tracker)  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._enabled:
            if self._per_optimizer_states:
                raise AssertionError(
                    "A GradScaler instance may only be pickled at the beginning of an iteration, "
                    "or at the end after scaler.update()."
                )
            state.update(
                _init_scale=self.get_scale(), _init_growth_tracker=self._get_growth_tracker(),
                _scale=None, _growth_tracker=None, _clipped=set(),
            )  # fmt: skip
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _number(value: Any, dtype: Any, device: Device) -> Tensor:
    return wrap(device.xp.asarray(value, dtype=dtype), device)


def _on(device: Device, function: Any, *args: Any) -> Any:
    from gpunn.optim.optimizer import on

    return on(device, function, *args)


def _unscale(xp: Any, grads: list[Any], factor: Any) -> Any:
    """grads *= factor, unless that is None; 1.0 where an element was inf or NaN, else 0.0."""
    bad = xp.asarray(_holds_inf_or_nan(xp, grads), dtype=np.float32)
    for g in grads if factor is not None else ():
        if g.dtype.itemsize > 2:
            xp.multiply(g, factor, out=g)
        else:
            g[...] = (g.astype(np.float32) * factor).astype(g.dtype)
    return bad


def _holds_inf_or_nan(xp: Any, grads: list[Any]) -> Any:
    if xp is not np:
        from gpunn.cuda.kernels import optim

        largest = optim.total_norm(grads, np.inf, np.dtype(np.float64))  # NaN where there is one
        if largest is not None:
            return ~xp.isfinite(largest)
    bad = xp.asarray(False)
    for g in grads:
        bad = bad | ~xp.isfinite(g if g.dtype.itemsize > 2 else g.astype(np.float32)).all()
    return bad
