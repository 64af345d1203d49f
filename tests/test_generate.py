"""Text generation: the cache changes nothing, and each way of drawing keeps the right tokens."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

import gpunn

FOLDER = Path(__file__).parent.parent / "examples"
PROMPTS = [[3, 1, 4, 1, 5], [2], [7, 1, 8]]


@pytest.fixture(scope="module", autouse=True)
def folder():
    """The examples find each other, as when they are run as scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield


@pytest.fixture(scope="module")
def generate():
    return importlib.import_module("generate")


@pytest.fixture(scope="module")
def transformer():
    return importlib.import_module("transformer_lm")


def small(transformer, torch, state=None):
    """A GPT of ten tokens, whose weights are large enough to make it opinionated."""
    gpunn.manual_seed(0)
    model = transformer.make_model(gpunn, 10, width=16, heads=2, layers=3)
    with gpunn.no_grad():
        for p in model.parameters():
            p.mul_(2)
    if torch is gpunn:
        return model
    theirs = transformer.make_model(torch, 10, width=16, heads=2, layers=3)
    state = {key: torch.from_numpy(value.numpy()) for key, value in model.state_dict().items()}
    theirs.load_state_dict(state)
    return theirs


@pytest.fixture(scope="module")
def model(transformer):
    return small(transformer, gpunn)


def plain_scores(model, ids):
    """The scores after ids, without any cache or padding."""
    with gpunn.no_grad():
        return model(gpunn.tensor([ids]))[0, -1].numpy()


@pytest.mark.parametrize("pieces", [[1] * 12, [5, 1, 1, 5], [12], [1, 11]])
def test_cached_scores_are_those_of_the_whole(generate, model, pieces):
    ids = gpunn.randint(10, (3, 12), generator=gpunn.Generator().manual_seed(1))
    with gpunn.no_grad():
        whole = model(ids).numpy()
        cache, start = generate.KeyValueCache(gpunn), 0
        for size in pieces:
            step = model(ids[:, start : start + size], cache).numpy()
            assert np.abs(step - whole[:, start : start + size]).max() < 1e-5
            start += size
            assert cache.length == start
    assert len(cache.kept) == 3
    assert all(keys.shape[2] >= 12 for keys, _ in cache.kept.values())


def test_prompts_of_unequal_length_do_not_see_their_filling(generate, model, monkeypatch):
    seen = []
    choose = generate.choose

    def spy(torch, scores, *args):
        seen.append(scores.numpy().copy())
        return choose(torch, scores, *args)

    monkeypatch.setattr(generate, "choose", spy)
    for cache in (True, False):
        seen.clear()
        found = generate.generate(gpunn, model, PROMPTS, 9, temperature=0, cache=cache)
        assert len(seen) == 9
        for row, (prompt, text) in enumerate(zip(PROMPTS, found)):
            assert text[: len(prompt)] == prompt and len(text) == len(prompt) + 9
            for step in range(9):
                wanted = plain_scores(model, text[: len(prompt) + step])
                assert np.abs(seen[step][row] - wanted).max() < 1e-5
                assert text[len(prompt) + step] == wanted.argmax()


def test_on_a_gpu(generate, transformer, emulated):
    model = small(transformer, gpunn)
    here = generate.generate(gpunn, model, PROMPTS, 6, temperature=0)
    model.to(emulated)
    assert generate.generate(gpunn, model, PROMPTS, 6, temperature=0) == here
    drawn = generate.generate(gpunn, model, PROMPTS, 6, top_k=3, top_p=0.9)
    assert [len(row) for row in drawn] == [11, 7, 9]
    assert generate.largest_difference(gpunn, model, here[0]) < 1e-5


@pytest.mark.parametrize("impl", ["gpunn", "torch"])
def test_weights_of_multihead_attention_with_a_cache(generate, impl):
    torch = pytest.importorskip(impl, reason="parity tests need PyTorch")
    torch.manual_seed(0)
    layers = [torch.nn.MultiheadAttention(8, heads, batch_first=True) for heads in (2, 4)]
    x = torch.randn(3, 7, 8)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(7)

    def stack(x, cache):
        if cache is not None:
            cache.begin(x)
        y = generate.self_attention(torch, layers[0], x, cache)
        return generate.self_attention(torch, layers[1], x + y, cache).numpy()

    with torch.no_grad():
        y = layers[0](x, x, x, attn_mask=mask, is_causal=True)[0]
        whole = layers[1](x + y, x + y, x + y, attn_mask=mask, is_causal=True)[0].numpy()
        cache = generate.KeyValueCache(torch)
        steps = [stack(x[:, at : at + 1], cache) for at in range(7)]
        assert np.abs(stack(x, None) - whole).max() < 1e-5
    assert np.abs(np.concatenate(steps, 1) - whole).max() < 1e-5


def kept(generate, scores, **how):
    """The places that keep_likely leaves, one set for each row; what is left is unchanged."""
    scores = gpunn.tensor(scores, dtype=gpunn.float64)
    before = scores.numpy().copy()
    left = generate.keep_likely(gpunn, scores, **how).numpy()
    assert np.array_equal(scores.numpy(), before)
    stays = left > -np.inf
    assert np.array_equal(left[stays], before[stays])
    return [set(np.flatnonzero(row)) for row in stays]


def test_top_k_and_top_p_keep_exactly_the_right_set(generate):
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = 3 * rng.standard_normal((2, 12))
        order = np.argsort(-scores, 1)
        chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        for k in (1, 3, 12, 20):
            assert kept(generate, scores, top_k=k) == [set(row[:k]) for row in order]
        for p in (0.01, 0.5, 0.9, 1.0):
            counts = [
                next((n for n in range(1, 12) if chances[i, order[i, :n]].sum() >= p), 12)
                for i in range(2)
            ]
            wanted = [set(order[i, :n]) for i, n in enumerate(counts)]
            assert kept(generate, scores, top_p=p) == wanted
            both = kept(generate, scores, top_k=3, top_p=p)
            for i, row in enumerate(both):  # the chances of top_p are those among the three
                three = chances[i, order[i, :3]]
                count = 1 + int((np.cumsum(three / three.sum())[:2] < p).sum())
                assert row == set(order[i, :count])
    assert kept(generate, [[1.0, 2.0, 2.0, 2.0]], top_k=2) == [{1, 2}]
    assert kept(generate, [[0.0] * 4], top_p=0.5) == [{0, 1}]
    assert kept(generate, [[1.0, 2.0]]) == [{0, 1}]


def test_greedy_is_the_same_whatever_the_seed(generate, model):
    texts = []
    for seed in (0, 1):
        gpunn.manual_seed(seed)
        texts.append(generate.generate(gpunn, model, PROMPTS, 20, temperature=0))
    gpunn.manual_seed(2)
    texts.append(generate.generate(gpunn, model, PROMPTS, 20, top_k=1))
    texts.append(generate.generate(gpunn, model, PROMPTS, 20, top_p=1e-6))
    assert texts[0] == texts[1] == texts[2] == texts[3]


def test_a_generator_decides_the_text_and_its_chances_are_those_of_the_model(generate, model):
    how = {"temperature": 1.5, "top_k": 4}

    def text(seed, cache=True):
        seeded = gpunn.Generator().manual_seed(seed)
        return generate.generate(gpunn, model, PROMPTS, 20, generator=seeded, cache=cache, **how)

    assert text(0) == text(0, cache=False) != text(1)
    drawn = generate.generate(gpunn, model, [[2]] * 4000, 1, **how)
    counts = np.bincount([row[1] for row in drawn], minlength=10) / 4000
    scores = plain_scores(model, [2]).astype(np.float64) / 1.5
    scores[np.argsort(-scores)[4:]] = -np.inf
    chances = np.exp(scores) / np.exp(scores).sum()
    assert np.abs(counts - chances).max() < 5 * math.sqrt(0.25 / 4000)
    assert np.array_equal(counts > 0, chances > 0)


def test_the_model_is_left_as_it_was(generate, model):
    for training in (True, False):
        model.train(training)
        assert generate.generate(gpunn, model, [[1]], 0) == [[1]]
        assert model.training is training
    assert all(p.grad is None for p in model.parameters())


def test_sampling_follows_pytorch(generate, transformer):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    texts = []
    for package in (gpunn, torch):
        model = small(transformer, package)
        package.manual_seed(5)
        texts.append(
            [
                generate.generate(package, model, PROMPTS, 30, **how)
                for how in ({}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8})
            ]
        )
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompts": []}, "each prompt needs a token"),
        ({"prompts": [[1], []]}, "each prompt needs a token"),
        ({"count": -1}, "got -1"),
        ({"temperature": -0.5}, "temperature is 0 .greedy. or more, got -0.5"),
        ({"temperature": float("nan")}, "got nan"),
        ({"top_k": 0}, "top_k keeps 1 token or more, got 0"),
        ({"top_p": 0.0}, "top_p is a chance above 0 and up to 1, got 0.0"),
        ({"top_p": 1.5}, "got 1.5"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(generate, model, given, message):
    arguments = {"prompts": [[1]], "count": 1, **given}
    with pytest.raises(ValueError, match=message):
        generate.generate(gpunn, model, **arguments)


@pytest.fixture(scope="module")
def checkpoint(transformer, tmp_path_factory):
    """The file that a very short training leaves."""
    out = tmp_path_factory.mktemp("lm")
    sizes = "--steps 2 --batch-size 2 --length 16 --width 16 --heads 2 --layers 4 --sample 1"
    transformer.main([*sizes.split(), "--out", str(out)])
    return out / "model.pt"


def test_the_script_writes_and_compares(generate, checkpoint, capsys):
    command = [str(checkpoint), "--length", "15", "--prompt", "To ", "--prompt", "A class"]
    results = [generate.main([*command, "--top-k", "9", "--top-p", "0.9"]) for _ in range(2)]
    texts = results[0]["texts"]
    assert [text[:3] for text in texts] == ["To ", "A c"] and texts == results[1]["texts"]
    assert [len(text) for text in texts] == [18, 22]
    assert results[0]["difference"] < 1e-5
    printed = capsys.readouterr().out
    assert texts[1] in printed and "the text is the same" in printed


def test_the_script_refuses_in_one_line(generate, checkpoint, tmp_path):
    for command, message in (
        ([str(tmp_path / "no.pt")], f"there is no file {tmp_path / 'no.pt'}"),
        ([str(checkpoint), "--prompt", "\u2603"], "trained on has no '\u2603'"),
        ([str(checkpoint), "--prompt", ""], "each prompt needs a token"),
        ([str(checkpoint), "--top-p", "2"], "top_p is a chance above 0 and up to 1, got 2.0"),
    ):
        with pytest.raises(SystemExit) as error:
            generate.main(command)
        assert "\n" not in str(error.value)
        error.match(message)
