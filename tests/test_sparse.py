"""Sparse tensors against their dense selves."""

import numpy as np
import pytest

import gpunn

I = [[0, 2, 0], [1, 0, 1]]  # noqa: E741


def sparse():
    return gpunn.sparse_coo_tensor(I, [1.0, 2.0, 3.0], (3, 2))


def test_repeated_places_add_up():
    dense = sparse().to_dense()
    assert dense.tolist() == [[0, 4], [0, 0], [2, 0]]
    once = sparse().coalesce()
    assert once.indices().tolist() == [[0, 2], [1, 0]] and once.values().tolist() == [4, 2]
    assert once.is_coalesced() and not sparse().is_coalesced()


def test_arithmetic_is_the_dense_one():
    s, d = sparse(), sparse().to_dense()
    assert gpunn.equal((s + s).to_dense(), d + d)
    assert gpunn.equal((s * 3).to_dense(), d * 3) and gpunn.equal((-s).to_dense(), -d)
    assert gpunn.equal((s / 2).to_dense(), d / 2)
    assert gpunn.equal(s + gpunn.ones(3, 2), d + 1)
    raw = np.ones((3, 2), np.float32) + s
    np.testing.assert_array_equal(raw, d.numpy() + 1)
    assert s.norm().item() == pytest.approx(d.norm().item())


def test_dense_to_sparse_and_back():
    d = gpunn.tensor([[0.0, 4.0], [0.0, 0.0], [2.0, 0.0]])
    s = d.to_sparse()
    assert s.is_sparse and s._nnz() == 2 and gpunn.equal(s.to_dense(), d)
    assert d.to_dense() is d


def test_values_may_have_dimensions():
    s = gpunn.sparse_coo_tensor([[1, 1]], [[1.0, 2.0], [3.0, 4.0]], (2, 2))
    assert s.to_dense().tolist() == [[0, 0], [4, 6]]
    assert s.sparse_dim() == 1 and s.dense_dim() == 1 and s.shape == (2, 2)


def test_errors():
    with pytest.raises(RuntimeError, match="uncoalesced tensor, please call .coalesce"):
        sparse().indices()
    with pytest.raises(RuntimeError, match="found index 3"):
        gpunn.sparse_coo_tensor([[3]], [1.0], (2,))
    with pytest.raises(RuntimeError, match="to_dense"):
        sparse().exp()


def test_repr_is_pytorchs():
    assert repr(sparse()).startswith("tensor(indices=tensor([[0, 2, 0],")
    assert repr(sparse()).endswith("size=(3, 2), nnz=3, layout=torch.sparse_coo)")


def test_gradients_pass_through_both_ways():
    x = gpunn.tensor([[0.0, 2.0], [3.0, 0.0]], requires_grad=True)
    s = x.to_sparse()
    assert s.requires_grad and s.grad_fn.name() == "ToSparseBackward0"
    (s.to_dense() * 5).sum().backward()
    assert x.grad.tolist() == [[0, 5], [5, 0]]
