"""The autocast context, its state, custom Functions, training with it."""

import numpy as np
import pytest
from both import refused, same

import gpunn
from gpunn import nn
from gpunn.nn import functional as F


def test_nested_contexts():
    x = gpunn.ones(1, 1)
    with gpunn.autocast("cpu"):
        assert (x @ x).dtype is gpunn.bfloat16
        with gpunn.autocast("cpu", dtype=gpunn.float16):
            assert (x @ x).dtype is gpunn.float16
            with gpunn.autocast("cpu", enabled=False):
                assert (x @ x).dtype is gpunn.float32
            assert (x @ x).dtype is gpunn.float16
        assert (x @ x).dtype is gpunn.bfloat16
    assert (x @ x).dtype is gpunn.float32


def test_as_a_decorator_also_of_a_method():
    class Model(nn.Linear):
        @gpunn.autocast("cpu")
        def forward(self, input):
            """Doc."""
            return super().forward(input)

    assert Model(2, 2)(gpunn.ones(1, 2)).dtype is gpunn.bfloat16
    assert Model.forward.__doc__ == "Doc."
    assert not gpunn.is_autocast_enabled("cpu")
    with pytest.raises(TypeError, match="requires a callable, but got int"):
        gpunn.autocast("cpu")(3)


def test_one_instance_can_be_entered_again_and_again():
    context, x = gpunn.autocast("cpu"), gpunn.ones(1, 1)
    with context:
        with context:
            assert (x @ x).dtype is gpunn.bfloat16
        assert (x @ x).dtype is gpunn.bfloat16
    assert (x @ x).dtype is gpunn.float32


def test_an_exception_ends_the_context():
    with pytest.raises(ZeroDivisionError), gpunn.autocast("cpu", dtype=gpunn.float16):
        1 / 0  # noqa: B018
    assert not gpunn.is_autocast_enabled("cpu")
    assert gpunn.get_autocast_dtype("cpu") is gpunn.bfloat16


def test_attributes_and_state():
    def program(T):
        found = []
        for given in ({}, {"dtype": T.float16}, {"enabled": False}, {"cache_enabled": False}):
            context = T.autocast("cpu", **given)
            with context:
                found.append([
                    str(context.fast_dtype), context.device, context._enabled,
                    T.is_autocast_enabled("cpu"), T.is_autocast_enabled(),
                    str(T.get_autocast_dtype("cpu")), T.is_autocast_cache_enabled(),
                ])  # fmt: skip
        found.append([T.is_autocast_enabled("cpu"), str(T.get_autocast_dtype("cuda"))])
        found.append([T.autocast_increment_nesting(), T.autocast_decrement_nesting()])
        T.set_autocast_enabled("cpu", True)
        T.set_autocast_dtype("cpu", T.float16)
        found.append(str((T.ones(1, 1) @ T.ones(1, 1)).dtype))
        T.set_autocast_enabled("cpu", False)
        T.set_autocast_dtype("cpu", T.bfloat16)
        T.set_autocast_enabled(True)  # of CUDA, without a device
        found.append(T.is_autocast_enabled())
        T.set_autocast_enabled(False)
        T.set_autocast_cache_enabled(False)
        found.append(T.autocast("cpu")._cache_enabled)
        T.set_autocast_cache_enabled(True)
        found.append([T.amp.is_autocast_available("cpu"), T.amp.is_autocast_available("cuda")])
        return found

    same(program)


def test_what_is_refused():
    refused(lambda T: T.autocast(T.device("cpu")), "Expected `device_type` of type `str`")
    refused(lambda T: T.autocast("nonsense"), "at start of device string")
    refused(lambda T: T.autocast(), "device_type")
    refused(lambda T: T.is_autocast_enabled(1), "must be str, not int")
    refused(lambda T: T.set_autocast_enabled("cpu", 1), "bool")
    refused(lambda T: T.set_autocast_cache_enabled(1), "enabled must be a bool")
    refused(lambda T: T.amp.custom_fwd(lambda ctx: 0, device_type=1), "Expected `device_type`")
    refused(lambda T: T.amp.custom_bwd(lambda ctx: 0, device_type=1), "Expected `device_type`")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_another_dtype_warns_and_casts_nothing(dtype):
    with pytest.warns(UserWarning, match="CPU Autocast only supports dtypes of torch.bfloat16"):
        context = gpunn.autocast("cpu", dtype=getattr(gpunn, dtype))
    with context:
        assert (gpunn.ones(1, 1) @ gpunn.ones(1, 1)).dtype is gpunn.float32


def test_without_cuda_it_warns_and_casts_nothing(monkeypatch):
    monkeypatch.setattr(gpunn.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="CUDA is not available.*Disabling autocast"):
        context = gpunn.autocast("cuda")
    assert not context._enabled
    gpunn.autocast("cuda", enabled=False)  # says nothing


def test_a_gpu_without_bfloat16_refuses_it(emulated, monkeypatch):
    monkeypatch.setattr(gpunn.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(RuntimeError, match="does not support bfloat16"):
        gpunn.autocast("cuda", dtype=gpunn.bfloat16)


@pytest.mark.parametrize(
    "call",
    [
        lambda T: T.is_autocast_cpu_enabled(), lambda T: T.set_autocast_cpu_enabled(False),
        lambda T: T.get_autocast_cpu_dtype(), lambda T: T.set_autocast_cpu_dtype(T.bfloat16),
        lambda T: T.get_autocast_gpu_dtype(), lambda T: T.set_autocast_gpu_dtype(T.float16),
    ],
)  # fmt: skip
def test_old_names_of_the_state_warn(call):
    with pytest.warns(DeprecationWarning, match="is deprecated. Please use"):
        call(gpunn)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_old_names_of_the_context_warn(kind, emulated):
    space = getattr(gpunn, kind).amp
    with pytest.warns(FutureWarning, match=rf"gpunn.amp.autocast\('{kind}', args...\)"):
        context = space.autocast(True)
    with context:
        x = gpunn.ones(1, 1, device=kind)
        assert (x @ x).dtype is (gpunn.float16 if kind == "cuda" else gpunn.bfloat16)


def test_old_names_of_custom_functions_warn(emulated):
    with pytest.warns(FutureWarning, match="custom_fwd"):
        gpunn.cuda.amp.custom_fwd(lambda ctx: None)
    with pytest.warns(FutureWarning, match="custom_bwd"):
        gpunn.cuda.amp.custom_bwd(lambda ctx: None)


# --- custom Functions ---------------------------------------------------------------------


def functions(T):
    class Product(T.autograd.Function):
        @staticmethod
        @T.amp.custom_fwd(device_type="cpu")
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        @T.amp.custom_bwd(device_type="cpu")
        def backward(ctx, g):
            a, b = ctx.saved_tensors
            found.append([str((T.ones(1, 1) @ T.ones(1, 1)).dtype), T.is_autocast_enabled("cpu")])
            return (g @ b.T).to(a.dtype), (a.T @ g).to(b.dtype)

    class Wide(T.autograd.Function):
        @staticmethod
        @T.amp.custom_fwd(device_type="cpu", cast_inputs=T.float32)
        def forward(ctx, a, others):
            found.append([str(a.dtype), *(str(t.dtype) for t in others), str((a @ a).dtype)])
            return a.exp()

        @staticmethod
        @T.amp.custom_bwd(device_type="cpu")
        def backward(ctx, g):
            found.append([str((T.ones(1, 1) @ T.ones(1, 1)).dtype)])
            return g, None

    found = []
    return Product, Wide, found


def test_custom_functions():
    def program(T):
        product, wide, found = functions(T)
        for context in (T.autocast("cpu"), T.autocast("cpu", enabled=False)):
            a = T.ones(2, 2, requires_grad=True)
            with context:
                y = product.apply(a, T.ones(2, 2))
                others = [T.ones(1, dtype=T.bfloat16), T.ones(1).double(), T.ones(1).long()]
                z = wide.apply(a if not T.is_autocast_enabled("cpu") else a.bfloat16(), others)
            (y.float().sum() + z.float().sum()).backward()
            found.append([str(y.dtype), str(z.dtype), str(a.grad.dtype)])
        return found

    same(program)


# --- training -----------------------------------------------------------------------------


def losses(T, autocast, dtype=None, device="cpu", steps=8):
    """The losses of a small convolutional network."""
    T.manual_seed(0)
    model = T.nn.Sequential(
        T.nn.Conv2d(1, 4, 3, padding=1), T.nn.BatchNorm2d(4), T.nn.ReLU(), T.nn.MaxPool2d(2),
        T.nn.Flatten(), T.nn.Linear(64, 16), T.nn.LayerNorm(16), T.nn.GELU(), T.nn.Linear(16, 3),
    )  # fmt: skip
    x, t = T.randn(12, 1, 8, 8), T.arange(12) % 3
    model, x, t = model.to(device), x.to(device), t.to(device)
    optimizer = T.optim.SGD(model.parameters(), lr=0.05)
    scaler = T.amp.GradScaler(device, init_scale=1024.0, enabled=dtype is T.float16)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        with T.autocast(device, enabled=autocast, dtype=dtype):
            loss = T.nn.functional.cross_entropy(model(x), t)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        found.append(loss.item())
    assert all(p.grad.dtype is T.float32 for p in model.parameters())
    return found


def test_training_in_bfloat16_follows_pytorch_s_and_float32():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    mine = losses(gpunn, True)
    np.testing.assert_allclose(mine, losses(torch, True), atol=0.03)
    np.testing.assert_allclose(mine, losses(gpunn, False), atol=0.03)
    assert mine[-1] < mine[0] / 1.3


def test_training_in_float16_on_cuda_follows_float32(emulated):
    mine = losses(gpunn, True, gpunn.float16, "cuda", steps=4)
    np.testing.assert_allclose(mine, losses(gpunn, False, steps=4), atol=0.02)


def layers(T):
    """Layers with an input each, and whether it is in 16 bits on the way in."""
    nn, low, x = T.nn, T.bfloat16, T.randn
    ids = T.tensor([[0, 3], [1, 2]])
    return {
        "linear": (nn.Linear(4, 3), x(2, 4)),
        "conv": (nn.Conv2d(4, 3, 3), x(2, 4, 5, 5)),
        "conv, reflected": (nn.Conv1d(2, 2, 3, padding=1, padding_mode="reflect"), x(1, 2, 4)),
        "transposed": (nn.ConvTranspose2d(4, 3, 3), x(2, 4, 5, 5)),
        "layer norm": (nn.LayerNorm(4), x(2, 4).to(low)),
        "rms norm": (nn.RMSNorm(4), x(2, 4).to(low)),
        "batch norm": (nn.BatchNorm1d(4), x(6, 4).to(low)),
        "batch norm, evaluated": (nn.BatchNorm2d(4).eval(), x(2, 4, 3, 3).to(low)),
        "group norm": (nn.GroupNorm(2, 4), x(2, 4).to(low)),
        "instance norm": (nn.InstanceNorm1d(4, affine=True), x(2, 4, 3).to(low)),
        "embedding": (nn.Embedding(4, 3), ids),
        "embedding bag": (nn.EmbeddingBag(4, 3), ids),
        "lstm": (nn.LSTM(4, 3), x(5, 2, 4)),
        "lstm of 16 bits": (nn.LSTM(4, 3, 2, bidirectional=True), x(5, 2, 4).to(low)),
        "gru": (nn.GRU(4, 3), x(5, 2, 4)),
        "gru of 16 bits": (nn.GRU(4, 3), x(5, 2, 4).to(low)),
        "rnn": (nn.RNN(4, 3), x(5, 2, 4)),
        "lstm cell": (nn.LSTMCell(4, 3), x(2, 4)),
        "gru cell": (nn.GRUCell(4, 3), x(2, 4)),
        "prelu": (nn.PReLU(), x(2, 4)),
        "softmax": (nn.Softmax(-1), x(2, 4).to(low)),
        "max pool": (nn.MaxPool3d(2), x(1, 1, 4, 4, 4).to(low)),
        "reflection": (nn.ReflectionPad2d(1), x(1, 2, 4, 4).to(low)),
        "weight norm": (nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), x(2, 3)),
    }


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # PyTorch's
@pytest.mark.parametrize("name", list(layers(gpunn)))
def test_layers(name):
    """The dtypes of result and gradients are PyTorch's, the values agree to 8 bits."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    made = []
    for T in (torch, gpunn):
        T.manual_seed(0)
        layer, x = layers(T)[name]
        with T.autocast("cpu"):
            out = layer(x)
        out = out if isinstance(out, tuple) else (out,)
        flat = [u for t in out for u in (t if isinstance(t, tuple) else (t,))]
        if any(t.requires_grad for t in flat):
            sum(t.float().sum() for t in flat).backward()
        grads = [p.grad for p in layer.parameters() if p.grad is not None]
        made.append([(str(t.dtype), t.detach().float().numpy()) for t in (*flat, *grads)])
    for (want, values), (got, mine) in zip(*made, strict=True):
        assert want == got
        np.testing.assert_allclose(mine, values, atol=0.04, rtol=0.03)


@pytest.mark.parametrize("name", list(layers(gpunn)))
def test_layers_on_cuda(name, emulated):
    """The same in float16, with the dtypes that PyTorch documents: norms give float32."""
    layer, x = layers(gpunn)[name]
    layer = layer.cuda()
    x = x.cuda().half() if x.dtype is gpunn.bfloat16 else x.cuda()
    with gpunn.autocast("cuda"):
        out = layer(x)
    first = out[0] if isinstance(out, tuple) else out
    wide = name in ("layer norm", "rms norm", "group norm", "softmax") or "embedding" in name
    assert first.dtype is (gpunn.float32 if wide else gpunn.float16)
    assert bool(F.relu(first).float().isfinite().all())


SECOND_ORDER = {
    "linear": lambda x, w: F.linear(x, w), "conv": lambda x, w: F.conv1d(x[None], w[..., None]),
    "cdist": lambda x, w: gpunn.cdist(x, w), "cross entropy": lambda x, w: F.cross_entropy(x, w),
    "cosine": lambda x, w: F.cosine_embedding_loss(x, w, gpunn.ones(4)),
    "attention": lambda x, w: F.scaled_dot_product_attention(x[None], w[None], w[None]),
    "mse": lambda x, w: F.mse_loss(x @ w, w),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SECOND_ORDER))
def test_a_penalty_on_gradients_inside_of_the_context(name):
    gpunn.manual_seed(0)
    x, w = (gpunn.rand(4, 4).softmax(1).requires_grad_() for _ in range(2))
    found = []
    for on in (False, True):
        with gpunn.autocast("cpu", enabled=on):
            y = SECOND_ORDER[name](x, w)
            (g,) = gpunn.autograd.grad((y.float() ** 2).sum(), x, create_graph=True)
            penalty = gpunn.autograd.grad((g * g).sum(), w)[0]
        assert g.dtype is penalty.dtype is gpunn.float32
        found.append(penalty.numpy())
    assert np.abs(found[0] - found[1]).max() <= 0.1 * np.abs(found[0]).max()


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_are_computed_again_in_the_same_dtypes(reentrant):
    from gpunn.utils.checkpoint import checkpoint

    layer, x = nn.Linear(3, 3), gpunn.ones(2, 3, requires_grad=True)
    seen = []

    def run(x):
        y = layer(x)
        seen.append(y.dtype)
        return layer(y).sigmoid()

    with gpunn.autocast("cpu"):
        first = layer(x)  # its casts of the parameters must not stand in for those of the others
        y = checkpoint(run, first, use_reentrant=reentrant)
        y = checkpoint(run, y, use_reentrant=reentrant)
    y.float().sum().backward()
    assert seen == [gpunn.bfloat16] * 4
    assert layer.weight.grad.dtype is gpunn.float32
