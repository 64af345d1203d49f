"""Copies to and sums over several devices: CUDA devices, and the CPU's `cpu:0`, `cpu:1`, ...

Between two GPUs arrays go directly where the GPUs can reach each other's memory. All of it is
recorded for gradients where it does not say otherwise.
Source: https://docs.pytorch.org/docs/stable/cuda.html#communication-collectives
"""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from gpunn import autograd, cuda
from gpunn.autograd.graph import NodeOfSeveral, Output, mode, vertex, vjp
from gpunn.device import CPU, Device, resolve, transfer_all
from gpunn.ops.convert import to_device
from gpunn.ops.join import cat
from gpunn.ops.split import split_with_sizes
from gpunn.tensor import Tensor, normal_dim, wrap

__all__ = [
    "broadcast", "broadcast_coalesced", "gather", "reduce_add", "reduce_add_coalesced", "scatter",
]  # fmt: skip


def as_device(device: Any) -> Device:
    """The device of an int (a CUDA device; -1: the CPU), a name, a Device, None (the default).

    >>> nn.parallel.comm.as_device("cpu:0"), nn.parallel.comm.as_device(-1)
    (device(type='cpu'), device(type='cpu'))
    """
    if isinstance(device, int):
        device = Device("cuda", device) if device >= 0 else CPU
    return resolve(device)


def even_sizes(rows: int, parts: int) -> list[int]:
    """`rows` in `parts` sizes that differ by at most one, the larger ones first.

    >>> nn.parallel.comm.even_sizes(5, 3)
    [2, 2, 1]
    """
    return [rows // parts + (i < rows % parts) for i in range(parts)]


# --- broadcast ----------------------------------------------------------------------------


@vjp((None, None), name="BroadcastBackward")
def _broadcast_vjp(gs: list[Any], source: Device, target: Device) -> Any:
    if source is target:
        return tuple(gs)
    found = [to_device(g, source) if isinstance(g, Tensor) else g for g in gs]
    raw = [i for i, g in enumerate(found) if g is not None and not isinstance(g, Tensor)]
    for i, moved in zip(raw, transfer_all([gs[i] for i in raw], target, source), strict=True):
        found[i] = moved
    return tuple(found)


def copies(tensors: Sequence[Tensor], device: Device, share: bool = False) -> list[Tensor]:
    """Copies of tensors of one device on another; with `share`, on theirs, of the same memory.

    One recorded operation, whose gradients come back together. As in PyTorch the results are no
    leaves where the tensors require gradients.
    """
    if not tensors:
        return []
    source, arrays = tensors[0].device, [t.array for t in tensors]
    made = arrays if share else transfer_all(arrays, source, device)
    outs = [wrap(array, device) for array in made]
    if mode.grad and any(t._requires_grad for t in tensors):
        parents = tuple(map(vertex, tensors))
        node = NodeOfSeveral(_broadcast_vjp, parents, (source, device), device)
        node.outputs = len(outs)
        for i, (out, parent) in enumerate(zip(outs, parents, strict=True)):
            if parent is not None:
                out._requires_grad, out.node = True, Output(node, i)
    return outs


def broadcast(
    tensor: Tensor, devices: Iterable[Any] | None = None, *, out: Sequence[Tensor] | None = None
) -> tuple[Tensor, ...]:
    """Copies of a tensor on several devices, the tensor itself for its own; or into `out`.

    RuntimeError unless exactly one of `devices` and `out` is given, and for an `out` of another
    shape.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.comm.broadcast.html

    >>> [str(x.device) for x in nn.parallel.comm.broadcast(gpunn.ones(2), ["cpu:0", "cpu:1"])]
    ['cpu', 'cpu:1']
    """
    if (devices is None) == (out is None):
        raise RuntimeError(
            f"Exactly one of 'devices' and 'out' must be specified, but got devices={devices} and "
            f"out={out}"
        )
    if devices is not None:
        return tuple(to_device(tensor, as_device(d)) for d in devices)
    assert out is not None
    for i, o in enumerate(out):
        if o.shape != tensor.shape:
            raise RuntimeError(
                f"Expected all output tensors to have the shape of the source tensor "
                f"{list(tensor.shape)}, but output tensor at index {i} has {list(o.shape)}"
            )
    with autograd.no_grad():
        for o in out:
            o.copy_(tensor)
    return tuple(out)


def broadcast_coalesced(
    tensors: Iterable[Tensor], devices: Iterable[Any], buffer_size: int = 10485760
) -> list[list[Tensor]]:
    """Copies of several tensors of one device on several devices: a list for each.

    The first of the devices that is the tensors' own gets the tensors themselves, a second time
    it is named it gets copies. Between two GPUs all tensors are copied as they are under one wait,
    so `buffer_size`, the size of PyTorch's buffers, has no use. RuntimeError for tensors that do
    not lie on one device.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.comm.broadcast_coalesced.html

    >>> pairs = [gpunn.ones(2), gpunn.zeros(3)]
    >>> there = nn.parallel.comm.broadcast_coalesced(pairs, ["cpu:0", "cpu:1"])[1]
    >>> [(x.tolist(), str(x.device)) for x in there]
    [([1.0, 1.0], 'cpu:1'), ([0.0, 0.0, 0.0], 'cpu:1')]
    """
    found = list(tensors)
    for i, t in enumerate(found):
        if t.device is not found[0].device:
            raise RuntimeError(
                f"all tensors must be on devices[0]: tensor 0 is on {found[0].device}, tensor {i} "
                f"on {t.device}"
            )
    made: list[list[Tensor]] = []
    own_met = False
    for device in map(as_device, devices):
        own = bool(found) and device is found[0].device and not own_met
        own_met = own_met or own
        made.append(list(found) if own else copies(found, device))
    return made


# --- sums ---------------------------------------------------------------------------------


def _root(inputs: Sequence[Tensor], destination: Any) -> int:
    """Which of the inputs lies on `destination`, by default the current GPU or the first's CPU."""
    if destination is None:
        first = inputs[0].device
        device = resolve("cuda") if first.type == "cuda" else first
    else:
        device = as_device(destination)
    for i, t in enumerate(inputs):
        if t.device is device:
            return i
    raise RuntimeError(
        "reduce_add expects destination to be on the same GPU with one of the tensors: "
        f"destination is {device}, the tensors are on {', '.join(str(t.device) for t in inputs)}"
    )


def reduce_add(inputs: Iterable[Tensor], destination: Any = None) -> Tensor:
    """The sum of tensors of several devices on one of these devices.

    The destination's own is taken first, then the others in order: the result is the same each
    time. ValueError for shapes that differ, RuntimeError for a destination that none is on.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.comm.reduce_add.html

    >>> nn.parallel.comm.reduce_add([gpunn.ones(2), gpunn.ones(2, device="cpu:1")], "cpu:1")
    tensor([2., 2.], device='cpu:1')
    """
    found = list(inputs)
    root = _root(found, destination)
    for i, t in enumerate(found):
        if t.shape != found[0].shape:
            got, expected = ("x".join(map(str, s.shape)) for s in (t, found[0]))
            raise ValueError(f"input {i} has invalid size: got {got}, but expected {expected}")
    total = found[root]
    for i, t in enumerate(found):
        if i != root:
            total = total + to_device(t, total.device)
    return total


def reduce_add_coalesced(
    inputs: Iterable[Iterable[Tensor]], destination: Any = None, buffer_size: int = 10485760
) -> tuple[Tensor, ...]:
    """The sums of the first, the second, ... tensors of each device, on one of the devices.

    Not recorded for gradients. `buffer_size` has no use, as in `broadcast_coalesced`. ValueError
    for shapes, or numbers of tensors, that differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.comm.reduce_add_coalesced.html

    >>> one, other = [gpunn.ones(2)], [gpunn.ones(2, device="cpu:1")]
    >>> nn.parallel.comm.reduce_add_coalesced([one, other])
    (tensor([2., 2.]),)
    """
    lists = [list(tensors) for tensors in inputs]
    if not lists or not lists[0]:
        return ()
    with autograd.no_grad():
        firsts = [tensors[0] for tensors in lists]
        root = _root(firsts, destination)
        there = firsts[root].device
        moved = [ts if i == root else copies(ts, there) for i, ts in enumerate(lists)]
        order = [moved[root], *(ts for i, ts in enumerate(moved) if i != root)]
        return tuple(reduce_add(column, there) for column in zip(*order, strict=True))


# --- scatter and gather -------------------------------------------------------------------


def scatter(
    tensor: Tensor, devices: Iterable[Any] | None = None, chunk_sizes: Sequence[int] | None = None,
    dim: int = 0, streams: Sequence[Any] | None = None, *, out: Sequence[Tensor] | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Parts of a tensor along `dim`, one on each device; or into `out`, whose sizes tell theirs.

    Without `chunk_sizes` the sizes differ by at most one (PyTorch leaves the last devices short),
    and there are no more parts than rows. `streams` are those of the copies. A part on the tensor's
    own device is a view. RuntimeError for sizes that do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.comm.scatter.html

    >>> nn.parallel.comm.scatter(gpunn.arange(3), ["cpu:0", "cpu:1"])
    (tensor([0, 1]), tensor([2], device='cpu:1'))
    """
    if (devices is None) == (out is None) or (out is not None and chunk_sizes is not None):
        given = "devices" if chunk_sizes is None else "chunk_sizes"
        value = devices if chunk_sizes is None else chunk_sizes
        raise RuntimeError(
            f"'{given}' must not be specified when 'out' is specified, but got {given}={value}"
            if out is not None else "scatter: one of 'devices' and 'out' must be specified"
        )
    if out is not None:
        sizes = [o.size(dim) for o in out]
        with autograd.no_grad():
            for o, part in zip(out, split_with_sizes(tensor, sizes, dim), strict=True):
                o.copy_(part)
        return tuple(out)
    assert devices is not None
    places = [as_device(d) for d in devices]
    if chunk_sizes is None:
        rows = tensor.size(dim)
        chunk_sizes = even_sizes(rows, max(1, min(rows, len(places))))
    elif len(chunk_sizes) != len(places):
        raise RuntimeError(
            f"Expected devices and chunk_sizes to be of same length, but got len(devices) = "
            f"{len(places)} and len(chunk_sizes) = {len(chunk_sizes)}"
        )
    parts = split_with_sizes(tensor, chunk_sizes, dim) if len(chunk_sizes) > 1 else (tensor,)
    made = []
    for i, part in enumerate(parts):
        with cuda.stream(streams[i] if streams is not None else None):
            made.append(to_device(part, places[i]))
    return tuple(made)


def gather(
    tensors: Iterable[Tensor], dim: int = 0, destination: Any = None, *, out: Tensor | None = None
) -> Tensor:
    """Tensors of several devices, one after the other along `dim`, on one device; or in `out`.

    The destination is the current GPU by default, or the first tensor's device where that is the
    CPU. RuntimeError for no tensors, shapes that differ off `dim`, and a destination beside `out`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.comm.gather.html

    >>> nn.parallel.comm.gather([gpunn.ones(1), gpunn.zeros(2, device="cpu:1")])
    tensor([1., 0., 0.])
    """
    found = list(tensors)
    if not found:
        raise RuntimeError("Expected at least one tensor to gather from")
    if out is not None and destination is not None:
        raise RuntimeError(
            "'destination' must not be specified when 'out' is specified, but got "
            f"destination={destination}"
        )
    if isinstance(destination, int) and destination == -1:
        warnings.warn(
            "Using -1 to represent CPU tensor is deprecated. Please use a device object or string "
            'instead, e.g., "cpu".', FutureWarning, stacklevel=2,
        )  # fmt: skip
    if out is not None:
        place = out.device
    elif destination is None:
        place = resolve("cuda") if found[0].is_cuda else found[0].device
    else:
        place = as_device(destination)
    _check_shapes(found, dim)
    moved = [to_device(t, place) for t in found]
    return cat(moved, dim) if out is None else cat(moved, dim, out=out)


def _check_shapes(tensors: list[Tensor], dim: int) -> None:
    first = tensors[0].shape
    d = normal_dim(dim, len(first))
    for i, t in enumerate(tensors):
        expected = (*first[:d], *t.shape[d : d + 1], *first[d + 1 :])
        if t.shape != expected:
            raise RuntimeError(
                f"Input tensor at index {i} has invalid shape {list(t.shape)}, but expected "
                f"{list(first)}, which may differ along dimension {d} only"
            )
