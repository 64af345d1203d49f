"""kernels/attention*.cu emulated: tensor cores for 16-bit values, else the ordinary cores."""

import math

import emulated as emu
import numpy as np
import pytest
from emulated import Function, check_build, on_both, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn.cuda.kernels import attention as kernels
from gpunn.cuda.kernels import launch
from gpunn.generator import default_for
from gpunn.nn.attention import Call, _composed, philox_keep

rng = np.random.default_rng(0)
attend = F.scaled_dot_product_attention
PLAIN = (np.ascontiguousarray,)
RTOL = {"float32": 5e-5, "float16": 1e-2, "bfloat16": 6e-2}  # weights are rounded to the dtype


@pytest.fixture(autouse=True)
def grid_of_three(monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 3)


def qkv(rows, columns, width, value_width=None, heads=(1, 2), shared=None):
    shared = heads if shared is None else shared
    return [
        rng.normal(size=(*heads, rows, width)), rng.normal(size=(*shared, columns, width)),
        rng.normal(size=(*shared, columns, value_width or width)),
    ]  # fmt: skip


def compare(f, arrays, dtypes=("float16", "float32"), layouts=PLAIN, **options):
    on_both(f, arrays, dtypes=dtypes, layouts=layouts, rtol=RTOL, **options)


# --- shapes -------------------------------------------------------------------------------


@pytest.mark.parametrize("width, value_width, rows, columns", [
    (1, 1, 1, 1), (8, 8, 31, 33), (33, 5, 65, 32), (64, 64, 64, 128), (5, 64, 130, 31),
])  # fmt: skip
@pytest.mark.parametrize("causal", [False, True])
def test_small_heads(emulated, width, value_width, rows, columns, causal):
    dtypes = ("float64", "float32", "float16", "bfloat16")
    arrays = qkv(rows, columns, width, value_width)
    compare(lambda q, k, v: attend(q, k, v, is_causal=causal), arrays, dtypes)
    assert {name.replace("_mma", "") for name in Function.launches} == {
        "attention_forward", "attention_delta", "attention_query_grad", "attention_key_value_grad"
    }  # fmt: skip


@pytest.mark.parametrize("width, value_width, rows, columns", [
    (80, 80, 33, 65), (128, 128, 65, 97), (65, 2, 1, 33), (3, 128, 33, 1),
])  # fmt: skip
@pytest.mark.parametrize("causal", [False, True])
def test_heads_of_128(emulated, width, value_width, rows, columns, causal):
    arrays = qkv(rows, columns, width, value_width)
    compare(lambda q, k, v: attend(q, k, v, is_causal=causal), arrays)


def test_heads_of_256(emulated):
    """On the tensor cores the gradients of key and value come from two kernels."""
    compare(lambda q, k, v: attend(q, k, v, is_causal=True), qkv(65, 33, 256, 129))
    compare(lambda q, k, v: attend(q, k, v), qkv(17, 50, 200, 256))
    assert {"attention_mma_key_grad", "attention_mma_value_grad"} <= set(Function.launches)
    q, k, v = (gpunn.from_numpy(a).cuda().half() for a in qkv(5, 5, 256))
    Function.launches.clear()
    gpunn.autograd.grad(attend(q, k.requires_grad_(), v).sum(dim=(0, 1, 2, 3)), k)
    assert "attention_mma_value_grad" not in Function.launches


def test_strided_inputs_and_scale(emulated):
    """As multi-head attention has them: heads beside each other in a row."""

    def f(q, k, v):
        heads = (x.reshape(2, 20, 3, 8).transpose(1, 2) for x in (q, k, v))
        return attend(*heads, scale=0.5)

    layouts = (np.ascontiguousarray, emu.strided)
    compare(f, [rng.normal(size=(2, 20, 24)) for _ in range(3)], layouts=layouts)


def test_views_that_start_between_chunks(emulated):
    """Contiguous, but their addresses do not allow wide reads."""

    def f(*flat):
        heads = (x[i : i + 20 * 8].reshape(1, 20, 8) for i, x in enumerate(flat))
        with check_build():
            return attend(*heads)

    compare(f, [rng.normal(size=180) for _ in range(3)], ("float64", "float32", "float16"))


@pytest.mark.parametrize("shapes", [
    ((20, 8), (33, 8), (33, 8)), ((20, 8), (2, 33, 8), (2, 33, 8)),
    ((2, 3, 20, 8), (33, 8), (1, 33, 8)), ((2, 3, 20, 8), (2, 1, 33, 8), (1, 33, 8)),
    ((2, 1, 20, 8), (1, 3, 33, 8), (2, 3, 33, 8)), ((2, 2, 2, 20, 8),) + ((2, 33, 8),) * 2,
])  # fmt: skip
def test_batches_broadcast(emulated, shapes):
    compare(attend, [rng.normal(size=s) for s in shapes])


@pytest.mark.parametrize("shape", [(2, 6, 70, 8), (6, 20, 8)])
def test_grouped_heads(emulated, shape):
    """Each head of key and value serves three heads of the query; their gradients are sums."""
    shared = (*shape[:-3], 2, 33, 8)
    arrays = [rng.normal(size=s) for s in (shape, shared, shared)]
    for causal in (False, True):
        compare(lambda q, k, v, c=causal: attend(q, k, v, is_causal=c, enable_gqa=True), arrays)


def test_sizes_of_zero_and_heads_too_large(emulated):
    ones = lambda *s: gpunn.ones(*s, device="cuda", requires_grad=True)  # noqa: E731
    assert attend(ones(2, 0, 4), ones(2, 3, 4), ones(2, 3, 5)).shape == (2, 0, 5)
    assert attend(ones(0, 2, 4), ones(0, 3, 4), ones(0, 3, 5)).shape == (0, 2, 5)
    q, k, v = ones(2, 2, 4), ones(2, 0, 4), ones(2, 0, 5)
    y = attend(q, k, v)
    y.backward(gpunn.ones_like(y))
    assert y.abs().sum().item() == 0 and q.grad.abs().sum().item() == 0 and k.grad.shape == k.shape
    k, v = ones(2, 3, 4), ones(2, 3, 5)
    y = attend(ones(2, 0, 4), k, v)
    y.backward(gpunn.ones_like(y))
    assert k.grad.abs().sum().item() == 0 and v.grad.abs().sum().item() == 0
    assert not Function.launches
    compare(attend, qkv(5, 7, 257), ("float32",))
    assert not [name for name in Function.launches if "attention" in name]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_only_the_gradients_that_are_needed(emulated, dtype):
    arrays = qkv(20, 33, 8)
    q, k, v = (gpunn.from_numpy(a).cuda().to(getattr(gpunn, dtype)) for a in arrays)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    y = attend(*leaves)
    whole = gpunn.autograd.grad(y, leaves, gpunn.ones_like(y))
    for i, want in enumerate(whole):
        inputs = [leaf if i == j else leaf.detach() for j, leaf in enumerate(leaves)]
        y = attend(*inputs)
        got = gpunn.autograd.grad(y, inputs[i], gpunn.ones_like(y))[0]
        assert (got == want).all().item()


# --- masks --------------------------------------------------------------------------------

MASKS = [(65, 33), (1, 33), (65, 1), (33,), (2, 1, 1, 33), (3, 1, 33), (1, 3, 65, 33),
         (2, 3, 65, 33), (2, 1, 65, 33)]  # fmt: skip


@pytest.mark.parametrize("shape", MASKS)
def test_masks(emulated, shape):
    """Strides of 0 stand for what is repeated; one row may attend to nothing."""
    arrays = qkv(65, 33, 8, heads=(2, 3))
    allow = rng.random(shape) < 0.5
    allow[..., :1] |= shape[-1] == 1
    if len(shape) > 1 and shape[-2] > 1:
        allow[..., 3, :] = False
    bias = np.where(allow, rng.normal(size=shape), -np.inf)

    def masked(mask):
        return lambda q, k, v: attend(q, k, v, gpunn.from_numpy(mask).to(q.device))

    compare(masked(allow), arrays)
    compare(masked(bias.astype(np.float32)), arrays, ("float16",))
    same = lambda q: gpunn.from_numpy(bias).to(q.device).to(q.dtype)  # noqa: E731
    compare(lambda q, k, v: attend(q, k, v, same(q)), arrays, ("float32",))


def test_a_mask_of_several_batch_dimensions(emulated):
    arrays = [rng.normal(size=(2, 3, 2, 9, 4)) for _ in range(3)]
    for shape in ((2, 1, 2, 9, 9), (2, 3, 1, 1, 9), (1, 1, 2, 9, 9)):
        allow = rng.random(shape) < 0.6
        compare(lambda q, k, v, m=allow: attend(q, k, v, gpunn.from_numpy(m).to(q.device)), arrays)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_most_negative_number_is_not_infinity(emulated, dtype):
    """A row of a mask that is nothing else sees all keys alike, as on the CPU."""
    dtype = getattr(gpunn, dtype)
    q, k, v = (gpunn.from_numpy(a).to(dtype) for a in qkv(3, 40, 8))
    least = gpunn.finfo(gpunn.float64 if dtype is gpunn.float64 else gpunn.float32).min
    mask = gpunn.zeros(3, 40, dtype=gpunn.float64 if dtype is gpunn.float64 else gpunn.float32)
    mask[0], mask[1, 5:], mask[2] = least, least, -math.inf
    got = attend(*(x.cuda() for x in (q, k, v, mask))).cpu().double().numpy()
    want = attend(q, k, v, mask).double().numpy()
    np.testing.assert_allclose(got, want, atol=2e-3)
    assert abs(want[:, :, 0]).max() > 0.1 and not want[:, :, 2].any()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_that_see_nothing_are_zero_and_have_no_gradient(emulated, dtype):
    q, k, v = (
        gpunn.from_numpy(a).cuda().to(getattr(gpunn, dtype)).requires_grad_() for a in qkv(5, 7, 8)
    )
    hidden = gpunn.zeros(5, 7, dtype=gpunn.bool, device="cuda")
    for mask in (hidden, gpunn.full((5, 7), -math.inf, device="cuda")):
        y = attend(q, k, v, mask)
        grads = gpunn.autograd.grad(y, (q, k, v), gpunn.ones_like(y))
        assert all((x == 0).all().item() for x in (y, *grads))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nan_spreads_over_its_row_alone(emulated, dtype):
    q, k, v = (gpunn.from_numpy(a).cuda().to(getattr(gpunn, dtype)) for a in qkv(5, 7, 8))
    q[0, 0, 2] = math.nan
    y = attend(q, k, v).float().cpu()
    assert y[0, 0, 2].isnan().all() and y.isnan().sum() == 8
    q[0, 0, 2] = 0.0
    k[0, 0, 4:] = math.nan  # later keys, which row 3 does not see
    assert attend(q, k, v, is_causal=True)[0, 0, :4].float().cpu().isfinite().all()


def test_large_scores_do_not_overflow(emulated):
    arrays = [100 * a for a in qkv(33, 40, 8)[:2]] + [rng.normal(size=(1, 2, 40, 8))]
    compare(attend, arrays, ("float32",), grad=False)


# --- dropout ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, group, causal", [
    ((2, 2, 33, 70), 1, False), ((1, 4, 65, 17), 2, True), ((1, 1, 16, 16), 1, False),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dropout_is_the_philox_mask(emulated, shape, group, causal, dtype):
    """The same mask in all kernels, whatever their tiles: that of philox_keep."""
    *batch, rows, columns = shape
    shared = (batch[0], batch[1] // group)
    arrays = qkv(rows, columns, 8, heads=tuple(batch), shared=shared)
    generator = default_for(gpunn.device("cuda", 0)).manual_seed(2**40 + 3)
    generator.set_offset(1 << 34)
    kept = philox_keep(2**40 + 3, 1 << 32, shape, 0.7)
    assert abs(kept.mean() - 0.7) < 0.1
    call = Call(tuple(batch), group, 8**-0.5, causal, 0.7)

    def f(q, k, v):
        if q.device.type == "cpu":
            return _composed(q, k, v, None, None, kept, call)
        generator.set_offset(1 << 34)
        return attend(q, k, v, None, 0.3, causal, enable_gqa=group > 1)

    compare(f, arrays, (dtype,))
    used = 256 * math.prod(batch) * -(-rows // 16) * -(-columns // 16)
    assert generator.get_offset() == (1 << 34) + used


def test_dropping_everything(emulated):
    q = gpunn.ones(1, 2, 20, 8, device="cuda", requires_grad=True)
    y = attend(q, q, q, dropout_p=1.0)
    y.backward(gpunn.ones_like(y))
    assert y.abs().sum().item() == 0 and q.grad.abs().sum().item() == 0


def test_second_order_has_the_same_dropout(emulated):
    """create_graph goes through plain operations, with the mask of the kernels."""
    generator = default_for(gpunn.device("cuda", 0))
    q, k, v = (gpunn.from_numpy(a).cuda().requires_grad_() for a in qkv(9, 20, 4))
    grads = []
    for create in (False, True):
        generator.manual_seed(5)
        y = attend(q, k, v, dropout_p=0.4)
        grads.append(gpunn.autograd.grad(y, (q, k, v), gpunn.ones_like(y), create_graph=create))
    for a, b in zip(*grads, strict=True):
        np.testing.assert_allclose(a.cpu().numpy(), b.detach().cpu().numpy(), atol=1e-12)
    assert grads[1][0].requires_grad


# --- devices ------------------------------------------------------------------------------


@pytest.mark.parametrize("kilobytes, head, tiles", [
    (64, 64, ((2, 32, 36864), (2, 16, 46080))), (64, 128, ((2, 16, 52224), (1, 16, 52224))),
    (64, 256, ((0, 0, 0), (0, 0, 0))), (99, 256, ((1, 32, 101376), (1, 16, 101376))),
    (163, 128, ((2, 32, 69632), (1, 32, 69632))),
])  # fmt: skip
def test_tiles_fit_the_shared_memory(emulated, monkeypatch, kilobytes, head, tiles):
    monkeypatch.setattr(launch, "shared_limit", lambda: kilobytes << 10)
    q = gpunn.ones(1, 1, 3, head, device="cuda", dtype=gpunn.float16).array
    setup = kernels._Setup(q, q, q, None, None, Call((1, 1), 1, 1.0, False, 1.0))
    assert tuple(setup._tensor_tiles(backward) for backward in (False, True)) == tiles


def test_narrow_tiles(emulated, monkeypatch):
    monkeypatch.setattr(launch, "shared_limit", lambda: 64 << 10)
    compare(lambda q, k, v: attend(q, k, v, is_causal=True), qkv(70, 70, 72), ("float16",))


def test_ordinary_cores_do_16_bits_where_tensor_cores_do_not(emulated, monkeypatch):
    monkeypatch.setattr(launch, "capability", lambda: (7, 5))
    compare(attend, qkv(20, 33, 8), ("bfloat16",))
    assert not [name for name in Function.launches if "mma" in name]


# --- the machine --------------------------------------------------------------------------


def small(dtype, device="cuda"):
    arrays = qkv(70, 67, 20)
    q, k, v = (
        gpunn.from_numpy(a).to(device).to(getattr(gpunn, dtype)).requires_grad_() for a in arrays
    )
    allow = gpunn.from_numpy(np.random.default_rng(1).random((70, 67)) < 0.7).to(device)

    def f():
        default_for(q.device).manual_seed(3)
        y = attend(q, k, v, allow, 0.2)
        return [y.detach(), *gpunn.autograd.grad(y, (q, k, v), gpunn.ones_like(y))]

    return f


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_races_and_no_bad_accesses(emulated, dtype):
    f = small(dtype)
    with check_build():
        f()


def test_keys_that_no_row_sees_leave_no_copies_behind(emulated, monkeypatch):
    """A block goes on to the next head after keys that no row of a causal attention reaches."""
    monkeypatch.setattr(launch, "most_blocks", 1)
    arrays = qkv(3, 130, 8)
    with check_build():
        compare(lambda q, k, v: attend(q, k, v, is_causal=True), arrays)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_order_of_threads_does_not_matter(emulated, dtype):
    same_bits(small(dtype))


@pytest.mark.gpu
def test_attention_on_the_gpu():
    """The emulated cases on the device, and PyTorch's there."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    for width, rows, columns in ((8, 31, 33), (64, 200, 129), (80, 65, 300), (128, 257, 64),
                                 (256, 65, 130)):  # fmt: skip
        for causal in (False, True):
            arrays = qkv(rows, columns, width)
            compare(lambda q, k, v, c=causal: attend(q, k, v, is_causal=c), arrays,
                    ("float64", "float32", "float16", "bfloat16"))  # fmt: skip
            ours = [gpunn.from_numpy(a).cuda().half() for a in arrays]
            theirs = [torch.from_numpy(a).cuda().half() for a in arrays]
            want = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=causal)
            np.testing.assert_allclose(
                attend(*ours, is_causal=causal).float().cpu().numpy(), want.float().cpu().numpy(),
                atol=5e-3,
            )  # fmt: skip
