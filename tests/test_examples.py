"""The examples: they learn, continue exactly where they stopped, and follow PyTorch."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "examples"


def example(name):
    """The example as a module; while it is loaded it finds those beside it, as a script does."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn", reason="the data are scikit-learn's")
    pytest.importorskip("matplotlib", reason="plots the curves")
    return example("digits")


@pytest.fixture(scope="module")
def char_lm():
    return example("char_lm")


@pytest.fixture(scope="module")
def tagger():
    return example("lstm_tagger")


@pytest.fixture(scope="module")
def gpt():
    return example("transformer_lm")


def options(out, **given):
    pairs = {"out": out, **given}
    return [str(part) for k, v in pairs.items() for part in (f"--{k.replace('_', '-')}", v)]


def interrupt(monkeypatch, module, at):
    """Ctrl-C in step `at` of the example's training, once."""
    train_step, calls = module.train_step, []

    def step(*args):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return train_step(*args)

    monkeypatch.setattr(module, "train_step", step)
    return calls


def test_digits_learns_and_writes_its_results(digits, tmp_path):
    history = digits.main(options(tmp_path, epochs=6))
    assert history["test_accuracy"] >= 0.95
    assert len(history["loss"]) == 120 and len(history["val_accuracy"]) == 6
    assert history["loss"][-1] < 0.2 < 2 < history["loss"][0]
    assert json.loads((tmp_path / "history.json").read_text()) == history
    from matplotlib.image import imread

    picture = imread(tmp_path / "curves.png")
    assert picture.shape[0] > 300 and picture.shape[1] > 800
    assert 0.5 < picture[..., :3].mean() < 0.99  # curves on white
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.png", "history.json", "model.pt",
    ]  # fmt: skip


@pytest.mark.parametrize("stop", [5, 10])
def test_digits_continues_exactly(digits, tmp_path, stop):
    sizes = {"epochs": 2, "batch_size": 128}
    whole = digits.main(options(tmp_path / "whole", **sizes))
    digits.main(options(tmp_path / "part", steps=stop, **sizes))
    rest = digits.main(options(tmp_path / "part", resume=tmp_path / "part/model.pt", **sizes))
    assert rest == whole and len(whole["loss"]) == 20


def test_digits_stops_after_the_step_when_interrupted(digits, tmp_path, monkeypatch):
    train_step = digits.Trainer.train_step

    def interrupted(self, images, labels):
        if self.step == 3:
            signal.raise_signal(signal.SIGINT)
        return train_step(self, images, labels)

    with monkeypatch.context() as patch:
        patch.setattr(digits.Trainer, "train_step", interrupted)
        sizes = {"epochs": 1, "batch_size": 256}
        stopped = digits.main(options(tmp_path / "part", **sizes))
    assert len(stopped["loss"]) == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    rest = digits.main(options(tmp_path / "part", resume=tmp_path / "part/model.pt", **sizes))
    assert rest == digits.main(options(tmp_path / "whole", **sizes))


def test_digits_follows_pytorch(digits, tmp_path):
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    ours, theirs = (
        digits.main(options(tmp_path / impl, impl=impl, steps=100)) for impl in ("gpunn", "torch")
    )
    assert math.isclose(ours["loss"][0], theirs["loss"][0], rel_tol=1e-5)
    assert np.abs(np.subtract(ours["loss"], theirs["loss"])).max() < 1e-3
    assert abs(ours["test_accuracy"] - theirs["test_accuracy"]) < 0.02


SMALL = {"batch_size": 4, "length": 64, "width": 16, "sample": 20}


def test_char_lm_learns_and_continues_exactly(char_lm, tmp_path, monkeypatch):
    whole = char_lm.main(options(tmp_path / "whole", steps=40, **SMALL))
    # the text is that of the running Python: 5.3 to 5.6 bits, by its version
    assert whole["bits"] < 5.8 < 6 < whole["loss"][0] / math.log(2)
    assert whole["sample"].startswith("The ") and len(whole["sample"]) == 24
    assert set(whole["sample"]) <= set(char_lm.read_text())

    calls = interrupt(monkeypatch, char_lm, 20)
    with pytest.raises(KeyboardInterrupt):
        char_lm.main(options(tmp_path / "part", steps=40, save_every=15, **SMALL))
    saved = tmp_path / "part/model.pt"
    rest = char_lm.main(options(tmp_path / "part", steps=40, resume=saved, **SMALL))
    assert rest == whole and len(calls) == 20 + 25


def test_char_lm_never_looks_ahead(char_lm):
    import gpunn

    model = char_lm.make_model(gpunn, 10, 8)
    ids = gpunn.randint(10, (1, 80))
    changed = ids.clone()
    changed[0, 70] = (changed[0, 70] + 1) % 10
    with gpunn.no_grad():
        same = np.isclose(model(ids).numpy(), model(changed).numpy()).all(-1)[0]
    assert same[:70].all() and not same[70]
    assert 1 + 2 * sum(2**i for i in range(5)) <= char_lm.CONTEXT


def test_char_lm_follows_pytorch(char_lm, tmp_path):
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    ours, theirs = (
        char_lm.main(options(tmp_path / impl, impl=impl, steps=30, **SMALL))
        for impl in ("gpunn", "torch")
    )
    assert math.isclose(ours["loss"][0], theirs["loss"][0], rel_tol=1e-5)
    assert np.abs(np.subtract(ours["loss"], theirs["loss"])).max() < 1e-3
    assert abs(ours["bits"] - theirs["bits"]) < 1e-3


LINES = """\
import os.path as p, re
def f(key, *, at=key):
    at.key[0] = yield g(key=1, **at)
    for a, (b, c.d) in e.items(): re.sub(f"{d[key] if 1 else 2}" "", p.key)
    lambda x: x.y().z if True else "text"
"""


def test_lstm_tagger_knows_the_truth(tagger):
    lines = tagger.read_lines(LINES)
    assert [[(w, role) for w, role in line if role] for line in lines] == [
        [("os", "import"), ("path", "import"), ("p", "import"), ("re", "import")],
        [("f", "function"), ("key", "parameter"), ("at", "parameter"), ("key", "read")],
        [("at", "read"), ("key", "attribute"), ("g", "call"), ("key", "argument"),
         ("at", "read")],
        [("a", "write"), ("b", "write"), ("c", "read"), ("d", "attribute"), ("e", "read"),
         ("items", "method"), ("re", "module"), ("sub", "method"), ("p", "module"),
         ("key", "attribute")],
        [("x", "parameter"), ("x", "read"), ("y", "method"), ("z", "attribute")],
    ]  # fmt: skip
    words = [word for word, _ in lines[3][-8:]]
    assert words == ["(", '"text"', '"text"', ",", "p", ".", "key", ")"]
    assert tagger.read_lines('"""Text alone."""\npass\n') == []


def test_lstm_tagger_sees_neither_padding_nor_other_lines(tagger):
    import gpunn

    lines = tagger.read_lines(LINES)
    words = tagger.make_vocabulary(lines)
    assert words["key"] >= 2 and "items" not in words and 1 not in words.values()
    gpunn.manual_seed(0)
    model = tagger.make_model(gpunn, len(words) + 2, 8)
    inputs, lengths, tags = tagger.make_batch(gpunn, lines, words)
    assert inputs.shape == (5, max(lengths.tolist()), 1 + tagger.LETTERS)
    assert ((tags == tagger.IGNORE) | (tags < len(tagger.TAGS))).all()
    together = model(inputs, lengths)
    for i, line in enumerate(lines):
        alone = model(*tagger.make_batch(gpunn, [line], words)[:2])
        assert np.allclose(together[i, : len(line)].detach(), alone[0].detach(), atol=1e-6)


TINY = {"files": 10, "batch_size": 16, "hidden": 24}


def test_lstm_tagger_learns_and_continues_exactly(tagger, tmp_path, monkeypatch, capsys):
    sizes = {**TINY, "steps": 90, "lr": 8e-3}
    whole = tagger.main(options(tmp_path / "whole", **sizes))
    assert whole["accuracy"] > whole["baseline"] + 0.15 > 0.4
    printed = capsys.readouterr().out
    assert f"{whole['accuracy']:.1%}" in printed and f"{whole['baseline']:.1%}" in printed
    assert "its role is after the slash" in printed

    calls = interrupt(monkeypatch, tagger, 20)
    with pytest.raises(KeyboardInterrupt):
        tagger.main(options(tmp_path / "part", save_every=15, **sizes))
    saved = tmp_path / "part/model.pt"
    assert not saved.with_name("model.pt.part").exists()
    rest = tagger.main(options(tmp_path / "part", resume=saved, **sizes))
    assert rest == whole and len(calls) == 20 + 75


def test_lstm_tagger_follows_pytorch(tagger, tmp_path):
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    ours, theirs = (
        tagger.main(options(tmp_path / impl, impl=impl, steps=50, **TINY))
        for impl in ("gpunn", "torch")
    )
    assert math.isclose(ours["loss"][0], theirs["loss"][0], rel_tol=1e-5)
    assert np.abs(np.subtract(ours["loss"], theirs["loss"])).max() < 1e-3
    assert abs(ours["accuracy"] - theirs["accuracy"]) < 0.01


def test_lstm_tagger_on_a_gpu(tagger, tmp_path, emulated, monkeypatch):
    lines = tagger.read_lines(LINES)
    monkeypatch.setattr(tagger, "read_library", lambda files: (lines, lines))
    sizes = {"steps": 2, "batch_size": 3, "hidden": 8}
    cpu = tagger.main(options(tmp_path, **sizes))
    gpu = tagger.main(options(tmp_path, **sizes, device="cuda"))
    assert np.allclose(cpu["loss"], gpu["loss"], rtol=1e-5)
    sizes |= {"steps": 3, "resume": tmp_path / "model.pt", "device": "cuda"}
    assert tagger.main(options(tmp_path, **sizes))["loss"][:2] == gpu["loss"]


GPT = {"batch_size": 4, "length": 48, "width": 32, "heads": 2, "layers": 4, "sample": 12}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_transformer_lm_learns_and_continues_exactly(gpt, tmp_path, monkeypatch, dropout):
    sizes = {**GPT, "dropout": dropout}
    whole = gpt.main(options(tmp_path / "whole", steps=40, **sizes))
    # the text is that of the running Python: about 4.7 bits, by its version
    assert whole["bits"] < 5.3 < 6 < whole["loss"][0] / math.log(2)
    for prompt, text in zip(gpt.PROMPTS, whole["samples"]):
        assert text.startswith(prompt) and len(text) == len(prompt) + 12

    calls = interrupt(monkeypatch, gpt, 20)
    with pytest.raises(KeyboardInterrupt):
        gpt.main(options(tmp_path / "part", steps=40, save_every=15, **sizes))
    saved = tmp_path / "part/model.pt"
    rest = gpt.main(options(tmp_path / "part", steps=40, resume=saved, **sizes))
    assert rest == whole and len(calls) == 20 + 25


def test_transformer_lm_never_looks_ahead(gpt):
    import gpunn

    gpunn.manual_seed(0)
    model = gpt.make_model(gpunn, 10, width=16, heads=2, layers=2)
    ids = gpunn.randint(10, (1, 40))
    changed = ids.clone()
    changed[0, 30] = (changed[0, 30] + 1) % 10
    with gpunn.no_grad():
        same = np.isclose(model(ids).numpy(), model(changed).numpy()).all(-1)[0]
    assert same[:30].all() and not same[30:].any()


def test_transformer_lm_positions_are_relative(gpt):
    import gpunn

    q, k = gpunn.randn(1, 1, 8), gpunn.randn(1, 1, 8)
    speed = 10000.0 ** (-gpunn.arange(0, 8, 2) / 8)

    def product(at_q, at_k):
        turned = (
            gpt.rotate(gpunn, x, (at * speed).cos(), (at * speed).sin())
            for x, at in ((q, at_q), (k, at_k))
        )
        return (next(turned) * next(turned)).sum().item()

    assert math.isclose(product(7, 3), product(104, 100), rel_tol=1e-3)
    assert not math.isclose(product(7, 3), product(7, 6), rel_tol=1e-3)


def test_transformer_lm_follows_pytorch(gpt, tmp_path):
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    ours, theirs = (
        gpt.main(options(tmp_path / impl, impl=impl, steps=50, **GPT))
        for impl in ("gpunn", "torch")
    )
    assert math.isclose(ours["loss"][0], theirs["loss"][0], rel_tol=1e-5)
    assert np.abs(np.subtract(ours["loss"], theirs["loss"])).max() < 1e-3
    assert abs(ours["bits"] - theirs["bits"]) < 1e-3


def test_transformer_lm_on_a_gpu(gpt, tmp_path, emulated):
    sizes = {**GPT, "steps": 2, "batch_size": 1, "length": 16, "layers": 1, "sample": 2}
    cpu = gpt.main(options(tmp_path, **sizes))
    gpu = gpt.main(options(tmp_path, **sizes, device="cuda"))
    assert np.allclose(cpu["loss"], gpu["loss"], rtol=1e-5)
    assert math.isclose(cpu["bits"], gpu["bits"], rel_tol=1e-5)
    sizes |= {"steps": 3, "resume": tmp_path / "model.pt", "device": "cuda"}
    assert gpt.main(options(tmp_path, **sizes))["loss"][:2] == gpu["loss"]


def test_transformer_lm_with_autocast_follows_itself_without(gpt, tmp_path):
    exact = gpt.main(options(tmp_path, steps=20, **GPT))
    rounded = gpt.main([*options(tmp_path, steps=20, **GPT), "--autocast"])
    difference = np.abs(np.subtract(exact["loss"], rounded["loss"])).max()
    assert 0 < difference < 0.05


@pytest.mark.parametrize("name", ["char_lm", "tagger", "gpt"])
def test_a_run_of_pytorch_goes_on(name, request, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    module = request.getfixturevalue(name)
    sizes = {"char_lm": SMALL, "tagger": {**TINY, "dropout": 0.1}, "gpt": {**GPT, "dropout": 0.1}}
    sizes = {**sizes[name], "steps": 40}
    whole = module.main(options(tmp_path / "whole", impl="torch", **sizes))["loss"]
    interrupt(monkeypatch, module, 20)
    with pytest.raises(KeyboardInterrupt):
        module.main(options(tmp_path / "part", impl="torch", save_every=15, **sizes))
    saved = tmp_path / "part/model.pt"
    rest = module.main(options(tmp_path / "part", resume=saved, **sizes))["loss"]
    assert rest[:15] == whole[:15] and len(rest) == 40
    assert np.abs(np.subtract(rest, whole)).max() < 1e-3


def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(gpt, tagger, char_lm, tmp_path):
    def refusal(module, **given):
        with pytest.raises(SystemExit) as error:
            module.main(options(tmp_path / "new", steps=1, **given))
        message = str(error.value)
        assert "\n" not in message and not (tmp_path / "new").exists()
        return message

    nowhere = tmp_path / "nowhere.pt"
    char_lm.main(options(tmp_path / "char", steps=1, **SMALL))
    other = tmp_path / "char/model.pt"
    gpt.main(options(tmp_path / "gpt", steps=1, **GPT))
    saved = tmp_path / "gpt/model.pt"
    assert f"there is no file {nowhere}" in refusal(gpt, resume=nowhere, **GPT)
    assert f"{other} is not a checkpoint of trans" in refusal(gpt, resume=other, **GPT)
    refused = refusal(gpt, resume=saved, **{**GPT, "width": 64, "layers": 1})
    assert "--width 32 --layers 4, this run has --width 64 --layers 1" in refused

    tagger.main(options(tmp_path / "tag", steps=1, **TINY))
    saved = tmp_path / "tag/model.pt"
    assert f"there is no file {nowhere}" in refusal(tagger, resume=nowhere, **TINY)
    assert f"{other} is not a checkpoint of lstm" in refusal(tagger, resume=other, **TINY)
    assert "--hidden 24" in refusal(tagger, resume=saved, **{**TINY, "hidden": 8})
    assert "other --files" in refusal(tagger, resume=saved, **{**TINY, "files": 5})


@pytest.mark.parametrize("name", ["digits", "char_lm", "lstm_tagger", "transformer_lm"])
def test_as_a_script(name, tmp_path):
    if name == "digits":
        pytest.importorskip("sklearn", reason="the data are scikit-learn's")
        pytest.importorskip("matplotlib", reason="plots the curves")
    sizes = {"steps": 2, **({"files": 10} if name == "lstm_tagger" else {})}
    command = [sys.executable, "-W", "error", FOLDER / f"{name}.py", *options(tmp_path, **sizes)]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "gpunn: 2 steps" in done.stdout
