"""Bars and lines of progress."""

import re
import time

import pytest

from gpunn.utils import progress


def test_a_bar_counts_what_passes(capsys):
    assert list(progress.bar(range(3), desc="epochs")) == [0, 1, 2]
    shown = capsys.readouterr().err
    assert "epochs: 100%" in shown and "3/3" in shown
    with progress.bar(total=2, unit="batch") as bar:
        bar.update(2)
    assert "2/2" in capsys.readouterr().err


def test_without_widgets_the_bar_is_a_plain_one(capsys, monkeypatch):
    import tqdm.auto

    def no_widgets(*args, **kwargs):
        raise ImportError("IProgress not found. Please update jupyter and ipywidgets.")

    monkeypatch.setattr(tqdm.auto, "tqdm", no_widgets)
    bar = progress.bar(range(2))
    assert type(bar) is tqdm.tqdm and list(bar) == [0, 1]
    assert "2/2" in capsys.readouterr().err


def test_what_is_quick_is_not_said(capsys):
    with progress.said("blinking", after=60):
        pass
    assert capsys.readouterr().err == ""


def test_what_takes_long_is_said_with_its_time(capsys):
    with progress.said("waiting", after=0):
        err, until = "", time.monotonic() + 60
        while "waiting" not in err and time.monotonic() < until:
            err += capsys.readouterr().err
            time.sleep(0.001)
        assert err == "gpunn: waiting ...\n"
    assert re.fullmatch(r"gpunn: waiting: \d+\.\d s\n", capsys.readouterr().err)


def test_errors_pass_and_the_timer_ends(capsys):
    with pytest.raises(ValueError, match="broken"), progress.said("failing", after=60):
        raise ValueError("broken")
    assert capsys.readouterr().err == ""


def test_compiling_a_kernel_is_said(emulated, monkeypatch, capsys):
    import contextlib

    import gpunn

    heard = []
    said = lambda text: heard.append(text) or contextlib.nullcontext()  # noqa: E731
    monkeypatch.setattr(progress, "said", said)
    source = 'extern "C" __global__ void nothing(T* x, long long n) { }'
    kernel = gpunn.cuda.kernel(source, "nothing", T=gpunn.float32)
    x = gpunn.zeros(4, device="cuda")
    for _ in range(2):
        kernel(1, 32, (x, 4))
    assert len(heard) == 1 and heard[0].startswith("compiling nothing of ")
