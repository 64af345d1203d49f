"""The backward walk: gradients from the roots of the graph to its leaves, iteratively."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from gpunn import native
from gpunn.autograd.graph import (
    Node,
    Output,
    _stamps,
    anomaly,
    check_saved,
    mode,
    namespace,
    recorded_at,
    touch,
    vertex,
)
from gpunn.autograd.hooks import run_after_hooks, run_hooks, run_node_hooks, to_grad
from gpunn.autograd.second import differentiable_vjp
from gpunn.cuda import current
from gpunn.device import CPU, Device
from gpunn.tensor import ARRAY_TYPES, Tensor, wrap

FREED = ("freed",)
#: What a node may keep beside arrays (and shapes).
_PLAIN = frozenset(
    {type(None), bool, int, float, complex, str, slice, *(type(np.dtype(c)) for c in "?bBhilefdFD")}
)


class _Walk:
    """One backward pass. Gradients are raw arrays, or Tensors when a graph is created."""

    __slots__ = ("retain", "create", "heap", "pending", "captured", "targets", "through", "uses",
                 "sums", "roots", "place")  # fmt: skip

    def __init__(self, retain: bool, create: bool):
        self.retain = retain
        self.create = create
        self.heap: list[tuple[int, Node]] = []
        self.pending: dict[Any, Any] = {}  # Node -> gradient, or list of gradients by output
        self.captured: dict[Any, Any] | None = None  # vertex -> gradient, for grad(inputs=)
        self.targets: dict[Any, list[Any]] = {}  # the vertices by their nodes and leaves
        self.through: set[Any] | None = None  # the nodes that lead to them; None: all lead on
        self.uses: dict[Tensor, int] | None = None  # open uses of leaves with hooks
        self.sums: dict[Tensor, Any] = {}
        self.roots: list[Any] = []
        self.place: Any = None  # the current device before the walk made that of a node current

    def give(self, vertex: Any, g: Any) -> None:
        """Adds a gradient to a vertex."""
        kind = type(vertex)
        pending = self.pending
        if kind is Node:
            if self.through is not None and not self.leads(vertex):
                return
            if vertex in pending:
                old = pending.pop(vertex)
                alone = sys.getrefcount(old) <= _ALONE
                pending[vertex] = _added(old, g) if alone else old + g
            else:
                pending[vertex] = g
                heappush(self.heap, (-vertex.seq, vertex))
        elif kind is Output:
            node, index = vertex.node, vertex.index
            if not self.leads(node):
                return
            slots = pending.get(node)
            if slots is None:
                slots = pending[node] = [None] * node.outputs
                heappush(self.heap, (-node.seq, node))
            slots[index] = g if slots[index] is None else slots[index] + g
        else:
            self.give_leaf(vertex, g)

    def give_leaf(self, leaf: Tensor, g: Any) -> None:
        if self.captured is not None:
            if leaf in self.captured:
                old = self.captured[leaf]
                self.captured[leaf] = g if old is None else old + g
            return
        hooks = leaf._extra
        if hooks is None or not (hooks.hooks or hooks.post_hooks):
            self.accumulate(leaf, g, _OWNED)
            return
        if self.uses is None:
            self.uses = leaf_uses(self.roots)
        self.uses[leaf] -= 1
        if self.uses[leaf] == 0 and not hooks.hooks and leaf not in self.sums:
            self.accumulate(leaf, g, _OWNED)
            _run_post_hooks(leaf)
            return
        self.sums[leaf] = self.sums[leaf] + g if leaf in self.sums else g
        if self.uses[leaf] == 0:
            self.finish_leaf(leaf)

    def finish_leaf(self, leaf: Tensor) -> None:
        """Runs a leaf's hooks on the sum of its gradients and stores it."""
        g = run_hooks(leaf._extra.hooks, self.sums.pop(leaf), leaf.device)  # type: ignore[union-attr]
        self.accumulate(leaf, g, 0)
        _run_post_hooks(leaf)

    def accumulate(self, leaf: Tensor, g: Any, owned: int) -> None:
        """leaf.grad += g. An array with at most `owned` references belongs to this walk alone."""
        if not leaf._requires_grad:
            return
        if g.dtype is not leaf.array.dtype:
            g = _in_dtype_of(leaf, g)
        old = leaf._grad
        if old is None:
            if type(g) in ARRAY_TYPES:
                # an array that only this walk holds is taken over, any other is copied
                mine = sys.getrefcount(g) <= owned and g.base is None and g.flags.c_contiguous
                g = g if mine else g.copy()
            leaf._grad = to_grad(g, leaf.device)
        elif type(old) is Tensor and not isinstance(g, Tensor) and old.node is None:
            old.array += g
            touch(old)
        else:
            leaf._grad = old + to_grad(g, leaf.device)

    def run(self) -> None:
        before = mode.grad, mode.partial, mode.at_end
        mode.grad, mode.partial, mode.at_end = self.create, self.through is not None, []
        try:
            self.drain()
            for callback in mode.at_end:
                callback()
        finally:
            mode.grad, mode.partial, mode.at_end = before
            if self.place is not None:
                current.go_back(self.place)

    def drain(self) -> None:
        """Takes vertices from the heap, latest first, until none is left."""
        heap, pending, through, give = self.heap, self.pending, self.through, self.give
        retain, several = self.retain, current.SEVERAL
        while heap:
            node = heappop(heap)[1]
            g = pending.pop(node)
            if node.hooks is not None:
                if several:
                    self.enter(node.device)
                g = run_node_hooks(node, g, self.create)
            if through is not None:
                self.capture(node, g)
                if node not in through:
                    continue
            if node.saved is FREED:
                raise RuntimeError(FREED_MESSAGE)
            if several:
                self.enter(node.device)
            gs = self.apply(node, g)
            if node.hooks is not None:
                gs = run_after_hooks(node, gs, g)
            del g
            if not retain:
                for kept in node.saved:  # one that keeps no array may be walked again
                    kind = type(kept)
                    if kind in _PLAIN or (kind is tuple and (not kept or type(kept[0]) is int)):
                        continue
                    node.saved = FREED
                    break
                kept = None
            if type(gs) is not tuple:
                gs = (gs,)
            # popped one by one, so that each gradient has a single owner when it is given on
            rest = list(gs)
            del gs
            rest.reverse()
            for parent in node.parents:
                one = rest.pop()
                if one is not None and parent is not None:
                    if several:  # a copy between devices gives to another one
                        self.enter((parent.node if type(parent) is Output else parent).device)
                    give(parent, one)
            one = None
        for leaf in list(self.sums):
            if several:
                self.enter(leaf.device)
            self.finish_leaf(leaf)

    def enter(self, device: Device) -> None:
        """Makes a GPU the current one, for what hooks and backwards of users make, too."""
        if device.type == "cuda":
            before = current.ask(device.index)  # type: ignore[arg-type]
            if self.place is None:
                self.place = before

    def capture(self, node: Node, g: Any) -> None:
        """Keeps the gradient of a vertex that was asked for."""
        for v in self.targets.get(node, ()):
            self.captured[v] = g[v.index] if type(v) is Output else g  # type: ignore[index]

    def apply(self, node: Node, g: Any) -> Any:
        """The gradients of a node's parents."""
        if _stamps:
            check_saved(node)
        function = node.vjp
        if self.create:
            return differentiable_vjp(node, g)
        if hasattr(function, "masked"):
            mask = tuple(
                p is not None and self.leads(p.node if type(p) is Output else p)
                for p in node.parents
            )
            gs = function(g, *node.saved, needs=mask)
        else:
            gs = function(g, *node.saved)
        if anomaly.on:
            _check_finite(node, gs)
        return gs

    def leads(self, vertex: Any) -> bool:
        """Whether a node or leaf is on the way to what was asked for."""
        return self.through is None or vertex in self.through or vertex in self.targets


_OWNED = _ALONE = 0
_MANY = 1 << 17  # elements from which on several threads beat NumPy's one
FREED_MESSAGE = (
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed). Saved intermediate values of the graph are freed when you call "
    ".backward() or autograd.grad(). Specify retain_graph=True if you need to backward through the "
    "graph a second time or if you need to access saved tensors after calling backward."
)


def _in_dtype_of(t: Tensor, g: Any) -> Any:
    """A gradient in its tensor's dtype: that of a 16-bit one may have become float32 on its way."""
    d = t.array.dtype
    if not isinstance(g, Tensor):
        return g if g.dtype == d or "c" in (g.dtype.kind, d.kind) else g.astype(d)
    if type(g) is Tensor and g.dtype is not t.dtype and g.is_complex() == t.is_complex():
        return g.to(t.dtype)  # type: ignore[attr-defined]
    return g


def queue_callback(callback: Callable[[], Any]) -> None:
    """Calls `callback()` at the end of the backward pass that is under way in this thread.

    RuntimeError where none is: it is called from hooks.

    >>> x = gpunn.ones(1, requires_grad=True)
    >>> end = lambda: print("end")
    >>> handle = x.register_hook(lambda g: gpunn.autograd.walk.queue_callback(end))
    >>> x.sum().backward()
    end
    """
    if mode.at_end is None:
        raise RuntimeError("Final callbacks can only be installed during backward pass.")
    mode.at_end.append(callback)


def _run_post_hooks(leaf: Tensor) -> None:
    for hook in list(leaf._extra.post_hooks.values()):  # type: ignore[union-attr]
        hook(leaf)


def _added(old: Any, g: Any) -> Any:
    """old + g, in place where that is an array of its own memory."""
    if type(old) is not np.ndarray or type(g) is not np.ndarray:
        return old + g
    mine = old.base is None and old.flags.writeable
    if not mine or old.dtype is not g.dtype or old.shape != g.shape:
        return old + g
    if old.size < _MANY or native.add(old, g, old) is None:
        old += g
    return old


def _count_alone() -> int:
    """The references to what only a local variable holds, as `give` counts them."""
    held = {0: np.zeros(1)}
    old = held.pop(0)
    return sys.getrefcount(old)


_ALONE = _count_alone()


def _count_owners() -> int:
    """The references that `accumulate` sees to an array which only the walk holds: Python's
    versions differ in how many a chain of calls makes."""
    seen = []

    class Probe(_Walk):
        __slots__ = ()

        def accumulate(self, leaf: Tensor, g: Any, owned: int) -> None:
            seen.append(sys.getrefcount(g))

    leaf = wrap(np.zeros(1))
    leaf._requires_grad = True
    probe = Probe(False, False)
    probe.give(Node(lambda g: g + 1, (leaf,), (), CPU), np.ones(1))
    probe.run()
    return seen[0]


_OWNED = _count_owners()


def _check_finite(node: Node, gs: Any) -> None:
    for i, g in enumerate(gs if type(gs) is tuple else (gs,)):
        if type(g) in ARRAY_TYPES and namespace(g).isnan(g).any():
            raise RuntimeError(
                f"Function '{node.name()}' returned nan values in its {i}th output."
                + recorded_at(node)
            )


def leaf_uses(roots: Sequence[Any]) -> dict[Tensor, int]:
    """How often each leaf is used in the graph below the roots, which are vertices."""
    uses: dict[Tensor, int] = {}
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        v = stack.pop()
        if isinstance(v, Tensor):
            uses[v] = uses.get(v, 0) + 1
            continue
        node = v.node if type(v) is Output else v
        if node is not None and node not in seen:
            seen.add(node)
            stack.extend(p for p in node.parents if p is not None)
    return uses


def _nodes_leading_to(roots: list[Any], targets: set[Any]) -> set[Node]:
    """The nodes on paths from the roots to the targets (vertices)."""
    children: dict[Node, list[Node]] = {}
    seen: set[Node] = set()
    found: list[Node] = []
    stack = [v.node if type(v) is Output else v for v in roots if not isinstance(v, Tensor)]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for p in node.parents:
            if p is None:
                continue
            if p in targets:
                found.append(node)
            if not isinstance(p, Tensor):
                below = p.node if type(p) is Output else p
                children.setdefault(below, []).append(node)
                stack.append(below)
    wanted: set[Node] = set()
    while found:
        node = found.pop()
        if node not in wanted:
            wanted.add(node)
            found.extend(children.get(node, ()))
    return wanted


def _start(walk: _Walk, tensors: Sequence[Tensor], grads: Sequence[Tensor | None]) -> None:
    """Checks the roots' gradients and gives them to the walk."""
    if len(tensors) != len(grads):
        raise RuntimeError(f"got {len(tensors)} tensors and {len(grads)} gradients")
    for i, (t, g) in enumerate(zip(tensors, grads, strict=True)):
        _give_root(walk, i, t, g)


def _give_root(walk: _Walk, i: int, t: Tensor, g: Tensor | None) -> None:
    if not t._requires_grad:
        raise RuntimeError(
            f"element {i} of tensors does not require grad and does not have a grad_fn"
        )
    if g is None:
        g = _implicit_gradient(t)
    elif g.shape != t.shape:
        raise RuntimeError(
            f"Mismatch in shape: grad_output[{i}] has a shape of {g.shape} and output[{i}] has "
            f"a shape of {t.shape}."
        )
    elif g.dtype is not t.dtype and g.is_complex() != t.is_complex():
        raise RuntimeError(
            "For complex Tensors, both grad_output and output are required to have the same "
            f"dtype. Mismatch in dtype: grad_output[{i}] has a dtype of {g.dtype} and "
            f"output[{i}] has a dtype of {t.dtype}."
        )
    if g.device is not t.device:
        g = _number_on(t.device, i, g)
    place = vertex(t)
    walk.roots.append(place)
    walk.give(place, g if walk.create else g.array.copy() if place is t else g.array)


def _number_on(device: Device, i: int, g: Tensor) -> Tensor:
    """A 0-dim gradient that lies elsewhere, brought along as PyTorch brings it."""
    if g.array.ndim:
        raise RuntimeError(
            f"invalid gradient at index {i} - expected device {device} but got {g.device}"
        )
    return g.to(device)  # type: ignore[attr-defined]


def _implicit_gradient(t: Tensor) -> Tensor:
    """The 1 that stands for the gradient of a scalar."""
    if t.array.size != 1:
        raise RuntimeError(
            "grad can be implicitly created only for scalar outputs, this one has shape "
            f"{list(t.shape)}. Call .sum() or .mean() first, or pass gradient="
        )
    if t.array.dtype.kind == "c":
        raise RuntimeError(
            f"grad can be implicitly created only for real scalar outputs but got {t.dtype}"
        )
    return wrap(t.device.xp.ones_like(t.array), t.device)


def _as_list(value: Any, count: int | None = None) -> list[Any]:
    if value is None:
        return [None] * (count or 0)
    return [value] if isinstance(value, Tensor) else list(value)


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulates the gradients of `tensors` into the `grad` of the graph's leaves.

    `grad_tensors` are the gradients of `tensors` themselves, needed where one has more than one
    element. With `inputs`, only those are given gradients. Raises RuntimeError for tensors
    without a graph, for non-scalars without a gradient, and for a graph already freed.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.backward.html

    >>> x = gpunn.tensor([1.0, 2.0], requires_grad=True)
    >>> gpunn.autograd.backward((x * x).sum())
    >>> x.grad
    tensor([2., 4.])
    """
    outs = _as_list(tensors)
    gs = _as_list(grad_tensors, len(outs))
    if inputs is not None:
        wrt = _as_list(inputs)
        if not wrt:
            raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
        found = grad(outs, wrt, gs, retain_graph, create_graph, allow_unused=True)
        for t, g in zip(wrt, found, strict=True):
            if g is not None:
                _store(t, g, create_graph)
        return
    walk = _Walk(create_graph if retain_graph is None else retain_graph, create_graph)
    _start(walk, outs, gs)
    walk.run()


def _store(t: Tensor, g: Tensor, create: bool) -> None:
    """t.grad += g for backward(inputs=)."""
    if t._grad is not None:
        t._grad = t._grad + g  # type: ignore[operator]
    else:  # another tensor's gradient may be the same memory
        t._grad = g if create or type(g) is not Tensor else wrap(g.array.copy(), g.device)
    if t.node is None and t._extra is not None:
        _run_post_hooks(t)


def _tensor_backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Accumulates the gradients of this tensor into the graph's leaves: `autograd.backward`."""
    backward(self, gradient, retain_graph, create_graph, inputs)


_tensor_backward.__name__ = "backward"
Tensor.backward = _tensor_backward  # type: ignore[attr-defined]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`, as a tuple; no `grad` is changed.

    With `create_graph` they can be differentiated again. An input that the outputs do not
    depend on raises RuntimeError, or gives None with `allow_unused`, zeros with
    `materialize_grads`. `is_grads_batched` takes gradients stacked along dimension 0.
    `only_inputs` is ignored.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad.html

    >>> x = gpunn.tensor(3.0, requires_grad=True)
    >>> gpunn.autograd.grad(x ** 2, x)
    (tensor(6.),)
    """
    if not only_inputs:
        warnings.warn(
            "only_inputs argument is deprecated and is ignored now (defaults to True). To "
            "accumulate gradient for other parts of the graph, please use autograd.backward.",
            FutureWarning,
            stacklevel=2,
        )
    outs, wrt = _as_list(outputs), _as_list(inputs)
    gs = _as_list(grad_outputs, len(outs))
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: "
            "allow_unused=False."
        )
    if is_grads_batched:
        return _batched_grad(outs, wrt, gs, retain_graph, create_graph, allow_unused)
    for i, t in enumerate(wrt):
        if not t._requires_grad:
            raise RuntimeError(
                "One of the differentiated Tensors does not require grad: "
                f"inputs[{i}] of shape {list(t.shape)}"
            )
    walk = _Walk(create_graph if retain_graph is None else retain_graph, create_graph)
    vertices = [vertex(t) for t in wrt]
    walk.captured = dict.fromkeys(vertices)
    for v in walk.captured:
        walk.targets.setdefault(v.node if type(v) is Output else v, []).append(v)
    walk.through = _nodes_leading_to([vertex(t) for t in outs if t._requires_grad], set(vertices))
    _start(walk, outs, gs)
    walk.run()
    found = []
    for i, (t, v) in enumerate(zip(wrt, vertices, strict=True)):
        g = walk.captured[v]
        if g is None:
            found.append(_missing(i, t, materialize_grads, allow_unused))
        else:
            if type(v) is Tensor or not isinstance(v, (Node, Output)):
                g = run_hooks(t._extra.hooks, g, t.device) if t._extra is not None else g
            found.append(to_grad(_in_dtype_of(t, g), t.device))
    return tuple(found)


def _missing(
    index: int, t: Tensor, materialize: bool, allow_unused: bool | None
) -> Tensor | None:
    if materialize:
        return wrap(t.device.xp.zeros_like(t.array), t.device)
    if not allow_unused:
        raise RuntimeError(
            f"The differentiated Tensor at index {index} appears to not have been used in the "
            "graph. Set allow_unused=True if this is the desired behavior."
        )
    return None


def _batched_grad(
    outs: Any, wrt: Any, gs: Any, retain: Any, create: bool, unused: Any
) -> tuple[Any, ...]:
    from gpunn.ops.join import stack

    count = gs[0].shape[0]
    rows = [
        grad(
            outs, wrt, [g[i] for g in gs], True if i < count - 1 else retain, create,
            allow_unused=unused,
        )  # fmt: skip
        for i in range(count)
    ]
    return tuple(None if c[0] is None else stack(c) for c in zip(*rows, strict=True))
