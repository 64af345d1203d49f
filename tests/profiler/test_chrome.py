"""Trace files."""

import gzip
import json

import pytest
from emulated import device as emulate

import gpunn
from gpunn import nn
from gpunn.profiler import ProfilerActivity, profile, record_function


def trained(**options):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with profile(**options) as prof, record_function('a "quoted" name'):
        model(gpunn.ones(2, 4)).sum().backward()
    return prof


def read(path):
    return json.loads(path.read_text())


def test_calls(tmp_path):
    prof = trained(
        record_shapes=True, profile_memory=True, with_stack=True, with_modules=True, with_flops=True
    )
    prof.export_chrome_trace(tmp_path / "t.json")
    trace = read(tmp_path / "t.json")
    calls = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert [c["name"] for c in calls] == [e.name for e in prof.events()]
    for call, event in zip(calls, prof.events(), strict=True):
        assert call["ts"] == event.time_range.start >= 0 and call["dur"] == event.cpu_time_total
    linear = next(c for c in calls if c["name"] == "aten::linear")
    assert linear["cat"] == "cpu_op" and linear["args"]["Input Dims"] == [[2, 4], [4, 4], [4]]
    assert linear["args"]["Module"] == "Sequential.0" and linear["args"]["flops"] == 64
    assert linear["args"]["Call stack"].endswith("forward")
    assert calls[0]["name"] == 'a "quoted" name' and calls[0]["cat"] == "user_annotation"
    assert trace["record_shapes"] == 1 and trace["displayTimeUnit"] == "ms"
    memory = [e for e in trace["traceEvents"] if e["name"] == "[memory]"]
    assert memory[-1]["args"]["Total Allocated"] == sum(e["args"]["Bytes"] for e in memory)


def test_arrows_lead_from_operations_to_their_nodes(tmp_path):
    trained().export_chrome_trace(str(tmp_path / "t.json"))
    events = read(tmp_path / "t.json")["traceEvents"]
    starts = {e["id"]: e["ts"] for e in events if e["ph"] == "s"}
    ends = {e["id"]: e["ts"] for e in events if e["ph"] == "f"}
    assert len(starts) == 3 and starts.keys() == ends.keys()
    assert all(starts[i] < ends[i] for i in starts)


def test_a_gpu_is_a_process_of_its_own(tmp_path):
    with emulate():
        x = gpunn.ones(4, device="cuda")
        both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        with profile(activities=both, profile_memory=True) as prof:
            y = x.exp()
        prof.export_chrome_trace(tmp_path / "t.json")
    events = read(tmp_path / "t.json")["traceEvents"]
    (span,) = [e for e in events if e["ph"] == "X" and e["pid"] == "GPU 0"]
    assert (span["name"], span["dur"]) == ("aten::exp", 1000)
    (memory,) = [e for e in events if e["name"] == "[memory]"]
    assert memory["args"] == {
        "Bytes": y.nbytes, "Total Allocated": y.nbytes, "Device Type": 1, "Device Id": 0
    }  # fmt: skip


def test_gzip_and_whole_files(tmp_path):
    prof = trained()
    prof.export_chrome_trace(str(tmp_path / "t.json.gz"))
    assert json.loads(gzip.decompress((tmp_path / "t.json.gz").read_bytes()))["traceEvents"]
    assert [p.name for p in tmp_path.iterdir()] == ["t.json.gz"]
    with pytest.raises(RuntimeError, match="Parent directory"):
        prof.export_chrome_trace(str(tmp_path / "none" / "t.json"))


def test_a_list_of_events_writes_itself(tmp_path):
    prof = trained()
    prof.events().export_chrome_trace(str(tmp_path / "t.json"))
    calls = [e for e in read(tmp_path / "t.json")["traceEvents"] if e["ph"] == "X"]
    assert len(calls) == len(prof.events())
