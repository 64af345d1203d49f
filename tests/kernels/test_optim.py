"""kernels/optim.cu: steps and clipping on the emulated device against the CPU's."""

import contextlib
import math
import sys
import types

import emulated as stand_in
import numpy as np
import pytest
from check import TOLERANCE, in_dtype
from emulated import check_build, host, same_bits

import gpunn
from gpunn.cuda.kernels import faults, launch
from gpunn.cuda.kernels import optim as kernels

DTYPES = ["float64", "float32", "float16", "bfloat16"]
SHAPES = [(), (0, 3), (1,), (3, 11), (33,), (70_000,), (8, 1025)]
STEPS = [
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1, "maximize": True}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1, "maximize": True}),
    ("Adam", {"amsgrad": True, "betas": (0.5, 0.9), "eps": 1e-3}),
    ("AdamW", {"weight_decay": 0.1}),
    ("AdamW", {"weight_decay": 0.1, "amsgrad": True, "maximize": True}),
]


def tensors(shapes, dtype="float32", where="cpu", seed=0, scale=1.0):
    """The same numbers on either device."""
    rng = np.random.default_rng(seed)
    arrays = [in_dtype(np.asarray(rng.standard_normal(s) * scale), dtype) for s in shapes]
    return [gpunn.from_numpy(a).to(where) for a in arrays]


def trained(where, name, shapes=SHAPES, dtype="float32", steps=4, layout=None, **options):
    """Parameters and optimizer after some steps; `layout` changes how parameters lie in memory."""
    params = tensors(shapes, dtype, where)
    params = [(layout(p) if layout else p).requires_grad_() for p in params]
    optimizer = getattr(gpunn.optim, name)(params, lr=0.01, **options)
    for i in range(steps):
        for p, g in zip(params, tensors([p.shape for p in params], dtype, where, i + 1)):
            p.grad = g
        optimizer.step()
    return params, optimizer


def assert_same_state(found, wanted, tolerance):
    for p, q in zip(found[0], wanted[0], strict=True):
        close = {"rtol": tolerance, "atol": tolerance}
        np.testing.assert_allclose(host(p), host(q), **close)
        mine, other = found[1].state.get(p, {}), wanted[1].state.get(q, {})
        assert list(mine) == list(other)
        for key, value in mine.items():
            assert value.dtype is other[key].dtype, key
            np.testing.assert_allclose(host(value), host(other[key]), err_msg=key, **close)


@contextlib.contextmanager
def no_host_sync(monkeypatch):
    """A context in which reading an array of the device on the host fails."""

    def refuse(self, *args):
        raise AssertionError("the host waited for the device")

    with monkeypatch.context() as patch:
        for name in ("get", "item", "tolist", "__float__", "__bool__", "__int__", "__index__"):
            patch.setattr(stand_in.ndarray, name, refuse, raising=False)
        yield


# --- steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "options"), STEPS, ids=str)
def test_steps_equal_the_cpus(emulated, name, options, dtype):
    found = trained("cuda", name, dtype=dtype, **options)
    kernel = "sgd_step" if name == "SGD" else "adam_step"
    assert stand_in.Function.launches == [kernel] * 4
    assert_same_state(found, trained("cpu", name, dtype=dtype, **options), TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_step_of_half_precision_is_rounded_once(emulated, name):
    """One step in bfloat16 is the step in float32, rounded."""
    results = []
    for dtype in (gpunn.bfloat16, gpunn.float32):
        p = tensors([(5000,)], "bfloat16", "cuda")[0].to(dtype).requires_grad_()
        p.grad = tensors([(5000,)], "bfloat16", "cuda", 1)[0].to(dtype)
        getattr(gpunn.optim, name)([p], lr=0.125, weight_decay=0.5).step()
        results.append(p.detach().to(gpunn.bfloat16).cpu().tolist())
    assert results[0] == results[1]


def test_many_parameters_go_in_runs_of_64(emulated):
    shapes = [(i % 7, 3) for i in range(150)]
    found = trained("cuda", "Adam", shapes, steps=2)
    full = sum(1 for s in shapes if s[0])
    assert len(stand_in.Function.launches) == 2 * -(-full // kernels.ARRAYS)
    assert_same_state(found, trained("cpu", "Adam", shapes, steps=2), 2e-5)


def test_chunks_beyond_the_grid(emulated, monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 2)
    shapes = [(5,), (8192,), (8193,), (40_000,)]
    found = trained("cuda", "SGD", shapes, momentum=0.9)
    assert_same_state(found, trained("cpu", "SGD", shapes, momentum=0.9), 2e-5)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
@pytest.mark.parametrize("layout", ["transposed", "channels", "gaps", "odd start"])
def test_layouts(emulated, name, layout):
    """Whatever lies in one piece goes to the kernel as it lies; gaps are left to the arrays."""

    def made(p):
        if layout == "transposed":
            return p.transpose(0, 3).clone(memory_format=gpunn.preserve_format).detach()
        if layout == "channels":
            return p.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).detach()
        if layout == "gaps":
            return gpunn.cat([p, p])[::2].detach()
        return gpunn.cat([p.flatten()[:1], p.flatten()])[1:].detach()  # not on 16 bytes

    options = {"momentum": 0.9} if name == "SGD" else {}
    shapes = [(6, 4, 3, 5)]
    found = trained("cuda", name, shapes, layout=made, **options)
    assert bool(stand_in.Function.launches) == (layout != "gaps")
    assert_same_state(found, trained("cpu", name, shapes, layout=made, **options), 2e-5)


def test_parameters_of_several_dtypes_go_together_by_dtype(emulated):
    shapes, found = [(3,), (70,)] * 3, []
    for where in ("cuda", "cpu"):
        params = []
        for i, p in enumerate(tensors(shapes, "float32", where)):
            params.append(p.to(gpunn.bfloat16 if i % 2 else gpunn.float32).requires_grad_())
            params[-1].grad = gpunn.ones_like(params[-1])
        optimizer = gpunn.optim.AdamW(params)
        optimizer.step()
        found.append((params, optimizer))
    assert stand_in.Function.launches == ["adam_step"] * 2
    assert_same_state(*found, 1e-2)


def test_missing_gradients_and_own_counts_of_steps(emulated):
    found = []
    for where in ("cuda", "cpu"):
        params = [p.requires_grad_() for p in tensors([(4,), (5,), (6,)], "float32", where)]
        optimizer = gpunn.optim.Adam(params, lr=0.1)
        for present in ([0, 1], [1], [0, 1, 2]):
            for i, p in enumerate(params):
                p.grad = gpunn.ones_like(p) if i in present else None
            optimizer.step()
        found.append((params, optimizer))
    assert stand_in.Function.launches == ["adam_step"] * 5
    assert_same_state(*found, 2e-5)


@pytest.mark.parametrize("name", ["Adam", "NAdam"])
def test_counts_of_a_loaded_state_stay_on_the_host(emulated, monkeypatch, name):
    params, optimizer = trained("cuda", name, [(3,), (4,)], steps=1)
    state = optimizer.state_dict()
    for values in state["state"].values():  # as PyTorch's fused and capturable ones have it
        for key in optimizer._scalars:
            values[key] = values[key].to("cuda")
    fresh = getattr(gpunn.optim, name)(params, lr=0.01, capturable=True)
    fresh.load_state_dict(state)
    assert all(fresh.state[p][key].device.type == "cpu" for p in params for key in fresh._scalars)
    with no_host_sync(monkeypatch):
        fresh.step()
    assert [fresh.state[p]["step"].item() for p in params] == [2.0, 2.0]


def test_sparse_gradients_beside_dense_ones(emulated, monkeypatch):
    def scatter_add(array, key, values):
        np.add.at(stand_in.plain(array), stand_in.plain(key), stand_in.plain(values))

    monkeypatch.setitem(sys.modules, "cupyx", types.SimpleNamespace(scatter_add=scatter_add))
    found = []
    for where in ("cuda", "cpu"):
        table = gpunn.nn.Embedding(6, 3, sparse=True)
        with gpunn.no_grad():
            table.weight.copy_(tensors([(6, 3)])[0])
        table = table.to(where)
        dense = tensors([(3,)], "float32", where)[0].requires_grad_()
        optimizer = gpunn.optim.SGD([table.weight, dense], lr=0.1)
        ((table(gpunn.tensor([1, 4, 1], device=where)) * dense) ** 2).sum().backward()
        optimizer.step()
        found.append(([table.weight, dense], optimizer))
    assert "sgd_step" in stand_in.Function.launches
    assert_same_state(*found, 2e-5)
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        gpunn.optim.Adam(found[0][0]).step()


def test_options_as_tensors_on_the_device(emulated):
    found = []
    for lr in (0.01, gpunn.tensor(0.01), gpunn.tensor(0.01, device="cuda")):
        params = [p.requires_grad_() for p in tensors([(40,)], "float32", "cuda")]
        params[0].grad = tensors([(40,)], "float32", "cuda", 1)[0]
        gpunn.optim.Adam(params, lr=lr, capturable=True).step()
        found.append(host(params[0]))
        np.testing.assert_allclose(found[-1], found[0], rtol=1e-6)


def test_a_step_is_noticed_by_a_backward_that_needs_the_parameter(emulated):
    p = gpunn.ones(3, device="cuda", requires_grad=True)
    loss = (p * p).sum()
    p.grad = gpunn.ones(3, device="cuda")
    gpunn.optim.SGD([p], lr=0.5).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_step_and_clipping_do_not_wait_for_the_device(emulated, monkeypatch, name):
    options = {"momentum": 0.9} if name == "SGD" else {}
    params, optimizer = trained("cuda", name, [(3, 4), (70,)], steps=1, **options)
    with no_host_sync(monkeypatch):
        total = gpunn.nn.utils.clip_grad_norm_(params, 0.1)
        optimizer.step()
    assert total.device.type == "cuda" and total.item() > 0.1


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "Adafactor"])
def test_a_bad_index_is_raised_before_the_step_changes_anything(emulated, name):
    p = gpunn.ones(3, 2, device="cuda", requires_grad=True)
    p.grad = gpunn.ones(3, 2, device="cuda")
    optimizer = getattr(gpunn.optim, name)([p])
    number = faults.slot("embedding").number
    faults._records[number] = (1, 0, 7, 0, 3)  # as a kernel that met index 7 of 3
    with pytest.raises(IndexError, match="index out of range in self"):
        optimizer.step()
    assert (host(p) == 1).all()
    optimizer.step()
    assert (host(p) != 1).all()


def test_what_the_kernels_do_not_take_is_refused_and_left_alone(emulated):
    def ones(*shape, dtype=np.float32):
        return launch.zeros(shape, dtype) + dtype(1)

    p = ones(4, 3)
    assert not kernels.sgd_step([p], [ones(4, 3, dtype=np.float64)], None, 0.1)
    assert not kernels.sgd_step([p], [ones(4)], None, 0.1)
    assert not kernels.sgd_step([p[:, :2]], [ones(4, 2)], None, 0.1)
    assert not kernels.sgd_step([ones(3, dtype=np.complex64)] * 2, [ones(3)] * 2, None, 0.1)
    assert not kernels.adam_step([p], [p], [p], [ones(4, 3).T], 1, 0.1)
    assert not kernels.sgd_step([], [], None, 0.1)
    assert not kernels.scale_by_norm([p[:, :2]], ones(), 0.1)
    assert kernels.total_norm([ones(3, dtype=np.complex64)], 2.0, np.float32) is None
    assert stand_in.Function.launches == [] and (p.get() == 1).all()


def test_complex_parameters_are_left_to_the_arrays(emulated):
    found = []
    for where in ("cuda", "cpu"):
        p = gpunn.tensor([1 + 2j, 3 - 1j], device=where, requires_grad=True)
        p.grad = gpunn.tensor([0.5j, 1 + 1j], device=where)
        gpunn.optim.Adam([p], lr=0.1).step()
        found.append(p.detach().cpu().numpy())
    np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.parametrize(("name", "options"), STEPS[3::5], ids=str)
def test_the_check_build_finds_nothing(emulated, name, options):
    with check_build():
        trained("cuda", name, [(1,), (300,), (8200,)], "float16", steps=2, **options)
        params, _ = trained("cuda", name, [(3,), (8200,)], "float32", steps=1, **options)
        gpunn.nn.utils.clip_grad_norm_(params, 0.1)
        gpunn.nn.utils.clip_grad_norm_(params, 0.1, norm_type=math.inf)


@pytest.mark.parametrize("odd", [0, 1, 2, 3, 4])
def test_arrays_that_do_not_start_on_16_bytes(emulated, odd):
    """One of parameter, gradient and states: the check build refuses wide accesses to it."""
    arrays = [launch.zeros((4, 41), np.float32) + np.float32(1) for _ in range(5)]
    aligned = [a.reshape(-1)[4:] for a in arrays]
    aligned[odd] = arrays[odd].reshape(-1)[1:161]
    p, g, *states = [a[:160] for a in aligned]
    with check_build():
        assert kernels.adam_step([p], [g], states[:1], states[1:2], 1, 0.1,
                                 max_exp_avg_sqs=states[2:])  # fmt: skip
        assert kernels.sgd_step([p], [g], states[:1], 0.1, momentum=0.5)
        total = kernels.total_norm([p, g], 2.0, np.float32)
        assert kernels.scale_by_norm([p, g], total, 0.5)
        assert kernels.clip_values([p, g], 1e3)
    norm = np.sqrt((p.get() ** 2).sum() + (g.get() ** 2).sum())
    assert norm == pytest.approx(0.5, rel=1e-5)
    for a in (p, g, *states):  # each element was treated as the others
        assert (a.get() == a.get()[0]).all()


# --- clipping -----------------------------------------------------------------------------

NORMS = [2, 1, 3, 0.5, math.inf, -1.5, 0, -math.inf]


def clipped(where, dtype="float32", norm_type=2.0, max_norm=0.5, shapes=SHAPES, scale=1.0):
    """The norm, and gradients after clipping; there is a parameter without a gradient."""
    params = [gpunn.zeros(s, device=where, requires_grad=True) for s in [*shapes, (2,)]]
    params = [p.detach().to(getattr(gpunn, dtype)).requires_grad_() for p in params]
    for p, g in zip(params, tensors(shapes, dtype, where, scale=scale)):
        p.grad = g
    total = gpunn.nn.utils.clip_grad_norm_(params, max_norm, norm_type)
    assert params[-1].grad is None
    return total, [p.grad for p in params[:-1]]


def assert_same_clipping(found, wanted, tolerance):
    assert found[0].dtype is wanted[0].dtype and found[0].shape == ()
    np.testing.assert_allclose(host(found[0]), host(wanted[0]), rtol=tolerance)
    for g, w in zip(found[1], wanted[1], strict=True):
        assert g.dtype is w.dtype
        np.testing.assert_allclose(host(g), host(w), rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm_type", NORMS)
def test_clipping_equals_the_cpus(emulated, norm_type, dtype):
    shapes = [s for s in SHAPES if 0 not in s] if norm_type < 0 else SHAPES
    scale = 1e-2 if norm_type in (1, 0.5) else 1.0  # float16 holds the norm
    shapes = shapes[:-2] if norm_type == 0.5 else shapes
    found = clipped("cuda", dtype, norm_type, 1e-3, shapes, scale)
    by_kernel = norm_type not in (0, -math.inf)
    assert ("norm_total" in stand_in.Function.launches) == by_kernel
    assert stand_in.Function.launches[-1] == "scale_by_norm"
    assert_same_clipping(found, clipped("cpu", dtype, norm_type, 1e-3, shapes, scale),
                         max(TOLERANCE[dtype], 1e-12))  # fmt: skip


def test_gradients_that_are_small_enough_are_not_touched(emulated):
    norm = clipped("cpu", max_norm=1e6)[0].item()
    total, grads = clipped("cuda", max_norm=1.5 * norm)
    for g, w in zip(grads, tensors(SHAPES), strict=True):
        assert np.array_equal(host(g), host(w))
    assert total.item() == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("norm_type", [2.0, math.inf, 1.0])
def test_more_chunks_than_the_last_block_has_threads(emulated, norm_type):
    g = np.random.default_rng(0).standard_normal(2_300_005).astype(np.float32)
    total = gpunn.nn.utils.get_total_norm([gpunn.from_numpy(g).to("cuda")], norm_type).item()
    assert total == pytest.approx(np.linalg.norm(g.astype(np.float64), norm_type), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_clipped_half_precision_is_rounded_once(emulated, dtype):
    (g,) = tensors([(1000,)], dtype, "cuda")
    kept, total = host(g), np.float32(7)
    assert kernels.scale_by_norm([g.array], launch.zeros((), np.float32) + total, 1.0)
    exact = in_dtype(kept * np.float64(np.float32(1) / (total + np.float32(1e-6))), dtype)
    np.testing.assert_array_equal(host(g), exact.astype(np.float64))


def test_many_gradients_of_several_dtypes(emulated):
    totals = []
    for where in ("cuda", "cpu"):
        grads = tensors([(i % 5, 7) for i in range(90)], "float32", where)
        grads += tensors([(i,) for i in range(70)], "float64", where, 1)
        grads += tensors([(40,)], "bfloat16", where, 2)
        params = [gpunn.zeros_like(g).requires_grad_() for g in grads]
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        totals.append((gpunn.nn.utils.clip_grad_norm_(params, 0.1), [p.grad for p in params]))
    assert_same_clipping(*totals, 1e-2)
    assert totals[0][0].item() == pytest.approx(totals[1][0].item(), rel=1e-6)
    names = stand_in.Function.launches
    assert [names.count(n) for n in ("norm_parts", "norm_total", "scale_by_norm")] == [5, 1, 5]


@pytest.mark.parametrize("norm_type", [2, math.inf, 1, 3])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_norms_that_are_not_finite(emulated, bad, norm_type):
    found = []
    for where in ("cuda", "cpu"):
        params = [p.requires_grad_() for p in tensors([(40,), (3,)], "float32", where)]
        for p in params:
            p.grad = gpunn.ones_like(p)
        params[0].grad[33] = bad
        with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):
            gpunn.nn.utils.clip_grad_norm_(params, 1.0, norm_type, error_if_nonfinite=True)
        total = gpunn.nn.utils.clip_grad_norm_(params, 1.0, norm_type)
        found.append([host(total), *(host(p.grad) for p in params)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layout", ["transposed", "gaps"])
def test_clipping_gradients_with_other_layouts(emulated, layout):
    totals = []
    for where in ("cuda", "cpu"):
        (wide,) = tensors([(6, 8)], "float32", where)
        g = wide.t() if layout == "transposed" else wide[:, ::2]
        p = gpunn.zeros(g.shape, device=where, requires_grad=True)
        p._grad = g
        other = gpunn.zeros(3, device=where, requires_grad=True)
        other.grad = gpunn.ones(3, device=where)
        params = [p, other]
        totals.append((gpunn.nn.utils.clip_grad_norm_(params, 0.1), [p.grad for p in params]))
    assert ("scale_by_norm" in stand_in.Function.launches) == (layout == "transposed")
    assert_same_clipping(*totals, 2e-5)


def test_a_given_norm(emulated):
    for total in (gpunn.tensor(8.0, device="cuda"), gpunn.tensor(8.0)):
        p = gpunn.zeros(1, device="cuda", requires_grad=True)
        p.grad = gpunn.tensor([2.0], device="cuda")
        gpunn.nn.utils.clip_grads_with_norm_(p, 1.0, total)
        assert p.grad.item() == pytest.approx(0.25)


def test_nothing_to_clip(emulated):
    p = gpunn.zeros(0, device="cuda", requires_grad=True)
    p.grad = gpunn.zeros(0, device="cuda")
    assert gpunn.nn.utils.clip_grad_norm_([p], 1.0).item() == 0.0
    assert gpunn.nn.utils.clip_grad_norm_([p], 1.0, math.inf).item() == 0.0


def test_clipping_on_two_devices(emulated):
    params = []
    for where in ("cuda", "cpu"):
        p = gpunn.zeros(1, device=where, requires_grad=True)
        p.grad = gpunn.tensor([3.0 if where == "cpu" else 4.0], device=where)
        params.append(p)
    assert gpunn.nn.utils.clip_grad_norm_(params, 2.5).item() == 5.0
    assert [p.grad.item() for p in params] == pytest.approx([2.0, 1.5])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [0.7, 0.0, -0.5, math.inf])
def test_clipped_values_equal_the_cpus(emulated, limit, dtype):
    found = []
    for where in ("cuda", "cpu"):
        params = [gpunn.zeros_like(g).requires_grad_() for g in tensors(SHAPES, dtype, where)]
        for p, g in zip(params, tensors(SHAPES, dtype, where, 1), strict=True):
            p.grad = g
        params[-1].grad[0, :3] = gpunn.tensor([math.nan, math.inf, -math.inf], device=where)
        with gpunn.no_grad():
            gpunn.nn.utils.clip_grad_value_(params, limit)
        found.append([host(p.grad) for p in params])
    assert stand_in.Function.launches[-1:] == ["clip_values"]
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_values_of_gradients_with_gaps_are_clipped_too(emulated):
    (wide,) = tensors([(6, 8)], "float32", "cuda")
    p = gpunn.zeros(6, 4, device="cuda", requires_grad=True)
    p._grad = wide[:, ::2]
    gpunn.nn.utils.clip_grad_value_(p, 0.5)
    assert np.abs(host(wide[:, ::2])).max() == 0.5 < np.abs(host(wide[:, 1::2])).max()


def test_results_do_not_depend_on_the_order_of_blocks(emulated):
    shapes = [(300,), (20_000,)]
    for name in ("SGD", "AdamW"):
        options = {"momentum": 0.9} if name == "SGD" else {"amsgrad": True}
        same_bits(lambda: trained("cuda", name, shapes, steps=2, **options)[0])

    def clip(norm_type):
        total, grads = clipped("cuda", norm_type=norm_type)
        return [total, *grads]

    for norm_type in (2, 3, math.inf):
        same_bits(lambda: clip(norm_type))


# --- on a GPU -----------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "options"), STEPS, ids=str)
def test_steps_on_the_gpu(name, options, dtype):
    found = trained("cuda", name, dtype=dtype, **options)
    assert_same_state(found, trained("cpu", name, dtype=dtype, **options), TOLERANCE[dtype])
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    params = [
        torch.from_numpy(host(p)).to("cuda", getattr(torch, dtype)).requires_grad_()
        for p in tensors(SHAPES, dtype)
    ]
    optimizer = getattr(torch.optim, name)(params, lr=0.01, fused=True, **options)
    for i in range(4):
        for p, g in zip(params, tensors(SHAPES, dtype, seed=i + 1), strict=True):
            p.grad = torch.from_numpy(host(g)).to(p)
        optimizer.step()
    for p, q in zip(found[0], params, strict=True):
        close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        np.testing.assert_allclose(host(p), q.detach().double().cpu().numpy(), **close)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm_type", [2, 1, 3, math.inf])
def test_clipping_on_the_gpu(norm_type, dtype):
    found = clipped("cuda", dtype, norm_type, 1e-3, scale=1e-2)
    wanted = clipped("cpu", dtype, norm_type, 1e-3, scale=1e-2)
    assert_same_clipping(found, wanted, TOLERANCE[dtype])
