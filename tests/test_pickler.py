"""The pickles are PyTorch's own, opcode for opcode."""

import collections
import io
import pickle
import zipfile

import numpy as np
import pytest

import gpunn
from gpunn.pickler import Pickler


def pickled(value):
    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.dump(value)
    return file.getvalue(), pickler.storages


def model(lib):
    out = collections.OrderedDict(weight=lib.ones(3, 2), bias=lib.zeros(3))
    out._metadata = collections.OrderedDict([("", {"version": 1})])
    return out


def shared(lib):
    x = lib.arange(6).reshape(2, 3)
    return [x, x[1], x.T, x[:, 1:], x]


CASES = {
    "tensor": lambda lib: lib.ones(2, 3),
    "state_dict": model,
    "shared": shared,
    "scalar": lambda lib: lib.tensor(5),
    "empty": lambda lib: [lib.zeros(0, 3), lib.zeros(3)[0:0]],
    "expanded": lambda lib: lib.ones(2, 1).expand(2, 5),
    "dtypes": lambda lib: [
        lib.zeros(2, dtype=getattr(lib, d))
        for d in ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16",
                  "float64", "complex64", "complex128", "uint16", "uint32", "uint64"]
    ],
    "leaf": lambda lib: lib.ones(2, requires_grad=True),
    "computed": lambda lib: lib.ones(2, requires_grad=True) * 2,
    "parameter": lambda lib: [lib.nn.Parameter(lib.ones(2)),
                              lib.nn.Parameter(lib.ones(2), requires_grad=False)],
    "names": lambda lib: [lib.float32, lib.float32, lib.bool, lib.device("cpu"),
                          lib.device("cuda:1"), lib.Size([2, 3])],
    "plain": lambda lib: {"a": [1, 2.5, None, True, "x", (1, 2), 2**70, -3, 1j], 3: {4}, 5: b"xy",
                          "n": np.float32(2), "o": collections.Counter("aab")},
    "optimizer": lambda lib: {"state": {0: {"step": lib.tensor(1.0), "exp_avg": lib.ones(2)}},
                              "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0]}]},
}  # fmt: skip


def with_attribute(lib, value):
    value.note = "kept"
    return value


CASES["attribute"] = lambda lib: with_attribute(lib, lib.ones(2))
CASES["parameter_attribute"] = lambda lib: with_attribute(lib, lib.nn.Parameter(lib.ones(2)))


@pytest.mark.parametrize("case", CASES)
def test_pickles_are_pytorchs(case):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    file = io.BytesIO()
    torch.save(CASES[case](torch), file)
    theirs = zipfile.ZipFile(file)
    text, storages = pickled(CASES[case](gpunn))
    assert text == theirs.read("archive/data.pkl")
    for stored in storages.values():
        size = theirs.getinfo(f"archive/data/{stored.key}").file_size
        assert stored.owner.nbytes == size


def test_empty_bytes_are_a_call_that_pytorch_allows():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    file = io.BytesIO()
    gpunn.save([b"", b"x", b""], file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == [b"", b"x", b""]


def test_one_storage_under_two_dtypes():
    x = gpunn.zeros(4)
    with pytest.raises(RuntimeError, match="view the same data as different types"):
        pickled([x, gpunn.tensor([1.0]), x.view(gpunn.int32)])
    empty = gpunn.zeros(0)
    pickled([empty, empty.view(gpunn.int32)])


class Net(gpunn.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = gpunn.nn.Parameter(gpunn.ones(2))


def test_other_objects_are_pickled_by_name():
    text, storages = pickled(Net())
    assert b"Net" in text and len(storages) == 1
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickled([lambda: 1])


def test_uninitialized_parameters_cannot_be_saved():
    with pytest.raises(ValueError, match="uninitialized parameter"):
        pickled(gpunn.nn.UninitializedParameter())
