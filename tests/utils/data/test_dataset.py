"""Datasets: samples, lengths, splits and whole batches."""

import numpy as np
import pytest

import gpunn
from gpunn.utils.data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from gpunn.utils.data.dataset import whole_batch


class Squares(Dataset):
    def __init__(self, n=6):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return index**2


class Batched(Squares):
    def __getitems__(self, indices):
        return [self[i] + 100 for i in indices]


class Count(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


def test_dataset_is_generic_and_abstract():
    assert Dataset[int] is not Dataset
    with pytest.raises(NotImplementedError, match="should implement __getitem__"):
        Dataset()[0]


def test_sums_concatenate_and_chain():
    assert list(Squares(3) + Squares(2)) == [0, 1, 4, 0, 1]
    chain = Count(2) + Count(3)
    assert list(chain) == [0, 1, 0, 1, 2]
    assert len(chain) == 5
    with pytest.raises(AssertionError, match="ChainDataset only supports IterableDataset"):
        list(ChainDataset([Count(1), Squares()]))


def test_tensor_dataset():
    data = TensorDataset(gpunn.arange(4), gpunn.arange(8).reshape(4, 2))
    assert len(data) == 4
    assert [t.tolist() for t in data[2]] == [2, [4, 5]]
    assert [t.tolist() for t in data[1:3]] == [[1, 2], [[2, 3], [4, 5]]]
    with pytest.raises(AssertionError, match="Size mismatch between tensors"):
        TensorDataset(gpunn.ones(2), gpunn.ones(3))


def test_stack_dataset():
    assert StackDataset(Squares(), Batched())[3] == (9, 9)
    assert StackDataset(a=Squares(), b=Batched())[3] == {"a": 9, "b": 9}
    assert StackDataset(Squares(), Batched()).__getitems__([1, 2]) == [(1, 101), (4, 104)]
    assert StackDataset(a=Squares(), b=Batched()).__getitems__([1]) == [{"a": 1, "b": 101}]
    assert len(StackDataset(Squares(4))) == 4


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "At least one dataset should be passed"),
        (([1],), {"a": [1]}, "both types are given"),
        (([1], [1, 2]), {}, "Size mismatch between datasets"),
        ((), {"a": [1], "b": [1, 2]}, "Size mismatch between datasets"),
    ],
)
def test_stack_dataset_errors(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        StackDataset(*args, **kwargs)


def test_stack_dataset_checks_the_size_of_nested_batches():
    class Short(Squares):
        def __getitems__(self, indices):
            return [0]

    with pytest.raises(ValueError, match="output size mismatch. Expected 2, got 1"):
        StackDataset(Short()).__getitems__([1, 2])


def test_concat_dataset_indices():
    data = ConcatDataset([Squares(2), "ab", Squares(1)])
    assert data.cumulative_sizes == [2, 4, 5]
    assert [data[i] for i in range(-5, 5)] == [0, 1, "a", "b", 0] * 2
    with pytest.raises(IndexError, match="index 5 is out of range for a dataset of length 5"):
        data[5]
    with pytest.raises(ValueError, match="absolute value of index should not exceed"):
        data[-6]
    with pytest.raises(AssertionError, match="should not be an empty iterable"):
        ConcatDataset([])
    with pytest.raises(AssertionError, match="does not support IterableDataset"):
        ConcatDataset([Count(1)])


def test_subset():
    assert list(Subset(Squares(), [5, 0])) == [25, 0]
    assert Subset(Squares(), [5, 0]).__getitems__([1, 0]) == [0, 25]
    assert Subset(Batched(), [5, 0]).__getitems__([1, 0]) == [100, 125]
    rows = Subset(gpunn.arange(4), [3, 1, 2])[[0, 2]]
    assert rows.tolist() == [3, 2]

    class Doubled(Subset):
        def __getitem__(self, idx):
            return 2 * super().__getitem__(idx)

    with pytest.raises(NotImplementedError, match="overrides __getitem__ but not __getitems__"):
        Doubled(Squares(), [0])


@pytest.mark.parametrize("lengths", [[3, 27], [0.3, 0.3, 0.4], [0.25, 0.25, 0.5], [1.0], [30]])
def test_random_split_is_pytorchs(lengths):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def split(lib, generator):
        parts = lib.utils.data.random_split(range(30), lengths, **generator)
        return [list(part.indices) for part in parts]

    for lib in (gpunn, torch):
        lib.manual_seed(4)
    assert split(gpunn, {}) == split(torch, {})
    assert gpunn.rand(3).tolist() == torch.rand(3).tolist()
    ours, theirs = (lib.Generator().manual_seed(8) for lib in (gpunn, torch))
    assert split(gpunn, {"generator": ours}) == split(torch, {"generator": theirs})


def test_random_split_errors():
    with pytest.raises(ValueError, match="Sum of input lengths does not equal"):
        random_split(range(5), [2, 2])
    with pytest.raises(ValueError, match="Fraction at index 0 is not between 0 and 1"):
        random_split(range(5), [-0.5, 1.5])
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        parts = random_split(range(1), [0.9, 0.1])
    assert [len(part) for part in parts] == [1, 0]


X = gpunn.arange(24.0).reshape(6, 4)


@pytest.mark.parametrize("columns", [(X,), (X, X[:, 0]), (X.T.contiguous().T, X.long())])
@pytest.mark.parametrize("indices", [[0], [5, 1, 1], [-1, 2], np.array([3, 0])])
def test_whole_batches_are_what_collating_gives(columns, indices):
    data = TensorDataset(*columns)
    for dataset in (data, Subset(data, [1, 3, 5, 0, -2, 4])):
        index = list(map(int, indices))
        expected = gpunn.utils.data.default_collate([dataset[i] for i in index])
        batch = whole_batch(dataset, index)
        assert type(batch) is type(expected) is list
        for ours, theirs in zip(batch, expected, strict=True):
            assert ours.tolist() == theirs.tolist()
            assert ours.dtype is theirs.dtype
            assert ours.is_contiguous()
            assert ours.array.base is None  # its own memory


@pytest.mark.parametrize(
    ("dataset", "indices"),
    [
        (Squares(), [0]),
        (TensorDataset(X.clone().requires_grad_()), [0]),
        (TensorDataset(X), [6]),
        (TensorDataset(X), [-7]),
        (TensorDataset(X), [0.5]),
        (TensorDataset(X), []),
        (TensorDataset(X), [[0, 1]]),
        (Subset(TensorDataset(X), [0]), [1]),
        (Subset(Squares(), [0]), [0]),
    ],
)
def test_no_whole_batch(dataset, indices):
    assert whole_batch(dataset, indices) is None


def test_subclasses_of_tensor_dataset_are_asked_for_samples():
    class Shifted(TensorDataset):
        def __getitem__(self, index):
            return tuple(t + 1 for t in super().__getitem__(index))

    (batch,) = next(iter(DataLoader(Shifted(gpunn.zeros(3)), 3)))
    assert batch.tolist() == [1, 1, 1]


def test_bad_index_of_a_batch_is_an_index_error():
    loader = DataLoader(TensorDataset(gpunn.zeros(3)), batch_sampler=[[0, 3]])
    with pytest.raises(IndexError, match="index 3 is out of bounds"):
        next(iter(loader))
