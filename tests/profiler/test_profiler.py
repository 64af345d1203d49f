"""profile, schedule and what is called when."""

import json

import pytest

import gpunn
from gpunn.profiler import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    schedule,
    supported_activities,
    tensorboard_trace_handler,
)

CPU = [ProfilerActivity.CPU]


PLANS = [
    dict(wait=1, warmup=1, active=1), dict(wait=0, warmup=1, active=2, repeat=2),
    dict(wait=1, warmup=1, active=2, repeat=1, skip_first=1),
    dict(wait=2, warmup=1, active=1, skip_first=1, skip_first_wait=1),
    dict(wait=3, warmup=2, active=4, skip_first_wait=1, repeat=1),
]  # fmt: skip


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_plans_are_pytorchs(plan):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs, ours = torch.profiler.schedule(**plan), schedule(**plan)
    assert [ours(i).name for i in range(30)] == [theirs(i).name for i in range(30)]


@pytest.mark.parametrize(
    ("plan", "count", "expected"),
    [
        (None, 2, [(2, ["aten::exp", "aten::sin"])]),
        (dict(wait=1, warmup=1, active=1), 4, [(3, ["ProfilerStep*", "aten::cos"])]),
        (dict(wait=0, warmup=1, active=1), 4,
         [(2, ["ProfilerStep*", "aten::sin"]), (4, ["ProfilerStep*", "aten::tanh"])]),
        (dict(wait=1, warmup=1, active=2), 3, [(3, ["ProfilerStep*", "aten::cos"])]),  # cut off
        (dict(wait=1, warmup=1, active=2), 1, []), (dict(wait=2, warmup=1, active=1), 1, []),
        (dict(wait=0, warmup=1, active=2, repeat=1), 8,
         [(3, ["ProfilerStep*", "aten::cos", "aten::sin"])]),
    ],
)  # fmt: skip
def test_what_a_schedule_records(plan, count, expected):
    seen, x = [], gpunn.ones(2)

    def ready(prof):
        seen.append((prof.step_num, sorted(a.key for a in prof.key_averages())))

    plan = None if plan is None else schedule(**plan)
    with profile(activities=CPU, schedule=plan, on_trace_ready=ready) as prof:
        for i in range(count):
            (gpunn.exp, gpunn.sin, gpunn.cos, gpunn.tanh)[i % 4](x)
            prof.step()
    assert seen == expected


def test_plans():
    plan = schedule(wait=1, warmup=1, active=2, repeat=1, skip_first=2)
    assert [plan(i).name for i in range(7)] == [
        "NONE", "NONE", "NONE", "WARMUP", "RECORD", "RECORD_AND_SAVE", "NONE"
    ]  # fmt: skip
    with pytest.raises(AssertionError, match="Invalid profiler schedule arguments"):
        schedule(wait=-1, warmup=0, active=1)
    with pytest.raises(AssertionError, match="active=0"):
        schedule(wait=0, warmup=0, active=0)
    with pytest.warns(UserWarning, match="won't be using warmup"):
        schedule(wait=0, warmup=0, active=1)
    with pytest.raises(AssertionError, match="non-negative"):
        plan(-1)


def test_nothing_is_observed_in_steps_that_wait():
    code = gpunn.exp.__code__
    with profile(activities=CPU, schedule=schedule(wait=1, warmup=1, active=1)) as prof:
        assert gpunn.exp.__code__ is code
        prof.step()
        assert gpunn.exp.__code__ is not code
        prof.step()
        prof.step()
        assert gpunn.exp.__code__ is code


@pytest.mark.parametrize(
    ("actions", "message"),
    [("RN", "RECORD followed by NONE"), ("WN", "WARMUP followed by NONE"),
     ("RW", "RECORD followed by WARMUP")],
)  # fmt: skip
def test_plans_that_make_no_sense_warn(actions, message):
    kinds = dict(N=ProfilerAction.NONE, W=ProfilerAction.WARMUP, R=ProfilerAction.RECORD)
    prof = profile(activities=CPU, schedule=lambda step: kinds[actions[step]])
    prof.start()
    with pytest.warns(UserWarning, match=message):
        prof.step()
    prof.stop()


def test_events_of_earlier_cycles_are_kept_on_request():
    counts = []
    for keep in (False, True):
        plan = schedule(wait=0, warmup=1, active=1)
        with profile(activities=CPU, schedule=plan, acc_events=keep) as prof:
            for _ in range(4):
                gpunn.ones(1).exp()
                prof.step()
        counts.append(sum(e.name == "aten::exp" for e in prof.events()))
    assert counts == [1, 2]


def test_results_before_the_end_are_an_error():
    with profile(activities=CPU) as prof, pytest.raises(RuntimeError, match="didn't finish"):
        prof.key_averages()
    assert len(prof.key_averages()) == 0 and prof.key_averages().table() == ""


def test_activities():
    assert supported_activities() >= {ProfilerActivity.CPU}
    with pytest.raises(AssertionError, match="No valid profiler activities"):
        profile(activities=[])
    with pytest.raises(TypeError, match="ProfilerActivity"):
        profile(activities=["cpu"])
    with pytest.warns(FutureWarning, match="`use_cuda` is deprecated"):
        assert profile(use_cuda=False).activities == {ProfilerActivity.CPU}


def test_without_a_gpu_cuda_is_left_out():
    if gpunn.cuda.is_available():
        pytest.skip("has a GPU")
    with pytest.warns(UserWarning, match="CUDA is not available"):
        prof = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    with prof:
        gpunn.ones(2)
    assert prof.profiler.use_device is None and "CUDA" not in prof.key_averages().table()


def test_traces_for_tensorboard(tmp_path):
    folder = tmp_path / "log"
    for zipped, ending in ((False, ".pt.trace.json"), (True, ".pt.trace.json.gz")):
        handler = tensorboard_trace_handler(str(folder), "me", use_gzip=zipped)
        with profile(activities=CPU, on_trace_ready=handler):
            gpunn.ones(2)
        assert [p.name.startswith("me.") for p in folder.glob(f"*{ending}")] == [True]
    (tmp_path / "file").write_text("")
    handler = tensorboard_trace_handler(str(tmp_path / "file" / "log"))
    with pytest.raises(RuntimeError, match="Can't create directory"):
        handler(None)


def test_metadata(tmp_path):
    with profile(activities=CPU) as prof:
        gpunn.ones(2)
    prof.add_metadata("who", "me")
    prof.add_metadata_json("config", '{"lr": 0.1}')
    prof.export_chrome_trace(str(tmp_path / "t.json"))
    trace = json.loads((tmp_path / "t.json").read_text())
    assert trace["who"] == "me" and trace["config"] == {"lr": 0.1}


def test_notebooks_show_the_table():
    with profile(activities=CPU) as prof:
        gpunn.nn.Linear(2, 2)(gpunn.ones(1, 2))
    text = prof._repr_html_()
    assert text.startswith("<pre") and "aten::linear" in text and "<module>" not in text


def test_modules_need_to_be_asked_for():
    with profile(activities=CPU) as prof:
        pass
    with pytest.raises(AssertionError, match="with_modules=True"):
        prof.module_averages()
    with pytest.raises(AssertionError, match="with_stack=True"):
        prof.export_stacks("nowhere")
