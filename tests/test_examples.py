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
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
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


def options(out, **given):
    pairs = {"out": out, **given}
    return [str(part) for k, v in pairs.items() for part in (f"--{k.replace('_', '-')}", v)]


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

    train_step = char_lm.train_step
    calls = []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return train_step(*args)

    monkeypatch.setattr(char_lm, "train_step", interrupted)
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


@pytest.mark.parametrize("name", ["digits", "char_lm"])
def test_as_a_script(name, tmp_path):
    if name == "digits":
        pytest.importorskip("sklearn", reason="the data are scikit-learn's")
        pytest.importorskip("matplotlib", reason="plots the curves")
    command = [sys.executable, "-W", "error", FOLDER / f"{name}.py", *options(tmp_path, steps=2)]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "gpunn: 2 steps" in done.stdout
