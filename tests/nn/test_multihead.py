"""Multi-head attention against PyTorch's, with the same seed, weights, inputs and masks."""

import itertools
import math

import numpy as np
import pytest
from both import packages, refused, same
from emulated import on_both

import gpunn
from gpunn import nn
from gpunn.nn import functional as F
from gpunn.nn import multihead

rng = np.random.default_rng(0)
N, L, S, E, H = 3, 4, 5, 8, 2
QUERY, KEY, VALUE = (rng.normal(size=(n, N, E)) for n in (L, S, S))
NARROW = rng.normal(size=(S, N, 6)), rng.normal(size=(S, N, 4))
PADDING = np.array([[False] * S, [False, True, False, True, True], [True] * 4 + [False]])
MASK = np.triu(np.ones((L, S), bool), 2)
MASKS = np.random.default_rng(1).random((N * H, L, S)) < 0.4
MASKS[..., -1] = False  # each row sees a key, whatever PADDING hides
OPTIONS = {
    "plain": {}, "no bias": {"bias": False}, "bias_kv": {"add_bias_kv": True},
    "zero": {"add_zero_attn": True}, "both": {"add_bias_kv": True, "add_zero_attn": True},
    "sizes": {"kdim": 6, "vdim": 4}, "sizes, no bias": {"kdim": 6, "bias": False},
    "sizes, both": {"vdim": 4, "add_bias_kv": True, "add_zero_attn": True},
}  # fmt: skip


def numbers(mask):
    """What a mask of bools does to the scores, and something more."""
    noise = np.random.default_rng(2).normal(size=mask.shape)
    return np.where(mask, -np.inf, noise)


GIVEN = {
    "none": {}, "padding": {"key_padding_mask": PADDING}, "mask": {"attn_mask": MASK},
    "masks": {"attn_mask": MASKS}, "all": {"attn_mask": MASKS, "key_padding_mask": PADDING},
    "2D": {"attn_mask": MASK[:, ::-1], "key_padding_mask": PADDING[[0, 1, 1], ::-1]},
}  # fmt: skip
GIVEN |= {f"{name}, numbers": {k: numbers(m) for k, m in given.items()}
          for name, given in list(GIVEN.items())[1:5]}  # fmt: skip


def visible(given):
    """Whether each row sees something: where not, PyTorch gives NaN."""
    hidden = np.zeros((N, H, L, S), bool)
    for name, mask in given.items():
        mask = mask == -np.inf if mask.dtype != bool else mask
        shape = (N, 1, 1, S) if name == "key_padding_mask" else (-1, 1, L, S)
        hidden |= mask.reshape((N, H, L, S) if mask.ndim == 3 else shape)
    return not hidden.all(-1).any()


def tensors(T, given):
    return {k: T.from_numpy(m.copy()) for k, m in given.items()}


def leaves(T, *arrays):
    return [T.from_numpy(a.copy()).requires_grad_() for a in arrays]


def everything(T, layer, inputs, **how):
    """Repr, names, weights, results and gradients of a call."""
    out, weights = layer(*inputs, **how)
    loss = (out * out).sum() if weights is None else (out * out).sum() + (weights**3).sum()
    wanted = list({id(x): x for x in inputs}.values()) + list(layer.parameters())
    named = layer.state_dict()
    return [repr(layer), list(named), *named.values(), out, weights, *T.autograd.grad(loss, wanted)]


def inputs_of(T, form, options, order):
    """Query, key and value: of one tensor, of two, of three; `order` of the dimensions."""
    key = NARROW[0] if "kdim" in options else KEY
    value = NARROW[1] if "vdim" in options else VALUE
    arrays = [a.transpose(order) for a in (QUERY, key, value)]
    if form == "three":
        return leaves(T, *arrays)
    if form == "two":
        query, key = leaves(T, *arrays[:2])
        return [query, key, key]
    (key,) = leaves(T, arrays[1])
    return [key] * 3


@pytest.mark.parametrize("masks", GIVEN)
@pytest.mark.parametrize("name", OPTIONS)
def test_cross_attention(name, masks):
    """Every option with every mask, with and without weights, in both layouts."""
    assert visible(GIVEN[masks])
    flags = itertools.product([False, True], [False, True])
    for batch_first, need_weights in flags:

        def program(T, bf=batch_first, need_weights=need_weights):
            T.manual_seed(1)
            options = OPTIONS[name]
            layer = T.nn.MultiheadAttention(E, H, batch_first=bf, dtype=T.float64, **options)
            inputs = inputs_of(T, "three", options, (1, 0, 2) if bf else (0, 1, 2))
            how = {"need_weights": need_weights, **tensors(T, GIVEN[masks])}
            return everything(T, layer, inputs, **how)

        same(program)


@pytest.mark.parametrize("form", ["one", "two"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_one_tensor_for_several(form, batch_first):
    def program(T):
        found = []
        for name in ("plain", "no bias", "both"):
            T.manual_seed(1)
            options = {"batch_first": batch_first, "dtype": T.float64, **OPTIONS[name]}
            layer = T.nn.MultiheadAttention(E, H, **options)
            inputs = inputs_of(T, form, {}, (1, 0, 2) if batch_first else (0, 1, 2))
            for need in (False, True):
                for average in (False, True):
                    found += everything(
                        T, layer, inputs, need_weights=need, average_attn_weights=average,
                        key_padding_mask=T.from_numpy(PADDING),
                    )  # fmt: skip
        return found

    same(program)


@pytest.mark.parametrize("need_weights", [False, True])
def test_without_a_batch(need_weights):
    def program(T):
        found = []
        for batch_first, name in itertools.product([False, True], ("plain", "both", "sizes")):
            T.manual_seed(1)
            options = OPTIONS[name]
            layer = T.nn.MultiheadAttention(
                E, H, batch_first=batch_first, dtype=T.float64, **options
            )
            key, value = NARROW if name == "sizes" else (KEY, VALUE)
            inputs = leaves(T, QUERY[:, 0], key[:, 0], value[:, 0])
            masks = ({}, {"key_padding_mask": PADDING[1], "attn_mask": MASKS[:H]},
                     {"attn_mask": MASK}, {"key_padding_mask": numbers(PADDING[2])})  # fmt: skip
            for given in masks:
                for average in (False, True):
                    found += everything(
                        T, layer, inputs, need_weights=need_weights,
                        average_attn_weights=average, **tensors(T, given),
                    )  # fmt: skip
        return found

    same(program)


def test_float32():
    def program(T):
        T.manual_seed(1)
        layer = T.nn.MultiheadAttention(E, H, batch_first=True).eval()
        x = T.from_numpy(KEY.astype(np.float32))
        return [*layer(x, x, x), layer(x, x, x, need_weights=False)[0]]

    same(program)


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_is_pytorchs_for_the_same_seed(need_weights):
    def program(T):
        T.manual_seed(3)
        layer = T.nn.MultiheadAttention(E, H, dropout=0.4, dtype=T.float64)
        x, *_ = leaves(T, KEY)
        mask = {"attn_mask": T.from_numpy(numbers(MASKS[:1, :1].repeat(S, 1))[0])}
        made = everything(T, layer, [x, x, x], need_weights=need_weights, **mask)
        return [*made, layer.eval()(x, x, x, need_weights=need_weights)[0]]

    same(program)


def test_weights_of_pytorch_load():
    torch, _ = packages()
    for options in OPTIONS.values():
        theirs = torch.nn.MultiheadAttention(E, H, **options)
        ours = nn.MultiheadAttention(E, H, **options)
        state = {k: gpunn.from_numpy(v.numpy()) for k, v in theirs.state_dict().items()}
        assert str(ours.load_state_dict(state)) == "<All keys matched successfully>"
        inputs = inputs_of(torch, "three", options, (0, 1, 2))
        want = theirs(*(x.float() for x in inputs))
        got = ours(*(x.float() for x in inputs_of(gpunn, "three", options, (0, 1, 2))))
        for w, g in zip(want, got, strict=True):
            np.testing.assert_allclose(g.detach().numpy(), w.detach().numpy(), atol=1e-5)


# --- masks --------------------------------------------------------------------------------


@pytest.mark.parametrize("need_weights", [False, True])
def test_the_causal_hint(need_weights):
    """Without padding and weights it replaces the mask, whatever that says; else the mask rules."""

    def program(T):
        T.manual_seed(1)
        layer = T.nn.MultiheadAttention(E, H, add_zero_attn=True, dtype=T.float64)
        causal = T.nn.Transformer.generate_square_subsequent_mask(S, dtype=T.float64)
        padding = T.from_numpy(numbers(PADDING[:2, ::-1]))
        padding[:, 0] = 0.0
        found = []
        for mask, more in itertools.product(
            (causal, causal.T, causal == 0), ({}, {"key_padding_mask": padding})
        ):
            if mask.dtype == T.bool and more:
                continue
            x, *_ = leaves(T, KEY[:, :2])
            found += everything(T, layer, [x, x, x], attn_mask=mask, is_causal=True,
                                need_weights=need_weights, **more)  # fmt: skip
        return found

    same(program)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("kind", [np.asarray, lambda m: np.where(m, -np.inf, 0.0)])
def test_rows_that_see_nothing_are_zero_and_have_no_gradient(need_weights, kind):
    """PyTorch gives NaN. Hidden by either mask, or by both together."""
    layer = nn.MultiheadAttention(E, H, batch_first=True, dtype=gpunn.float64)
    mask, padding = np.zeros((S, S), bool), np.zeros((2, S), bool)
    mask[1] = True  # row 1 of each sequence; row 2 of the second by both; the first has all hidden
    mask[2, :3] = True
    padding[1, 3:] = padding[0] = True
    dead = np.array([[True] * S, [False, True, True, False, False]])
    x, memory = leaves(gpunn, KEY.transpose(1, 0, 2)[:2], VALUE.transpose(1, 0, 2)[:2])
    out, weights = layer(x, memory, memory, need_weights=need_weights,
                         attn_mask=gpunn.from_numpy(kind(mask)),
                         key_padding_mask=gpunn.from_numpy(kind(padding)))  # fmt: skip
    np.testing.assert_array_equal((out == layer.out_proj.bias).all(-1).numpy(), dead)
    if need_weights:
        np.testing.assert_array_equal((weights == 0).all(-1).numpy(), dead)
        live = weights.sum(-1).detach().numpy()[~dead]
        np.testing.assert_allclose(live, 1)
    gx, gm, *params = gpunn.autograd.grad((out**2).sum(), [x, memory, *layer.parameters()])
    np.testing.assert_array_equal((gx == 0).all(-1).numpy(), dead)
    assert (gm[0] == 0).all() and (gm[1, 3:] == 0).all() and not (gm[1, :3] == 0).any()
    assert all(g.isfinite().all() for g in params)


def test_true_means_ignore():
    """The opposite of scaled_dot_product_attention's masks."""
    layer = nn.MultiheadAttention(2, 1, bias=False)
    nn.init.eye_(layer.out_proj.weight)
    with gpunn.no_grad():
        layer.in_proj_weight.copy_(gpunn.eye(2).repeat(3, 1))
    x = gpunn.tensor([[1.0, 2.0], [3.0, 4.0]])
    mask = gpunn.tensor([[False, True], [True, False]])
    out, weights = layer(x, x, x, attn_mask=mask)
    assert weights.tolist() == gpunn.eye(2).tolist() and out.tolist() == x.tolist()
    assert gpunn.equal(out, F.scaled_dot_product_attention(x, x, x, ~mask))


def test_masks_of_two_kinds_warn_once_and_are_added():
    def program(T):
        layer = T.nn.MultiheadAttention(E, H, dtype=T.float64)
        for p in layer.parameters():
            T.nn.init.constant_(p, 0.25)
        x = T.from_numpy(KEY)
        found = []
        mask = np.repeat([[False, True, False, False, True]], S, 0)
        padding = np.roll(PADDING, 1, -1)
        for given in ((mask, numbers(padding)), (numbers(mask), padding)):
            with pytest.warns(UserWarning, match="mismatched key_padding_mask and attn_mask") as w:
                masks = dict(zip(("attn_mask", "key_padding_mask"), given, strict=True))
                found += layer(x, x, x, **tensors(T, masks))
            found += [len(w)]
        return found

    same(program)


def test_gradient_of_a_mask():
    """A mask may be learned: a bias for each pair of positions."""

    def program(T):
        T.manual_seed(0)
        layer = T.nn.MultiheadAttention(E, H, dtype=T.float64)
        x, mask, masks = leaves(T, KEY, KEY[:, 0, :S] / 2, rng_masks)
        found = []
        for given, need in itertools.product((mask, masks), (False, True)):
            out = layer(x, x, x, attn_mask=given, need_weights=need)[0]
            found += T.autograd.grad((out**2).sum(), [x, given])
        return found

    rng_masks = np.random.default_rng(3).normal(size=(N * H, S, S))
    same(program)


def test_merge_masks():
    def program(T):
        layer, x = T.nn.MultiheadAttention(E, H), T.zeros(N, S, E)
        padding = T.from_numpy(numbers(PADDING))
        square = np.repeat(MASKS[:, :1], S, 1)
        masks = [T.from_numpy(numbers(m)) for m in (np.eye(S, dtype=bool), square)]
        found = [layer.merge_masks(None, None, x), layer.merge_masks(None, padding, x)]
        for mask in masks:
            found += [layer.merge_masks(mask, None, x), layer.merge_masks(mask, padding, x)]
        return found

    same(program)


# --- the function -------------------------------------------------------------------------


def call(T, **changed):
    """The arguments of multi_head_attention_forward."""
    T.manual_seed(0)
    made = {"query": QUERY, "key": KEY, "value": VALUE}
    given = {k: T.from_numpy(v.copy()).requires_grad_() for k, v in made.items()}
    given |= {"embed_dim_to_check": E, "num_heads": H, "bias_k": None, "bias_v": None}
    given |= {"add_zero_attn": False, "dropout_p": 0.0}
    for name, shape in (("in_proj_weight", (3 * E, E)), ("in_proj_bias", (3 * E,)),
                        ("out_proj_weight", (E, E)), ("out_proj_bias", (E,))):  # fmt: skip
        given[name] = T.randn(shape, dtype=T.float64, requires_grad=True)
    for name, value in changed.items():
        is_shape = isinstance(value, tuple)
        given[name] = T.randn(value, dtype=T.float64, requires_grad=True) if is_shape else value
    return given


WEIGHTS = {"use_separate_proj_weight": True, "in_proj_weight": None, "q_proj_weight": (E, E),
           "k_proj_weight": (E, E), "v_proj_weight": (E, E)}  # fmt: skip
CALLS = {
    "plain": {}, "no biases": {"in_proj_bias": None, "out_proj_bias": None},
    "biases": {"bias_k": (1, 1, E), "bias_v": (1, 1, E), "add_zero_attn": True},
    "separate": WEIGHTS, "no bias": {**WEIGHTS, "in_proj_bias": None},
    "narrow": {**WEIGHTS, "key": (S, N, 3), "value": (S, N, 5), "k_proj_weight": (E, 3),
               "v_proj_weight": (E, 5)},
    "static": {"static_k": (N * H, 7, E // H), "static_v": (N * H, 7, E // H)},
    "static_v": {"static_v": (N * H, S, E // H), "add_zero_attn": True},
    "out": {"out_proj_weight": (3, E), "out_proj_bias": (3,)},
    "dropout": {"dropout_p": 0.5}, "evaluation": {"dropout_p": 0.5, "training": False},
    "each": {"average_attn_weights": False},
}  # fmt: skip


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_function(name, need_weights):
    def program(T):
        given = call(T, need_weights=need_weights, **CALLS[name])
        out, weights = T.nn.functional.multi_head_attention_forward(**given)
        loss = (out * out).sum() if weights is None else (out * out).sum() + (weights**2).sum()
        loss.backward()
        grads = [x.grad for x in given.values() if getattr(x, "requires_grad", False)]
        return [out, weights, *(g for g in grads if g is not None and (g != 0).any())]

    same(program)


REFUSED = [
    ({"embed_dim_to_check": 9}, "was expecting embedding dimension of 9, but got 8"),
    ({"num_heads": 3}, "embed_dim 8 not divisible by num_heads 3"),
    ({"key": (6, N, E)}, "key shape .* does not match value shape"),
    ({**WEIGHTS, "key": (6, N, E)}, "key's sequence and batch dims .* do not match value's"),
    ({"in_proj_weight": None}, "use_separate_proj_weight is False but in_proj_weight is None"),
    ({**WEIGHTS, "q_proj_weight": None}, "is True but q_proj_weight is None"),
    ({**WEIGHTS, "k_proj_weight": None}, "is True but k_proj_weight is None"),
    ({**WEIGHTS, "v_proj_weight": None}, "is True but v_proj_weight is None"),
    ({**WEIGHTS, "q_proj_weight": (E, 3)}, r"expecting query weights shape of \(8, 8\), but got"),
    ({**WEIGHTS, "k_proj_weight": (3, E)}, r"expecting key weights shape of \(8, 8\), but got"),
    ({**WEIGHTS, "in_proj_bias": (12,)}, r"expecting query bias shape of \(8,\), but got"),
    ({"bias_k": (1, 1, E)}, "bias_k is set but bias_v is None"),
    ({"bias_v": (1, 1, E)}, "bias_v is set but bias_k is None"),
    ({"bias_k": (1, 1, E), "bias_v": (1, 1, E), "static_k": (6, S, 4)}, "added to static key"),
    ({"bias_k": (1, 1, E), "bias_v": (1, 1, E), "static_v": (6, S, 4)}, "added to static value"),
    ({"static_k": (5, S, 4)}, r"expecting static_k.size\(0\) of 6, but got 5"),
    ({"static_v": (6, S, 3)}, r"expecting static_v.size\(2\) of 4, but got 3"),
    ({"query": (2, L, N, E)}, "unbatched 2D or batched 3D tensor but received 4-D query"),
    ({"query": (L, E)}, "For unbatched .* `key` and `value` to be 2-D but found 3-D and 3-D"),
    ({"key": (S, E)}, "For batched .* `key` and `value` to be 3-D but found 2-D and 3-D"),
    ({"attn_mask": (L,)}, "For batched .* 2-D or 3-D but found 1-D"),
    ({"attn_mask": (L, S + 1)}, r"The shape of the 2D attn_mask is .*, but should be \(4, 5\)"),
    ({"attn_mask": (N, L, S)}, r"The shape of the 3D attn_mask is .*, but should be \(6, 4, 5\)"),
    ({"key_padding_mask": (S,)}, "`key_padding_mask` to be `None` or 2-D but found 1-D"),
    ({"key_padding_mask": (N, S + 1)}, r"key_padded_mask.shape\[1\] to be 5, but got 6"),
    ({"key_padding_mask": (4, S)}, r"key_padded_mask.shape\[0\] to be 3, but got 4"),
    ({"is_causal": True}, "Need attn_mask if specifying the is_causal hint"),
    ({"key": (S, 2, E), "value": (S, 2, E)}, r"'\[5, 6, 4\]' is invalid for input of size 80"),
    ({"in_proj_weight": (24, 7)}, "mat1 and mat2 shapes cannot be multiplied"),
    ({"dropout_p": 1.5}, "dropout probability has to be between 0 and 1, but got 1.5"),
]  # fmt: skip


@pytest.mark.parametrize("changed, match", REFUSED)
def test_what_does_not_fit_is_refused(changed, match):
    refused(lambda T: T.nn.functional.multi_head_attention_forward(**call(T, **changed)), match)


def test_other_masks_are_refused():
    def masked(name, shape, dtype):
        return lambda T: T.nn.functional.multi_head_attention_forward(
            **call(T, **{name: T.ones(*shape, dtype=getattr(T, dtype))})
        )

    refused(masked("attn_mask", (L, S), "int64"), "bool and floating types of attn_mask are supp")
    refused(masked("key_padding_mask", (N, S), "uint8"), "types of key_padding_mask are supported")

    def unbatched(T):
        x, mask = T.ones(S, E), T.ones(3, S, S, dtype=T.bool)
        return T.nn.MultiheadAttention(E, H)(x, x, x, attn_mask=mask)

    refused(unbatched, r"Expected `attn_mask` shape to be \(2, 5, 5\) but got")
    refused(
        lambda T: T.nn.MultiheadAttention(E, H)(*[T.ones(S, E)] * 3, T.ones(1, S).bool()),
        "For unbatched .* `key_padding_mask` to be `None` or 1-D but found 2-D",
    )


def test_modules_that_cannot_be_are_refused():
    refused(lambda T: T.nn.MultiheadAttention(8, 3), "embed_dim must be divisible by num_heads")
    refused(lambda T: T.nn.MultiheadAttention(0, 3), "embed_dim=0 and num_heads=3 instead")
    refused(lambda T: T.nn.MultiheadAttention(8, -1), "must be greater than 0")


# --- how it is done -----------------------------------------------------------------------


def test_training_and_evaluation_give_the_same_bits():
    layer = nn.MultiheadAttention(E, H, batch_first=True)
    x = gpunn.from_numpy(KEY.astype(np.float32))
    trained = layer(x, x, x)
    with gpunn.no_grad():
        for want, got in zip(trained, layer.eval()(x, x, x), strict=True):
            assert gpunn.equal(want.detach(), got)


@pytest.mark.parametrize("form, products", [("one", 2), ("two", 3), ("three", 4)])
def test_what_is_projected_twice_is_multiplied_once(monkeypatch, form, products):
    calls = []

    def linear(*args):
        calls.append(args)
        return F.linear(*args)

    monkeypatch.setattr(multihead, "linear", linear)
    inputs = inputs_of(gpunn, form, {}, (0, 1, 2))
    nn.MultiheadAttention(E, H, dtype=gpunn.float64)(*inputs)
    assert len(calls) == products


def test_attention_gets_views_and_masks_that_are_not_repeated(monkeypatch):
    """Heads are views of the projections; padding stays (N, 1, 1, S); a causal mask is not read."""
    seen = []

    def attend(*args):
        seen.append(args)
        return F.scaled_dot_product_attention(*args)

    monkeypatch.setattr(multihead, "scaled_dot_product_attention", attend)
    layer = nn.MultiheadAttention(E, H, batch_first=True, dtype=gpunn.float64)
    x, padding = gpunn.from_numpy(KEY), gpunn.from_numpy(PADDING[:1].repeat(S, 0))[:, :N]
    mask = nn.Transformer.generate_square_subsequent_mask(N)
    layer(x, x, x, padding, need_weights=False)
    layer(x, x, x, need_weights=False, attn_mask=mask, is_causal=True)
    (q, k, v, given, _, causal), (*_, none, _, hinted) = seen
    assert given.shape == (S, 1, 1, N) and not causal and none is None and hinted
    whole = q.array.base if q.array.base.base is None else q.array.base.base
    assert all(np.shares_memory(whole, t.array) for t in (q, k, v))
    assert q.shape == (S, H, N, E // H)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half(dtype):
    gpunn.manual_seed(0)
    layer = nn.MultiheadAttention(E, H, add_bias_kv=True)
    x = gpunn.from_numpy(KEY.astype(np.float32))
    mask = gpunn.from_numpy(numbers(PADDING).astype(np.float32))
    want = layer(x, x, x, mask)
    dtype = getattr(gpunn, dtype)
    layer.to(dtype)
    for padding, need in itertools.product((mask.to(dtype), mask == -math.inf), (False, True)):
        x16 = x.to(dtype).requires_grad_()
        out, weights = layer(x16, x16, x16, padding, need_weights=need)
        out.sum().backward()
        assert out.dtype is x16.grad.dtype is layer.bias_k.grad.dtype is dtype
        if padding.dtype is dtype:
            assert (out.float() - want[0]).abs().max().item() < 0.05
            assert weights is None or (weights.float() - want[1]).abs().max().item() < 0.02


@pytest.mark.parametrize("name", ["plain", "both", "sizes"])
def test_on_a_device(emulated, name):
    """The emulated device against the CPU, with weights and without."""
    layer = nn.MultiheadAttention(E, H, **OPTIONS[name], dtype=gpunn.float64)
    names = [n for n, _ in layer.named_parameters()]
    key, value = NARROW if name == "sizes" else (KEY, VALUE)

    def f(query, key, value, *params):
        named = dict(zip(names, params, strict=True))
        how = {"key_padding_mask": gpunn.from_numpy(PADDING).to(query.device)}
        found = []
        for need in (False, True):
            args = (query, key, value), {**how, "need_weights": need}
            found += gpunn.func.functional_call(layer, named, *args)
        return [y for y in found if y is not None]

    weights = [p.detach().numpy() for p in layer.parameters()]
    value = np.repeat(value, 2, -1)[..., :E] if name == "sizes" else value
    on_both(f, [QUERY, key, value[..., : layer.vdim], *weights], dtypes=("float64",),
            layouts=(np.ascontiguousarray,))  # fmt: skip
