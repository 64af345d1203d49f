"""kernels/attention.cpp against attention in plain NumPy, in float64."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from gpunn import native
from gpunn.generator import Generator
from gpunn.nn.attention import Call
from gpunn.nn.attention_dropout import Redrawn

ROUNDING = {np.float32: 3e-6, np.float64: 1e-14}
pytestmark = pytest.mark.skipif(native.lib() is None, reason=native.status())
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# batch, heads, rows, columns, width, width of the values
SIZES = [
    (1, 1, 1, 1, 1, 1), (2, 3, 5, 7, 4, 6), (1, 2, 63, 64, 16, 16), (2, 1, 64, 65, 17, 15),
    (1, 1, 65, 130, 33, 31), (1, 2, 300, 270, 8, 40), (3, 1, 1, 200, 64, 64), (1, 1, 200, 1, 3, 2),
]  # fmt: skip


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def operands(size, dtype, group=1):
    """q, k, v and the gradient of the result."""
    b, h, rows, columns, width, wide = size
    shapes = (b, h * group, rows, width), (b, h, columns, width), (b, h, columns, wide)
    return [draw(*s, seed=i).astype(dtype) for i, s in
            enumerate((*shapes, (b, h * group, rows, wide)))]  # fmt: skip


def call_of(q, group=1, causal=False, keep=1.0):
    return Call(q.shape[:2], group, 1 / math.sqrt(q.shape[-1]), causal, keep)


def reference(q, k, v, dy, mask, drop, call):
    """out, dq, dk and dv in float64, with the matrix of all weights."""
    q, k, v, dy = (x.astype(np.float64) for x in (q, k, v, dy))
    k, v = k.repeat(call.group, 1), v.repeat(call.group, 1)
    scores = q @ k.swapaxes(2, 3) * call.scale
    if call.causal:
        scores[..., ~np.tri(*scores.shape[2:], dtype=bool)] = -np.inf
    if mask is not None and mask.dtype == np.bool_:
        scores = np.where(mask, scores, -np.inf)
    elif mask is not None:
        scores = scores + mask
    top = scores.max(-1, keepdims=True)
    e = np.exp(scores - np.where(top == -np.inf, 0, top))
    p = e / np.where(top == -np.inf, 1, e.sum(-1, keepdims=True))
    factor = 1 if drop is None else drop / (call.keep or 1)
    out, dp = p * factor @ v, dy @ v.swapaxes(2, 3) * factor
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * call.scale
    dk, dv = ds.swapaxes(2, 3) @ q, (p * factor).swapaxes(2, 3) @ dy
    dk, dv = (x.reshape(len(x), -1, call.group, *x.shape[2:]).sum(2) for x in (dk, dv))
    return out, ds @ k, dk, dv


def run(q, k, v, dy, mask, drop, call, needs=(True, True, True)):
    out, stats = native.attention_forward(q, k, v, mask, drop, call)
    return out, *native.attention_backward(dy, q, k, v, out, stats, mask, drop, call, needs)


def agree(arrays, mask, drop, call):
    found = run(*arrays, mask, drop, call)
    tolerance = ROUNDING[arrays[0].dtype.type] * math.sqrt(max(arrays[1].shape[2], 4)) / call.keep
    for got, want in zip(found, reference(*arrays, mask, drop, call), strict=True):
        assert got.dtype == arrays[0].dtype and got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=tolerance * max(1, abs(want).max()), rtol=0)


@both
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients(size, dtype):
    for group in (1, 3):
        arrays = operands(size, dtype, group)
        for causal in (False, True):
            agree(arrays, None, None, call_of(arrays[0], group, causal))


@both
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_masks(size, dtype):
    """Whole ones, repeated ones, turned ones; rows that may attend to nothing; -1e9 for -inf."""
    arrays = operands(size, dtype)
    b, h, rows, columns = size[:4]
    full = draw(b, h, rows, columns, seed=9) < 0.5
    full[..., rows // 2, :] = False
    turned = np.ascontiguousarray(full.swapaxes(2, 3)).swapaxes(2, 3)
    for allow in (full, full[:1, :1], full[:, :, :1], full[..., :1], full[0, 0], turned):
        bias = np.where(allow, draw(*allow.shape), -np.inf).astype(dtype)
        for mask in (allow, bias):
            agree(arrays, mask, None, call_of(arrays[0]))
    call = call_of(arrays[0])
    low = np.full((rows, columns), -1e9, dtype)
    np.testing.assert_allclose(  # as if there were no mask but for the rounding of the scores
        run(*arrays, low, None, call)[3].sum(), arrays[3].sum(), rtol=1e-3, atol=1e-3
    )


@both
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_dropout_is_the_same_from_bytes_and_from_states(size, dtype):
    group = 2
    arrays = operands(size, dtype, group)
    b, h, rows, columns = size[:4]
    for keep in (0.7, 0.01):
        state = Generator().manual_seed(3).stream.state()
        start = state.copy()
        marks = native.attention_marks(state, b * h * group, rows, columns)
        drop = native.coins(start, (b, h * group, rows, columns), math.ceil(keep * 2**53))
        np.testing.assert_array_equal(start, state)  # both leave the stream at the same place
        redrawn = Redrawn(drop.shape, keep, marks).whole()
        np.testing.assert_array_equal(redrawn, drop)
        for causal in (False, True):
            call = call_of(arrays[0], group, causal, keep)
            agree(arrays, None, drop, call)
            a, c = run(*arrays, None, drop, call), run(*arrays, None, marks, call)
            for x, y in zip(a, c, strict=True):
                np.testing.assert_array_equal(x, y)
    call = call_of(arrays[0], group, False, 0.0)
    for x in run(*arrays, None, np.zeros_like(drop), call):
        assert not x.any()


def with_threads(counts, f):
    before = native.get_num_threads()
    try:
        found = []
        for n in counts:
            native.set_num_threads(n)
            found.append(f())
        return found
    finally:
        native.set_num_threads(before)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_the_number_of_threads_changes_no_bit(heads, causal):
    """Nor whether a head's gradients are computed at once or in two passes."""
    arrays = operands((1, heads, 700, 650, 24, 40), np.float32, 2)
    call = call_of(arrays[0], 2, causal, 0.8)
    state = Generator().manual_seed(0).stream.state()
    marks = native.attention_marks(state, 2 * heads, 700, 650)
    for drop in (None, marks):
        first, *others = with_threads((1, 2, 3, 8), lambda d=drop: run(*arrays, None, d, call))
        for other in others:
            for a, b in zip(first, other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_gradients_that_are_not_needed():
    arrays = operands((1, 2, 70, 80, 8, 8), np.float64)
    call = call_of(arrays[0])
    whole = run(*arrays, None, None, call)
    for threads in (1, 8):
        for needs in [(True, False, False), (False, True, False), (False, False, True),
                      (True, False, True), (False, True, True)]:  # fmt: skip
            (some,) = with_threads([threads], lambda n=needs: run(*arrays, None, None, call, n))
            for needed, a, b in zip(needs, some[1:], whole[1:], strict=True):
                np.testing.assert_array_equal(a, b if needed else None)


@both
def test_views_of_any_strides(dtype):
    """Nothing is changed; results lie in memory as the query and the inputs do."""
    def turned(x):
        return np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)

    views = [
        turned, np.asfortranarray, lambda x: np.flip(np.flip(x, 2).copy(), 2),
        lambda x: np.repeat(x, 2, 2)[:, :, ::2], lambda x: np.repeat(x, 2, 3)[..., ::2],
    ]  # fmt: skip
    arrays = operands((2, 3, 20, 30, 16, 8), dtype)
    call = call_of(arrays[0], causal=True)
    want = run(*arrays, None, None, call)
    for view in views:
        given = [view(x) for x in arrays]
        copies = [x.copy() for x in given]
        for a, b in zip(run(*given, None, None, call), want, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(given, copies, strict=True):
            np.testing.assert_array_equal(a, b)
    for x in run(*map(turned, arrays), None, None, call):
        assert x.swapaxes(1, 2).flags.c_contiguous


def test_dimensions_that_are_missing_or_repeated():
    q, k, v, dy = operands((2, 3, 5, 7, 4, 6), np.float64)
    for arrays, batch in [
        ((q[0, 0], k[0, 0], v[0, 0], dy[0, 0]), ()), ((q[0], k[0], v[0], dy[0]), (3,)),
        ((q[:, None], k[:, None], v[:, None], dy[:, None]), (2, 1, 3)),
        ((q[:1], k[:, :1], v[0], dy), (2, 3)), ((q, k[0, 0], v[0, 0], dy), (2, 3)),
    ]:  # fmt: skip
        call = Call(batch, 1, 0.5, False, 1.0)
        full = [np.broadcast_to(x, batch + x.shape[-2:]).reshape(-1, 1, *x.shape[-2:])
                for x in arrays]  # fmt: skip
        want = reference(*full, None, None, Call((len(full[0]), 1), 1, 0.5, False, 1.0))
        for got, exact, x in zip(run(*arrays, None, None, call), want, [dy, *arrays], strict=False):
            if x is not dy:
                exact = exact.reshape(batch + x.shape[-2:])
                extra = tuple(range(len(batch) + 2 - x.ndim))
                exact = exact.sum(extra) if extra else exact
                ones = tuple(i for i, n in enumerate(x.shape) if n == 1)
                exact = exact.sum(ones, keepdims=True) if ones else exact
            np.testing.assert_allclose(got, exact.reshape(got.shape), atol=1e-13)


def test_masks_of_five_dimensions():
    arrays = [x[:, None] for x in operands((2, 3, 5, 7, 4, 6), np.float64)]
    batch = 2, 1, 3
    call = Call(batch, 1, 0.5, False, 1.0)
    mask = draw(2, 1, 3, 5, 7) < 0.7
    for some in (mask, mask[:1, :1], mask[0, 0, :1]):
        whole = np.broadcast_to(some, mask.shape)[:, 0]
        want = reference(*(x[:, 0] for x in arrays), whole, None, call._replace(batch=(2, 3)))
        for a, b in zip(run(*arrays, some, None, call), want, strict=True):
            np.testing.assert_allclose(a[:, 0], b, atol=1e-13)
    wide = Call((2, 2, 3), 1, 0.5, False, 1.0)  # repeated over one of two dimensions: NumPy's turn
    assert native.attention_forward(*arrays[:3], mask, None, wide) is None


@both
def test_numbers_at_the_ends_of_the_range(dtype):
    """Large scores do not overflow; NaN reaches its own row, and rows that see it."""
    q, k, v, dy = operands((1, 1, 100, 100, 8, 8), dtype)
    call = call_of(q)
    out = run(q * 100, k * 100, v, dy, None, None, call)
    assert all(np.isfinite(x).all() for x in out)
    q[0, 0, 3] = np.nan
    out = run(q, k, v, dy, None, None, call)[0]
    assert np.isnan(out[0, 0, 3]).all() and np.isnan(out).sum() == 8
    q[0, 0, 3], k[0, 0, 80] = 0, np.nan
    out = run(q, k, v, dy, None, None, call._replace(causal=True))[0]
    assert np.isfinite(out[0, 0, :80]).all() and np.isnan(out[0, 0, 80:]).all()


def test_halves_are_computed_in_float32():
    arrays = operands((1, 2, 9, 11, 4, 4), np.float16)
    rest = None, None, call_of(arrays[0])
    for got, want in zip(run(*arrays, *rest), reference(*arrays, *rest), strict=True):
        assert got.dtype == np.float16
        np.testing.assert_allclose(got, want, atol=4e-3)


def test_what_the_library_does_not_serve():
    x = np.zeros((1, 1, 2, 2), np.complex64)
    assert native.attention_forward(x, x, x, None, None, call_of(x)) is None


def test_no_rows_and_no_heads():
    for size in [(1, 1, 0, 3, 2, 2), (0, 2, 3, 3, 2, 2), (1, 1, 3, 3, 2, 0)]:
        arrays = operands(size, np.float32)
        for got, like in zip(run(*arrays, None, None, call_of(arrays[0])),
                             [arrays[3], *arrays[:3]], strict=True):  # fmt: skip
            assert got.shape == like.shape and not got.any()


LENGTHS = """
import json, tracemalloc
import numpy as np
from gpunn import native
from gpunn.device import CPU
from gpunn.nn.attention import Call
from gpunn.nn.attention_dropout import draw_kept

def peak(length, causal, keep, mask):
    arrays = [np.ones((1, 1, length, 4), np.float32) for _ in range(4)]
    mask = np.arange(length) < length // 2 if mask else None
    call = Call((1, 1), 1, 0.5, causal, keep)
    tracemalloc.start()
    drop = draw_kept((1, 1, length, length), keep, CPU)
    drop = getattr(drop, "marks", drop)
    out, stats = native.attention_forward(*arrays[:3], mask, drop, call)
    native.attention_backward(arrays[3], *arrays[:3], out, stats, mask, drop, call)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found + native.lib().gpunn_scratch_peak()

native.set_num_threads(2)
kinds = [(False, 1.0, False), (True, 1.0, False), (False, 1.0, True), (True, 0.9, False)]
print(json.dumps([max(peak(n, *kind) for kind in kinds) for n in (1024, 4096, 16384)]))
"""


def test_memory_is_linear_in_the_length():
    """NumPy's and C++'s bytes together: at most four times as many for four times the length."""
    done = subprocess.run([sys.executable, "-c", LENGTHS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    small, middle, large = json.loads(done.stdout.splitlines()[-1])
    assert middle < 4.2 * small and large < 4.2 * middle
    assert large < 16384**2 / 16  # of a matrix of bits it would be the half
