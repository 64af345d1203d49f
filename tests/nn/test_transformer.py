"""Transformers against PyTorch's, with the same seed, weights, inputs and masks."""

import copy
import itertools
import math

import numpy as np
import pytest
from both import packages, refused, same
from emulated import on_both

import gpunn
from gpunn import nn
from gpunn.autograd import gradcheck, gradgradcheck

rng = np.random.default_rng(0)
N, S, L, E, H = 2, 5, 4, 8, 2
SRC, TGT = rng.normal(size=(S, N, E)), rng.normal(size=(L, N, E))
PADDING = np.array([[False] * S, [False] * 3 + [True] * 2])
TGT_PADDING = np.array([[False] * L, [False] * 2 + [True] * 2])
ahead = nn.Transformer.generate_square_subsequent_mask

LAYERS = {
    "plain": {}, "norm first": {"norm_first": True}, "gelu": {"activation": "gelu"},
    "no bias": {"bias": False, "norm_first": True}, "eps": {"layer_norm_eps": 0.1},
    "silu": {"activation": lambda T: T.nn.functional.silu},
    "module": {"activation": lambda T: T.nn.GELU("tanh")},
}  # fmt: skip
MASKS = {
    "none": {}, "padding": {"src_key_padding_mask": PADDING},
    "mask": {"src_mask": np.triu(np.ones((S, S), bool), 2)},
    "causal": {"src_mask": np.triu(np.full((S, S), -np.inf), 1), "is_causal": True},
    "both": {"src_mask": np.triu(np.ones((S, S), bool), 1), "src_key_padding_mask": PADDING,
             "is_causal": True},
    "masks": {"src_mask": rng.normal(size=(N * H, S, S))},
}  # fmt: skip


def made(T, options):
    """Options of which some depend on the package."""
    return {k: v(T) if type(v) is type(lambda: 0) else v for k, v in options.items()}


def tensors(T, given):
    return {k: T.from_numpy(m.copy()) if isinstance(m, np.ndarray) else m
            for k, m in given.items()}  # fmt: skip


def leaf(T, array):
    return T.from_numpy(array.copy()).requires_grad_()


def everything(T, model, inputs, how):
    """Names, weights, result, gradients of inputs and weights."""
    y = model(*inputs, **how)
    state, wanted = model.state_dict(), [*inputs, *model.parameters()]
    weights = T.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [list(state), *state.values(), y, *T.autograd.grad((y * weights).sum(), wanted)]


def shape_of(T, name, form, array):
    """A leaf with the batch first, second, or not at all."""
    return leaf(T, {"first": array.transpose(1, 0, 2), "second": array, "one": array[:, 1]}[form])


# --- layers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_encoder_layer(name):
    forms = itertools.product(("first", "second", "one"), MASKS, (True, False))
    for form, masks, training in forms:
        if form == "one" and masks not in ("none", "mask", "causal"):
            continue

        def program(T, form=form, masks=masks, training=training):
            T.manual_seed(4)
            layer = T.nn.TransformerEncoderLayer(
                E, H, 6, 0.3, batch_first=form == "first", dtype=T.float64,
                **made(T, LAYERS[name]),
            ).train(training)  # fmt: skip
            x = shape_of(T, name, form, SRC)
            shown = [] if name in ("silu", "module") else [repr(layer)]
            return shown + everything(T, layer, [x], tensors(T, MASKS[masks]))

        same(program)


def decoder_masks(T):
    causal = {"tgt_mask": np.triu(np.ones((L, L), bool), 1), "tgt_is_causal": True}
    for own in (causal, {"tgt_key_padding_mask": TGT_PADDING}):
        for other in ({"memory_mask": np.eye(L, S) * 3}, {"memory_key_padding_mask": PADDING}):
            yield tensors(T, own | other)


@pytest.mark.parametrize("name", LAYERS)
def test_decoder_layer(name):
    def program(T):
        found = []
        for form, training in itertools.product(("first", "second"), (True, False)):
            T.manual_seed(4)
            layer = T.nn.TransformerDecoderLayer(
                E, H, 6, 0.3, batch_first=form == "first", dtype=T.float64,
                **made(T, LAYERS[name]),
            ).train(training)  # fmt: skip
            inputs = [shape_of(T, name, form, x) for x in (TGT, SRC)]
            for how in decoder_masks(T):
                found += everything(T, layer, inputs, how)
        return found

    same(program)


def test_the_parts_can_be_replaced():
    """Subclasses change a part of a layer as they do in PyTorch."""

    def program(T):
        class Gated(T.nn.TransformerEncoderLayer):
            def _ff_block(self, x):
                return super()._ff_block(x) * 2

            def _sa_block(self, x, attn_mask, key_padding_mask, is_causal=False):
                return -super()._sa_block(x, attn_mask, key_padding_mask, is_causal=is_causal)

        T.manual_seed(0)
        x = leaf(T, SRC)
        return everything(T, Gated(E, H, 6, 0.0, dtype=T.float64), [x], {})

    same(program)


# --- stacks -------------------------------------------------------------------------------


def encoder(T, norm=True, dropout=0.0, **options):
    layer = T.nn.TransformerEncoderLayer(E, H, 6, dropout, batch_first=True, dtype=T.float64)
    final = T.nn.LayerNorm(E, dtype=T.float64) if norm else None
    return T.nn.TransformerEncoder(layer, 3, final, **options)


@pytest.mark.parametrize("norm", [True, False])
def test_encoder(norm):
    def program(T):
        T.manual_seed(0)
        model, found = encoder(T, norm, 0.2, mask_check=False), []
        found += [repr(model), model.num_layers, model.use_nested_tensor]
        for given in ({}, {"src_key_padding_mask": PADDING}, {"mask": MASKS["causal"]["src_mask"]},
                      {"mask": MASKS["both"]["src_mask"], "src_key_padding_mask": PADDING},
                      {"mask": MASKS["masks"]["src_mask"], "is_causal": False}):  # fmt: skip
            found += everything(T, model, [shape_of(T, "", "first", SRC)], tensors(T, given))
        return found

    same(program)


def test_decoder():
    def program(T):
        T.manual_seed(0)
        layer = T.nn.TransformerDecoderLayer(E, H, 6, 0.2, dtype=T.float64)
        model = T.nn.TransformerDecoder(layer, 2, T.nn.LayerNorm(E, dtype=T.float64))
        found = [repr(model)]
        for how in decoder_masks(T):
            how.pop("tgt_is_causal", None)
            found += everything(T, model, [leaf(T, TGT), leaf(T, SRC)], how)
        return found

    same(program)


@pytest.mark.parametrize("batch_first", [True, False])
def test_transformer(batch_first):
    def program(T):
        T.manual_seed(0)
        form = "first" if batch_first else "second"
        model = T.nn.Transformer(
            E, H, 2, 1, 6, 0.3, batch_first=batch_first, dtype=T.float64
        )
        inputs = [shape_of(T, "", form, x) for x in (SRC, TGT)]
        causal = T.nn.Transformer.generate_square_subsequent_mask
        found = [repr(model), causal(3), causal(2, dtype=T.float64), causal(2, dtype=T.bool)]
        for how in ({}, {"tgt_mask": causal(L, dtype=T.float64), "src_is_causal": False},
                    tensors(T, {"src_key_padding_mask": PADDING, "memory_mask": np.eye(L, S),
                                "tgt_key_padding_mask": TGT_PADDING})):  # fmt: skip
            found += everything(T, model, inputs, how)
        model = T.nn.Transformer(E, H, 1, 1, 6, dtype=T.float64, dropout=0.0)
        return found + everything(T, model, [x[:, 0] for x in (leaf(T, SRC), leaf(T, TGT))], {})

    with pytest.warns(UserWarning, match="enable_nested_tensor is True"):
        same(program)


@pytest.mark.parametrize("batch_first", [True, False])
def test_training_gives_pytorchs_losses(batch_first):
    """Four steps with padding, a causal mask and dropout, from the same seed."""

    def program(T):
        T.manual_seed(1)
        model = T.nn.Transformer(16, 4, 1, 2, 24, batch_first=batch_first, norm_first=True)
        embed, out = T.nn.Embedding(9, 16, padding_idx=0), T.nn.Linear(16, 9)
        optimizer = T.optim.Adam(T.nn.ModuleList([model, embed, out]).parameters(), 0.003)
        mask, losses = T.nn.Transformer.generate_square_subsequent_mask(5).bool(), []
        for _ in range(4):
            src, tgt = T.randint(1, 9, (3, 7)), T.randint(1, 9, (3, 6))
            src[1, 4:] = 0
            x, y = (embed(t if batch_first else t.T) for t in (src, tgt[:, :-1]))
            found = out(model(x, y, tgt_mask=mask, src_key_padding_mask=src == 0,
                              memory_key_padding_mask=src == 0))  # fmt: skip
            wanted = tgt[:, 1:] if batch_first else tgt[:, 1:].T
            loss = T.nn.functional.cross_entropy(found.reshape(-1, 9), wanted.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return [T.tensor(losses)]

    with pytest.warns(UserWarning, match="enable_nested_tensor is True"):
        same(program)


def test_parts_of_ones_own():
    class Doubled(nn.Module):
        def forward(self, *args, **kwargs):
            self.kwargs = kwargs
            return args[0] * 2

    own = Doubled(), Doubled()
    model = nn.Transformer(E, custom_encoder=own[0], custom_decoder=own[1])
    tgt = gpunn.ones(3, 1, E)
    assert gpunn.equal(model(tgt, tgt, memory_is_causal=True), tgt * 2)
    assert own[0].kwargs == {"mask": None, "src_key_padding_mask": None, "is_causal": None}
    assert own[1].kwargs["memory_is_causal"] is True and len(own[1].kwargs) == 6
    assert list(model.parameters()) == []


@pytest.mark.parametrize("training", [True, False])
def test_weights_of_pytorch_load_and_give_its_outputs(training):
    """float32, without gradients: where PyTorch takes its fast path in evaluation."""
    torch, _ = packages()
    torch.manual_seed(0)
    theirs = torch.nn.Transformer(64, 4, 2, 2, 128, dropout=0.0, batch_first=True).train(training)
    theirs.encoder.use_nested_tensor = False  # they warn of being a prototype
    ours = nn.Transformer(64, 4, 2, 2, 128, dropout=0.0, batch_first=True).train(training)
    state = {k: gpunn.from_numpy(v.numpy()) for k, v in theirs.state_dict().items()}
    assert str(ours.load_state_dict(state)) == "<All keys matched successfully>"
    src, tgt = (rng.normal(size=s).astype(np.float32) for s in ((2, 9, 64), (2, 7, 64)))
    padding = np.arange(9) >= np.array([[9], [6]])
    found = []
    for T, model in ((torch, theirs), (gpunn, ours)):
        with T.no_grad():
            mask = T.nn.Transformer.generate_square_subsequent_mask(7)
            hidden = T.from_numpy(padding)
            y = model(T.from_numpy(src), T.from_numpy(tgt), tgt_mask=mask,
                      src_key_padding_mask=hidden, memory_key_padding_mask=hidden)  # fmt: skip
            found.append(y.numpy())
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


# --- what attends to what -----------------------------------------------------------------


@pytest.mark.parametrize("masked", ["numbers", "bools", "hint"])
@pytest.mark.parametrize("training", [True, False])
def test_a_later_token_changes_nothing_earlier(masked, training):
    """Neither an output, nor the gradient of an earlier output."""
    model = encoder(gpunn).train(training)
    mask = ahead(S, dtype=gpunn.bool if masked == "bools" else gpunn.float64)
    how = {"mask": mask, "is_causal": True if masked == "hint" else None}
    x = leaf(gpunn, SRC.transpose(1, 0, 2))
    y = model(x, **how)
    other = x.detach().clone()
    other[:, 3] += 1.0
    changed = model(other, **how)
    assert gpunn.equal(y[:, :3], changed[:, :3]) and not (y[:, 3:] == changed[:, 3:]).any()
    (grad,) = gpunn.autograd.grad(y[:, :3].sum() + (y[:, :3] ** 2).sum(), x)
    assert (grad[:, 3:] == 0).all() and not (grad[:, :3] == 0).any()


def test_a_decoder_does_not_look_ahead():
    model = nn.Transformer(E, H, 1, 2, 6, 0.0, batch_first=True, dtype=gpunn.float64)
    src, tgt = (leaf(gpunn, a.transpose(1, 0, 2)) for a in (SRC, TGT))
    y = model(src, tgt, tgt_mask=ahead(L, dtype=gpunn.float64))
    gs, gt = gpunn.autograd.grad((y[:, 1] ** 2).sum(), (src, tgt))
    assert (gt[:, 2:] == 0).all() and not (gt[:, :2] == 0).any() and not (gs == 0).any()


def test_padding_changes_nothing_that_is_not_padding():
    model = nn.Transformer(E, H, 2, 1, 6, 0.0, batch_first=True, dtype=gpunn.float64)
    src, tgt = (leaf(gpunn, a.transpose(1, 0, 2)) for a in (SRC, TGT))
    masks = tensors(gpunn, {"src_key_padding_mask": PADDING, "memory_key_padding_mask": PADDING,
                            "tgt_key_padding_mask": TGT_PADDING})  # fmt: skip
    y = model(src, tgt, **masks)
    gs, gt = gpunn.autograd.grad((y[1, :2] ** 2).sum(), (src, tgt))
    assert (gs[0] == 0).all() and (gs[1, 3:] == 0).all() and not (gs[1, :3] == 0).any()
    assert (gt[1, 2:] == 0).all() and not (gt[1, :2] == 0).any()
    alone = model(src[1:, :3], tgt[1:, :2])  # the sequence without its padding
    np.testing.assert_allclose(alone[0].detach().numpy(), y[1, :2].detach().numpy(), atol=1e-12)


def test_a_sequence_that_is_all_padding_spoils_nothing():
    model, x = encoder(gpunn).eval(), leaf(gpunn, SRC.transpose(1, 0, 2))
    padding = gpunn.tensor([[True] * S, [False] * S])
    y = model(x, src_key_padding_mask=padding)
    y.sum().backward()
    assert y.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())
    np.testing.assert_allclose(y[1].detach().numpy(), model(x[1:])[0].detach().numpy(), atol=1e-12)


def test_the_causal_mask_is_recognised():
    def program(T):
        detect = T.nn.modules.transformer._detect_is_causal_mask
        causal = T.nn.modules.transformer._generate_square_subsequent_mask
        masks = [
            None, causal(4), causal(4, dtype=T.bool), causal(4) * 2, causal(4).T, causal(1),
            causal(4)[None], causal(4)[:3], T.zeros(4, 4), causal(4).nan_to_num(), causal(0),
        ]  # fmt: skip
        return [detect(m, hint, size) for m in masks for hint in (None, True, False)
                for size in (None, 4, 3) if m is not None or size]  # fmt: skip

    same(program)


def test_a_recognised_mask_is_not_read(monkeypatch):
    seen = []

    def attend(*args):
        seen.append(args[3:])
        return nn.functional.scaled_dot_product_attention(*args)

    monkeypatch.setattr(nn.multihead, "scaled_dot_product_attention", attend)
    x = leaf(gpunn, SRC.transpose(1, 0, 2))
    encoder(gpunn).eval()(x, mask=ahead(S, dtype=gpunn.float64))
    assert seen == [(None, 0.0, True)] * 3


def test_the_mask_of_another_size_is_refused():
    x, mask = leaf(gpunn, SRC.transpose(1, 0, 2)), ahead(S + 1, dtype=gpunn.float64)
    with pytest.raises(RuntimeError, match="The shape of the 2D attn_mask is"):
        encoder(gpunn)(x, mask=mask)


# --- how it is made -----------------------------------------------------------------------


def test_layers_are_copies_with_equal_weights():
    layer = nn.TransformerEncoderLayer(E, H, 6, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    first, second = model.layers
    assert gpunn.equal(first.linear1.weight, second.linear1.weight)
    with gpunn.no_grad():
        second.linear1.weight.zero_()
    assert (first.linear1.weight != 0).all() and (layer.linear1.weight != 0).all()
    model(gpunn.randn(1, 3, E)).sum().backward()
    assert first.linear2.weight.grad is not second.linear2.weight.grad
    assert layer.linear1.weight.grad is None
    assert gpunn.equal(copy.deepcopy(model).layers[1].linear1.weight, gpunn.zeros(6, E))


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"norm_first": True}, "encoder_layer.norm_first was True"),
        ({"batch_first": False}, "batch_first was not True.use batch_first for better inference"),
        ({"bias": False}, "self_attn was passed bias=False"),
        ({"activation": lambda T: T.tanh}, "activation_relu_or_gelu was not True"),
        ({"nhead": 1}, "self_attn.num_heads is odd"),
        ({"eps": 1e-3}, "norm1.eps was not equal to encoder_layer.norm2.eps"),
        ({"other": True}, "encoder_layer was not TransformerEncoderLayer"),
    ],
)
def test_the_warning_about_nested_tensors(options, reason):
    for T in packages():
        given = {"d_model": E, "nhead": H, "batch_first": True, **made(T, options)}
        other, eps = given.pop("other", False), given.pop("eps", None)
        layer = T.nn.Linear(2, 2) if other else T.nn.TransformerEncoderLayer(**given)
        if eps:
            layer.norm1.eps = eps
        with pytest.warns(UserWarning, match=reason) as caught:
            model = T.nn.TransformerEncoder(layer, 1)
        assert len(caught) == 1 and caught[0].filename == __file__
        assert not model.use_nested_tensor and model.enable_nested_tensor
        assert not T.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).use_nested_tensor


def test_masks_of_two_kinds_warn_once():
    x = leaf(gpunn, SRC.transpose(1, 0, 2))
    masks = tensors(gpunn, {"src_key_padding_mask": PADDING, "mask": np.zeros((S, S))})
    with pytest.warns(UserWarning, match="mismatched src_key_padding_mask and mask") as caught:
        y = encoder(gpunn).eval()(x, **masks)
    assert len(caught) == 1 and y.isfinite().all()


def test_what_does_not_fit_is_refused():
    def transformer(src, tgt, batch_first=True):
        def program(T):
            custom = {"custom_encoder": T.nn.Identity(), "custom_decoder": T.nn.Identity()}
            return T.nn.Transformer(E, **custom, batch_first=batch_first)(T.ones(src), T.ones(tgt))

        return program

    refused(transformer((2, 3, E), (3, 3, E)), "the batch number of src and tgt must be equal")
    refused(transformer((2, 3, E), (2, 2, E), False), "the batch number of src and tgt")
    refused(transformer((2, 3, E), (2, 3, 7)), "the feature number of src and tgt must be equal")
    refused(transformer((2, 3, 7), (2, 3, E)), "the feature number of src and tgt must be equal")

    def layer(name, **options):
        return lambda T: getattr(T.nn, name)(8, 2, **options)

    for name in ("TransformerEncoderLayer", "TransformerDecoderLayer"):
        refused(layer(name, activation="tanh"), "activation should be relu/gelu, not tanh")
        refused(layer(name, dropout=2.0), "dropout probability has to be between 0 and 1")
    integers = {"src_mask": np.ones((S, S), np.int64)}
    refused(lambda T: T.nn.TransformerEncoderLayer(E, H)(T.ones(S, N, E), **tensors(T, integers)),
            "only bool and floating types of src_mask are supported")  # fmt: skip
    integers = {"src_key_padding_mask": np.ones((N, S), np.int64)}
    refused(lambda T: encoder(T)(T.ones(N, S, E), **tensors(T, integers)),
            "only bool and floating types of src_key_padding_mask are supported")  # fmt: skip


# --- derivatives, dtypes, devices ---------------------------------------------------------


def test_derivatives_of_both_orders():
    """Of a layer of each kind, with masks, by every input and weight."""
    hidden = {"src_mask": np.triu(np.full((3, 3), -np.inf), 1),
              "src_key_padding_mask": np.where(PADDING[:, 2:], -np.inf, 0.0)}  # fmt: skip
    masks = tensors(gpunn, hidden)
    for kind, lengths, how in (("Encoder", (3,), masks), ("Decoder", (2, 3), {})):
        gpunn.manual_seed(0)
        layer = getattr(nn, f"Transformer{kind}Layer")(
            4, 2, 3, 0.0, activation=gpunn.tanh, batch_first=True, dtype=gpunn.float64
        )
        names, params = zip(*layer.named_parameters(), strict=True)

        def call(*leaves, lengths=lengths, layer=layer, names=names, how=how):
            n = len(lengths)
            named = dict(zip(names, leaves[n:], strict=True))
            return gpunn.func.functional_call(layer, named, leaves[:n], how)

        inputs = [leaf(gpunn, rng.normal(size=(2, n, 4))) for n in lengths]
        leaves = (*inputs, *(p.detach().clone().requires_grad_() for p in params))
        assert gradcheck(call, leaves, fast_mode=True)
        assert gradgradcheck(call, leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half(dtype):
    gpunn.manual_seed(0)
    model = nn.Transformer(E, H, 1, 1, 6, 0.0, batch_first=True)
    src, tgt = (gpunn.from_numpy(a.transpose(1, 0, 2)).float() for a in (SRC, TGT))
    want = model(src, tgt, tgt_mask=ahead(L))
    dtype = getattr(gpunn, dtype)
    got = model.to(dtype)(src.to(dtype), tgt.to(dtype), tgt_mask=ahead(L, dtype=dtype))
    got.sum().backward()
    assert got.dtype is dtype and (got.float() - want).abs().max().item() < 0.15
    assert all(p.grad.dtype is dtype and p.grad.isfinite().all() for p in model.parameters())


def test_on_a_device(emulated):
    """The emulated device against the CPU: causal and padding masks."""
    gpunn.manual_seed(0)
    model = nn.Transformer(E, H, 1, 1, 6, 0.0, batch_first=True, dtype=gpunn.float64)
    names, params = zip(*model.named_parameters(), strict=True)

    def f(src, tgt, *weights):
        where = {"device": src.device}
        how = {"tgt_mask": ahead(L, **where, dtype=gpunn.bool),
               "src_key_padding_mask": gpunn.tensor(PADDING.tolist(), **where)}  # fmt: skip
        named = dict(zip(names, weights, strict=True))
        return [gpunn.func.functional_call(model, named, (src, tgt), how)]

    arrays = [SRC.transpose(1, 0, 2).copy(), TGT.transpose(1, 0, 2).copy()]
    on_both(f, arrays + [p.detach().numpy() for p in params], dtypes=("float64", "float32"),
            layouts=(np.ascontiguousarray,), rtol={"float32": 1e-4})  # fmt: skip


def test_a_small_model_learns_to_copy():
    """Trained with a causal mask it predicts the token before, and nothing it cannot see."""
    gpunn.manual_seed(0)
    embed, layer = nn.Embedding(6, 16), nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
    model, out = nn.TransformerEncoder(layer, 1), nn.Linear(16, 6)
    place = nn.functional.sinusoidal_position_encoding(8, 16)
    parts = nn.ModuleList([embed, model, out])
    optimizer = gpunn.optim.Adam(parts.parameters(), 0.01)
    losses = []
    for _ in range(60):
        tokens = gpunn.randint(0, 6, (16, 8))
        logits = out(model(embed(tokens) + place, mask=ahead(8)))
        loss = nn.functional.cross_entropy(logits[:, 1:].flatten(0, 1), tokens[:, :-1].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > math.log(6) * 0.9 and losses[-1] < 0.5, losses[::10]
