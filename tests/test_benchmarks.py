"""The benchmarks on the GPU: every case at a tiny size against PyTorch, and the harness itself."""

import importlib
import json
import types

import numpy as np
import pytest
from emulated import emulated  # noqa: F401

import gpunn
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import harness


@pytest.mark.parametrize("stem", gpu.files())
def test_every_case_equals_pytorch_at_a_tiny_size(emulated, monkeypatch, stem):  # noqa: F811
    """gpunn on the emulated device; PyTorch, where it is installed, on the CPU."""
    cases = importlib.import_module(f"benchmarks.gpu.{stem}").cases(tiny=True)
    assert cases
    for case in cases:
        assert case.moved_bytes > 0 or case.flops > 0, case.name
        assert case.dtype in harness.TOLERANCE, case.name
        ours = harness.to_numpy(gpunn, case.build(gpunn)())
        torch = pytest.importorskip("torch", reason="the other side needs PyTorch")
        with monkeypatch.context() as patch:
            patch.setattr(harness, "DEVICE", "cpu")
            theirs = harness.to_numpy(torch, case.build(torch)())
        tolerance = harness.TOLERANCE[case.dtype] if case.tolerance is None else case.tolerance
        assert harness.difference(ours, theirs) <= tolerance, case.name


def test_the_names_of_the_cases_differ():
    names = [name for name, _ in gpu.all_cases()]
    assert len(names) == len(set(names))


def test_cases_are_chosen_by_file_and_by_part_of_the_name():
    named = [("optim: Adam, float32", 1), ("norm: of optim, float16", 2)]
    assert gpu.chosen(named, []) == named
    assert gpu.chosen(named, ["optim"]) == named[:1]
    assert gpu.chosen(named, ["float16", "Adam"]) == named


def test_without_a_gpu_it_says_why_and_exits_with_2(capsys, monkeypatch):
    monkeypatch.setattr(gpunn.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("benchmarks.gpu: no GPU for gpunn: ") and err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(("name", "bandwidth"), [
    ("NVIDIA H100 80GB HBM3", 3.35e12), ("NVIDIA H100 PCIe", 2.0e12), ("NVIDIA H200", 4.8e12),
    ("NVIDIA A100-SXM4-80GB", 2.039e12), ("NVIDIA A100-PCIE-40GB", 1.555e12),
    ("NVIDIA L40S", 0.864e12), ("NVIDIA L4", 0.3e12),
])  # fmt: skip
def test_limits_of_known_devices(name, bandwidth):
    assert harness.known_limits(name).bandwidth == bandwidth


def test_limits_of_other_devices_are_measured():
    assert harness.known_limits("NVIDIA GeForce RTX 4090") is None
    assert harness.known_limits("NVIDIA GH200 480GB") is None


def test_the_limit_is_the_slower_of_moving_and_computing():
    limits = harness.Limits(1e12, {"float32": 1e13}, "")
    assert limits.seconds(harness.Case("", None, moved_bytes=2e12)) == 2.0
    assert limits.seconds(harness.Case("", None, moved_bytes=1e12, flops=3e13)) == 3.0


@pytest.mark.parametrize(("ours", "theirs", "expected"), [
    ([[1.0, 2.0]], [[1.0, 2.5]], 0.2), ([[1.0]], [[1.0], [2.0]], np.inf),
    ([[1.0, 2.0]], [[[1.0, 2.0]]], np.inf), ([[np.nan, 1.0]], [[1.0, 1.0]], np.inf),
    ([[np.nan, 1.0]], [[np.nan, 1.0]], 0.0), ([[]], [[]], 0.0), ([[1e-3]], [[0.0]], 1e-3),
])  # fmt: skip
def test_differences(ours, theirs, expected):
    ours, theirs = ([np.array(a) for a in arrays] for arrays in (ours, theirs))
    assert harness.difference(ours, theirs) == expected


class Package(types.SimpleNamespace):
    """Tensors of gpunn, and events that count 2 ms for each call since the last one."""

    def __init__(self, name, milliseconds):
        super().__init__(__name__=name, calls=0, float16=gpunn.float16, bfloat16=gpunn.bfloat16)
        package = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = package.calls

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return (end.at - self.at) * milliseconds

        nothing = types.SimpleNamespace(L2_cache_size=1024)
        self.cuda = types.SimpleNamespace(
            Event=Event, synchronize=lambda: None, empty_cache=lambda: None,
            get_device_properties=lambda index: nothing,
        )  # fmt: skip

    def empty(self, *shape, device):
        package = self

        class Buffer:
            def zero_(self):
                package.calls += 1

        return Buffer()

    def run(self):
        self.calls += 1
        return gpunn.ones(2)


def test_rows_of_right_wrong_and_failing_cases(capsys):
    packages = Package("gpunn", 2.0), Package("torch", 3.0)
    right = harness.Case("right", lambda T: T.run, moved_bytes=1e9)
    wrong = harness.Case("wrong", lambda T: lambda: T.run() * (T is packages[0]))
    broken = harness.Case("broken", lambda T: T.not_there)
    limits = harness.Limits(1e12, {"float32": 1e12}, "")
    named = [(case.name, case) for case in (right, wrong, broken)]
    rows = harness.measure_all(named, packages, limits, quick=True)
    good = rows["right"]
    assert (good["gpunn_ms"], good["torch_ms"], good["ratio"]) == (2.0, 3.0, 1.5)
    assert good["percent_of_limit"] == pytest.approx(50.0)
    assert "wrong: differs from PyTorch by 1 > 0.0001" in rows["wrong"]["error"]
    assert "not_there" in rows["broken"]["error"]
    assert harness.summary(rows) == (
        "3 cases: geometric mean of the ratios 1.50, 0 slower than PyTorch, 2 failed"
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and len(lines[0]) == len(lines[1])


def test_results_are_written_whole(tmp_path):
    path = tmp_path / "new" / "result.json"
    harness.write_json(path, {"rows": {}})
    assert json.loads(path.read_text()) == {"rows": {}}
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]
    assert harness.result_path("NVIDIA H100 80GB HBM3").name.startswith("nvidia-h100-80gb-hbm3-2")


@pytest.mark.gpu
def test_a_quick_run_on_the_gpu(tmp_path):
    torch = pytest.importorskip("torch", reason="the other side needs PyTorch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    out = tmp_path / "result.json"
    assert gpu.main(["clip to 1e+06, ResNet-50, float32", "--quick", "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"].values()
    assert row["gpunn_ms"] > 0 and 0 < row["percent_of_limit"] < 110
