"""default_collate and default_convert, against PyTorch's."""

import collections
import types

import numpy as np
import pytest

import gpunn
from gpunn.utils.data import default_collate, default_convert
from gpunn.utils.data.collate import collate, default_collate_fn_map

Point = collections.namedtuple("Point", ["x", "y"])
COUNTS = collections.defaultdict(int, n=1)


class Words(list):
    """A list that cannot be built from a list."""

    def __init__(self, a, b):
        super().__init__([a, b])


SAMPLES = {
    "tensors": lambda lib: [lib.ones(2, 3), lib.zeros(2, 3)],
    "scalars": lambda lib: [lib.tensor(1.5), lib.tensor(2.5)],
    "arrays": lambda lib: [np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)],
    "arrays of several dtypes": lambda lib: [np.ones(2), np.ones(2, np.float32)],
    "0-d arrays": lambda lib: [np.array(1, np.int16), np.array(2, np.int16)],
    "NumPy numbers": lambda lib: [np.float32(1), np.float32(2)],
    "mixed NumPy numbers": lambda lib: [np.float32(1), np.float64(2)],
    "NumPy bools": lambda lib: [np.bool_(True), np.bool_(False)],
    "floats": lambda lib: [1.0, 2.0],
    "ints": lambda lib: [1, 2, 3],
    "bools": lambda lib: [True, False],
    "int and float": lambda lib: [1, 2.5],
    "strings": lambda lib: ["a", "b"],
    "NumPy strings": lambda lib: [np.str_("a"), np.str_("b")],
    "bytes": lambda lib: [b"a", b"b"],
    "tuples": lambda lib: [(1, "a", lib.ones(1)), (2, "b", lib.ones(1))],
    "lists": lambda lib: [[1, 2.0], [3, 4.0]],
    "dicts": lambda lib: [{"a": 1, "b": [np.ones(1)]}, {"b": [np.ones(1)], "a": 2}],
    "ordered dicts": lambda lib: [collections.OrderedDict(a=1), collections.OrderedDict(a=2)],
    "default dicts": lambda lib: [COUNTS, COUNTS],
    "read-only mappings": lambda lib: [types.MappingProxyType({"a": 1})] * 2,
    "named tuples": lambda lib: [Point(1, 2.0), Point(3, 4.0)],
    "deques": lambda lib: [collections.deque([1, 2]), collections.deque([3, 4])],
    "ranges": lambda lib: [range(2), range(2)],
    "own lists": lambda lib: [Words("a", 1), Words("b", 2)],
    "nested": lambda lib: [({"a": Point([1], (2,))},), ({"a": Point([3], (4,))},)],
    "empty tuples": lambda lib: [(), ()],
}


def plain(value):
    """The value with tensors as (dtype, list), and the types of containers."""
    if hasattr(value, "requires_grad"):
        return str(value.dtype), value.tolist()
    if isinstance(value, collections.abc.Mapping):
        return type(value).__name__, {key: plain(v) for key, v in value.items()}
    if isinstance(value, collections.abc.Sequence) and not isinstance(value, (str, bytes)):
        return type(value).__name__, [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tolist()
    return value


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="parity tests need PyTorch")


@pytest.mark.parametrize("name", SAMPLES)
def test_batches_are_pytorchs(torch, name):
    ours = default_collate(SAMPLES[name](gpunn))
    assert plain(ours) == plain(torch.utils.data.default_collate(SAMPLES[name](torch)))


@pytest.mark.parametrize("name", SAMPLES)
def test_conversions_are_pytorchs(torch, name):
    samples = SAMPLES[name](gpunn), SAMPLES[name](torch)
    ours, theirs = default_convert(samples[0]), torch.utils.data.default_convert(samples[1])
    assert plain(ours) == plain(theirs)


@pytest.mark.parametrize(
    "value",
    [3, "a", b"a", None, np.float32(2), np.array(["a"]), np.str_("a"), (1, np.ones(2)), {1}],
)
def test_conversions_of_single_values(torch, value):
    assert plain(default_convert(value)) == plain(torch.utils.data.default_convert(value))


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([None], TypeError, "default_collate: batch must contain tensors, numpy arrays, numbers"),
        ([{1}], TypeError, "dicts or lists; found <class 'set'>"),
        ([1j], TypeError, "found <class 'complex'>"),
        ([np.array("a")], TypeError, "found <U1"),
        ([np.array([None])], TypeError, "found object"),
        ([], IndexError, "list index out of range"),
        ([[1], [1, 2]], RuntimeError, "each element in list of batch should be of equal size"),
        ([np.ones(2), np.ones(3)], RuntimeError, "stack expects each tensor to be equal size"),
        ([gpunn.ones(2), gpunn.ones(3)], RuntimeError, "stack expects each tensor to be equal"),
    ],
)
def test_errors(batch, error, message):
    with pytest.raises(error, match=message):
        default_collate(batch)


def test_default_dict_keeps_its_factory():
    assert default_collate([COUNTS, COUNTS])["new"] == 0


def test_collating_keeps_the_samples(torch):
    samples = [[1, 2], [3, 4]]
    default_collate(samples)
    assert samples == [[1, 2], [3, 4]]


def test_own_table_and_own_types():
    class Box:
        def __init__(self, value):
            self.value = value

    class SmallBox(Box):
        pass

    def boxes(batch, *, collate_fn_map=None):
        return collate([box.value for box in batch], collate_fn_map=collate_fn_map)

    table = {**default_collate_fn_map, Box: boxes}
    batch = collate([(SmallBox(1), "a"), (SmallBox(2), "b")], collate_fn_map=table)
    assert plain(batch) == ("list", [("torch.int64", [1, 2]), ("tuple", ["a", "b"])])


def test_gradients_go_through_a_batch():
    x = gpunn.ones(2, requires_grad=True)
    default_collate([x, x]).sum().backward()
    assert x.grad.tolist() == [2, 2]
