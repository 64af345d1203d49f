"""How operations are told their dtype: casts, their cache, what is left alone, what it costs."""

import threading

import pytest

import gpunn
from gpunn import nn
from gpunn.amp import casts
from gpunn.nn import functional as F


def test_off_is_an_empty_list():
    assert not casts.AUTOCAST and casts.state.on == frozenset()
    with gpunn.autocast("cpu"):
        assert len(casts.AUTOCAST) == 1
        with gpunn.autocast("cpu", enabled=False):
            assert not casts.AUTOCAST
        assert len(casts.AUTOCAST) == 1
    assert not casts.AUTOCAST


def test_float64_integers_and_complex_are_left_alone():
    with gpunn.autocast("cpu"):
        for dtype in (gpunn.float64, gpunn.int64, gpunn.complex64):
            x = gpunn.ones(2, 2, dtype=dtype)
            assert (x @ x).dtype is dtype
        with pytest.raises(RuntimeError, match="same dtype"):
            gpunn.ones(2, 2) @ gpunn.ones(2, 2, dtype=gpunn.float64)


def test_tensors_on_a_device_of_another_type_are_left_alone(emulated):
    x = gpunn.ones(2, 2)
    with gpunn.autocast("cuda"):
        assert (x @ x).dtype is gpunn.float32
        assert (x.cuda() @ x.cuda()).dtype is gpunn.float16
    with gpunn.autocast("cpu"):
        assert (x.cuda() @ x.cuda()).dtype is gpunn.float32
        with gpunn.autocast("cuda"):
            assert (x.cuda() @ x.cuda()).dtype is gpunn.float16
            assert (x @ x).dtype is gpunn.bfloat16


def test_mixed_operands_are_cast():
    x, low = gpunn.ones(2, 2), gpunn.ones(2, 2, dtype=gpunn.bfloat16)
    with gpunn.autocast("cpu"):
        assert (x @ low).dtype is gpunn.bfloat16
        assert gpunn.cat([x, low]).dtype is gpunn.float32
        assert gpunn.stack([low, low]).dtype is gpunn.bfloat16
        assert F.mse_loss(x, low).dtype is gpunn.float32
        with pytest.raises(RuntimeError, match="Unexpected floating ScalarType"):
            gpunn.cat([low, low.half()])


def test_out_and_in_place_forms_compute_in_what_they_are_given():
    x, y = gpunn.full((2, 2), 1.001), gpunn.empty(2, 2)
    with gpunn.autocast("cpu"):
        assert gpunn.mm(x, x, out=y) is y
        z = gpunn.zeros(2, 2).addmm_(x, x)
    assert y.dtype is gpunn.float32
    assert gpunn.equal(y, x @ x) and gpunn.equal(z, x @ x)


def test_inside_of_a_listed_operation_autocast_is_off():
    q = gpunn.randn(1, 2, 4)
    with gpunn.autocast("cpu"):
        loss = F.cosine_embedding_loss(q[0], q[0], gpunn.ones(2))  # products, in float32
    exact = F.cosine_embedding_loss(q[0], q[0], gpunn.ones(2))
    assert gpunn.equal(loss, exact)


def test_a_dtype_asked_for_is_given(emulated):
    x = gpunn.ones(3, device="cuda", dtype=gpunn.float16)
    with gpunn.autocast("cuda"):
        assert x.sum().dtype is gpunn.float32
        assert x.sum(dtype=gpunn.float16).dtype is gpunn.float16
        assert x.prod(dtype=gpunn.float16).dtype is gpunn.float16
        assert F.softmax(x, 0).dtype is gpunn.float32
        assert F.softmax(x, 0, dtype=gpunn.float16).dtype is gpunn.float16


def test_binary_cross_entropy_is_banned_on_cuda(emulated):
    x = gpunn.full((3,), 0.5, device="cuda")
    with gpunn.autocast("cuda"):
        with pytest.raises(RuntimeError, match="binary_cross_entropy and .*BCELoss are unsafe"):
            F.binary_cross_entropy(x, x)
        with gpunn.autocast("cuda", enabled=False):
            F.binary_cross_entropy(x, x)
        F.binary_cross_entropy_with_logits(x, x)


# --- the cache ----------------------------------------------------------------------------


def counted(monkeypatch):
    made = []
    plain = casts.cast
    monkeypatch.setattr(casts, "cast", lambda x, to: made.append(x) or plain(x, to))
    return made


def test_a_parameter_is_cast_once_in_the_outermost_context(monkeypatch):
    layer, x = nn.Linear(3, 3), gpunn.ones(2, 3)
    made = counted(monkeypatch)
    with gpunn.autocast("cpu"):
        with gpunn.autocast("cpu"):
            y = layer(x)
        y = layer(y)
        assert sum(t is layer.weight for t in made) == 1
        assert len(casts.state.cache) == 2
    assert not casts.state.cache
    y.float().sum().backward()
    assert layer.weight.grad.dtype is gpunn.float32
    with gpunn.autocast("cpu"):
        layer(x)
    assert sum(t is layer.weight for t in made) == 2


def test_without_the_cache_each_use_casts(monkeypatch):
    layer = nn.Linear(3, 3)
    made = counted(monkeypatch)
    with gpunn.autocast("cpu", cache_enabled=False):
        layer(layer(gpunn.ones(2, 3)))
        assert not casts.state.cache
    assert sum(t is layer.weight for t in made) == 2


def test_only_leaves_that_need_a_gradient_are_cached():
    with gpunn.autocast("cpu"):
        x = gpunn.ones(2, 2, requires_grad=True)
        (x * 1) @ gpunn.ones(2, 2)
        x[:1] @ gpunn.ones(2, 2)
        assert not casts.state.cache
        x @ gpunn.ones(2, 2)
        assert len(casts.state.cache) == 1
        gpunn.clear_autocast_cache()
        assert not casts.state.cache


def test_gradients_of_shared_parameters_add_up():
    w, x = gpunn.full((2, 2), 0.5, requires_grad=True), gpunn.ones(1, 2)
    with gpunn.autocast("cpu"):
        y = (x @ w) @ w
    y.float().sum().backward()
    assert w.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_a_cast_made_without_gradients_does_not_cut_the_graph():
    layer, x = nn.Linear(2, 2), gpunn.ones(1, 2)
    with gpunn.autocast("cpu"):
        with gpunn.no_grad():
            layer(x)
        layer(x).float().sum().backward()
    assert layer.weight.grad is not None


def test_a_parameter_that_changed_is_cast_anew():
    w, x = gpunn.ones(1, 1, requires_grad=True), gpunn.ones(1, 1)
    with gpunn.autocast("cpu"):
        assert (x @ w).item() == 1
        with gpunn.no_grad():
            w.mul_(2)
        assert (x @ w).item() == 2
        w.data = gpunn.full((1, 1), 4.0)
        assert (x @ w).item() == 4


def test_the_state_is_the_thread_s():
    x, found = gpunn.ones(1, 1), []

    def other():
        found.append((x @ x).dtype)
        with gpunn.autocast("cpu", dtype=gpunn.float16):
            found.append((x @ x).dtype)

    with gpunn.autocast("cpu"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert (x @ x).dtype is gpunn.bfloat16
    assert found == [gpunn.float32, gpunn.float16]


def test_an_error_in_an_operation_leaves_autocast_on():
    with gpunn.autocast("cpu"):
        with pytest.raises(RuntimeError):
            gpunn.addmm(gpunn.ones(1), gpunn.ones(2, 3), gpunn.ones(4, 5))
        assert gpunn.is_autocast_enabled("cpu") and casts.AUTOCAST
