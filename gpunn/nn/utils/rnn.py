"""Batches of sequences of several lengths: padded to one length, or packed without padding.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.PackedSequence.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.device import CPU
from gpunn.tensor import Tensor, wrap


class PackedSequence_(NamedTuple):  # noqa: N801  (PyTorch's name)
    """The fields of a PackedSequence.

    >>> nn.utils.rnn.PackedSequence_(1, 2, None, None)
    PackedSequence_(data=1, batch_sizes=2, sorted_indices=None, unsorted_indices=None)
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


def bind(optional: Any, fn: Callable[[Any], Any]) -> Any:
    """fn(optional); None for None.

    >>> nn.utils.rnn.bind(None, len), nn.utils.rnn.bind("abc", len)
    (None, 3)
    """
    return None if optional is None else fn(optional)


class PackedSequence(PackedSequence_):
    """Sequences packed step by step: all first elements, all second ones, and so on.

    Fields: data (sum of the lengths, ...), of any dtype; batch_sizes (longest length), int64 on
    the CPU: the number of sequences that have each step; sorted_indices and unsorted_indices
    (batch), or None: the order of the sequences by falling length, and back. Recurrent layers
    take it and give it. Made by `pack_padded_sequence` and `pack_sequence`.
    ValueError for batch_sizes on another device.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.PackedSequence.html

    >>> packed = nn.utils.rnn.pack_sequence([gpunn.tensor([1, 2, 3]), gpunn.tensor([4])])
    >>> packed.data, packed.batch_sizes
    (tensor([1, 4, 2, 3]), tensor([2, 1, 1]))
    """

    def __new__(
        cls, data: Any, batch_sizes: Tensor | None = None, sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:  # fmt: skip
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        if batch_sizes is None:
            if not (isinstance(data, (list, tuple)) and len(data) == 2):
                raise AssertionError("Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        elif batch_sizes.device.type != "cpu":
            raise ValueError(
                "batch_sizes should always be on CPU, not on "
                f"{batch_sizes.device}: make a PackedSequence with pack_sequence or "
                "pack_padded_sequence"
            )
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with data of another dtype or on another device: `Tensor.to`'s arguments."""
        data = self.data.to(*args, **kwargs)  # type: ignore[attr-defined]
        if data is self.data:
            return self
        return self._with(data, lambda t: t.to(data.device))

    def _with(self, data: Tensor, move: Any) -> PackedSequence:
        indices = (self.sorted_indices, self.unsorted_indices)
        return type(self)(data, self.batch_sizes, *(bind(t, move) for t in indices))

    def _at(self, kind: str, args: Any, kwargs: Any) -> PackedSequence:
        """`to` with the arguments where they name such a device, else on the current one."""
        named = (args or kwargs) and self.data[:0].to(*args, **kwargs).device.type == kind
        return self.to(*args, **(kwargs if named else {**kwargs, "device": kind}))

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """On the GPU: the current one, or the one given; `to`'s other arguments too."""
        return self._at("cuda", args, kwargs)

    def cpu(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """On the CPU; `to`'s other arguments too."""
        return self._at("cpu", args, kwargs)

    def pin_memory(self) -> PackedSequence:
        """In page-locked memory."""
        return self._with(self.data.pin_memory(), lambda t: t.pin_memory())  # type: ignore[attr-defined]

    def double(self) -> PackedSequence:
        return self.to(dtype=dtypes.float64)

    def float(self) -> PackedSequence:
        return self.to(dtype=dtypes.float32)

    def half(self) -> PackedSequence:
        return self.to(dtype=dtypes.float16)

    def long(self) -> PackedSequence:
        return self.to(dtype=dtypes.int64)

    def int(self) -> PackedSequence:
        return self.to(dtype=dtypes.int32)

    def short(self) -> PackedSequence:
        return self.to(dtype=dtypes.int16)

    def char(self) -> PackedSequence:
        return self.to(dtype=dtypes.int8)

    def byte(self) -> PackedSequence:
        return self.to(dtype=dtypes.uint8)

    @property
    def is_cuda(self) -> bool:
        """Whether the data are on a GPU."""
        return self.data.is_cuda  # type: ignore[attr-defined, no-any-return]

    def is_pinned(self) -> bool:
        """Whether the data are in page-locked memory."""
        return self.data.is_pinned()  # type: ignore[attr-defined, no-any-return]


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another; None for None.

    Shapes: (n), integers: (n).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.invert_permutation.html

    >>> nn.utils.rnn.invert_permutation(gpunn.tensor([2, 0, 1]))
    tensor([1, 2, 0])
    """
    if permutation is None:
        return None
    p = permutation.array
    inverse = ns(p).empty_like(p)
    inverse[p] = ns(p).arange(p.size, dtype=p.dtype)
    return wrap(inverse, permutation.device)


# --- packing ------------------------------------------------------------------------------


def _places(sizes: Any) -> tuple[Any, Any]:
    """The step and the sequence of each packed row."""
    sizes = np.asarray(sizes)
    steps = np.repeat(np.arange(len(sizes)), sizes)
    return steps, np.arange(len(steps)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


@vjp((None, None), name="PackPaddedSequenceBackward0")
def _pack_vjp(g: Any, places: Any, shape: Any) -> Any:
    if isinstance(g, Tensor):
        return _spread(g, places, shape)
    out = ns(g).zeros(shape, g.dtype)
    out[places] = g
    return out


@vjp((None,), name="PadPackedSequenceBackward0")
def _spread_vjp(g: Any, places: Any) -> Any:
    return _gather(g, places) if isinstance(g, Tensor) else g[places]


def _gather(x: Tensor, places: Any) -> Tensor:
    """The elements of x (steps, batch, ...) at places, packed."""
    return result(x.array[places], x, _pack_vjp, (x,), (places, x.array.shape))


def _spread(data: Tensor, places: Any, shape: Any, value: Any = 0) -> Tensor:
    """Packed data at their places in an array that is `value` elsewhere."""
    out = data.device.xp.full(shape, value, data.array.dtype)
    out[places] = data.array
    return result(out, data, _spread_vjp, (data,), (places,))


def _on(device: Any, places: Any) -> Any:
    """Places as index arrays of a device."""
    return tuple(device.xp.asarray(p) for p in places)


def _checked(shape: Any, lengths: Tensor, batch_first: bool) -> Any:
    """The lengths as an array, after the checks."""
    if lengths.ndim != 1 or lengths.device.type != "cpu":
        raise RuntimeError(
            f"'lengths' argument should be a 1D CPU int64 tensor, but got {lengths.ndim}D "
            f"{lengths.device} Long tensor"
        )
    if 0 in shape:
        raise RuntimeError(f"Cannot pack empty tensors. Got input of shape {list(shape)}")
    if len(shape) < 2:
        raise IndexError(
            "Dimension out of range (expected to be in range of [-1, 0], but got 1): "
            f"pack_padded_sequence needs steps and a batch, got shape {list(shape)}"
        )
    found, batch = lengths.array, shape[0 if batch_first else 1]
    if len(found) != batch:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(found)} "
            f"(batch_size={batch})"
        )
    if (found[1:] > found[:-1]).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. "
            "You can pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence; got "
            f"{found.tolist()}"
        )
    if found[-1] <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' "
            f"that is <= 0: {found.tolist()}"
        )
    return found


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs padded sequences.

    Shapes: input (T, B, ...), or (B, T, ...) with batch_first; lengths (B), a list or a tensor on
    the CPU. They must fall with `enforce_sorted`; without it the sequences are sorted first.
    RuntimeError for an empty input, lengths that are not positive or do not fall, or another
    number of them.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pack_padded_sequence.html

    >>> x = gpunn.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6]])
    >>> nn.utils.rnn.pack_padded_sequence(x, [2, 1, 3], True, enforce_sorted=False).data
    tensor([4, 1, 3, 5, 2, 6])
    """
    if isinstance(lengths, Tensor):
        lengths = lengths.to(dtype=dtypes.int64)  # type: ignore[attr-defined]
    else:
        lengths = wrap(np.asarray(lengths, np.int64), CPU)
    order = None
    if not enforce_sorted:
        lengths, order = lengths.sort(descending=True)
        order = order.to(input.device)
        input = input.index_select(0 if batch_first else 1, order)  # type: ignore[attr-defined]
    found = _checked(input.array.shape, lengths, batch_first)
    x = input.transpose(0, 1) if batch_first else input
    sizes = (found > np.arange(found[0])[:, None]).sum(1)
    places = _on(x.device, _places(sizes[: x.shape[0]]))
    return PackedSequence(_gather(x, places), wrap(sizes, CPU), order, None)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(padded sequences, their lengths) of packed ones, in their order before packing.

    Shapes: (T, B, ...), or (B, T, ...) with batch_first, where T is the longest length or
    total_length; lengths (B), int64 on the CPU. ValueError for a total_length below the longest.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pad_packed_sequence.html

    >>> packed = nn.utils.rnn.pack_sequence([gpunn.tensor([1, 2, 3]), gpunn.tensor([4])])
    >>> nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    (tensor([[1, 2, 3],
            [4, 0, 0]]), tensor([3, 1]))
    """
    data, batch_sizes, unsorted = sequence.data, sequence.batch_sizes, sequence.unsorted_indices
    sizes = batch_sizes.array
    steps = len(sizes)
    if total_length is not None:
        if total_length < steps:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in "
                f"input, but got total_length={total_length} and max sequence length being {steps}"
            )
        steps = total_length
    shape = (steps, int(sizes[0]), *data.array.shape[1:])
    padded = _spread(data, _on(data.device, _places(sizes)), shape, padding_value)
    lengths = wrap((sizes[:, None] > np.arange(sizes[0])).sum(0), CPU)
    if batch_first:
        padded = padded.transpose(0, 1)
    if unsorted is None:
        return padded, lengths
    lengths = lengths[unsorted.cpu()]  # type: ignore[attr-defined]
    return padded.index_select(0 if batch_first else 1, unsorted), lengths  # type: ignore[attr-defined]


def pack_sequence(sequences: list[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs a list of sequences.

    Shapes: each (L, ...): see pack_padded_sequence, also for the errors.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pack_sequence.html

    >>> nn.utils.rnn.pack_sequence([gpunn.tensor([1, 2, 3]), gpunn.tensor([4, 5])])
    PackedSequence(data=tensor([1, 4, 2, 5, 3]), batch_sizes=tensor([2, 2, 1]), \
sorted_indices=None, unsorted_indices=None)
    """
    lengths = [len(s) for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


# --- padding ------------------------------------------------------------------------------


@vjp((None, None), name="PadSequenceBackward0")
def _pad_vjp(g: Any, spans: Any, batch_first: bool) -> Any:
    parts = [g[i, a:b] if batch_first else g[a:b, i] for i, (a, b) in enumerate(spans)]
    return tuple(parts) if len(parts) > 1 else parts[0]


def pad_sequence(
    sequences: Any, batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """Sequences as one tensor, the shorter ones padded.

    Shapes: each (L, ...): (T, B, ...), or (B, T, ...) with batch_first, where T is the longest
    length. padding_side "left" or "right". dtype: that of the first.
    RuntimeError for no sequences, another side, or other trailing sizes.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pad_sequence.html

    >>> nn.utils.rnn.pad_sequence([gpunn.tensor([1, 2, 3]), gpunn.tensor([4])], batch_first=True)
    tensor([[1, 2, 3],
            [4, 0, 0]])
    """
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            "pad_sequence: Expected iterable for input sequences, but got arg of type: "
            f"{type(sequences)}"
        )
    sequences = tuple(sequences)
    if not sequences:
        raise RuntimeError("pad_sequence: received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise RuntimeError(
            f"Expected padding_side to be one of left or right, but got {padding_side}."
        )
    other = next((i for i, s in enumerate(sequences) if not isinstance(s, Tensor)), None)
    if other is not None:
        kind = type(sequences[other]).__name__
        raise TypeError(
            f"expected Tensor as element {other} in argument 0, but got {kind} (pad_sequence)"
        )
    first = sequences[0]
    lengths, rest = [len(s) for s in sequences], first.array.shape[1:]
    for i, s in enumerate(sequences):
        if s.array.shape[1:] != rest:
            pairs = zip(rest, s.array.shape[1:], strict=False)
            k, a, b = next(((k, a, b) for k, (a, b) in enumerate(pairs) if a != b), (0, 0, 0))
            raise RuntimeError(
                f"The size of tensor a ({a}) must match the size of tensor b ({b}) at "
                f"non-singleton dimension {k + 1}: pad_sequence: sequence {i} is "
                f"{list(s.array.shape)}, sequence 0 is {list(first.array.shape)}"
            )
    steps = max(lengths)
    starts = [steps - n if padding_side == "left" else 0 for n in lengths]
    spans = [(a, a + n) for a, n in zip(starts, lengths, strict=True)]
    shape = (len(lengths), steps) if batch_first else (steps, len(lengths))
    out = first.device.xp.full((*shape, *rest), padding_value, first.array.dtype)
    for i, (s, (a, b)) in enumerate(zip(sequences, spans, strict=True)):
        (out[i] if batch_first else out[:, i])[a:b] = s.array
    return result(out, first, _pad_vjp, sequences, (spans, batch_first))


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """The sequences of a padded tensor, each of its length.

    Shapes: padded (T, B, ...), or (B, T, ...) with batch_first, lengths (B): B tensors (L, ...).
    ValueError for another number of lengths.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.unpad_sequence.html

    >>> x = gpunn.tensor([[1, 2, 3], [4, 0, 0]])
    >>> nn.utils.rnn.unpad_sequence(x, gpunn.tensor([3, 1]), batch_first=True)
    [tensor([1, 2, 3]), tensor([4])]
    """
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    counts = lengths.tolist()  # type: ignore[attr-defined]
    if len(counts) != x.shape[0]:
        raise ValueError(
            "unpad_sequence: zip() argument 2 is of another length than argument 1: "
            f"{len(counts)} lengths for {x.shape[0]} sequences"
        )
    return [x[i, : max(n, 0)] for i, n in enumerate(counts)]


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed batch, in their order before packing.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.unpack_sequence.html

    >>> a, b = gpunn.tensor([1, 2, 3]), gpunn.tensor([4])
    >>> nn.utils.rnn.unpack_sequence(nn.utils.rnn.pack_sequence([a, b]))
    [tensor([1, 2, 3]), tensor([4])]
    """
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
