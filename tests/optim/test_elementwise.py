"""Blocks, half precision, complex numbers, layouts and recorded steps of the elementwise rules."""

import contextlib
import tracemalloc

import numpy as np
import pytest

import gpunn
from gpunn.optim import elementwise
from gpunn.tensor import wrap

NAMES = ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop",
         "Rprop", "ASGD"]  # fmt: skip


def run_steps(name, arrays, grads, **kwargs):
    """The parameter after a few steps from `arrays`' values and layout."""
    params = [gpunn.as_tensor(a).requires_grad_() for a in arrays]
    optimizer = getattr(gpunn.optim, name)(params, lr=0.1, **kwargs)
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = gpunn.as_tensor(g)
        optimizer.step()
    return [p.detach().numpy() for p in params], optimizer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["flat", "rows", "gradient"])
def test_large_parameters_in_blocks_equal_small_ones(monkeypatch, name, layout):
    rng = np.random.default_rng(0)
    value = rng.standard_normal((13, 7))
    grads = rng.standard_normal((4, 13, 7))
    expected, _ = run_steps(name, [value.copy()], [[g] for g in grads])
    monkeypatch.setattr(elementwise, "BLOCK", 128)  # 16 elements, 2 rows
    start = np.asfortranarray(value) if layout == "rows" else value.copy()
    order = np.asfortranarray if layout == "gradient" else np.array
    found, _ = run_steps(name, [start], [[order(g)] for g in grads])
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[0].flags.c_contiguous == start.flags.c_contiguous


def test_blocks_cover_every_element_once():
    for shape in [(100,), (10, 10), (3, 50), (1, 99), (99, 1)]:
        for order in "CF":
            a, b = np.zeros(shape, order=order), np.zeros(shape)
            for x, y in elementwise.blocks([a, b], 80):
                x += 1
                y += 1
            assert (a == 1).all() and (b == 1).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32_and_rounded_once(name, dtype):
    rng = np.random.default_rng(0)
    dtype = getattr(gpunn, dtype)
    value = gpunn.tensor(rng.standard_normal(40), dtype=dtype)
    grad = gpunn.tensor(rng.standard_normal(40), dtype=dtype)
    half = value.clone().requires_grad_()
    full = value.to(gpunn.float32).requires_grad_()
    half.grad, full.grad = grad, grad.to(gpunn.float32)
    for p in (half, full):
        optimizer = getattr(gpunn.optim, name)([p], lr=0.125)
        optimizer.step()
        for key, x in optimizer.state[p].items():
            assert x.dtype is (p.dtype if x.ndim else gpunn.float32), key
    assert half.tolist() == full.detach().to(dtype).tolist()
    assert half.grad.tolist() == grad.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_not_changed(name):
    g = gpunn.tensor([1.0, -2.0])
    p = gpunn.ones(2, requires_grad=True)
    p.grad = g
    kwargs = {"weight_decay": 0.1} if name != "Rprop" else {}
    getattr(gpunn.optim, name)([p], maximize=True, **kwargs).step()
    assert g.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("name", NAMES)
def test_empty_and_missing_gradients(name):
    empty = gpunn.ones(0, 3, requires_grad=True)
    idle = gpunn.ones(2, requires_grad=True)
    empty.grad = gpunn.ones(0, 3)
    optimizer = getattr(gpunn.optim, name)([empty, idle])
    optimizer.step()
    optimizer.step()
    assert idle.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", NAMES)
def test_complex_numbers_are_pairs_of_real_ones(name):
    rng = np.random.default_rng(0)
    value, grads = rng.standard_normal((4, 6)), rng.standard_normal((3, 4, 6))
    real, _ = run_steps(name, [value.copy()], [[g] for g in grads])
    for order in "CF":
        z = np.array(value.view(complex), order=order)
        found, _ = run_steps(name, [z], [[g.view(complex)] for g in grads])
        np.testing.assert_allclose(np.ascontiguousarray(found[0]).view(float), real[0], rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_through_a_differentiable_step(name):
    if name in ("Adam", "AdamW", "NAdam", "RAdam"):
        kwargs = {"weight_decay": 0.1}
    else:
        kwargs = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}

    def after(start, grad):
        p = start.clone()
        optimizer = getattr(gpunn.optim, name)([p], lr=0.1, differentiable=True, **kwargs)
        for scale in (1.0, 2.0):
            p.grad = grad * scale
            optimizer.step()
        return p

    x = gpunn.tensor([1.0, -2.0, 0.5], dtype=gpunn.float64, requires_grad=True)
    g = gpunn.tensor([0.3, -0.6, 0.9], dtype=gpunn.float64, requires_grad=True)
    assert gpunn.autograd.gradcheck(after, (x, g))
    plain = x.detach().clone().requires_grad_()
    optimizer = getattr(gpunn.optim, name)([plain], lr=0.1, **kwargs)
    for scale in (1.0, 2.0):
        plain.grad = (g * scale).detach()
        optimizer.step()
    np.testing.assert_allclose(after(x, g).tolist(), plain.tolist(), rtol=1e-9)


def test_gradients_flow_to_the_learning_rate():
    lr = gpunn.tensor(0.1, dtype=gpunn.float64, requires_grad=True)
    for name in ("SGD", "Adam"):

        def after(lr, name=name):
            p = gpunn.tensor([1.0, -2.0], dtype=gpunn.float64, requires_grad=True).clone()
            p.grad = gpunn.tensor([0.5, 0.25], dtype=gpunn.float64)
            optimizer = getattr(gpunn.optim, name)([p], lr=lr, differentiable=True)
            optimizer.step()
            return p

        assert gpunn.autograd.gradcheck(after, (lr,))


def test_fused_excludes_foreach_and_differentiable():
    p = gpunn.ones(1)
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        gpunn.optim.Adam([p], fused=True, foreach=True)
    with pytest.raises(RuntimeError, match="`fused` does not support `differentiable`"):
        gpunn.optim.SGD([p], fused=True, differentiable=True)


def test_parameters_on_several_devices():
    params = [gpunn.ones(2, device=d, requires_grad=True) for d in ("cpu", "cpu:1")]
    for p in params:
        p.grad = gpunn.ones(2, device=p.device)
    optimizer = gpunn.optim.Adam(params, lr=0.5)
    optimizer.step()
    for p in params:
        assert p.tolist() == pytest.approx([0.5, 0.5])
        assert optimizer.state[p]["exp_avg"].device is p.device


@pytest.fixture
def native(monkeypatch):
    """The C++ library asked from the first element on."""
    if gpunn.native.lib() is None:
        pytest.skip(f"no C++ library: {gpunn.native.status()}")
    monkeypatch.setattr(elementwise, "NATIVE_SIZE", 1)


NATIVE = [
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1, "maximize": True}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adam", {"weight_decay": 0.1}),
    ("Adam", {"amsgrad": True, "maximize": True}),
    ("AdamW", {"weight_decay": 0.1}),
    ("AdamW", {"amsgrad": True, "weight_decay": 0.1}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "kwargs"), NATIVE, ids=str)
def test_the_cpp_form_equals_the_numpy_form(monkeypatch, native, name, kwargs, dtype):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s).astype(dtype) for s in [(5, 7), (3,), (), (0, 2)]]
    grads = [[rng.standard_normal(v.shape).astype(dtype) for v in values] for _ in range(5)]
    calls = []
    step = gpunn.native.sgd_step if name == "SGD" else gpunn.native.adam_step

    def counted(*args, **options):
        calls.append(step(*args, **options))
        return calls[-1]

    monkeypatch.setattr(gpunn.native, step.__name__, counted)
    found, optimizer = run_steps(name, [np.array(v) for v in values], grads, **kwargs)
    assert calls == [True] * 5
    monkeypatch.setattr(elementwise, "NATIVE_SIZE", 1 << 40)
    expected, other = run_steps(name, [np.array(v) for v in values], grads, **kwargs)
    close = {"rtol": 1e-5 if dtype == np.float32 else 1e-12, "atol": 1e-7}
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **close)
    for a, b in zip(optimizer.state.values(), other.state.values(), strict=True):
        for key in a:
            np.testing.assert_allclose(a[key].numpy(), b[key].numpy(), **close)


def test_what_the_cpp_form_cannot_take_is_left_to_numpy(native):
    """An array with gaps among others, and half precision."""
    rng = np.random.default_rng(0)
    value, grad = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
    expected, _ = run_steps("Adam", [value.copy()], [[grad]] * 3)
    starts = [value.copy(), np.asfortranarray(value), value.copy()]
    found, _ = run_steps("Adam", starts, [[grad] * 3] * 3)
    for x in found:
        np.testing.assert_allclose(x, expected[0], rtol=1e-12)
    half = gpunn.ones(4, dtype=gpunn.bfloat16, requires_grad=True)
    half.grad = gpunn.ones(4, dtype=gpunn.bfloat16)
    gpunn.optim.Adam([half], lr=0.5).step()
    assert half.tolist() == [0.5] * 4


def test_updates_run_with_their_cuda_device_as_the_current_one(monkeypatch):
    current = []

    @contextlib.contextmanager
    def entered(device):
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(gpunn.cuda, "device", entered)
    seen = []

    def plain(xp, p, g, lr):
        seen.append((p.size, list(current)))
        p -= g * lr

    monkeypatch.setattr(gpunn.optim.sgd, "_plain", plain)
    params = []
    for index in (0, 1, None, 1):
        device = gpunn.device("cpu")
        if index is not None:  # NumPy's arrays on a device that calls itself CUDA's
            device = object.__new__(gpunn.device)
            device.type, device.index, device.uses_kernels, device._xp = "cuda", index, True, np
        p = wrap(np.ones(len(params) + 1), device)
        p.grad = wrap(np.ones(len(params) + 1), device)
        params.append(p)
    gpunn.optim.SGD(params).step()
    assert seen == [(i + 1, [p.device] * (p.device.type == "cuda")) for i, p in enumerate(params)]
    gpunn.optim.Adam(params).step()
    gpunn.nn.utils.clip_grad_norm_(params, 1e-3)
    assert current == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_needs_little_memory_beside_the_state(monkeypatch, name, dtype):
    monkeypatch.setattr(elementwise, "NATIVE_SIZE", 1 << 40)
    p = gpunn.ones(1 << 20, dtype=getattr(gpunn, dtype), requires_grad=True)
    p.grad = gpunn.ones(1 << 20, dtype=p.dtype)
    optimizer = getattr(gpunn.optim, name)([p], maximize=True)
    optimizer.step()
    tracemalloc.start()
    optimizer.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * elementwise.BLOCK < p.nbytes * 3
