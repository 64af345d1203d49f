"""The graph: nodes, how operations record them, and in-place changes.

An operation computes a raw array and calls `result`, which records a `Node` when a parent
requires a gradient. A node holds its VJP (vector-Jacobian product), the graph vertices of its
parents, and the arrays that the VJP reads. Vertices are Nodes, `Output`s of nodes with several
results, and leaf tensors themselves.

Nodes are numbered in the order of recording, so a node's parents always have lower numbers:
the backward walk takes vertices from a heap, highest number first, and needs no other sorting.
The same numbers date in-place changes: an array that was changed after the node that saved it
was recorded is an error.
"""

from __future__ import annotations

import itertools
import re
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from gpunn.device import Device
from gpunn.tensor import ARRAY_TYPES, Tensor, extra, root

_new = object.__new__
_clock = itertools.count(1).__next__


class _Mode(threading.local):
    grad = True
    inference = False
    partial = False  # a walk is under way that serves grad(), not all leaves
    at_end: list[Callable[[], Any]] | None = None  # called when the walk under way is done


class _Anomaly:
    on = False


mode = _Mode()
anomaly = _Anomaly()


def _stack() -> list[str]:
    """The lines of code that lead to a recording, without ours."""
    return traceback.format_stack(sys._getframe(3))


class Node:
    """One recorded operation. Attributes for users: `name()`, `next_functions`, hooks."""

    __slots__ = ("seq", "vjp", "parents", "saved", "device", "hooks", "__weakref__")
    outputs = 1

    def __init__(self, vjp: Any, parents: tuple[Any, ...], saved: tuple[Any, ...], device: Device):
        self.seq = _clock()
        self.vjp = vjp
        self.parents = parents
        self.saved = saved
        self.device = device
        self.hooks: dict[str, Any] | None = {"trace": _stack()} if anomaly.on else None

    def name(self) -> str:
        """PyTorch's name of the operation: "AddBackward0"."""
        return vjp_name(self.vjp)

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The parents' nodes, each with the index of its output; AccumulateGrad for leaves."""
        return tuple(
            (p.node, p.index) if type(p) is Output
            else (AccumulateGrad(p), 0) if isinstance(p, Tensor) else (p, 0)
            for p in self.parents
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


class NodeOfSeveral(Node):
    """A recorded operation with several outputs."""

    __slots__ = ("outputs",)


class Output:
    """Output `index` of a node that has several: a vertex of the graph."""

    __slots__ = ("node", "index")

    def __init__(self, node: Node, index: int):
        self.node = node
        self.index = index


class AccumulateGrad:
    """How a leaf appears in `next_functions`; `variable` is the leaf."""

    next_functions = ()

    def __init__(self, variable: Tensor):
        self.variable = variable

    def __eq__(self, other: object) -> bool:
        return type(other) is AccumulateGrad and other.variable is self.variable

    def __hash__(self) -> int:
        return hash((AccumulateGrad, id(self.variable)))

    def name(self) -> str:
        return "AccumulateGrad"


def vjp(
    saves: Sequence[int | None] = (),
    *,
    composed: Callable[..., Any] | None = None,
    masked: bool = False,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Declares what a VJP reads, so that it can be differentiated itself.

    `saves[k]` says what saved[k] is: i >= 0 the array of parent i, -1 - j the array of output
    j, None a constant. `composed(*saved)` is the operation in plain differentiable
    operations, for a VJP that cannot be called with Tensors. A `masked` VJP gets the keyword
    `needs`, one bool per parent. `name` is PyTorch's name where the function's own does not
    give it.
    """

    def declare(function: Callable[..., Any]) -> Any:
        function.saves = tuple(saves)  # type: ignore[attr-defined]
        if composed is not None:
            function.composed = composed  # type: ignore[attr-defined]
        if masked:
            function.masked = True  # type: ignore[attr-defined]
        if name is not None:
            function.node_name = name  # type: ignore[attr-defined]
        return function

    return declare


def vjp_name(function: Any) -> str:
    """`_log_softmax_vjp` is named LogSoftmaxBackward0."""
    name = getattr(function, "node_name", None)
    if name is None:
        stem = re.sub(r"^_|_vjp$", "", function.__name__)
        name = "".join(part[:1].upper() + part[1:] for part in stem.split("_")) + "Backward0"
    return name


def vertex(tensor: Tensor | None) -> Any:
    """The tensor's place in the graph: its node, itself for a leaf, None without gradient."""
    if tensor is None or not tensor._requires_grad:
        return None
    return tensor.node or tensor


def needs(tensor: Any) -> bool:
    """Whether an operation on this tensor is being recorded for its gradient."""
    return isinstance(tensor, Tensor) and tensor._requires_grad and mode.grad


def result(
    array: Any,
    like: Tensor,
    vjp: Callable[..., Any] | None = None,
    parents: tuple[Any, ...] = (),
    saved: tuple[Any, ...] = (),
) -> Tensor:
    """Wraps a raw array on `like`'s device; records a Node when a parent needs a gradient."""
    device = like.device
    out = _new(Tensor)
    out.array = array if type(array) in ARRAY_TYPES else device.xp.asarray(array)
    out.device = device
    out._grad = out._base = out._extra = None
    for p in parents:
        if p is not None and p._requires_grad and mode.grad:
            places = tuple(
                [None if p is None or not p._requires_grad else p.node or p for p in parents]
            )
            out._requires_grad = True
            out.node = Node(vjp, places, saved, device)
            return out
    out._requires_grad = False
    out.node = None
    return out


def results(
    arrays: Sequence[Any],
    like: Tensor,
    vjp: Callable[..., Any],
    parents: tuple[Any, ...],
    saved: tuple[Any, ...] = (),
    differentiable: int | None = None,
) -> list[Tensor]:
    """`result` for several arrays: `vjp(gs, *saved)` gets a tuple of gradients, None where none
    arrived. Only the first `differentiable` outputs (all, without it) belong to the graph."""
    outs = [result(a, like) for a in arrays]
    if mode.grad and any(p is not None and p._requires_grad for p in parents):
        node = NodeOfSeveral(vjp, tuple(map(vertex, parents)), saved, like.device)
        node.outputs = len(outs) if differentiable is None else differentiable
        for i, out in enumerate(outs[: node.outputs]):
            out._requires_grad = True
            out.node = Output(node, i)
    return outs


def view(array: Any, x: Tensor, vjp: Callable[..., Any], saved: tuple[Any, ...] = ()) -> Tensor:
    """`result` for a view of x's memory: later in-place changes of either reach the other."""
    out = _new(Tensor)
    out.array = array
    out.device = x.device
    out._grad = out._extra = None
    if x._requires_grad and mode.grad:
        out._requires_grad = True
        out.node = Node(vjp, (x.node or x,), saved, x.device)
    else:
        out._requires_grad = False
        out.node = None
    base = x._base
    if base is None:
        base = x
    out._base = base
    track_view(base, out)
    return out


def views(
    arrays: Sequence[Any], x: Tensor, vjp: Callable[..., Any], saved: tuple[Any, ...] = ()
) -> tuple[Tensor, ...]:
    """The views that one operation returns: `vjp(gs, *saved)` gets a list of gradients, with None
    where none arrived."""
    base = x if x._base is None else x._base
    outs = results(arrays, x, vjp, (x,), saved)
    for out in outs:
        out._base = base
        track_view(base, out)
    return tuple(outs)


def track_view(base: Tensor, out: Tensor) -> None:
    """Remembers a live view of `base`; forgets the dead ones now and then."""
    known = (base._extra or extra(base)).views
    count = len(known)
    if count >= 16 and count & (count - 1) == 0:
        # another thread may be adding one: what is behind these stays
        known[:count] = [r for r in known[:count] if r() is not None]
    known.append(weakref.ref(out))


def namespace(x: Any) -> Any:
    """The functions for x: numpy or cupy for an array, gpunn for a Tensor."""
    if isinstance(x, Tensor):
        return sys.modules["gpunn"]
    name = type(x).__module__.partition(".")[0]
    return sys.modules["numpy" if name == "ml_dtypes" else name]  # a 0-dim result in bfloat16


@vjp((None,), name="ExpandBackward0")
def broadcast_vjp(g: Any, shape: tuple[int, ...]) -> Any:
    """The gradient of broadcasting from `shape`: the sum over what was repeated."""
    return unbroadcast(g, shape)


def unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """g, of a shape that `shape` broadcasts to, summed back to `shape`."""
    if tuple(g.shape) == tuple(shape):
        return g
    extra_dims = g.ndim - len(shape)
    axes = tuple(range(extra_dims)) + tuple(
        i + extra_dims for i, n in enumerate(shape) if n == 1 and g.shape[i + extra_dims] != 1
    )
    if axes and not isinstance(g, Tensor) and g.dtype.itemsize == 2:  # 16 bits: rounded once
        g = g.astype("float32").sum(axis=axes, keepdims=True).astype(g.dtype)
    elif axes:
        g = g.sum(axis=axes, keepdims=True)
    return g.reshape(tuple(shape))


# --- in-place changes ---------------------------------------------------------------------


class _Stamp(weakref.ref):
    """When, and how often, the memory of an array was changed in place."""

    __slots__ = ("key", "time", "count")
    key: int
    time: int
    count: int


_stamps: dict[int, _Stamp] = {}


def _drop_stamp(stamp: _Stamp) -> None:
    _stamps.pop(stamp.key, None)


def touch(tensor: Tensor) -> None:
    """Notes that the tensor's memory was changed in place."""
    owner = root(tensor.array)
    stamp = _stamps.get(id(owner))
    if stamp is None:
        stamp = _Stamp(owner, _drop_stamp)
        stamp.key, stamp.count = id(owner), 0
        _stamps[id(owner)] = stamp
    stamp.time = _clock()
    stamp.count += 1


def version(tensor: Tensor) -> int:
    """How often the tensor's memory was changed in place."""
    stamp = _stamps.get(id(root(tensor.array)))
    return 0 if stamp is None else stamp.count


Tensor._version = property(version)  # type: ignore[attr-defined]


def check_saved(node: Node) -> None:
    for array in node.saved:
        if type(array) in ARRAY_TYPES:
            stamp = _stamps.get(id(root(array)))
            if stamp is not None and stamp.time > node.seq:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an "
                    f"inplace operation: [{array.dtype} {list(array.shape)}], saved by "
                    f"{node.name()}, was changed {stamp.count} times, the last time after it was "
                    "saved. Hint: use the out-of-place form there, or clone() before changing it. "
                    "gpunn.autograd.set_detect_anomaly(True) names the line of the operation."
                    + recorded_at(node)
                )


def recorded_at(node: Node) -> str:
    """Where the node was recorded, for an error; empty without anomaly detection."""
    trace = (node.hooks or {}).get("trace")
    return "\nRecorded at:\n" + "".join(trace) if trace else ""


def check_inplace(target: Tensor, part: bool = False) -> None:
    """Raises for an in-place change of a tensor (or of a part of it, `x[0] = 1`) that autograd
    cannot follow, in PyTorch's words."""
    if not mode.grad:
        return
    base = target._base
    if base is None:
        base = target
        if target._requires_grad and target.node is None:
            raise _leaf_error("a view of a leaf Variable" if part else "a leaf Variable")
    elif base._requires_grad or target._requires_grad:
        _check_view(target, base)
    if base._extra is not None and base._extra.face_of is not None:
        raise RuntimeError(
            f"Output of {base._extra.face_of} is a view and is being modified inplace. It is an "
            "input that a custom Function returned as it was, so the change would bypass the "
            "Function's backward. Use the out-of-place form, or clone() first."
        )


def _check_view(target: Tensor, base: Tensor) -> None:
    if target.array.dtype.kind in "biu":  # another reading of the bytes: has no gradient
        return
    if base.node is None:
        raise _leaf_error("a view of a leaf Variable")
    if not target._requires_grad:
        raise RuntimeError(
            "A view was created in no_grad mode and is being modified inplace with grad mode "
            "enabled, so its base would have no gradient for the change. Make the view and change "
            "it both inside of gpunn.no_grad(), or both outside of it."
        )
    if type(target.node) is Output:
        raise RuntimeError(
            f"Output {target.node.index} of {target.node.node.name()[:-9]} is a view and is being "
            "modified inplace. This view is the output of a function that returns multiple views. "
            "Such functions do not allow the output views to be modified inplace. You should "
            "replace the inplace operation by an out-of-place one."
        )


def _leaf_error(what: str) -> RuntimeError:
    return RuntimeError(
        f"{what} that requires grad is being used in an in-place operation. "
        "Use gpunn.no_grad() around it, or the out-of-place form."
    )


def adopt(target: Tensor, value: Tensor) -> None:
    """Gives `target`, whose memory was just changed in place, the history of `value`."""
    touch(target)
    if not mode.grad or not (target._requires_grad or value._requires_grad):
        return
    base = target._base
    if base is None:
        target.node, target._requires_grad = value.node, value._requires_grad
        base = target
    else:
        base = sys.modules["gpunn.ops.strided"].view_write(base, target, value)
    if base._extra is not None and base._extra.views:
        sys.modules["gpunn.ops.strided"].rejoin_views(base)


