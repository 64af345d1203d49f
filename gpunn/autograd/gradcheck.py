"""gradcheck: gradients compared with finite differences, in float64.

A complex number counts as two real ones: the gradient of a real L is dL/dx + i dL/dy, and a
complex output is checked by its real and its imaginary part, with 1 and 1j as its gradient.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.modes import enable_grad
from gpunn.autograd.walk import grad
from gpunn.tensor import Tensor, wrap


class GradcheckError(RuntimeError):
    """What `gradcheck` and `gradgradcheck` raise where gradients are wrong."""


def gradcheck(
    func: Callable[..., Any], inputs: Tensor | Sequence[Any], *, eps: float = 1e-6,
    atol: float = 1e-5, rtol: float = 1e-3, raise_exception: bool = True, nondet_tol: float = 0.0,
    check_undefined_grad: bool = True, check_grad_dtypes: bool = False,
    check_batched_grad: bool = False, check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False, check_backward_ad: bool = True, fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:  # fmt: skip
    """Whether the gradients of func(*inputs) agree with central differences.

    `inputs` that require gradients should be float64 or complex128. With `fast_mode` only one
    random direction is compared. Raises GradcheckError, naming the output and input with both
    Jacobians, or returns False without `raise_exception`; ValueError where no input requires a
    gradient, and for `check_forward_ad`: there is no forward mode. `nondet_tol` bounds the
    difference between two backward passes.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.gradcheck.gradcheck.html

    >>> x = gpunn.tensor([1.0, 2.0], dtype=gpunn.float64, requires_grad=True)
    >>> gpunn.autograd.gradcheck(lambda t: (t ** 3).sum(), (x,))
    True
    """
    if check_forward_ad or check_batched_forward_grad:
        raise ValueError("gradcheck: forward-mode gradients do not exist here, only backward ones")
    try:
        given = _as_tuple(inputs)
        _check_inputs(given)
        check = _Check(func, given, eps, atol, rtol, nondet_tol, check_grad_dtypes)
        if check_backward_ad:
            check.run(fast_mode, check_undefined_grad)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any], inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None, *, eps: float = 1e-6,
    atol: float = 1e-5, rtol: float = 1e-3, gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True, nondet_tol: float = 0.0, check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False, check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False, check_rev_over_rev: bool = True, fast_mode: bool = False,
    masked: bool = False,
) -> bool:  # fmt: skip
    """`gradcheck` of the gradients of func: whether second derivatives are right.

    `grad_outputs` are the gradients of func's outputs, random without it. The rest as in
    `gradcheck`. Source:
    https://docs.pytorch.org/docs/stable/generated/torch.autograd.gradcheck.gradgradcheck.html

    >>> x = gpunn.tensor([1.0, 2.0], dtype=gpunn.float64, requires_grad=True)
    >>> gpunn.autograd.gradgradcheck(lambda t: t ** 3, (x,))
    True
    """
    given = _as_tuple(inputs)
    if grad_outputs is None:
        outs = _differentiable(func(*given))
        gs = tuple(_random_like(o, gen_non_contig_grad_outputs, k) for k, o in enumerate(outs))
    else:
        gs = _as_tuple(grad_outputs)
    count = len(given)

    def gradients(*args: Any) -> Any:
        """The gradients of func, as a function of its inputs and of those of its outputs."""
        with enable_grad():
            wrt = tuple(a for a in args[:count] if isinstance(a, Tensor) and a.requires_grad)
            outputs = _differentiable(func(*args[:count]))
            found = grad(outputs, wrt, args[count:], create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        gradients, given + gs, eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception,
        nondet_tol=nondet_tol, check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes, check_forward_ad=check_fwd_over_rev,
        check_backward_ad=check_rev_over_rev, fast_mode=fast_mode,
    )  # fmt: skip


# --- inputs and outputs -------------------------------------------------------------------


def _as_tuple(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _differentiable(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(o for o in _as_tuple(outputs) if isinstance(o, Tensor) and o.requires_grad)


def _random_like(x: Tensor, strided: bool, seed: int) -> Tensor:
    """A gradient for an output, from -1 to 1; with `strided` not contiguous."""
    draw = np.random.default_rng(seed)
    shape = (*x.shape, 2) if strided else tuple(x.shape)
    values = draw.uniform(-1, 1, shape)
    if x.is_complex():  # type: ignore[attr-defined]
        values = values + 1j * draw.uniform(-1, 1, shape)
    array = x.device.xp.asarray(values).astype(x.array.dtype)
    made = wrap(array[..., 0] if strided else array, x.device)
    made.requires_grad = True
    return made


def _check_inputs(inputs: tuple[Any, ...]) -> None:
    """Raises, or warns, for inputs that finite differences cannot work with."""
    found = False
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor) or not x.requires_grad:
            continue
        found = True
        if x.dtype not in (dtypes.float64, dtypes.complex128):
            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point or "
                "complex. This check will likely fail if all the inputs are not of double "
                "precision floating point or complex. ",
                stacklevel=3,
            )
        if any(s == 0 and n > 1 for s, n in zip(x.array.strides, x.array.shape, strict=True)):
            raise RuntimeError(
                f"The {i}th input has a dimension with stride 0. gradcheck only supports inputs "
                "that are non-overlapping to be able to compute the numerical gradients "
                "correctly. You should call .contiguous on the input before passing it to "
                "gradcheck."
            )
    if not found:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of them "
            "have requires_grad=True."
        )


# --- the check ----------------------------------------------------------------------------


def _host(x: Tensor) -> Any:
    """A copy of a tensor's values in double precision."""
    a = x.detach().cpu().array  # type: ignore[attr-defined]
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


def _parts(x: Tensor) -> tuple[complex, ...]:
    """The gradients that pick the real, and the imaginary part of an output."""
    return (1, 1j) if x.is_complex() else (1,)  # type: ignore[attr-defined]


class _Check:
    """One run of gradcheck."""

    def __init__(self, func: Any, inputs: tuple[Any, ...], eps: float, atol: float, rtol: float,
                 nondet_tol: float, dtypes_too: bool):  # fmt: skip
        self.func, self.inputs, self.eps, self.atol, self.rtol = func, inputs, eps, atol, rtol
        self.nondet_tol, self.dtypes_too = nondet_tol, dtypes_too
        self.wrt = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]

    def run(self, fast: bool, undefined: bool) -> None:
        self.outputs = _differentiable(self.func(*self.inputs))
        if not self.outputs:
            self.expect_constant()
            return
        if fast:
            self.compare_directions()
        else:
            self.compare_jacobians()
        self.check_zero_gradients(undefined)

    def values(self) -> list[Any]:
        """The differentiable outputs, computed anew."""
        outs = _as_tuple(self.func(*self.inputs))
        if self.outputs:
            outs = _differentiable(outs)
        return [_host(o) for o in outs if isinstance(o, Tensor)]

    def difference(self, array: Any, place: Any, step: Any) -> list[Any]:
        """The derivative of each output as array[place] moves along step."""
        before = array[place].copy()
        try:
            array[place] = before + step
            plus = self.values()
            array[place] = before - step
            minus = self.values()
        finally:
            array[place] = before
        return [(p - m) / (2 * self.eps) for p, m in zip(plus, minus, strict=True)]

    def expect_constant(self) -> None:
        for x in self.wrt:
            for place in np.ndindex(x.array.shape):
                if any(np.any(d != 0) for d in self.difference(x.array, place, self.eps)):
                    raise GradcheckError("Numerical gradient for function expected to be zero")

    # --- all of the Jacobian --------------------------------------------------------------

    def compare_jacobians(self) -> None:
        numerical = [self.numerical(x) for x in self.wrt]
        for j, out in enumerate(self.outputs):
            for part, seed in enumerate(_parts(out)):
                analytical = self.analytical(out, seed)
                again = self.analytical(out, seed)
                for i, (a, b) in enumerate(zip(analytical, again, strict=True)):
                    n = numerical[i][j]
                    n = n.imag if part else n.real
                    if self.wrt[i].is_complex():  # type: ignore[attr-defined]
                        n = n[0] + 1j * n[1]
                    else:
                        n = n[0]
                    if not np.allclose(a, n, self.rtol, self.atol):
                        raise GradcheckError(_mismatch(i, j, out, part, n, a))
                    if not np.all(np.abs(a - b) <= self.nondet_tol):
                        raise GradcheckError(_NONDETERMINISTIC.format(self.nondet_tol))

    def numerical(self, x: Tensor) -> list[Any]:
        """For each output the derivatives [along the real and imaginary axis, element of x,
        element of the output]."""
        steps = (self.eps, 1j * self.eps) if x.is_complex() else (self.eps,)  # type: ignore[attr-defined]
        made = [
            np.zeros((len(steps), x.array.size, o.array.size), np.complex128) for o in self.outputs
        ]
        for k, step in enumerate(steps):
            for row, place in enumerate(np.ndindex(x.array.shape)):
                for j, d in enumerate(self.difference(x.array, place, step)):
                    made[j][k, row] = d.reshape(-1)
        return made

    def analytical(self, out: Tensor, seed: complex) -> list[Any]:
        """The Jacobians [element of the input, element of out] from backward."""
        made = [
            np.zeros((x.array.size, out.array.size),
                     np.complex128 if x.is_complex() else np.float64)  # type: ignore[attr-defined]
            for x in self.wrt
        ]  # fmt: skip
        for column in range(out.array.size):
            unit = out.device.xp.zeros(out.array.size, out.array.dtype)
            unit[column] = seed
            found = self.gradients(out, wrap(unit.reshape(out.array.shape), out.device))
            for rows, g in zip(made, found, strict=True):
                if g is not None:
                    rows[:, column] = _host(g).reshape(-1)
        return made

    def gradients(self, out: Tensor, g: Tensor) -> tuple[Any, ...]:
        found = grad(out, self.wrt, g, retain_graph=True, allow_unused=True)
        for x, one in zip(self.wrt, found, strict=True):
            if one is None:
                continue
            if one.shape != x.shape:
                raise GradcheckError("Analytical gradient has incorrect size")
            if self.dtypes_too and one.dtype is not x.dtype:
                raise GradcheckError("Gradient has dtype mismatch")
        return found

    # --- one random direction -------------------------------------------------------------

    def compare_directions(self) -> None:
        for i, x in enumerate(self.wrt):
            u = _direction(x, i)
            step = x.device.xp.asarray(u).astype(x.array.dtype) * self.eps
            moved = self.difference(x.array, ..., step)
            for j, (out, d) in enumerate(zip(self.outputs, moved, strict=True)):
                v = _direction(out, 100 + j)
                seed = wrap(out.device.xp.asarray(v).astype(out.array.dtype), out.device)
                g = self.gradients(out, seed)[i]
                a = 0.0 if g is None else float((_host(g).conj() * u).sum().real)
                n = float((np.conj(v) * d).sum().real)
                atol = self.atol * np.abs(u).sum() * np.abs(v).sum()
                if not np.isclose(a, n, self.rtol, atol):
                    self.compare_jacobians()
                    raise GradcheckError(
                        f"Jacobian mismatch for output {j} with respect to input {i},\n"
                        f"numerical:{n}\nanalytical:{a}\n\nThe above quantities are computed in "
                        "fast mode. Fast gradcheck failed but element-wise differences are small: "
                        "the check would pass with fast_mode=False."
                    )

    # --- gradients of zero ----------------------------------------------------------------

    def check_zero_gradients(self, undefined: bool) -> None:
        """Zero gradients of the outputs, or gradients of few of them, must be taken."""
        zeros = [wrap(o.device.xp.zeros_like(o.array), o.device) for o in self.outputs]
        found = grad(self.outputs, self.wrt, zeros, retain_graph=True, allow_unused=True)
        for x, g in zip(self.wrt, found, strict=True):
            if g is None:
                continue
            if g.device is not x.device:
                raise GradcheckError("grad is incorrect device")
            if g.shape != x.shape:
                raise GradcheckError("grad is incorrect size")
            if not np.all(_host(g) == 0):
                raise GradcheckError("backward not multiplied by grad_output")
        if undefined:
            self.check_undefined()

    def check_undefined(self) -> None:
        """Each output alone: the others' gradients are undefined."""
        for out in self.outputs:
            try:
                self.gradients(out, wrap(out.device.xp.zeros_like(out.array), out.device))
            except RuntimeError as error:
                raise GradcheckError(
                    f"Expected backward function to handle undefined output grads. ({error})"
                ) from error


def _direction(x: Tensor, seed: int) -> Any:
    """A random direction of length 1."""
    draw = np.random.default_rng(seed)
    u: Any = draw.standard_normal(x.array.shape)
    if x.is_complex():  # type: ignore[attr-defined]
        u = u + 1j * draw.standard_normal(x.array.shape)
    return u / max(float(np.sqrt((np.abs(u) ** 2).sum())), 1e-300)


_NONDETERMINISTIC = (
    "Backward is not reentrant, i.e., running backward with same input and grad_output multiple "
    "times gives different values, although analytical gradient matches numerical gradient. The "
    "tolerance for nondeterminism was {}."
)


def _mismatch(i: int, j: int, out: Tensor, part: int, numerical: Any, analytical: Any) -> str:
    prefix = ""
    if out.is_complex():  # type: ignore[attr-defined]
        which = "imaginary" if part else "real"
        prefix = f"While considering the {which} part of complex outputs only, "
    return (
        f"{prefix}Jacobian mismatch for output {j} with respect to input {i},\n"
        f"numerical:{wrap(np.asarray(numerical))!r}\nanalytical:{wrap(np.asarray(analytical))!r}\n"
    )
