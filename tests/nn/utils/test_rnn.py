"""Packed and padded sequences: against PyTorch's."""

import copy
import pickle

import numpy as np
import pytest

import gpunn
from gpunn.autograd import gradcheck, gradgradcheck
from gpunn.nn.utils import rnn
from gpunn.nn.utils.rnn import (
    PackedSequence,
    invert_permutation,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
)

rng = np.random.default_rng(0)
X = rng.normal(size=(5, 4, 2))


def plain(value):
    """Tensors as (dtype, values), within nested containers, so that == compares."""
    if hasattr(value, "detach"):
        return str(value.dtype), value.detach().tolist()
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def same(program):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    ours, theirs = plain(program(gpunn)), plain(program(torch))
    assert ours == theirs
    return ours


def refused(program, words):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    for package in (torch, gpunn):
        with pytest.raises(Exception, match=words) as caught:
            program(package, package.nn.utils.rnn)
        if package is torch:
            wanted = caught.type
    assert issubclass(caught.type, wanted)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[5, 3, 3, 1], [2, 5, 1, 5], [4, 4, 4, 4], [3, 2, 2, 1]])
@pytest.mark.parametrize("total", [None, 7])
def test_there_and_back(lengths, batch_first, total):
    """Packed data, order, padded again, with the gradient of both."""

    def program(T):
        r = T.nn.utils.rnn
        leaf = T.from_numpy(X.copy()).requires_grad_()
        x = leaf.transpose(0, 1) if batch_first else leaf
        in_order = lengths == sorted(lengths, reverse=True)
        packed = r.pack_padded_sequence(x, T.tensor(lengths), batch_first, enforce_sorted=in_order)
        padded, found = r.pad_packed_sequence(packed, batch_first, -1.5, total)
        g = T.autograd.grad((packed.data * 2).sum() + (padded * padded).sum(), leaf)[0]
        return [packed, r.unpack_sequence(packed), padded, list(padded.stride()), found, g]

    same(program)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_lists_of_sequences(batch_first, side):
    def program(T):
        r = T.nn.utils.rnn
        leaves = [T.from_numpy(X[:n, 0].copy()).requires_grad_() for n in (2, 5, 1)]
        padded = r.pad_sequence(leaves, batch_first, 0.5, side)
        gs = T.autograd.grad((padded * padded).sum(), leaves)
        lengths = T.tensor([2, 5, 1])
        return [
            padded, *gs, r.unpad_sequence(padded.detach().clone(), lengths, batch_first),
            r.pack_sequence(leaves, enforce_sorted=False), r.pad_sequence(leaves[:1], batch_first),
            r.pad_sequence([T.tensor([1, 2]), T.tensor([3.5, 1, 2])]),
        ]  # fmt: skip

    same(program)


def test_gradients_of_any_order():
    x = gpunn.from_numpy(X.copy()).requires_grad_()

    def f(x):
        packed = pack_padded_sequence(x.exp(), [2, 5, 1, 4], enforce_sorted=False)
        return packed.data.square(), pad_packed_sequence(packed, True)[0].square()

    def g(*xs):
        return pad_sequence([x.exp() for x in xs], padding_side="left").square()

    parts = [x[:n, 0].detach().clone().requires_grad_() for n in (3, 1)]
    assert gradcheck(f, [x]) and gradgradcheck(f, [x])
    assert gradcheck(g, parts) and gradgradcheck(g, parts)
    assert gradgradcheck(g, parts[:1])


def test_inputs_stay_as_they_are():
    x = gpunn.ones(3, 2)
    found = rnn.unpad_sequence(x, gpunn.tensor([3, 1]))
    assert x.shape == (3, 2) and [list(f.shape) for f in found] == [[3], [1]]


# --- PackedSequence -----------------------------------------------------------------------


def test_text():
    same(lambda T: repr(T.nn.utils.rnn.pack_sequence([T.tensor([1, 2]), T.tensor([3])])))
    order = gpunn.tensor([1, 0])
    packed = PackedSequence(gpunn.ones(3), gpunn.tensor([2, 1]), order)
    assert packed._fields == ("data", "batch_sizes", "sorted_indices", "unsorted_indices")
    assert packed.unsorted_indices.tolist() == [1, 0] and packed[2] is order
    data, sizes = PackedSequence((gpunn.ones(3), gpunn.tensor([2, 1])))[:2]
    assert data.tolist() == [1, 1, 1] and sizes.tolist() == [2, 1]


def test_conversions():
    packed = pack_sequence([gpunn.ones(1), gpunn.ones(2)], enforce_sorted=False)
    for name in ("double", "half", "long", "int", "short", "char", "byte"):
        same(lambda T, name=name: str(getattr(
            T.nn.utils.rnn.pack_sequence([T.ones(2)]), name)().data.dtype))  # fmt: skip
    assert packed.to(gpunn.float32) is packed.float() is packed.cpu() is packed
    assert packed.cpu(gpunn.float64).data.dtype is packed.cpu(dtype=gpunn.float64).data.dtype
    assert packed.double().unsorted_indices.tolist() == [1, 0]
    assert not packed.is_cuda and not packed.is_pinned()
    again = pickle.loads(pickle.dumps(packed))
    assert plain(list(again)) == plain(list(copy.deepcopy(packed))) == plain(list(packed))


def test_on_a_device(emulated):
    x = gpunn.from_numpy(X.copy())
    packed = pack_padded_sequence(x, [2, 5, 1, 5], enforce_sorted=False)
    there = pack_padded_sequence(x.to("cuda"), [2, 5, 1, 5], enforce_sorted=False)
    for moved in (packed.cuda(), packed.cuda(0), packed.to("cuda"), packed.cuda(device="cuda:0")):
        assert moved.is_cuda and moved.sorted_indices.is_cuda
        assert not moved.batch_sizes.is_cuda
        assert plain(list(moved)) == plain(list(there)) == plain(list(packed))
    padded, lengths = pad_packed_sequence(there, True)
    assert padded.is_cuda and not lengths.is_cuda
    assert plain(padded) == plain(pad_packed_sequence(packed, True)[0])
    assert not there.cpu().unsorted_indices.is_cuda
    assert invert_permutation(there.sorted_indices).is_cuda
    assert pad_sequence(unpack_sequence(there)).is_cuda
    with pytest.raises(ValueError, match="batch_sizes should always be on CPU"):
        PackedSequence(there.data, there.batch_sizes.to("cuda"))
    with pytest.raises(RuntimeError, match="should be a 1D CPU int64 tensor, but got 1D cuda:0"):
        pack_padded_sequence(x, gpunn.tensor([5, 3, 3, 1]).to("cuda"))


def test_invert_permutation():
    assert invert_permutation(None) is None
    same(lambda T: T.nn.utils.rnn.invert_permutation(T.tensor([2, 0, 3, 1])))


# --- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("call, words", [
    (lambda T, r: r.pack_padded_sequence(T.ones(3, 2), [1, 2]), "sorted in decreasing order when"),
    (lambda T, r: r.pack_padded_sequence(T.ones(3, 2), [2, 0]), "has to be greater than 0, but"),
    (lambda T, r: r.pack_padded_sequence(T.ones(3, 2), [2, 1, 1]), "but got 3 .batch_size=2"),
    (lambda T, r: r.pack_padded_sequence(T.ones(3, 2), []), "but got 0 .batch_size=2"),
    (lambda T, r: r.pack_padded_sequence(T.ones(3), [2, 1]), "Dimension out of range"),
    (lambda T, r: r.pack_padded_sequence(T.ones(0, 2), [2, 1]), "Cannot pack empty tensors."),
    (lambda T, r: r.pack_padded_sequence(T.ones(3, 2), T.tensor([[2, 1]])),
     "'lengths' argument should be a 1D CPU int64 tensor, but got 2D cpu Long tensor"),
    (lambda T, r: r.pad_packed_sequence(r.pack_sequence([T.ones(3)]), total_length=2),
     "got total_length=2 and max sequence length being 3"),
    (lambda T, r: r.pad_sequence([]), "received an empty list of sequences"),
    (lambda T, r: r.pack_sequence([]), "received an empty list of sequences"),
    (lambda T, r: r.pad_sequence(3), "Expected iterable for input sequences, but got arg of type"),
    (lambda T, r: r.pad_sequence([T.ones(2)], padding_side="up"), "one of left or right, but got"),
    (lambda T, r: r.pad_sequence([T.ones(2, 2), T.ones(3, 3)]),
     r"tensor a \(2\) must match the size of tensor b \(3\) at non-singleton dimension 1"),
    (lambda T, r: r.pack_sequence([T.ones(2), T.ones(3)]), "sorted in decreasing order when"),
    (lambda T, r: r.unpad_sequence(T.ones(3, 2), T.tensor([3])), r"zip\(\) argument 2 is"),
    (lambda T, r: r.PackedSequence(T.ones(3)), "Expected data to be a list or tuple of length 2"),
])  # fmt: skip
def test_errors_are_pytorchs(call, words):
    refused(call, words)


def test_what_is_no_sequence_of_tensors_is_named():
    with pytest.raises(TypeError, match="expected Tensor as element 1 in argument 0, but got list"):
        pad_sequence([gpunn.ones(2), [1.0]])
    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'batch_sizes'"):
        pad_packed_sequence(gpunn.ones(5, 2, 3))


@pytest.mark.parametrize("kind", [gpunn.nn.LSTM, gpunn.nn.GRU])
def test_states_of_another_batch_are_refused_before_they_are_sorted(kind):
    packed = pack_padded_sequence(gpunn.ones(4, 3, 2), [2, 4, 1], enforce_sorted=False)
    state = gpunn.zeros(1, 2, 5)
    with pytest.raises(RuntimeError, match=r"size \(1, 3, 5\), got \[1, 2, 5\]"):
        kind(2, 5)(packed, (state, state) if kind is gpunn.nn.LSTM else state)
