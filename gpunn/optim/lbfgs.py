"""L-BFGS: a quasi-Newton method for whole-batch problems, with a line search on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpunn.autograd import touch
from gpunn.optim.elementwise import number
from gpunn.optim.optimizer import Optimizer, ParamsT, check_options, on
from gpunn.tensor import Tensor, wrap

__all__ = ["LBFGS"]


class _Point(NamedTuple):
    """The objective at a distance t along a direction: value, gradient, slope."""

    t: float
    f: float
    g: Any
    slope: float


class _Memory:
    """The last changes of the gradient (y) and of the parameters (s), and the current search."""

    def __init__(self, state: dict[str, Any]):
        def raw(x: Any) -> Any:
            return x.array if isinstance(x, Tensor) else x

        self.ys = [raw(y) for y in state.get("old_dirs") or []]
        self.ss = [raw(s) for s in state.get("old_stps") or []]
        self.ro = [raw(r) for r in state.get("ro") or []]
        self.h_diag = raw(state.get("H_diag", 1))
        self.al = [raw(a) for a in state.get("al") or []]
        t: Any = state.get("t")
        self.d, self.t = raw(state.get("d")), t.item() if hasattr(t, "item") else t
        self.g, self.loss = raw(state.get("prev_flat_grad")), state.get("prev_loss")

    def save(self, state: dict[str, Any], like: Tensor) -> None:
        def tensor(x: Any) -> Tensor:
            return wrap(like.device.xp.asarray(x), like.device)

        if self.d is None:
            return
        if self.al:
            state["al"] = [None if a is None else tensor(a) for a in self.al]
        state["d"], state["t"] = tensor(self.d), self.t
        state["old_dirs"] = [tensor(y) for y in self.ys]
        state["old_stps"] = [tensor(s) for s in self.ss]
        state["ro"] = [tensor(r) for r in self.ro]
        state["H_diag"] = self.h_diag if isinstance(self.h_diag, int) else tensor(self.h_diag)
        state["prev_flat_grad"], state["prev_loss"] = tensor(self.g), self.loss

    def direction(self, g: Any, first: bool, history_size: int) -> Any:
        """-H g, where H, the inverse Hessian as far as the memory knows it, is never formed."""
        if first:
            self.ys, self.ss, self.ro, self.h_diag = [], [], [], 1
            return -g
        y, s = g - self.g, self.d * self.t
        curvature = y.dot(s)
        if curvature > 1e-10:
            if len(self.ys) == history_size:
                for kept in (self.ys, self.ss, self.ro):
                    kept.pop(0)
            self.ys.append(y)
            self.ss.append(s)
            self.ro.append(1.0 / curvature)
            self.h_diag = curvature / y.dot(y)
        self.al = [None] * history_size
        q = -g
        for i in reversed(range(len(self.ys))):
            self.al[i] = self.ss[i].dot(q) * self.ro[i]
            q -= self.ys[i] * self.al[i]
        q *= self.h_diag
        for i in range(len(self.ys)):
            q += self.ss[i] * (self.al[i] - self.ys[i].dot(q) * self.ro[i])
        return q


def _cubic_minimum(a: _Point, b: _Point, low: float, high: float) -> float:
    """The minimum of the cubic through two values and slopes, kept within [low, high]."""
    if a.t > b.t:
        a, b = b, a
    d1 = a.slope + b.slope - 3 * (a.f - b.f) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    d2 = square**0.5
    curvature = b.slope - a.slope + 2 * d2
    if curvature == 0:
        return (low + high) / 2
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / curvature)
    return min(max(t, low), high)


class _StrongWolfe:
    """The search for a point of sufficient decrease (c1) that is flat enough (c2).

    Source: Nocedal and Wright, Numerical Optimization, algorithms 3.5 and 3.6.
    """

    c1, c2 = 1e-4, 0.9

    def __init__(self, evaluate: Callable[[float], _Point], start: _Point, max_steps: int):
        self.evaluate, self.start, self.max_steps = evaluate, start, max_steps
        self.steps = 0

    def too_high(self, x: _Point) -> bool:
        return x.f > self.start.f + self.c1 * x.t * self.start.slope

    def flat(self, x: _Point) -> bool:
        return abs(x.slope) <= -self.c2 * self.start.slope

    def run(self, t: float, least: float) -> tuple[_Point, int]:
        """The point, and the evaluations it took. `least` is the shortest bracket worth a try."""
        previous, new = self.bracket(t)
        if previous is None:
            found = new
        elif previous.f <= new.f:
            found = self.narrow(previous, new, least)
        else:
            found = self.narrow(new, previous, least)
        return found, self.steps + 1

    def bracket(self, t: float) -> tuple[_Point | None, _Point]:
        """Goes out until two points enclose a minimum, or to a good point (then None is first)."""
        previous, new = self.start, self.evaluate(t)
        while self.steps < self.max_steps:
            if self.too_high(new) or (self.steps > 1 and new.f >= previous.f):
                return previous, new
            if self.flat(new):
                return None, new
            if new.slope >= 0:
                return previous, new
            low, high = new.t + 0.01 * (new.t - previous.t), 10 * new.t
            t = _cubic_minimum(previous, new, low, high)
            previous, new = new, self.evaluate(t)
            self.steps += 1
        return self.start, new

    def narrow(self, best: _Point, worst: _Point, least: float) -> _Point:
        """Shrinks the bracket, keeping its lower end `best`."""
        stuck = False
        while self.steps < self.max_steps:
            low, high = sorted((best.t, worst.t))
            if high - low < least:
                break
            t, stuck = _inside(_cubic_minimum(best, worst, low, high), low, high, stuck)
            new = self.evaluate(t)
            self.steps += 1
            if self.too_high(new) or new.f >= best.f:
                best, worst = (best, new) if best.f <= new.f else (new, best)
                continue
            if self.flat(new):
                return new
            if new.slope * (worst.t - best.t) >= 0:
                worst = best
            best = new
        return best


def _inside(t: float, low: float, high: float, stuck: bool) -> tuple[float, bool]:
    """t, moved off an end of the bracket when two trials in a row came too close to one."""
    margin = 0.1 * (high - low)
    if min(high - t, t - low) >= margin:
        return t, False
    if not (stuck or t >= high or t <= low):
        return t, True
    return (high - margin if high - t < t - low else low + margin), False


class LBFGS(Optimizer):
    """L-BFGS: Newton's method with an inverse Hessian estimated from the last `history_size` steps.

    One `step(closure)` makes up to `max_iter` iterations and `max_eval` evaluations (1.25
    `max_iter`) of the closure, which clears the gradients, computes the loss, calls `backward`
    and returns the loss. It ends early where no gradient exceeds `tolerance_grad`, or loss or
    parameters change by less than `tolerance_change`. `line_search_fn` is None (steps of `lr`) or
    "strong_wolfe". One parameter group, on one device; the memory is `history_size` + 1 times
    that of the parameters, twice. Raises ValueError for a negative `lr` or several groups,
    RuntimeError for another line search.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.LBFGS.html

    >>> x = gpunn.tensor([3.0, -2.0], requires_grad=True)
    >>> optimizer = gpunn.optim.LBFGS([x], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = ((x - 1) ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item()
    13.0
    >>> bool(((x - 1).abs() < 1e-3).all())
    True
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        check_options(lr)
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
            "history_size": history_size, "line_search_fn": line_search_fn,
        })  # fmt: skip
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Minimises the closure's loss; returns the loss that it had before."""
        group, like = self.param_groups[0], self.param_groups[0]["params"][0]
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise RuntimeError(
                f"only 'strong_wolfe' is supported as line_search_fn, got "
                f"{group['line_search_fn']!r}"
            )
        state = self.state[like]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first_loss = self._evaluate(closure)
        state["func_evals"] += 1
        g = self._flat_grad()
        if g.size == 0 or abs(g).max() <= group["tolerance_grad"]:
            return first_loss
        memory = _Memory(state)
        on(like.device, self._iterate, group, state, memory, closure, float(first_loss), g)
        memory.save(state, like)
        lr = group["lr"]
        if isinstance(lr, Tensor):  # as in PyTorch, where the step length is a product
            state["t"] = wrap(lr.device.xp.asarray(memory.t, lr.array.dtype), lr.device)
        return first_loss

    def _iterate(
        self, group: dict[str, Any], state: dict[str, Any], memory: _Memory,
        closure: Callable[[], Any], loss: float, g: Any,
    ) -> None:  # fmt: skip
        lr, tolerance = number(group, "lr"), group["tolerance_change"]
        max_eval, search = group["max_eval"], group["line_search_fn"]
        evals = 1
        for i in range(group["max_iter"]):
            last = i == group["max_iter"] - 1
            state["n_iter"] += 1
            first = state["n_iter"] == 1
            memory.d = d = memory.direction(g, first, group["history_size"])
            memory.g, memory.loss = g, loss
            memory.t = min(1.0, 1.0 / float(abs(g).sum())) * lr if first else lr
            slope = float(g.dot(d))
            if slope > -tolerance:
                return
            used = 0
            if search is not None:
                here = _Point(0.0, loss, g, slope)
                found, used = self._search(closure, here, memory, tolerance, max_eval - evals)
                memory.t, loss, g = found.t, found.f, found.g
                self._move(memory.t, d)
            else:
                self._move(memory.t, d)
                if not last:
                    loss, g = float(self._evaluate(closure)), self._flat_grad()
                    used = 1
            evals += used
            state["func_evals"] += used
            if (
                last
                or evals >= max_eval
                or abs(g).max() <= group["tolerance_grad"]
                or abs(d * memory.t).max() <= tolerance
                or abs(loss - memory.loss) < tolerance
            ):
                return

    def _search(
        self, closure: Callable[[], Any], start: _Point, memory: _Memory, tolerance: float,
        max_evals: int,
    ) -> tuple[_Point, int]:  # fmt: skip
        d = memory.d
        params = self.param_groups[0]["params"]
        origin = [p.array.copy() for p in params]

        def evaluate(t: float) -> _Point:
            self._move(t, d)
            loss, g = float(self._evaluate(closure)), self._flat_grad()
            for p, array in zip(params, origin, strict=True):
                p.array[...] = array
                touch(p)
            return _Point(t, loss, g, float(g.dot(d)))

        least = tolerance / float(abs(d).max())
        return _StrongWolfe(evaluate, start, max_evals).run(memory.t, least)

    def _flat_grad(self) -> Any:
        """All gradients as one vector; complex ones as pairs, half precision as float32."""
        params = self.param_groups[0]["params"]
        xp = params[0].device.xp
        parts = []
        for p in params:
            grad = p._grad
            if grad is None:
                array = xp.zeros(p.array.shape, p.array.dtype)
            else:
                array = (grad.to_dense() if grad.is_sparse else grad).array
            parts.append(_flat(xp, array))
        return xp.concatenate(parts)

    def _move(self, t: float, d: Any) -> None:
        """θ ← θ + t d."""
        start = 0
        for p in self.param_groups[0]["params"]:
            xp, array = p.device.xp, p.array
            size = array.size * (2 if array.dtype.kind == "c" else 1)
            moved = _flat(xp, array) + d[start : start + size] * t
            if array.dtype.kind == "c":
                moved = moved.view(array.dtype)
            array[...] = moved.reshape(array.shape)
            touch(p)
            start += size


def _flat(xp: Any, array: Any) -> Any:
    flat = xp.ascontiguousarray(array).reshape(-1)
    if array.dtype.kind == "c":
        return flat.view(array.real.dtype)
    return flat if array.dtype.char in "fd" else flat.astype(np.float32)
