import numpy as np
import pytest

from gpunn import native

SIZES = [1, 15, 16, 1000, 16384, 40001]
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def draw(dtype, seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n).astype(dtype) for n in SIZES]


def close(arrays, exact, dtype):
    for a, b in zip(arrays, exact, strict=True):
        tolerance = 1e-5 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@both
@pytest.mark.parametrize("momentum, dampening, nesterov", [(0, 0, 0), (0.9, 0.1, 0), (0.9, 0, 1)])
@pytest.mark.parametrize("decay, maximize", [(0, False), (0.1, True)])
def test_sgd(dtype, momentum, dampening, nesterov, decay, maximize):
    params, buffers = draw(dtype, 0), [np.zeros(n, dtype) for n in SIZES]
    p, buf = ([a.astype(np.float64) for a in arrays] for arrays in (params, buffers))
    for t in range(3):
        grads = draw(dtype, 10 + t)
        done = native.sgd_step(params, grads, buffers, 0.1, momentum, dampening, decay,
                               bool(nesterov), maximize, first=t == 0)  # fmt: skip
        assert done
        for i, gradient in enumerate(grads):
            g = (-1 if maximize else 1) * gradient.astype(np.float64) + decay * p[i]
            if momentum:
                buf[i] = g if t == 0 else momentum * buf[i] + (1 - dampening) * g
                g = g + momentum * buf[i] if nesterov else buf[i]
            p[i] = p[i] - 0.1 * g
    close(params, p, dtype)
    close(buffers, buf, dtype)


@both
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decay, maximize", [(0, False), (0.1, True)])
def test_adam(dtype, decoupled, amsgrad, decay, maximize):
    params = draw(dtype, 0)
    m, v, top = ([np.zeros(n, dtype) for n in SIZES] for _ in range(3))
    p, em, ev, etop = ([a.astype(np.float64) for a in arrays] for arrays in (params, m, v, top))
    for t in range(1, 4):
        grads = draw(dtype, 10 + t)
        done = native.adam_step(params, grads, m, v, t, 1e-2, 0.9, 0.99, 1e-8, decay, decoupled,
                                maximize, top if amsgrad else None)  # fmt: skip
        assert done
        for i, gradient in enumerate(grads):
            g = (-1 if maximize else 1) * gradient.astype(np.float64)
            if decoupled:
                p[i] = p[i] * (1 - 1e-2 * decay)
            else:
                g = g + decay * p[i]
            em[i] = 0.9 * em[i] + 0.1 * g
            ev[i] = 0.99 * ev[i] + 0.01 * g * g
            etop[i] = np.maximum(etop[i], ev[i])
            root = np.sqrt((etop[i] if amsgrad else ev[i]) / (1 - 0.99**t))
            p[i] = p[i] - 1e-2 * em[i] / (1 - 0.9**t) / (root + 1e-8)
    close(params, p, dtype)
    close(m, em, dtype)
    close(v, ev, dtype)
    if amsgrad:
        close(top, etop, dtype)


@both
def test_square_sum(dtype):
    arrays = draw(dtype, 0)
    exact = sum(float((a.astype(np.float64) ** 2).sum()) for a in arrays)
    before = native.get_num_threads()
    try:
        sums = set()
        for n in (1, 2, 5):
            native.set_num_threads(n)
            sums.add(native.square_sum(arrays))
    finally:
        native.set_num_threads(before)
    assert len(sums) == 1
    np.testing.assert_allclose(sums.pop(), exact, rtol=1e-6)
    assert np.isnan(native.square_sum([np.array([1, np.nan], dtype)]))


def test_arrays_that_do_not_fit_are_refused_and_left_alone():
    p, g = np.ones((4, 3)), np.ones((4, 3))
    assert not native.sgd_step([p.T], [g.T], None, 0.1)
    assert not native.sgd_step([p], [g.astype(np.float32)], None, 0.1)
    assert not native.sgd_step([p.astype(np.float16)], [g.astype(np.float16)], None, 0.1)
    assert not native.adam_step([p], [g], [g.copy()], [np.ones(3)], 1, 0.1)
    assert not native.sgd_step([], [], None, 0.1)
    np.testing.assert_array_equal(p, 1)
