"""Making a batch out of samples.

Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.default_collate
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

import gpunn
from gpunn.tensor import Tensor

__all__ = ["collate", "default_collate", "default_collate_fn_map", "default_convert"]

_NOT_NUMBERS = "SUOT"  # NumPy's kinds of text and objects
_UNKNOWN = (
    "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"
)


def default_collate(batch: Any) -> Any:
    """Samples as one batch: what was a tensor, array or number per sample is a stacked tensor.

    Tensors, NumPy arrays and numbers get a new first dimension (floats as float64, ints as
    int64); strings and bytes stay a list; mappings, named tuples and sequences are collated
    field by field (a plain tuple becomes a list). Raises TypeError for other types and
    RuntimeError for tensors or sequences of different sizes.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.default_collate

    >>> gpunn.utils.data.default_collate([{"x": 1.5, "name": "a"}, {"x": 2.5, "name": "b"}])
    {'x': tensor([1.5000, 2.5000], dtype=torch.float64), 'name': ['a', 'b']}
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)


def default_convert(data: Any) -> Any:
    """NumPy arrays and NumPy numbers inside `data` as tensors, all else as it is.

    What a DataLoader does to samples when it does not batch them. A plain tuple becomes a list.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.default_convert

    >>> gpunn.utils.data.default_convert({"x": np.zeros(2), "n": 3})
    {'x': tensor([0., 0.], dtype=torch.float64), 'n': 3}
    """
    if isinstance(data, (Tensor, str, bytes)):
        return data
    if isinstance(data, (np.ndarray, np.generic)):
        return data if data.dtype.kind in _NOT_NUMBERS else gpunn.as_tensor(data)
    return rebuild(data, default_convert, tuple_as=list)


def rebuild(data: Any, convert: Callable[[Any], Any], tuple_as: type | None = None) -> Any:
    """A container of `data`'s type with each element converted; what is no container, itself."""
    if isinstance(data, Mapping):
        return _like(data, {key: convert(data[key]) for key in data})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(convert, data))
    if isinstance(data, tuple):
        return (tuple_as or type(data))(map(convert, data))
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _like(data, [convert(value) for value in data])
    return data


def collate(batch: Any, *, collate_fn_map: dict[Any, Callable[..., Any]] | None = None) -> Any:
    """`default_collate` with another table from element type to collate function.

    Each function is called as `f(batch, collate_fn_map=...)`. The element's own type comes
    first, then the first entry that it is an instance of.

    >>> from gpunn.utils.data.collate import collate
    >>> collate([(1, "a"), (2, "b")], collate_fn_map={int: lambda batch, **_: sum(batch),
    ...                                               str: lambda batch, **_: "".join(batch)})
    [3, 'ab']
    """
    elem = batch[0]
    kind = type(elem)
    table = collate_fn_map or {}
    function = table.get(kind)
    if function is None:
        function = next((table[entry] for entry in table if isinstance(elem, entry)), None)
    if function is not None:
        return function(batch, collate_fn_map=collate_fn_map)
    if isinstance(elem, Mapping):
        columns = {key: [sample[key] for sample in batch] for key in elem}
        return _like(
            elem, {k: collate(v, collate_fn_map=collate_fn_map) for k, v in columns.items()}
        )
    if not isinstance(elem, Sequence):
        raise TypeError(_UNKNOWN.format(kind))
    named = isinstance(elem, tuple) and hasattr(elem, "_fields")
    if not named and any(len(sample) != len(elem) for sample in batch):
        sizes = sorted({len(sample) for sample in batch})
        raise RuntimeError(
            f"each element in list of batch should be of equal size, got sizes {sizes}"
        )
    fields = [
        collate(field, collate_fn_map=collate_fn_map) for field in zip(*batch, strict=False)
    ]
    if named:
        return kind(*fields)
    return fields if isinstance(elem, tuple) else _like(elem, fields)


def _like(container: Any, values: Any) -> Any:
    """`values`, a dict or list, in a container of the given one's type where that can be made."""
    try:
        if isinstance(container, MutableMapping):
            # A copy keeps what the type has besides its items, such as a default factory.
            mapping = copy.copy(container)
            mapping.update(values)
            return mapping
        if isinstance(container, MutableSequence):
            out = copy.copy(container)
            for i, value in enumerate(values):
                out[i] = value
            return out
        return type(container)(values)
    except TypeError:
        return values


def _collate_tensors(batch: Any, *, collate_fn_map: Any = None) -> Tensor:
    return gpunn.stack(list(batch), 0)


def _collate_arrays(batch: Any, *, collate_fn_map: Any = None) -> Any:
    if batch[0].dtype.kind in _NOT_NUMBERS:
        raise TypeError(_UNKNOWN.format(batch[0].dtype))
    tensors = [gpunn.as_tensor(array) for array in batch]
    return collate(tensors, collate_fn_map=collate_fn_map)


def _collate_numpy_numbers(batch: Any, *, collate_fn_map: Any = None) -> Tensor:
    return gpunn.as_tensor(np.asarray(batch))


def _collate_floats(batch: Any, *, collate_fn_map: Any = None) -> Tensor:
    return gpunn.tensor(batch, dtype=gpunn.float64)


def _collate_ints(batch: Any, *, collate_fn_map: Any = None) -> Tensor:
    return gpunn.tensor(batch)


def _collate_text(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return batch


default_collate_fn_map: dict[Any, Callable[..., Any]] = {
    Tensor: _collate_tensors,
    np.ndarray: _collate_arrays,
    (np.bool_, np.number, np.object_): _collate_numpy_numbers,
    float: _collate_floats,
    int: _collate_ints,
    str: _collate_text,
    bytes: _collate_text,
}
