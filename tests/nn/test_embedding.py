"""Embeddings: lookup, its gradient, and every option."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import native, nn

rng = np.random.default_rng(0)
INDEX = np.array([[1, 0, 1], [3, 1, 4]])


@pytest.fixture(params=["native", "numpy"], autouse=True)
def path(request, monkeypatch):
    """Both ways to the same numbers."""
    if request.param == "numpy":
        monkeypatch.setattr(native, "embedding_backward", lambda *a, **k: None)


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_lookup_is_a_one_hot_product(kind):
    index = gpunn.from_numpy(INDEX.astype(kind))
    check(lambda w: F.embedding(index, w), [rng.normal(size=(5, 3))],
          lambda w: np.eye(5)[INDEX] @ w)  # fmt: skip


def gradient(**options):
    weight = gpunn.ones(5, 2, requires_grad=True)
    F.embedding(gpunn.from_numpy(INDEX), weight, **options).sum().backward()
    return weight.grad


def test_the_gradient_counts_how_often_a_row_was_read():
    assert gradient()[:, 0].tolist() == [1, 3, 0, 1, 1]


def test_padding_row_gets_no_gradient():
    assert gradient(padding_idx=1)[:, 0].tolist() == [1, 0, 0, 1, 1]
    assert gradient(padding_idx=-4)[:, 0].tolist() == [1, 0, 0, 1, 1]


def test_scaled_by_frequency():
    assert gradient(scale_grad_by_freq=True)[:, 0].tolist() == [1, 1, 0, 1, 1]


def test_sparse_gradient_is_the_dense_one():
    for options in ({}, {"padding_idx": 1}, {"scale_grad_by_freq": True}):
        sparse = gradient(sparse=True, **options)
        assert sparse.is_sparse and gpunn.allclose(sparse.to_dense(), gradient(**options))
        assert sparse.coalesce()._nnz() < sparse._nnz() or options


def test_sparse_gradients_accumulate_over_two_backwards():
    weight = gpunn.ones(3, 2, requires_grad=True)
    for _ in range(2):
        F.embedding(gpunn.tensor([0, 2]), weight, sparse=True).sum().backward()
    assert weight.grad.is_sparse and weight.grad.to_dense()[:, 0].tolist() == [2, 0, 2]
    F.embedding(gpunn.tensor([1]), weight).sum().backward()
    dense = weight.grad.to_dense() if weight.grad.is_sparse else weight.grad
    assert dense[:, 0].tolist() == [2, 1, 2]


def test_max_norm_scales_only_the_rows_that_are_read():
    weight = gpunn.tensor([[3.0, 4.0], [30.0, 40.0], [0.3, 0.4]])
    out = F.embedding(gpunn.tensor([0, 2]), weight, max_norm=1.0)
    np.testing.assert_allclose(out.numpy(), [[0.6, 0.8], [0.3, 0.4]], rtol=1e-5)
    assert weight[1].tolist() == [30.0, 40.0]


def test_max_norm_after_the_table_was_saved_is_noticed():
    weight = gpunn.full((2, 2), 3.0, requires_grad=True)
    product = (weight * weight).sum()
    F.embedding(gpunn.tensor([0]), weight, max_norm=1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_an_index_out_of_range_names_itself():
    with pytest.raises(IndexError, match=r"index out of range in self.*index 9 at position \[1\]"):
        F.embedding(gpunn.tensor([0, 9]), gpunn.zeros(5, 2))
    with pytest.raises(IndexError, match="index -1"):
        nn.EmbeddingBag(5, 2)(gpunn.tensor([[0, -1]]))
    with pytest.raises(RuntimeError, match="Long, Int"):
        F.embedding(gpunn.zeros(2), gpunn.zeros(5, 2))


def test_the_padding_row_of_a_module_stays_zero():
    table = nn.Embedding(5, 2, padding_idx=-1)
    assert table.padding_idx == 4 and table.weight[4].tolist() == [0, 0]
    table.reset_parameters()
    assert table.weight[4].tolist() == [0, 0]


def test_from_pretrained_is_frozen_unless_asked():
    vectors = gpunn.randn(3, 2)
    assert not nn.Embedding.from_pretrained(vectors).weight.requires_grad
    table = nn.Embedding.from_pretrained(vectors, freeze=False, padding_idx=0)
    assert table.weight.requires_grad and table.padding_idx == 0
    assert gpunn.equal(table(gpunn.tensor([2])), vectors[2:])
