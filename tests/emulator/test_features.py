"""What kernels may use, in both builds."""

import numpy as np
import pytest

from . import RawModule, settings
from .samples import BF16, text

LANES = np.arange(32)


@pytest.fixture(params=[False, True], ids=["plain", "check"], autouse=True)
def build(request):
    with settings(check=request.param):
        yield


def module(**names):
    return RawModule(text("features.cu", **names))


def run(name, grid, block, *args, **options):
    module().get_function(name)(grid, block, args, **options)


def zeros(shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def test_indices_of_threads_and_blocks():
    out = zeros((4, 3, 2, 2, 3, 4, 6), np.int32)
    run("places", (2, 3, 4), (4, 3, 2), out)
    bz, by, bx, tz, ty, tx = np.indices(out.shape[:-1])
    np.testing.assert_array_equal(out, np.stack([tx, ty, tz, bx, by, bz], -1))


def test_shared_memory_static_dynamic_and_a_struct_by_value():
    x, out = np.arange(100).astype(np.float16), zeros(1, np.float64)
    fields = [("scale", "f4"), ("n", "i4"), ("shift", "f8")]
    setting = np.array((2.0, 100, 0.5), dtype=fields)
    run("shared_kinds", (1,), (128,), x, out, setting, shared_mem=1024)
    assert out[0] == x.astype(np.float64).sum() * 2 + 0.5


def test_constants_and_device_variables_that_outlive_a_launch():
    kernel = module().get_function("variables")
    counts = []
    for _ in range(2):
        out, count = zeros(8), zeros(1, np.int32)
        kernel((1,), (8,), (out, count))
        counts.append(count[0])
    np.testing.assert_array_equal(out, [1, 2, 3, 4] * 2)
    assert counts[1] - counts[0] == 8


def test_votes():
    out = zeros((64, 10), np.uint32)
    run("votes", (1,), (4, 4, 4), out)
    t = np.arange(64)
    lanes = [np.flatnonzero((t // 32 == w) & (t % 3 == 0)) % 32 for w in (0, 1)]
    np.testing.assert_array_equal(out[:, 0], [sum(1 << lane for lane in lanes[i // 32]) for i in t])
    np.testing.assert_array_equal(out[:, 1], [0x11111111 << i % 4 for i in t])
    np.testing.assert_array_equal(out[:, 2], t < 32)
    np.testing.assert_array_equal(out[:, 3], t < 32)
    np.testing.assert_array_equal(out[0, 4:], [13, 1, 0, 1, 1, 0xFFFFFFFF])
    assert (out[:, 4:] == out[0, 4:]).all()


def test_shuffles():
    out = zeros((32, 8), np.int32)
    run("shuffles", (1,), (32,), out)
    t = LANES
    want = [
        np.full(32, 5),
        t // 8 * 8 + 3,
        np.where(t < 2, t, t - 2),
        np.where(t % 16 + 3 < 16, t + 3, t),
        t ^ 1,
        t ^ 4,
        t ^ 8,
        np.where(t < 20, 19, t),
    ]
    np.testing.assert_array_equal(out, np.stack(want, -1))


def test_groups_of_lanes_with_masks_of_their_own():
    y = zeros(32)
    run("groups", (1,), (32,), y)
    np.testing.assert_array_equal(y, np.repeat(LANES.reshape(4, 8).sum(1), 8))


def test_a_block_that_is_no_multiple_of_a_warp():
    y = zeros(40)
    run("odd_block", (1,), (40,), y)
    t = np.arange(40)
    np.testing.assert_array_equal(y, np.where(t % 32, 2 * t - 1, 2 * t))


def test_a_spin_lock():
    mutex, y = zeros(1, np.int32), zeros(1, np.int32)
    run("lock", (4,), (128,), mutex, y)
    assert y[0] == 16


def test_integer_atomics():
    signed, unsigned = zeros(6, np.int32), np.array([2**32 - 1, 0, 0, 0, 0], np.uint32)
    run("integer_atomics", (1,), (32,), signed, unsigned)
    np.testing.assert_array_equal(signed, [496, -496, -31, 31, 9, 5])
    np.testing.assert_array_equal(unsigned, [0, 2**32 - 1, 2**32 - 1, 2, 8])


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64, np.float16, BF16])
def test_atomic_sums(dtype):
    x, total, before = np.ones(32, dtype), np.zeros(1, dtype), np.zeros(32, dtype)
    kernel = RawModule(text("atomic_sum.cu", T=dtype)).get_function("atomic_sum")
    kernel((1,), (32,), (x, total, before))
    assert total[0] == 32
    np.testing.assert_array_equal(np.sort(before.astype(np.float64)), LANES)


def test_compare_and_swap_of_16_bits():
    x = np.array([0, 7], np.uint16)
    run("short_exchange", (1,), (32,), x)
    np.testing.assert_array_equal(x, [32, 7])


def test_16_bit_sums_by_words():
    x = zeros(35, np.float16)
    run("word_atomics", (2,), (64,), x[1:34], np.int32(33))
    np.testing.assert_array_equal(x, [0, *[2] * 33, 0])


def test_atomic_sums_of_pairs():
    h, b = zeros(2, np.float16), zeros(2, BF16)
    run("pair_atomics", (1,), (32,), h, b)
    np.testing.assert_array_equal(h, [32, 64])
    np.testing.assert_array_equal(b.astype(np.float32), [32, 64])


def test_half_arithmetic():
    a = np.linspace(-2, 2, 64).astype(np.float16)
    b, c = zeros(64, np.float16), zeros(64, BF16)
    run("half_arithmetic", (1,), (64,), a, b, c, np.int32(32))
    exact = a.astype(np.float64)
    np.testing.assert_array_equal(b, (exact**2 + 1).astype(np.float16))
    np.testing.assert_allclose(c[0::2].astype(np.float64), exact[0::2], rtol=2**-8)
    np.testing.assert_allclose(c[1::2].astype(np.float64), np.exp(exact[1::2]), rtol=2**-7)


def test_vector_types():
    a, c = np.arange(32, dtype=np.float32), np.arange(16, dtype=np.int32)
    b, d = np.zeros_like(a), np.zeros_like(c)
    e, f = zeros((8, 4), np.uint32), zeros((8, 2), np.float64)
    run("vectors", (1,), (8,), a, b, c, d, e, f)
    np.testing.assert_array_equal(b, a.reshape(8, 4)[:, ::-1].ravel())
    np.testing.assert_array_equal(d, c.reshape(8, 2)[:, ::-1].ravel())
    np.testing.assert_array_equal(e, np.arange(8)[:, None] + np.arange(4))
    np.testing.assert_array_equal(f, np.arange(8)[:, None] * [1, 0.5])


def test_intrinsics():
    x = np.array([0.25, 0.5, 1.0, 2.5], np.float32)
    out, whole = zeros((4, 12)), zeros((4, 8), np.int64)
    run("intrinsics", (1,), (4,), x, out, whole)
    e = x.astype(np.float64)
    want = [np.exp(e), np.log(e), np.sin(e), np.cos(e), e**-0.5, 1 / e, e**2, np.clip(e, 0, 1)]
    want += [np.maximum(e, 1), e * e + 1, e, np.minimum(e, 1) + 2]
    np.testing.assert_allclose(out, np.stack(want, -1), rtol=1e-6, atol=1e-7)
    for i in range(4):
        n = (i * 0x01000193 + 7) & 0xFFFFFFFF
        bits = f"{n:032b}"
        assert list(whole[i]) == [
            bits.count("1"), 32 - n.bit_length(), 1 + bits[::-1].index("1"), int(bits[::-1], 2),
            n >> 1, 64 - i, -i << 30 >> 32, int.from_bytes(n.to_bytes(4, "little"), "big"),
        ]  # fmt: skip


def pairs(x, dtype):
    """Rows of 16-bit values as registers of two."""
    return np.ascontiguousarray(x.astype(dtype)).view(np.uint16).view(np.uint32)


def rows_and_columns(k):
    """For each lane and register of the PTX page: the row and column of A and of B (transposed)."""
    g, t = LANES // 4, LANES % 4
    if k == 16:
        a = [(g + 8 * (r % 2), t + 4 * (r // 2)) for r in range(4)]
        return a, [(g, t + 4 * r) for r in range(2)]
    return [(g + 8 * (r % 2), t + 4 * (r // 2)) for r in range(4)], [(g, t + 4 * r) for r in (0, 1)]


@pytest.mark.parametrize(
    "name, k, dtype",
    [("half", 16, np.float16), ("bfloat16", 16, BF16), ("tf32", 8, np.float32)],
)
def test_products_of_fragments(name, k, dtype):
    random = np.random.default_rng(0)
    A, B, C = (random.standard_normal(s).astype(np.float32) for s in ((16, k), (k, 8), (16, 8)))
    if dtype == np.float32:  # the 10 bits that are kept, ties away from zero
        bits = [((m.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32) for m in (A, B)]
        words = [m.view(np.uint32) for m in (A, np.ascontiguousarray(B.T))]
    else:
        bits = [m.astype(dtype) for m in (A, B)]
        words = [pairs(m, dtype) for m in (A, np.ascontiguousarray(B.T))]
    places = rows_and_columns(k)
    a, b = (np.stack([w[p] for p in at], -1) for w, at in zip(words, places))
    g, t = LANES // 4, LANES % 4
    at = [(g + 8 * (i // 2), 2 * t + i % 2) for i in range(4)]
    d = np.stack([C[p] for p in at], -1)
    run(f"product_{name}", (1,), (32,), a, b, d)
    want = bits[0].astype(np.float64) @ bits[1].astype(np.float64) + C
    np.testing.assert_allclose(d, np.stack([want[p] for p in at], -1), rtol=1e-5, atol=1e-5)


def test_matrix_loads():
    x = np.arange(256, dtype=np.uint16)
    out = {(n, trans): zeros((32, n), np.uint32) for trans in (False, True) for n in (1, 2, 4)}
    run("matrices", (1,), (32,), x, *out.values())
    g, t = LANES // 4, LANES % 4
    for (n, trans), got in out.items():
        for i, m in enumerate(x.reshape(4, 8, 8)[:n]):
            m = (m.T if trans else m).astype(np.uint32)
            np.testing.assert_array_equal(got[:, i], m[g, 2 * t] | m[g, 2 * t + 1] << 16)


def test_asynchronous_copies():
    x, y = np.arange(128, dtype=np.float32), zeros(128)
    run("copies", (1,), (32,), x, y)
    factor = np.array([11, 1, 11, 1])  # of the copies of 8 bytes only 4 are valid, zeros follow
    np.testing.assert_array_equal(y.reshape(32, 4), x.reshape(32, 4) * factor)


def test_small_values_side_by_side():
    b, s = zeros(64, np.uint8), zeros(64, np.int16)
    run("small_values", (1,), (64,), b, s)
    np.testing.assert_array_equal(b, np.arange(64))
    np.testing.assert_array_equal(s, -np.arange(64))


def test_structs_and_bytes_copied():
    x = np.arange(70, dtype=np.uint8)
    y = zeros(140, np.uint8)
    run("copied_structs", (1,), (10,), x, y, np.int32(10))
    np.testing.assert_array_equal(y, np.tile(x, 2))
