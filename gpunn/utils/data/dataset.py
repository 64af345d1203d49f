"""Datasets: things to index or to iterate that yield training samples.

Source: https://docs.pytorch.org/docs/stable/data.html
"""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

import gpunn
from gpunn.random import default_generator
from gpunn.tensor import Tensor, wrap

__all__ = [
    "Dataset", "IterableDataset", "TensorDataset", "StackDataset", "ConcatDataset",
    "ChainDataset", "Subset", "random_split",
]  # fmt: skip

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """A map from keys (usually 0 .. len - 1) to samples: subclasses write `__getitem__`.

    `__len__` is needed by the default samplers. `__getitems__(indices)`, where a subclass has
    it, returns the list of samples of a whole batch. `a + b` is a `ConcatDataset`.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.Dataset

    >>> class Squares(gpunn.utils.data.Dataset):
    ...     def __len__(self):
    ...         return 4
    ...     def __getitem__(self, index):
    ...         return index**2
    >>> list(gpunn.utils.data.DataLoader(Squares(), batch_size=2))
    [tensor([0, 1]), tensor([4, 9])]
    """

    def __getitem__(self, index: Any) -> T_co:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset[T_co]) -> ConcatDataset[T_co]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co], Iterable[T_co]):
    """A stream of samples: subclasses write `__iter__`.

    In a DataLoader with workers, each worker iterates its own copy, so `__iter__` divides the
    work by `get_worker_info()`, or every sample arrives once per worker.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.IterableDataset

    >>> class Count(gpunn.utils.data.IterableDataset):
    ...     def __iter__(self):
    ...         info = gpunn.utils.data.get_worker_info()
    ...         return iter(range(4) if info is None else range(info.id, 4, info.num_workers))
    >>> list(gpunn.utils.data.DataLoader(Count(), batch_size=2))
    [tensor([0, 1]), tensor([2, 3])]
    """

    def __add__(self, other: Dataset[T_co]) -> ChainDataset:  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors of one length: sample i is the tuple of their rows i.

    Raises AssertionError where the lengths differ. A DataLoader with the default collate
    function takes each batch from the tensors in one step.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.TensorDataset

    >>> data = gpunn.utils.data.TensorDataset(gpunn.arange(3), gpunn.ones(3, 2))
    >>> data[1]
    (tensor(1), tensor([1., 1.]))
    """

    def __init__(self, *tensors: Tensor) -> None:
        if any(tensors[0].size(0) != tensor.size(0) for tensor in tensors):
            raise AssertionError(
                f"Size mismatch between tensors: their lengths are {[len(t) for t in tensors]}"
            )
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)  # type: ignore[index]

    def __len__(self) -> int:
        return self.tensors[0].size(0)


class StackDataset(Dataset[Any]):
    """Datasets of one length side by side: a sample is a tuple, or with keywords a dict.

    Raises ValueError for no dataset, for positional and keyword ones together, and where the
    lengths differ.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.StackDataset

    >>> gpunn.utils.data.StackDataset(image=[10, 20], text=["a", "b"])[1]
    {'image': 20, 'text': 'b'}
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            raise ValueError(
                "Supported either ``tuple``- (via ``args``) or ``dict``- (via ``kwargs``) like "
                "input/output, but both types are given."
            )
        if not args and not kwargs:
            raise ValueError("At least one dataset should be passed")
        self.datasets = args or kwargs
        lengths = {len(dataset) for dataset in args or kwargs.values()}
        if len(lengths) > 1:
            raise ValueError(f"Size mismatch between datasets: their lengths are {lengths}")
        self._length = lengths.pop()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {key: dataset[index] for key, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __getitems__(self, indices: list[Any]) -> list[Any]:
        if isinstance(self.datasets, dict):
            columns = [_samples(dataset, indices) for dataset in self.datasets.values()]
            return [dict(zip(self.datasets, row)) for row in zip(*columns)]
        return list(zip(*(_samples(dataset, indices) for dataset in self.datasets)))

    def __len__(self) -> int:
        return self._length


def _samples(dataset: Any, indices: list[Any]) -> list[Any]:
    """The samples of one part of a StackDataset."""
    if not callable(getattr(dataset, "__getitems__", None)):
        return [dataset[index] for index in indices]
    samples = dataset.__getitems__(indices)
    if len(samples) != len(indices):
        raise ValueError(
            f"Nested dataset's output size mismatch. Expected {len(indices)}, got {len(samples)}"
        )
    return samples


class ConcatDataset(Dataset[T_co]):
    """Datasets one after the other.

    Raises AssertionError for no dataset and for an IterableDataset, ValueError for an index
    below minus the length.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.ConcatDataset

    >>> gpunn.utils.data.ConcatDataset(["ab", "cde"])[3]
    'd'
    """

    @staticmethod
    def cumsum(sequence: Iterable[Any]) -> list[int]:
        """The running sums of the lengths."""
        return list(itertools.accumulate(len(part) for part in sequence))

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = self.cumsum(self.datasets)

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, idx: int) -> T_co:
        if idx < 0:
            if -idx > len(self):
                raise ValueError(
                    f"absolute value of index should not exceed dataset length, got {idx} for "
                    f"length {len(self)}"
                )
            idx += len(self)
        part = bisect.bisect_right(self.cumulative_sizes, idx)
        if part == len(self.datasets):
            raise IndexError(f"index {idx} is out of range for a dataset of length {len(self)}")
        return self.datasets[part][idx - (self.cumulative_sizes[part - 1] if part else 0)]


class ChainDataset(IterableDataset[Any]):
    """Iterable datasets one after the other.

    Raises AssertionError on iteration for a part that is no IterableDataset.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.ChainDataset

    >>> class Count(gpunn.utils.data.IterableDataset):
    ...     def __iter__(self):
    ...         return iter(range(2))
    >>> list(Count() + Count())
    [0, 1, 0, 1]
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = datasets

    def _parts(self) -> Iterator[Any]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise AssertionError("ChainDataset only supports IterableDataset")
            yield dataset

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self._parts())

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self._parts())


class Subset(Dataset[T_co]):
    """The samples of a dataset at `indices`.

    A subclass that overrides `__getitem__` overrides `__getitems__` too: NotImplementedError
    says so when it is made.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.Subset

    >>> list(gpunn.utils.data.Subset("abcd", [3, 1]))
    ['d', 'b']
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices
        kind = type(self)
        if (
            kind.__getitem__ is not Subset.__getitem__
            and kind.__getitems__ is Subset.__getitems__
        ):
            raise NotImplementedError(
                f"{kind.__name__} overrides __getitem__ but not __getitems__, which the "
                f"DataLoader calls. Add:\n\n"
                f"def __getitems__(self, indices):\n"
                f"    return [self.__getitem__(idx) for idx in indices]"
            )

    def __getitem__(self, idx: Any) -> T_co:
        if isinstance(idx, list):
            return self.dataset[[self.indices[i] for i in idx]]
        return self.dataset[self.indices[idx]]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        inner = [self.indices[idx] for idx in indices]
        if callable(getattr(self.dataset, "__getitems__", None)):
            return self.dataset.__getitems__(inner)
        return [self.dataset[idx] for idx in inner]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Any,
    lengths: Sequence[int | float],
    generator: gpunn.Generator | None = default_generator,
) -> list[Subset[Any]]:
    """Disjoint random subsets of the given lengths, or fractions that sum to 1.

    Fractions are rounded down and what is left over goes one each to the first ones. The
    permutation is PyTorch's for the same generator state. Raises ValueError where the lengths
    do not sum to the dataset's length or a fraction is not within 0 and 1.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.random_split

    >>> parts = gpunn.utils.data.random_split(range(10), [0.5, 0.25, 0.25])
    >>> [len(part) for part in parts]
    [6, 2, 2]
    """
    size = len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        lengths = _whole_lengths(size, lengths)
    if sum(lengths) != size:
        raise ValueError(
            f"Sum of input lengths does not equal the length of the input dataset! "
            f"{sum(lengths)} against {size}"
        )
    order = iter(gpunn.randperm(size, generator=generator).tolist())
    return [Subset(dataset, list(itertools.islice(order, int(length)))) for length in lengths]


def _whole_lengths(size: int, fractions: Sequence[float]) -> list[int]:
    """Fractions of `size` as whole numbers that sum to it."""
    for i, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ValueError(f"Fraction at index {i} is not between 0 and 1: {fraction}")
    lengths = [math.floor(size * fraction) for fraction in fractions]
    for i in range(size - sum(lengths)):
        lengths[i % len(lengths)] += 1
    for i, length in enumerate(lengths):
        if length == 0:
            warnings.warn(
                f"Length of split at index {i} is 0. This might result in an empty dataset.",
                stacklevel=3,
            )
    return lengths


def whole_batch(dataset: Any, indices: Any) -> list[Tensor] | None:
    """The collated batch of a TensorDataset, or of a Subset of one, with one take per tensor.

    None where samples must be fetched one by one: other datasets, gradients, bad indices.
    """
    if type(dataset) is Subset:
        size = len(dataset.indices)
        if not all(type(i) is int and -size <= i < size for i in indices):
            return None
        return whole_batch(dataset.dataset, [dataset.indices[i] for i in indices])
    if type(dataset) is not TensorDataset or not dataset.tensors:
        return None
    if any(type(t) is not Tensor or t.requires_grad for t in dataset.tensors):
        return None
    rows = np.asarray(indices)
    size = len(dataset)
    # CuPy's take would wrap a bad index around, and an empty list is an array of floats.
    if rows.dtype.kind != "i" or rows.ndim != 1 or rows.min() < -size or rows.max() >= size:
        return None
    return [wrap(t.array.take(t.device.xp.asarray(rows), 0), t.device) for t in dataset.tensors]
