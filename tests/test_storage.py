"""Storages, and tensors through pickle, copy and deepcopy."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest

import gpunn
from gpunn.device import CPU
from gpunn.storage import UntypedStorage, locate, view
from gpunn.tensor import wrap


def same_memory(a, b):
    return np.shares_memory(a.array, b.array)


def test_untyped_storage():
    x = gpunn.arange(6, dtype=gpunn.float32).reshape(2, 3)
    storage = x[1].untyped_storage()
    assert storage.nbytes() == storage.size() == len(storage) == 24
    assert storage.data_ptr() == x.data_ptr() == x.T.untyped_storage().data_ptr()
    assert storage.cpu() is storage and storage.device is CPU
    other = storage.to("cpu:1")
    assert str(other.device) == "cpu:1" and not np.shares_memory(other.array, storage.array)
    assert (other.array == storage.array).all()
    assert repr(other) == "UntypedStorage(24 bytes, device='cpu:1')"


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.T,
        lambda x: x[1:, ::2],
        lambda x: x[:, 1],
        lambda x: x.copy("F"),
        lambda x: np.broadcast_to(x[0], (5, 4)),
        lambda x: x[2, 3:3],
        lambda x: x[1:2, 1].reshape(()),
        lambda x: x[::-1],
        lambda x: x[:, ::-2],
        lambda x: x.astype(">f4"),
        lambda x: np.frombuffer(bytearray(b"12" + x.tobytes()), "<f4", 12, 2),
        lambda x: np.ndarray((2,), "<f4", np.zeros(12, np.uint8), 2, (6,)),
        lambda x: x.astype("complex64").imag,
        lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, 0),
        lambda x: x.astype(np.float32)[..., None],
    ],
)
def test_any_array_is_some_view_of_an_owner(make):
    array = make(np.arange(12, dtype=np.float32).reshape(3, 4))
    owner, offset, steps = locate(array)
    storage = UntypedStorage(owner.ravel("K").view(np.uint8))
    back = view(storage, gpunn.float32, offset, array.shape, steps)
    np.testing.assert_array_equal(back.array, array)
    assert all(step >= 0 for step in steps)


def test_views_share_their_owner():
    x = np.zeros((4, 4))
    tricks = np.lib.stride_tricks
    windows = tricks.sliding_window_view(x, 2, 0)
    overlapping = tricks.as_strided(x, (2, 2), (8, 8))
    expanded = np.broadcast_to(x[0], (3, 4))
    for part in (x[1:], x.T, x[::2, 1:], overlapping[1:], windows[:, 1], expanded):
        assert locate(part)[0] is x


def test_view_errors():
    storage = UntypedStorage(np.zeros(16, np.uint8))
    assert view(storage, gpunn.float32, 1, (3,), (1,)).shape == (3,)
    with pytest.raises(RuntimeError, match=r"sizes \[4\], strides \[1\], storage offset 1, and "
                       r"itemsize 4 requiring a storage size of 20 are out of bounds"):  # fmt: skip
        view(storage, gpunn.float32, 1, (4,), (1,))
    with pytest.raises(RuntimeError, match="invalid storage offset -1"):
        view(storage, gpunn.float32, -1, (1,), (1,))
    with pytest.raises(RuntimeError, match="mismatch in length of strides and shape"):
        view(storage, gpunn.float32, 0, (1, 1), (1,))


# --- pickle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool", "complex64", "int64", "uint16"])
def test_pickle_round_trip(dtype, protocol):
    x = gpunn.arange(6).reshape(2, 3).to(getattr(gpunn, dtype))
    for tensor in (x, x.T, x[:, 1:], x[0, 0], x[:0]):
        back = pickle.loads(pickle.dumps(tensor, protocol))
        assert back.dtype is tensor.dtype and back.stride() == tensor.stride()
        assert back.tolist() == tensor.tolist() and back.device is tensor.device
        assert not same_memory(back, tensor)


def test_pickle_keeps_sharing_flags_and_attributes():
    x = gpunn.ones(4, requires_grad=True)
    x.note = "kept"
    x.grad = gpunn.ones(4)
    a, b, c = pickle.loads(pickle.dumps([x, x.detach()[1:], x]))
    assert a is c and same_memory(a, b) and b.tolist() == [1, 1, 1]
    assert a.requires_grad and not b.requires_grad and a.note == "kept" and a.grad is None
    computed = pickle.loads(pickle.dumps(x * 2))
    assert computed.requires_grad and computed.is_leaf
    elsewhere = pickle.loads(pickle.dumps(gpunn.ones(2, device="cpu:1")))
    assert str(elsewhere.device) == "cpu:1" and elsewhere.tolist() == [1, 1]


class Subclass(gpunn.Tensor):
    pass


def test_pickle_keeps_subclasses():
    parameter = gpunn.nn.Parameter(gpunn.ones(2), requires_grad=False)
    parameter.note = 1
    back = pickle.loads(pickle.dumps(parameter))
    assert type(back) is gpunn.nn.Parameter and not back.requires_grad and back.note == 1
    assert type(pickle.loads(pickle.dumps(Subclass([1.0])))) is Subclass


def test_a_tensor_from_another_process():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(gpunn.add, (gpunn.ones(2), gpunn.ones(2))).tolist() == [2, 2]


def test_strides_and_gradients_work_afterwards():
    x = pickle.loads(pickle.dumps(gpunn.arange(6.0).reshape(2, 3).T.requires_grad_()))
    (x * x).sum().backward()
    assert x.grad.tolist() == (2 * x.detach()).tolist()


# --- copy ------------------------------------------------------------------------------------


def test_copy_shares_memory():
    x = gpunn.ones(3)
    y = copy.copy(x)
    assert y is not x and same_memory(x, y)


def test_deepcopy():
    x = gpunn.arange(6.0).reshape(2, 3)
    a, b, c = copy.deepcopy([x, x.T[1:], x])
    assert a is c and same_memory(a, b) and not same_memory(a, x)
    assert b.stride() == x.T[1:].stride() and b.tolist() == x.T[1:].tolist()
    leaf = gpunn.ones(2, requires_grad=True)
    leaf.grad, leaf.note = gpunn.zeros(2), [1]
    copied = copy.deepcopy(leaf)
    assert copied.requires_grad and copied.is_leaf and copied.note == [1]
    assert copied.note is not leaf.note
    assert copied.grad.tolist() == [0, 0] and not same_memory(copied.grad, leaf.grad)
    assert str(copy.deepcopy(gpunn.ones(1, device="cpu:1")).device) == "cpu:1"
    assert type(copy.deepcopy(Subclass([1.0]))) is Subclass
    assert copy.deepcopy(wrap(np.arange(3.0)[::-1])).tolist() == [2, 1, 0]


def test_deepcopy_of_parameters():
    p = gpunn.nn.Parameter(gpunn.ones(2))
    p.grad = gpunn.ones(2)
    q, r = copy.deepcopy([p, p])
    assert q is r and type(q) is gpunn.nn.Parameter and q.requires_grad and q.grad is None
    assert not same_memory(p, q)


def test_deepcopy_of_a_computed_tensor():
    y = gpunn.ones(2, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly by the user"):
        copy.deepcopy(y)
    assert copy.deepcopy(y.detach()).tolist() == [2, 2]


def test_rebuilding_outside_of_the_owner():
    function, args = gpunn.ones(4).__reduce_ex__(2)
    with pytest.raises(RuntimeError, match="out of bounds"):
        function(*args[:4], 1, *args[5:])
