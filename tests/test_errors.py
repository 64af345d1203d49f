"""Bad input: the error's type is PyTorch's, its message holds PyTorch's core, and nothing changed.

Each case is (name, what is done with the library T, type, core of the message, values that the
message names).
"""

import copy
import io
import pickle
import zipfile

import numpy as np
import pytest

import gpunn
import gpunn.utils.data


class Broken:
    """A dataset that fails."""

    def __len__(self):
        return 2

    def __getitem__(self, i):
        raise KeyError(f"row {i}")


def leaf(T, n=3):
    return T.ones(n, requires_grad=True)


def changed_after_saving(T):
    x = leaf(T)
    y = x.exp()
    y.mul_(2)
    y.sum().backward()


def backward_twice(T):
    y = (leaf(T) ** 2).sum()
    y.backward()
    y.backward()


def in_two_groups(T):
    p = leaf(T)
    T.optim.SGD([{"params": [p]}, {"params": [p]}], lr=0.1)


def other_optimizer(T):
    state = T.optim.SGD([leaf(T), leaf(T)], lr=0.1).state_dict()
    T.optim.SGD([leaf(T)], lr=0.1).load_state_dict(state)




R, V, X, K, A = RuntimeError, ValueError, IndexError, TypeError, AssertionError
CASES = [
    ("matmul", lambda T: T.ones(2, 3) @ T.ones(4, 5), R,
     "mat1 and mat2 shapes cannot be multiplied", ["2x3", "4x5"]),
    ("linear", lambda T: T.nn.Linear(3, 4)(T.ones(2, 5)), R,
     "mat1 and mat2 shapes cannot be multiplied", ["2x5", "3x4"]),
    ("add", lambda T: T.ones(2, 3) + T.ones(2, 4), R, "must match the size of tensor b",
     ["(3)", "(4)", "dimension 1"]),
    ("reshape", lambda T: T.ones(2, 3).reshape(4, 2), R, "is invalid for input of size",
     ["[4, 2]", "6"]),
    ("view", lambda T: T.ones(2, 3).t().view(6), R, "Use .reshape(...) instead", []),
    ("cat", lambda T: T.cat([T.ones(2, 3), T.ones(3, 2)]), R,
     "Sizes of tensors must match except in dimension 0", ["3", "2", "number 1"]),
    ("stack", lambda T: T.stack([T.ones(2), T.ones(3)]), R,
     "stack expects each tensor to be equal size", ["[2]", "[3]"]),
    ("expand", lambda T: T.ones(2, 3).expand(3, 3), R, "must match the existing size",
     ["(3)", "(2)", "[3, 3]", "[2, 3]"]),
    ("permute", lambda T: T.ones(2, 3).permute(0, 0), R, "duplicate dims are not allowed", []),
    ("dim", lambda T: T.ones(2, 3).sum(dim=2), X, "Dimension out of range",
     ["[-2, 1]", "got 2"]),
    ("einsum", lambda T: T.einsum("ij,jk->ik", T.ones(2, 3), T.ones(4, 2)), R,
     "does not broadcast with previously seen size", ["j", "4", "3"]),
    ("negative size", lambda T: T.zeros(-1), R, "Dimension size must be non-negative", []),
    ("ragged", lambda T: T.tensor([[1], [1, 2]]), V, "expected sequence of length",
     ["1", "got 2"]),
    ("conv channels", lambda T: T.nn.Conv2d(3, 4, 3)(T.ones(1, 2, 8, 8)), R,
     "to have 3 channels, but got 2 channels instead", ["[4, 3, 3, 3]", "[1, 2, 8, 8]"]),
    ("conv too small", lambda T: T.nn.Conv2d(3, 4, 5)(T.ones(1, 3, 4, 4)), R,
     "Kernel size can't be greater than actual input size", ["(4 x 4)", "(5 x 5)"]),
    ("batch norm of one", lambda T: T.nn.BatchNorm1d(3)(T.ones(1, 3)), V,
     "Expected more than 1 value per channel when training", ["[1, 3]"]),
    ("batch norm of 2 dimensions", lambda T: T.nn.BatchNorm2d(3)(T.ones(1, 3)), V,
     "expected 4D input", ["2D"]),
    ("targets", lambda T: T.nn.functional.cross_entropy(T.ones(2, 3), T.tensor([0, 1, 2])), V,
     "to match target batch_size", ["2", "3"]),
    ("target sizes",
     lambda T: T.nn.functional.binary_cross_entropy(T.ones(2), T.ones(3)), V,
     "that is different to the input size", ["[3]", "[2]"]),
    ("probabilities",
     lambda T: T.nn.functional.binary_cross_entropy(T.tensor([2.0]), T.tensor([1.0])), R,
     "all elements of input should be between 0 and 1", []),
    # indices
    ("embedding", lambda T: T.nn.Embedding(10, 3)(T.tensor([1, 12])), X,
     "index out of range in self", []),
    ("target class", lambda T: T.nn.functional.cross_entropy(T.ones(2, 3), T.tensor([0, 3])), X,
     "Target 3 is out of bounds.", []),
    ("index", lambda T: T.ones(3)[5], X, "is out of bounds for dimension 0 with size 3", ["5"]),
    ("index tensor", lambda T: T.ones(3)[T.tensor([0, 7])], X,
     "is out of bounds for dimension 0 with size 3", ["7"]),
    ("gather", lambda T: T.ones(2, 3).gather(1, T.tensor([[5]])), R,
     "is out of bounds for dimension 1 with size 3", ["5"]),
    ("index_select", lambda T: T.ones(3).index_select(0, T.tensor([4])), X,
     "index out of range in self", []),
    ("too many indices", lambda T: T.ones(3)[0, 0], X,
     "too many indices for tensor of dimension 1", []),
    ("mask", lambda T: T.ones(3)[T.tensor([True, False])], X,
     "does not match the shape of the indexed tensor", ["[2]", "[3]"]),
    ("one_hot", lambda T: T.nn.functional.one_hot(T.tensor([3]), 2), R,
     "Class values must be smaller than num_classes", []),
    # dtypes and devices
    ("matmul dtype", lambda T: T.ones(2, 2) @ T.ones(2, 2, dtype=T.float64), R,
     "to have the same dtype", ["float", "double"]),
    ("linear dtype", lambda T: T.nn.Linear(2, 2)(T.ones(2, 2, dtype=T.float64)), R,
     "mat1 and mat2 must have the same dtype", ["Double", "Float"]),
    ("embedding dtype", lambda T: T.nn.Embedding(10, 3)(T.tensor([1.0])), R,
     "to have one of the following scalar types: Long, Int", []),
    ("mean", lambda T: T.arange(3).mean(), R, "could not infer output dtype", ["Long"]),
    ("gradient of integers", lambda T: T.tensor([1, 2], requires_grad=True), R,
     "nly Tensors of floating point and complex dtype can require gradients", []),
    ("in place", lambda T: T.arange(3).add_(0.5), R,
     "can't be cast to the desired output type", ["Float", "Long"]),
    ("bool minus", lambda T: T.tensor([True]) - T.tensor([True]), R,
     "with two bool tensors is not supported", []),
    ("item", lambda T: T.ones(2).item(), R, "cannot be converted to Scalar", ["2"]),
    ("bool", lambda T: bool(T.ones(2)), R, "with more than one value is ambiguous", []),
    ("numpy", lambda T: leaf(T).numpy(), R, "Use tensor.detach().numpy() instead", []),
    ("no data", lambda T: T.tensor("x"), K, "invalid data type 'str'", []),
    ("device", lambda T: T.ones(1, device="gpu"), R,
     "device type at start of device string", ["gpu"]),
    ("randint", lambda T: T.randint(5, 5, (2,)), R, "expects 'from' to be less than 'to'",
     ["from=5", "to=5"]),
    ("multinomial", lambda T: T.multinomial(T.tensor([-1.0, 2]), 1), R,
     "probability tensor contains either `inf`, `nan` or element < 0", []),
    # autograd
    ("backward twice", backward_twice, R, "Trying to backward through the graph a second time", []),
    ("not a scalar", lambda T: (leaf(T) * 2).backward(), R,
     "grad can be implicitly created only for scalar outputs", []),
    ("no graph", lambda T: T.ones(3).sum().backward(), R,
     "does not require grad and does not have a grad_fn", []),
    ("leaf in place", lambda T: leaf(T).add_(1), R,
     "a leaf Variable that requires grad is being used in an in-place operation", []),
    ("saved in place", changed_after_saving, R, "has been modified by an inplace operation",
     ["[3]", "Exp"]),
    ("unused", lambda T: T.autograd.grad(leaf(T).sum(), leaf(T)), R,
     "appears to not have been used in the graph", ["index 0"]),
    ("gradient's shape", lambda T: (leaf(T) * 2).backward(T.ones(2)), R, "Mismatch in shape",
     ["[2]", "[3]"]),
    ("set grad", lambda T: setattr(T.ones(3), "grad", T.ones(2)), R,
     "attempting to assign a gradient of size", ["[2]", "[3]"]),
    ("flag of a result", lambda T: setattr(leaf(T) * 2, "requires_grad", False), R,
     "you can only change requires_grad flags of leaf variables", []),
    ("deepcopy", lambda T: copy.deepcopy(leaf(T) * 2), R, "support the deepcopy protocol", []),
    # constructors
    ("dropout", lambda T: T.nn.Dropout(1.5), V, "dropout probability has to be between 0 and 1",
     ["1.5"]),
    ("groups", lambda T: T.nn.Conv2d(3, 4, 3, groups=2), V,
     "in_channels must be divisible by groups", []),
    ("padding_idx", lambda T: T.nn.Embedding(3, 2, padding_idx=5), A,
     "Padding_idx must be within num_embeddings", []),
    ("Sequential", lambda T: T.nn.Sequential(3), K, "int is not a Module subclass", []),
    ("Sequential index", lambda T: T.nn.Sequential()[4], X, "index 4 is out of range", []),
    ("attribute", lambda T: T.nn.Linear(2, 3).wight, AttributeError,
     "'Linear' object has no attribute 'wight'", []),
    ("parameter", lambda T: setattr(T.nn.Linear(2, 3), "weight", T.ones(3, 2)), K,
     "as parameter 'weight'", []),
    ("learning rate", lambda T: T.optim.Adam([leaf(T)], lr=-1), V, "Invalid learning rate: -1",
     []),
    ("betas", lambda T: T.optim.Adam([leaf(T)], betas=(1.0, 0.9)), V,
     "Invalid beta parameter at index 0: 1.0", []),
    ("nesterov", lambda T: T.optim.SGD([leaf(T)], lr=0.1, nesterov=True), V,
     "Nesterov momentum requires a momentum and zero dampening", []),
    ("no parameters", lambda T: T.optim.SGD([], lr=0.1), V,
     "optimizer got an empty parameter list", []),
    ("one parameter", lambda T: T.optim.SGD(leaf(T), lr=0.1), K,
     "should be an iterable of Tensors or dicts", []),
    ("no leaf", lambda T: T.optim.SGD([leaf(T) * 2], lr=0.1), V,
     "can't optimize a non-leaf Tensor", []),
    ("two groups", in_two_groups, V, "some parameters appear in more than one parameter group", []),
    ("optimizer state", other_optimizer, V,
     "doesn't match the size of optimizer's group", []),
    # data
    ("batch_size", lambda T: T.utils.data.DataLoader([1], batch_size=0), V,
     "batch_size should be a positive integer value", ["0"]),
    ("shuffle", lambda T: T.utils.data.DataLoader([1], shuffle=True, sampler=[0]), V,
     "sampler option is mutually exclusive with shuffle", []),
    ("random_split", lambda T: T.utils.data.random_split([1, 2, 3], [1, 1]), V,
     "Sum of input lengths does not equal the length of the input dataset", []),
    ("TensorDataset", lambda T: T.utils.data.TensorDataset(T.ones(2), T.ones(3)), A,
     "Size mismatch between tensors", []),
    ("missing file", lambda T: T.load("no such folder/x.pt"), FileNotFoundError,
     "No such file", ["no such folder/x.pt"]),
    ("no checkpoint", lambda T: T.load(io.BytesIO(b"not a checkpoint")), pickle.UnpicklingError,
     "Weights only load failed", ["Unsupported operand 110"]),
    ("empty file", lambda T: T.load(io.BytesIO(b"")), EOFError, "", []),
]
names = pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])


def raised(action, library):
    with pytest.raises(Exception) as caught:
        action(library)
    return type(caught.value), str(caught.value)


@names
def test_error(case):
    _, action, kind, core, values = case
    found, message = raised(action, gpunn)
    assert found is kind
    assert core in message
    for value in values:
        assert value in message


@names
def test_pytorch_raises_the_same(case):
    torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")
    _, action, kind, core, values = case
    found, message = raised(action, torch)
    assert found is kind
    assert core in message
    for value in values:
        assert value in message


@pytest.mark.parametrize("action, where", [
    (lambda: gpunn.nn.Embedding(10, 3)(gpunn.tensor([1, 12])), ["12", "position [1]", "10 rows"]),
    (lambda: gpunn.ones(3).index_select(0, gpunn.tensor([4])), ["index 4", "size 3"]),
    (lambda: gpunn.nn.functional.cross_entropy(gpunn.ones(2, 3), gpunn.tensor([0, 3])),
     ["3 classes", "element 1"]),
])
def test_which_index_is_out_of_range(action, where):
    with pytest.raises(IndexError) as caught:
        action()
    for part in where:
        assert part in str(caught.value)


def test_failed_writes_change_nothing():
    x = gpunn.arange(6.0).reshape(2, 3)
    before, version = x.clone(), x._version
    for action in (
        lambda: x.add_(gpunn.ones(4)), lambda: x.index_fill_(0, gpunn.tensor([0, 7]), 1.0),
        lambda: x.scatter_(1, gpunn.tensor([[0, 9]]), 5.0), lambda: x.copy_(gpunn.ones(5)),
        lambda: x.index_add_(0, gpunn.tensor([0, 5]), gpunn.ones(2, 3)),
        lambda: x.__setitem__(gpunn.tensor([0, 7]), 1.0), lambda: x.__setitem__(0, gpunn.ones(2)),
    ):
        with pytest.raises((RuntimeError, IndexError)):
            action()
        assert gpunn.equal(x, before)
    assert x._version == version


def test_failed_draws_leave_the_generator():
    before = gpunn.get_rng_state()
    for action in (
        lambda: gpunn.randint(5, 5, (2,)), lambda: gpunn.rand(-1),
        lambda: gpunn.multinomial(gpunn.tensor([-1.0, 2]), 1),
        lambda: gpunn.nn.functional.dropout(gpunn.ones(3), 2.0),
        lambda: gpunn.ones(2).bernoulli_(3.0), lambda: gpunn.empty(2).normal_(0, -1),
        lambda: gpunn.set_rng_state(gpunn.zeros(3, dtype=gpunn.uint8)),
    ):
        with pytest.raises((RuntimeError, ValueError)):
            action()
        assert gpunn.equal(gpunn.get_rng_state(), before)


@pytest.mark.parametrize("name", ["gpunn", "torch"])
def test_mismatched_state_dict(name):
    T = pytest.importorskip(name, reason=f"needs {name}")
    model = T.nn.Sequential(T.nn.Linear(2, 3))
    before = model[0].weight.detach().clone()
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict({"0.weight": T.ones(2, 2), "1.bias": T.ones(3)})
    assert str(caught.value) == (
        "Error(s) in loading state_dict for Sequential:\n"
        '\tMissing key(s) in state_dict: "0.bias". \n'
        '\tUnexpected key(s) in state_dict: "1.bias". \n'
        "\tsize mismatch for 0.weight: copying a param with shape torch.Size([2, 2]) from "
        "checkpoint, the shape in current model is torch.Size([3, 2])."
    )
    assert T.equal(model[0].weight, before)


def test_a_worker_passes_its_error_on():
    with pytest.raises(KeyError) as caught:
        list(gpunn.utils.data.DataLoader(Broken(), num_workers=1))
    assert "row 0" in str(caught.value) and "worker process 0" in str(caught.value)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_truncated_checkpoint(tmp_path, kept):
    path = tmp_path / "model.pt"
    model = gpunn.nn.Linear(20, 30)
    gpunn.save(model.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(kept * len(whole))])
    left, weight = path.read_bytes(), model.weight.detach().clone()
    with pytest.raises((RuntimeError, pickle.UnpicklingError, EOFError)):
        model.load_state_dict(gpunn.load(path))
    assert path.read_bytes() == left
    assert gpunn.equal(model.weight, weight)


def test_damaged_bytes_are_noticed(tmp_path):
    path = tmp_path / "model.pt"
    gpunn.save({"w": gpunn.full((64,), 3.0)}, path)
    data = bytearray(path.read_bytes())
    at = data.find(np.full(64, 3.0, np.float32).tobytes())
    data[at + 5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises((RuntimeError, pickle.UnpicklingError)):
        gpunn.load(path)


class Malicious:
    """Pickled, it is a call of open() that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_malicious_file_runs_nothing(tmp_path, zipped):
    victim, path = tmp_path / "made", tmp_path / "evil.pt"
    payload = pickle.dumps({"w": Malicious(victim)}, protocol=2)
    path.write_bytes(payload)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", payload)
            archive.writestr("evil/version", "3\n")
    with pytest.raises(pickle.UnpicklingError, match="open"):
        gpunn.load(path)
    assert not victim.exists()


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "model.pt"
    gpunn.save({"w": gpunn.ones(2)}, path)
    before = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        gpunn.save({"w": gpunn.ones(2), "f": lambda x: x}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
