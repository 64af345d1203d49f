"""kernels/embedding.cu: lookup, sums of rows by index in both forms, bags, norms of rows."""

import numpy as np
import pytest
from emulated import Function, check_build, host, on_both, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn import nn
from gpunn.cuda.kernels import embedding as kernels
from gpunn.cuda.kernels import faults, launch
from gpunn.ops.accumulate import add_at

rng = np.random.default_rng(0)
PLAIN = (np.ascontiguousarray,)
F32 = ("float32",)
SORTED = ["row_keys", "segment_sum", "segment_join"]


@pytest.fixture
def small_grid(monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 3)


@pytest.fixture
def fixed_order():
    gpunn.use_deterministic_algorithms(True)
    yield
    gpunn.use_deterministic_algorithms(False)


def zipf(rows, n):
    """Indices of which a few are most of the batch, as words of a text are."""
    share = 1 / np.arange(1, rows + 1)
    return rng.permutation(rows)[rng.choice(rows, n, p=share / share.sum())]


def indices(kind, rows, n):
    return {"uniform": rng.integers(0, rows, n), "zipf": zipf(rows, n),
            "constant": np.full(n, rows // 2)}[kind]  # fmt: skip


def on_device(array, dtype=None):
    made = gpunn.from_numpy(np.asarray(array))
    return (made if dtype is None else made.to(dtype)).to("cuda")


# --- lookup -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 300])
@pytest.mark.parametrize("width", [1, 3, 32, 72])
def test_lookup_and_its_gradient(emulated, small_grid, n, width):
    """Rows of whole and of broken 16 bytes; index (1, n)."""
    index = rng.integers(0, 40, (1, n))
    on_both(lambda i, w: F.embedding(i, w), [index, rng.normal(size=(40, width))])
    if n:
        assert Function.launches[0] == "gather"


def test_int32_indices_and_no_rows(emulated):
    index = rng.integers(0, 40, (5, 9)).astype(np.int32)
    on_both(lambda i, w: F.embedding(i, w), [index, rng.normal(size=(40, 4))], dtypes=F32)
    empty = F.embedding(on_device(np.zeros((2, 0), np.int64)), gpunn.zeros(0, 4, device="cuda"))
    assert empty.shape == (2, 0, 4)
    thin = gpunn.zeros(5, 0, device="cuda", requires_grad=True)
    made = F.embedding(on_device(INDEX), thin)
    assert made.shape == (2, 3, 0)
    assert gpunn.autograd.grad(made, thin, gpunn.ones_like(made))[0].shape == (5, 0)
    assert gpunn.autograd.grad(thin[on_device(INDEX)], thin, made)[0].shape == (5, 0)
    with pytest.raises(IndexError, match="the table has 0 rows"):
        F.embedding(on_device([0]), gpunn.zeros(0, 4, device="cuda")).cpu()


def test_a_table_that_begins_between_two_boundaries(emulated):
    flat = on_device(rng.normal(size=201).astype(np.float32))
    table = flat[1:].reshape(25, 8)
    index = on_device(rng.integers(0, 25, 40))
    np.testing.assert_array_equal(host(F.embedding(index, table)), host(table)[host(index)])


INDEX = np.array([[1, 0, 1], [3, 1, 4]])


@pytest.mark.parametrize("options", [
    {}, {"padding_idx": 1}, {"scale_grad_by_freq": True},
    {"scale_grad_by_freq": True, "padding_idx": -2},
])  # fmt: skip
def test_options(emulated, options):
    on_both(lambda i, w: F.embedding(i, w, **options), [INDEX, rng.normal(size=(5, 4))])
    dense = gpunn.randn(5, 4, device="cuda")
    found = []
    for sparse in (False, True):
        w = dense.clone().requires_grad_()
        F.embedding(on_device(INDEX), w, sparse=sparse, **options).backward(
            gpunn.ones(2, 3, 4, device="cuda"))  # fmt: skip
        found.append(w.grad)
    assert found[1].is_sparse
    np.testing.assert_allclose(host(found[1].to_dense()), host(found[0]), rtol=1e-6)


def test_integer_tables_are_read_by_array_operations(emulated):
    table = gpunn.arange(10, device="cuda").reshape(5, 2)
    assert F.embedding(on_device([4, 0]), table).tolist() == [[8, 9], [0, 1]]
    with pytest.raises(IndexError, match="embedding got index 5 at position"):
        F.embedding(on_device([4, 5]), table)


# --- sums by index ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uniform", "zipf", "constant"])
@pytest.mark.parametrize("rows", [11, 3000])
def test_gradients_of_all_kinds_of_indices(emulated, kind, rows):
    """Few rows: sorted. Many: atomic for float32 and float64, sorted for 16 bits."""
    index = indices(kind, rows, 2500)
    on_both(lambda i, w: F.embedding(i, w), [index, rng.normal(size=(rows, 16))], layouts=PLAIN,
            rtol={"float32": 1e-4})  # fmt: skip
    names = set(Function.launches)
    assert ("scatter_add" in names) == (rows == 3000)
    assert names >= set(SORTED)


def test_half_precision_is_rounded_once(emulated):
    """4097 ones: a sum that is rounded at each addition stops at 256 or 2048."""
    for name, want in (("bfloat16", 4096), ("float16", 4096)):
        weight = gpunn.zeros(9, 8, device="cuda", dtype=getattr(gpunn, name), requires_grad=True)
        made = F.embedding(on_device(np.full(4097, 3)), weight)
        (g,) = gpunn.autograd.grad(made, weight, gpunn.ones_like(made))
        assert host(g)[3].tolist() == [want] * 8 and host(g).sum() == 8 * want


@pytest.mark.parametrize("n", [1, 31, 32, 33, 1024, 1025])
def test_runs_of_all_lengths(emulated, small_grid, fixed_order, n):
    """Rows that end with a run, go on into the next, fill several, and are left out between."""
    for index in (np.repeat(np.arange(n), 31)[:n], np.repeat(np.arange(n), 32)[:n],
                  np.repeat(np.arange(n), 33)[:n], np.repeat([0, 1, 2], [n, n, 1])[-n:],
                  np.arange(n), np.repeat([0, 2, 5], n)[n // 2 : n // 2 + n]):  # fmt: skip
        index = rng.permutation(index)
        want, values = np.zeros((n + 6, 37)), rng.normal(size=(n, 37))
        np.add.at(want, index[index != 2], values[index != 2])
        got = kernels.embedding_backward(raw(values), raw(index), n + 6, 2)
        np.testing.assert_allclose(got.get(), want, rtol=1e-12, atol=1e-12)


def raw(array):
    return on_device(array).array


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_fixed_order_gives_the_same_bits(emulated, fixed_order, name):
    index = on_device(zipf(50, 700))
    weight = gpunn.zeros(2000, 8, device="cuda", dtype=getattr(gpunn, name), requires_grad=True)
    seed = on_device(rng.normal(size=(700, 8)), weight.dtype)

    def gradient():
        return gpunn.autograd.grad(F.embedding(index, weight), weight, seed)[0]

    same_bits(gradient)
    assert "scatter_add" not in Function.launches


def test_index_add_and_its_kin(emulated):
    index = rng.integers(0, 6, 50)
    for f in (
        lambda x, s: x.index_add(0, on_device_of(x, index), s),
        lambda x, s: x.index_add(0, on_device_of(x, index), s, alpha=0.5),
        lambda x, s: x.T.index_add(1, on_device_of(x, index), s.T),
        lambda x, s: x.scatter_add(0, on_device_of(x, index[:, None].repeat(4, 1)), s),
        lambda x, s: x.index_put((on_device_of(x, index - 6),), s, accumulate=True),
        lambda x, s: (x[on_device_of(x, index)] * s)[:, on_device_of(x, [3, 1, -1, 1])],
        lambda x, s: x[on_device_of(x, index), on_device_of(x, index % 4 - 4)] + s[:, 0],
    ):
        on_both(f, [rng.normal(size=(6, 4)), rng.normal(size=(50, 4))], layouts=PLAIN)
        assert {"row_keys", "scatter_add"} < set(Function.launches)
        Function.launches.clear()


def on_device_of(x, index):
    return gpunn.from_numpy(np.asarray(index)).to(x.device)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int64", "int16"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_any_key_adds_up(emulated, dtype, deterministic):
    gpunn.use_deterministic_algorithms(deterministic)
    try:
        i, j = np.array([3, 0, 3, -1]), np.array([[1, -1, 1, 1], [0, 0, 0, 0]])
        for key in ((i,), (slice(None), i), (i, slice(None), i % 2), (1, i), (i, j, j * 0),
                    (np.array([True, False, True, True]), np.array([0, 0, 2])),
                    (slice(0, 2), i, None)):  # fmt: skip
            want = (10 * rng.normal(size=(4, 4, 3))).astype(dtype)
            values = np.asarray(10 * rng.normal(size=want[key].shape)).astype(dtype)
            for layout in (lambda a: a, lambda a: a.transpose(2, 1, 0).copy().transpose(2, 1, 0)):
                got = layout(raw(want))
                add_at(got, tuple(raw(k) if isinstance(k, np.ndarray) else k for k in key),
                       raw(values))  # fmt: skip
                exact = want.copy()
                np.add.at(exact, key, values)
                np.testing.assert_allclose(got.get(), exact, rtol=1e-5, atol=1e-4)
    finally:
        gpunn.use_deterministic_algorithms(False)


def test_adding_up_where_no_order_is_fixed_is_refused(emulated, monkeypatch):
    monkeypatch.setattr(kernels, "_LIMIT", 3)
    x, index = gpunn.zeros(6, 2, device="cuda"), on_device([1, 1])
    gpunn.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            x.index_add(0, index, gpunn.ones(2, 2, device="cuda"))
        gpunn.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="does not have a deterministic implementation"):
            made = x.index_add(0, index, gpunn.ones(2, 2, device="cuda"))
    finally:
        gpunn.use_deterministic_algorithms(False)
    assert made[1].tolist() == [2, 2]


def test_sparse_gradients_coalesce(emulated):
    index = zipf(30, 200)
    for name in ("float32", "bfloat16"):
        weight = gpunn.zeros(30, 3, device="cuda", dtype=getattr(gpunn, name), requires_grad=True)
        seed = on_device(rng.normal(size=(200, 3)), weight.dtype)
        F.embedding(on_device(index), weight, sparse=True).backward(seed)
        once = weight.grad.coalesce()
        assert once.indices().tolist() == [sorted(set(index.tolist()))]
        want = np.zeros((30, 3))
        np.add.at(want, index, host(seed))
        np.testing.assert_allclose(host(once.values()), want[sorted(set(index))], rtol=1e-2,
                                   atol=1e-2 if name == "bfloat16" else 1e-5)  # fmt: skip
        np.testing.assert_allclose(host(weight.grad.to_dense()), want, rtol=1e-2, atol=3e-2)
    for shape in ((0,), (0, 3), (2, 0)):  # no entries, or entries without values
        places = np.zeros((1, shape[0]), np.int64)
        none = gpunn.sparse_coo_tensor(on_device(places), gpunn.zeros(*shape, device="cuda"),
                                       (4, *shape[1:]))  # fmt: skip
        assert none.coalesce()._nnz() == min(shape[0], 1)


# --- bad indices --------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 5, 2**40])
def test_a_bad_index_reads_zeros_adds_nothing_and_is_raised_later(emulated, bad):
    weight = gpunn.ones(5, 4, device="cuda", requires_grad=True)
    index = on_device([[4, bad, 0]])
    out = F.embedding(index, weight)
    (g,) = gpunn.autograd.grad(out, weight, gpunn.ones_like(out))
    with pytest.raises(IndexError, match=rf"index out of range in self: embedding got index {bad} "
                                         r"at flat position 1, the table has 5 rows"):  # fmt: skip
        out.cpu()
    assert out.tolist() == [[[1.0] * 4, [0.0] * 4, [1.0] * 4]]
    assert g[:, 0].tolist() == [1, 0, 0, 0, 1]


def test_a_bad_index_at_once_when_asked(emulated):
    gpunn.cuda.set_sync_debug(True)
    try:
        with pytest.raises(IndexError, match="index out of range in self"):
            nn.Embedding(5, 4, device="cuda")(on_device([5]))
        with pytest.raises(IndexError, match="embedding_bag got index 7 at flat position 2"):
            nn.EmbeddingBag(5, 4, device="cuda")(on_device([[0, 1], [7, 2]]))
    finally:
        gpunn.cuda.set_sync_debug(False)


@pytest.mark.parametrize("n, deterministic", [(3, False), (3, True)])
def test_a_bad_index_of_index_add_adds_nothing(emulated, n, deterministic):
    gpunn.use_deterministic_algorithms(deterministic)
    try:
        out = raw(np.zeros((4, 2), np.float32))
        assert kernels.index_add_rows(out, raw([1, 4, -4]), raw(np.ones((n, 2), np.float32)))
    finally:
        gpunn.use_deterministic_algorithms(False)
    with pytest.raises(IndexError, match="index 4 is out of bounds for dimension with size 4"):
        faults.raise_pending()
    assert out.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


# --- norms --------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 2.0, 2.5, float("inf")])
@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_max_norm(emulated, small_grid, p, name):
    """Each row once, however often it is named; in a table that need not be contiguous."""
    index = np.array([0, 3, 3, 7, 0, 3] * 9)
    table = gpunn.from_numpy(rng.normal(size=(9, 35)).astype(np.float32)).to(getattr(gpunn, name))
    here, want = table.to("cuda"), table.double().clone()
    made = F.embedding(on_device(index), here, max_norm=1.5, norm_type=p)
    exact = F.embedding(gpunn.from_numpy(index), want, max_norm=1.5, norm_type=p)
    tolerance = {"float64": 1e-12, "float32": 1e-5}.get(name, 1e-2)
    np.testing.assert_allclose(host(made), host(exact), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(host(here), host(want), rtol=tolerance, atol=tolerance)
    turned = table.T.contiguous().to("cuda").T
    F.embedding(on_device(index), turned, max_norm=1.5, norm_type=p)
    np.testing.assert_array_equal(host(turned), host(here))


def test_max_norm_is_a_change_in_place(emulated):
    weight = gpunn.full((2, 2), 3.0, device="cuda", requires_grad=True)
    product = weight * weight
    F.embedding(on_device([0]), weight, max_norm=1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward(gpunn.ones_like(product))


# --- bags ---------------------------------------------------------------------------------


def offsets_of(bags, n):
    """Bags of many lengths, some empty."""
    return np.concatenate([[0], np.sort(rng.integers(0, n + 1, bags - 1))])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("n, bags, width", [(0, 3, 4), (1, 1, 1), (33, 31, 3), (90, 4, 40)])
def test_bags(emulated, small_grid, mode, n, bags, width):
    index, offsets = rng.integers(0, 12, n), offsets_of(bags, n)
    on_both(lambda i, o, w: F.embedding_bag(i, w, o, mode=mode),
            [index, offsets, rng.normal(size=(12, width))])  # fmt: skip
    ends = np.concatenate([offsets, [n]])
    on_both(lambda i, o, w: F.embedding_bag(i, w, o, mode=mode, include_last_offset=True,
                                            padding_idx=3),
            [index, ends, rng.normal(size=(12, width))], layouts=PLAIN)  # fmt: skip


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_one_length(emulated, mode):
    for shape in ((40, 3), (2, 100), (3, 0)):
        index = rng.integers(0, 12, shape).astype(np.int32)
        on_both(lambda i, w: F.embedding_bag(i, w, mode=mode, padding_idx=5),
                [index, rng.normal(size=(12, 8))], dtypes=("float32", "float16"))  # fmt: skip


def test_weights_of_samples(emulated, small_grid):
    index, offsets = rng.integers(0, 12, 50), offsets_of(6, 50)
    arrays = [index, offsets, rng.normal(size=(12, 40)), rng.normal(size=50)]
    for options in ({}, {"padding_idx": 2}, {"scale_grad_by_freq": True}):
        on_both(lambda i, o, w, s: F.embedding_bag(i, w, o, mode="sum", per_sample_weights=s,
                                                   **options), arrays)  # fmt: skip


def test_no_bags(emulated):
    """Entries without a bag have no gradient."""
    for mode in ("sum", "mean", "max"):
        on_both(lambda i, o, w, s: F.embedding_bag(
            i, w, o, mode=mode, per_sample_weights=s if mode == "sum" else None) * s.sum(),
            [np.array([1, 2]), np.zeros(0, np.int64), rng.normal(size=(3, 2)), np.ones(2)],
            dtypes=F32, grad=mode == "sum",
        )  # fmt: skip


def test_all_arguments_on_one_device(emulated):
    weight, index = gpunn.zeros(3, 2, device="cuda"), on_device([1, 2])
    with pytest.raises(RuntimeError, match="same device"):
        F.embedding_bag(index, weight, gpunn.tensor([0]))


@pytest.mark.parametrize("weighed, mode", [(False, "sum"), (False, "mean"), (True, "sum")])
def test_sparse_gradients_of_bags(emulated, weighed, mode):
    index, table = rng.integers(0, 5, (4, 6)), gpunn.randn(5, 3, device="cuda")
    scales = on_device(rng.normal(size=(4, 6)), gpunn.float32) if weighed else None
    for options in ({}, {"padding_idx": 1}, {"scale_grad_by_freq": True, "padding_idx": 0}):
        found = []
        for sparse in (False, True):
            w = table.clone().requires_grad_()
            y = F.embedding_bag(on_device(index), w, mode=mode, sparse=sparse,
                                per_sample_weights=scales, **options)  # fmt: skip
            y.backward(gpunn.ones_like(y))
            found.append(w.grad)
        assert found[1].is_sparse
        np.testing.assert_allclose(host(found[1].to_dense()), host(found[0]), rtol=1e-5, atol=1e-6)


def test_of_equal_values_the_first_gets_the_gradient(emulated):
    weight = gpunn.ones(3, 2, device="cuda")
    for first in (0, 1, 2):  # nine entries: the threads take 0 and 8, 1, 2, ...
        index = np.zeros((1, 9), np.int64)
        index[0, first:] = 1
        index[0, 8] = 2
        low = weight.detach().clone()
        low[0] = -1
        low.requires_grad_()
        y = F.embedding_bag(on_device(index), low, mode="max")
        (g,) = gpunn.autograd.grad(y, low, gpunn.ones_like(y))
        assert g.tolist() == [[0, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_gradients_of_gradients(emulated, mode):
    index, offsets = [1, 0, 1, 3, 1], [0, 2, 2]

    def slope(i, o, w, s):
        with gpunn.enable_grad():
            w, s = w * 1.0, s * 1.0
            y = F.embedding_bag(i, w, o, mode=mode, per_sample_weights=s if mode == "sum" else None)
            cubed = (y * y * y * s.sum()).sum()
            return gpunn.autograd.grad(cubed, w, create_graph=True)[0]

    on_both(slope, [index, offsets, rng.normal(size=(5, 3)), rng.normal(size=5)],
            dtypes=("float64",), layouts=PLAIN)  # fmt: skip


def test_bags_give_the_same_bits(emulated, fixed_order):
    index, offsets = on_device(zipf(9, 300)), on_device(offsets_of(5, 300))
    weight = on_device(rng.normal(size=(9, 5)), gpunn.float32).requires_grad_()

    def both():
        made = [F.embedding_bag(index, weight, offsets, mode=m) for m in ("sum", "mean", "max")]
        seeds = [gpunn.ones_like(y) for y in made]
        return [*made, *gpunn.autograd.grad(made, weight, seeds)]

    same_bits(both)


# --- all together -------------------------------------------------------------------------


def test_nothing_waits_for_the_device(emulated, monkeypatch):
    """No array is read on the host on the way forward or back."""
    index, starts = on_device(zipf(20, 90)), on_device(offsets_of(4, 90))
    weight = gpunn.zeros(20, 4, device="cuda", requires_grad=True)
    scales = gpunn.ones(90, device="cuda", requires_grad=True)
    waits = []
    array = type(index.array)
    for name in ("get", "item", "tolist", "__int__", "__bool__", "__float__", "__index__"):
        monkeypatch.setattr(array, name, lambda *a, name=name: waits.append(name), raising=False)
    for f in (
        lambda: F.embedding(index, weight, padding_idx=1, max_norm=1.0),
        lambda: F.embedding(index, weight, scale_grad_by_freq=True),
        lambda: F.embedding_bag(index, weight, starts, mode="max", padding_idx=0),
        lambda: F.embedding_bag(index, weight, starts, mode="sum", per_sample_weights=scales),
        lambda: F.embedding_bag(index, weight, starts, mode="mean"),
    ):
        made = f()
        gpunn.autograd.grad(made, [weight, scales], gpunn.ones_like(made), allow_unused=True)
    assert waits == []


def test_launches(emulated):
    """One kernel forward; back one, or the keys, the sum and joins until one run is left."""
    joined = [*SORTED, "segment_join"]
    for n, width, names in ((500, 16, ["scatter_add"]), (1025, 16, joined),
                            (1025, 15, ["scatter_add"])):  # fmt: skip
        weight = gpunn.zeros(400, width, device="cuda", requires_grad=True)
        Function.launches.clear()
        made = F.embedding(on_device(rng.integers(0, 400, n)), weight)
        gpunn.autograd.grad(made, weight, gpunn.ones_like(made))
        assert Function.launches == ["gather", *names]


def test_in_the_check_build(emulated, small_grid):
    """No races, no access out of bounds, nothing read that was not written."""
    index, offsets = zipf(12, 70), offsets_of(5, 70)
    with check_build():
        for width, dtypes in ((8, ("float32", "bfloat16")), (35, F32)):
            table = rng.normal(size=(12, width))
            on_both(lambda i, w: F.embedding(i, w, max_norm=1.0, scale_grad_by_freq=True) * 1.0,
                    [index, table], dtypes=dtypes, layouts=PLAIN, grad=False)  # fmt: skip
            on_both(lambda i, w: F.embedding(i, w, padding_idx=1), [index, table], dtypes=dtypes,
                    layouts=PLAIN)  # fmt: skip
            on_both(lambda i, w: F.embedding(i[:9], w, scale_grad_by_freq=True), [index, table],
                    dtypes=dtypes, layouts=PLAIN)  # fmt: skip
            for mode in ("sum", "mean", "max"):
                on_both(lambda i, o, w, s: F.embedding_bag(
                    i, w, o, mode=mode, per_sample_weights=s if mode == "sum" else None) * s.sum(),
                    [index, offsets, table, rng.normal(size=70)], dtypes=F32, layouts=PLAIN,
                )  # fmt: skip


@pytest.mark.gpu
def test_embedding_on_the_gpu():
    """The same on a real device, and PyTorch's numbers there."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    rows, width = 5000, 64
    for kind in ("uniform", "zipf", "constant"):
        for n in (2000, 100_000):
            index, table = indices(kind, rows, n), rng.normal(size=(rows, width))
            for options in ({}, {"padding_idx": rows // 2}, {"scale_grad_by_freq": True}):
                on_both(lambda i, w: F.embedding(i, w, **options), [index, table],
                        layouts=PLAIN, rtol={"float32": 1e-3})  # fmt: skip
            for mode in ("sum", "mean", "max"):
                on_both(lambda i, o, w: F.embedding_bag(i, w, o, mode=mode),
                        [index, offsets_of(50, n), table], layouts=PLAIN,
                        rtol={"float32": 1e-3})  # fmt: skip
            if torch.cuda.is_available():
                w = torch.tensor(table, device="cuda", requires_grad=True)
                i = torch.tensor(index, device="cuda")
                torch.nn.functional.embedding(i, w).sum().backward()
                mine = on_device(table).requires_grad_()
                F.embedding(on_device(index), mine).sum().backward()
                np.testing.assert_allclose(host(mine.grad), w.grad.cpu().numpy(), rtol=1e-12)
    gpunn.use_deterministic_algorithms(True)
    try:
        w = on_device(table, gpunn.float32).requires_grad_()
        seed = on_device(rng.normal(size=(n, width)), gpunn.float32)
        runs = [gpunn.autograd.grad(F.embedding(on_device(index), w), w, seed)[0] for _ in range(5)]
        assert all(gpunn.equal(runs[0], g) for g in runs)
    finally:
        gpunn.use_deterministic_algorithms(False)
