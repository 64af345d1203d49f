"""What the optimizers share whose rule treats every element alike: all but LBFGS and a few more.

A subclass writes its rule as a plain function on arrays, `rule(xp, p, g, *buffers, *numbers)`,
that changes the parameter `p` and the buffers of its state in place. Here is all the rest: the
walk over the parameters, weight decay, half precision, complex numbers, and going through large
arrays in blocks, so that the passes of a rule find their operands in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpunn import autograd, dtypes, native
from gpunn.autograd import touch
from gpunn.cuda.kernels import optim as kernels
from gpunn.optim.optimizer import Optimizer, ParamsT, on
from gpunn.tensor import Tensor, wrap

Rule = Callable[..., None]
BLOCK = 1 << 17  # bytes of one array in a block: five such fit a core's second-level cache
NATIVE_SIZE = 1 << 14  # elements of a group from which on the C++ library is asked
GPU_BLOCK = 1 << 28  # on a GPU blocks only bound the memory of the temporaries


class Elementwise(Optimizer):
    """Base of the optimizers with an elementwise rule. Subclasses say four things:

    `_new_state` the state of a parameter, `_rule` the rule and the names of the state's buffers
    that it reads and writes, `_tick` what advances at each step (a count), `_coefficients` the
    numbers that the rule takes.
    """

    _scalars: tuple[str, ...] = ("step",)  # 0-dim tensors of the state
    _has_fused = False
    _instead_of_sparse = ""  # the end of the error message

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        if defaults.get("fused") and defaults["differentiable"]:
            raise RuntimeError("`fused` does not support `differentiable`")
        if defaults.get("fused") and defaults["foreach"]:
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        super().__init__(params, defaults)

    def _new_state(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        raise NotImplementedError

    def _rule(self, group: dict[str, Any]) -> tuple[Rule, tuple[str, ...]]:
        raise NotImplementedError

    def _coefficients(self, group: dict[str, Any], *ticks: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    def _tick(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> tuple[Any, ...]:
        """The number of this step, counted from 1."""
        count = state["step"].array
        t = float(count) + 1.0
        count.fill(t)
        return (t,)

    def _accept_sparse(self, group: dict[str, Any], grad: Any) -> Any:
        """The gradient to use for a sparse one: itself, or a dense one."""
        raise RuntimeError(
            f"{type(self).__name__} does not support sparse gradients{self._instead_of_sparse}"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for values in self.state.values():
            for name in self._scalars:
                if name not in values:
                    continue
                if isinstance(values[name], Tensor):  # on the host: each step reads it
                    values[name] = values[name].to("cpu")
                else:  # old checkpoints have plain numbers
                    values[name] = scalar(values[name])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have a gradient; returns the closure's loss.

        >>> p = gpunn.ones(1, requires_grad=True)
        >>> optimizer = gpunn.optim.SGD([p], lr=0.5)
        >>> p.backward()
        >>> optimizer.step()
        >>> p
        tensor([0.5000], requires_grad=True)
        """
        loss = self._evaluate(closure)
        for group in self.param_groups:
            if group.get("differentiable"):
                self._record_group(group)
            else:
                self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        rule, names = self._rule(group)
        rule = with_decay(rule, group)
        state: Any = None
        ticks: Any = None
        dtype: Any = None
        device: Any = None
        batch: list[list[Any]] = []
        batches: dict[Any, list[list[Any]]] = {}  # arrays of parameters that take the same numbers
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            if grad.is_sparse:
                grad = self._accept_sparse(group, grad)
            if names:
                state = self.state.get(p) or self._start(group, p)
            array, now = p.array, self._tick(group, p, state)
            buffers = [state[name].array for name in names]
            touch(p)
            if grad.is_sparse:
                numbers = constants(p.device.xp, array.dtype, self._coefficients(group, *now))
                on(p.device, run_on_rows, rule, p.device.xp, array, grad, buffers, numbers)
                continue
            if now != ticks or array.dtype is not dtype or p.device is not device:
                ticks, dtype, device = now, array.dtype, p.device
                batch = batches.setdefault((device, dtype, ticks), [])
            batch.append([array, grad.array, *buffers])
        for (device, _, ticks), batch in batches.items():
            on(device, self._update, group, rule, batch, device.xp, ticks)

    def _update(
        self, group: dict[str, Any], rule: Rule, batch: list[list[Any]], xp: Any, ticks: Any
    ) -> None:
        """Applies the rule to all parameters of a batch, each with its gradient and buffers."""
        dtype = batch[0][0].dtype
        library = library_for(xp, batch) if self._has_fused else None
        if library is not None:
            batch = self._update_with(library, group, batch, ticks)
            if not batch:
                return
        small = BLOCK if xp is np and dtype.char in "fd" else -1
        numbers = constants(xp, dtype, self._coefficients(group, *ticks))
        for arrays in batch:
            if arrays[0].nbytes <= small:
                rule(xp, *arrays, *numbers)
            else:
                run(rule, xp, arrays, numbers)

    def _update_with(
        self, library: Any, group: dict[str, Any], batch: list[list[Any]], ticks: Any
    ) -> list[list[Any]]:
        """Lets a library (`library_for`) update what it can, in one pass; returns what is left."""
        if self._fused(library, group, ticks, *map(list, zip(*batch, strict=True))):
            return []
        if len(batch) == 1:
            return batch
        return [arrays for arrays in batch if self._update_with(library, group, [arrays], ticks)]

    def _fused(self, library: Any, group: dict[str, Any], ticks: Any, *columns: list[Any]) -> bool:
        """The library's form of the rule, on parameters, gradients, buffers; whether it did it."""
        raise NotImplementedError

    def _record_group(self, group: dict[str, Any]) -> None:
        """The step as recorded operations (`differentiable=True`): gradients flow through it."""
        rule, names = self._rule(group)
        with autograd.enable_grad():
            rule = with_decay(rule, group)
            for p in group["params"]:
                if p._grad is None:
                    continue
                state = self.state.get(p) or self._start(group, p)
                numbers = self._coefficients(group, *self._tick(group, p, state))
                new, *buffers = [x.clone() for x in (p, *[state[name] for name in names])]
                rule(autograd.namespace(p), new, p._grad, *buffers, *numbers)
                state.update(zip(names, buffers, strict=True))
                p.copy_(new)

    def _start(self, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
        """The state of a parameter that has none yet; an empty one is not kept."""
        state = on(p.device, self._new_state, group, p)
        if state:
            self.state[p] = state
        return state


def library_for(xp: Any, batch: list[list[Any]]) -> Any:
    """What can update a batch in one pass: on a GPU the kernels, the C++ library where it pays."""
    if xp is not np:
        return kernels
    enough = sum(arrays[0].size for arrays in batch) >= NATIVE_SIZE
    return native if enough and batch[0][0].dtype.char in "fd" and native.lib() else None


def with_decay(rule: Rule, group: dict[str, Any]) -> Rule:
    """The rule after what precedes all rules: the sign of the gradient, and weight decay.

    Plain weight decay λ is the gradient of ½λ‖θ‖² added to g; decoupled weight decay shrinks θ
    by the factor 1 - γλ itself.
    """
    maximize, decays = group["maximize"], bool(group.get("weight_decay"))
    if not (maximize or decays):
        return rule
    decay = number(group, "weight_decay") if decays else 0
    decoupled = group.get("decoupled_weight_decay", False)
    keep = 1 - number(group, "lr") * decay if decoupled else 1

    def decayed(xp: Any, p: Any, g: Any, *rest: Any) -> None:
        if maximize:
            g = -g
        if decays and decoupled:
            p *= keep
        elif decays:
            g = g + p * decay
        rule(xp, p, g, *rest)

    return decayed


def run(rule: Rule, xp: Any, arrays: list[Any], numbers: list[Any]) -> None:
    """Applies the rule to a parameter, its gradient and its buffers, all of one shape, in place."""
    block = BLOCK if xp is np else GPU_BLOCK
    for parts in blocks(arrays, block) if arrays[0].nbytes > block else [arrays]:
        apply(rule, xp, parts, numbers)


def apply(rule: Rule, xp: Any, arrays: list[Any], numbers: list[Any]) -> None:
    """Calls the rule: with complex numbers as pairs of real ones, half precision as float32."""
    kind = arrays[0].dtype.char
    if kind == "f" or kind == "d":
        rule(xp, *arrays, *numbers)
        return
    work = [as_real(xp, a) for a in arrays]
    rule(xp, *work, *numbers)
    for i, (array, done) in enumerate(zip(arrays, work, strict=True)):
        if i != 1:  # all but the gradient
            array[...] = done.view(array.dtype).reshape(array.shape) if kind in "FD" else done


def run_on_rows(
    rule: Rule, xp: Any, p: Any, grad: Any, buffers: list[Any], numbers: list[Any]
) -> None:
    """Applies the rule to the rows that a sparse gradient has; the others stay as they are."""
    grad = grad.coalesce()  # each row once
    index, g = tuple(grad.indices().array), grad.values().array
    if g.size == 0:
        return
    rows = [a[index] for a in (p, *buffers)]
    run(rule, xp, [rows[0], g, *rows[1:]], numbers)
    for array, row in zip((p, *buffers), rows, strict=True):
        array[index] = row


def blocks(arrays: list[Any], nbytes: int) -> Iterator[list[Any]]:
    """Views that together cover the arrays: runs of elements, or of rows where memory has gaps."""
    p = arrays[0]
    rows = max(1, nbytes * len(p) // p.nbytes)
    if all(a.flags.c_contiguous for a in arrays):
        arrays = [a.reshape(-1) for a in arrays]
        rows = nbytes // p.itemsize
    for i in range(0, len(arrays[0]), rows):
        yield [a[i : i + rows] for a in arrays]


def as_real(xp: Any, array: Any) -> Any:
    """Complex numbers as pairs of real ones; half precision as float32, to be rounded once."""
    if array.dtype.kind == "c":
        return xp.ascontiguousarray(array).reshape(-1).view(array.real.dtype)
    return array.astype(np.float32)


def constants(xp: Any, dtype: Any, values: tuple[Any, ...]) -> list[Any]:
    """The numbers as the rule takes them: NumPy is faster with 0-dim arrays than with floats."""
    if xp is not np:
        return list(values)
    dtype = dtypes.F64 if dtype.char in "dD" else dtypes.F32
    return [np.array(value, dtype) for value in values]


def number(group: dict[str, Any], name: str) -> Any:
    """An option, or a pair of them: of a tensor the value, itself where it is to be recorded."""
    value = group[name]
    if isinstance(value, tuple):
        return tuple(number({**group, name: v}, name) for v in value)
    if isinstance(value, Tensor):
        return value.reshape(()) if group.get("differentiable") else value.item()  # type: ignore[attr-defined]
    return value


def scalar(value: float) -> Tensor:
    """A 0-dim float32 tensor (float64 where that is the default dtype): a count of the state."""
    wide = dtypes.get_default_dtype() is dtypes.float64
    return wrap(np.array(value, np.float64 if wide else np.float32))


def zeros_like(p: Tensor) -> Tensor:
    """A buffer for the parameter, of its layout."""
    array, xp = p.array, p.device.xp
    if array.flags.c_contiguous:  # fresh pages of zeros, cheaper than writing them
        return wrap(xp.zeros(array.shape, array.dtype), p.device)
    return wrap(xp.zeros_like(array), p.device)
