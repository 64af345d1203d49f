"""What is noted: nesting, threads, errors, GPUs; and that nothing remains afterwards."""

import threading

import numpy as np
import pytest
from emulated import device as emulate

import gpunn
from gpunn import nn
from gpunn.autograd.walk import _Walk
from gpunn.nn import functional as F
from gpunn.profiler import ProfilerActivity, profile, record_function
from gpunn.profiler.recorder import ACTIVE, Recorder
from gpunn.profiler.targets import operations

BOTH = [ProfilerActivity.CPU, ProfilerActivity.CUDA]


def names(prof):
    return [event.name for event in prof.events()]


def codes():
    functions = [*operations(), nn.Module.__call__, _Walk.apply, _Walk.accumulate]
    functions += [gpunn.optim.Adam.step, gpunn.optim.Optimizer.zero_grad]
    return [f.__code__ for f in functions]


def test_ranges_nest():
    x = gpunn.ones(3)
    with profile() as prof:
        with record_function("outer"):
            with record_function("inner"):
                x.exp()
            x.sin()
        x.cos()
    outer, inner, exp, sin, cos = prof.events()
    assert [e.name for e in (outer, inner, exp, sin, cos)] == [
        "outer", "inner", "aten::exp", "aten::sin", "aten::cos"
    ]  # fmt: skip
    assert outer.cpu_children == [inner, sin] and inner.cpu_children == [exp]
    assert outer.cpu_parent is None and exp.cpu_parent is inner and cos.cpu_parent is None
    assert outer.self_cpu_time_total == pytest.approx(
        outer.cpu_time_total - inner.cpu_time_total - sin.cpu_time_total
    )


def test_nothing_remains():
    before = codes()
    with profile(with_modules=True):
        assert codes() != before and ACTIVE
    assert all(a is b for a, b in zip(codes(), before, strict=True)) and not ACTIVE


def test_nothing_remains_after_an_error_in_the_block():
    before, prof = codes(), profile(with_modules=True)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), prof:
        nn.Linear(2, 3)(gpunn.ones(1, 5))
    assert all(a is b for a, b in zip(codes(), before, strict=True)) and not ACTIVE
    linear = next(e for e in prof.events() if e.name == "aten::linear")
    assert linear.cpu_parent.name == "nn.Module: Linear"
    gpunn.ones(2).exp()
    assert len(names(prof)) == len(prof.events())


def test_after_an_error_inside_the_nesting_goes_on():
    x = gpunn.ones(2, 3)
    with profile() as prof:
        with record_function("outer"), pytest.raises(RuntimeError):
            x @ x
        x.exp()
    assert prof.events()[-1].name == "aten::exp" and prof.events()[-1].cpu_parent is None


def test_a_profile_that_cannot_start_leaves_nothing(monkeypatch):
    before = codes()

    def broken(recorder):
        recorder.switches.on(F.relu, lambda args, kwargs: None)
        raise KeyboardInterrupt

    monkeypatch.setattr("gpunn.profiler.targets.install", broken)
    with pytest.raises(KeyboardInterrupt):
        profile().start()
    assert codes() == before and not ACTIVE


def test_one_profile_at_a_time():
    with (
        profile() as prof,
        pytest.raises(RuntimeError, match="already enabled"),
        gpunn.autograd.profiler.profile(),
    ):
        pass
    assert names(prof) == [] and not ACTIVE


def test_threads_are_noted_apart():
    go = threading.Barrier(2)

    def work(x):
        with record_function("work"):
            go.wait(10)
            x.exp()
            go.wait(10)

    x = gpunn.ones(3)
    threads = [threading.Thread(target=work, args=(x,)) for _ in range(2)]
    with profile() as prof:
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    found = [e for e in prof.events() if e.name == "work"]
    assert len(found) == 2 and len({e.thread for e in found}) == 2
    for event in found:
        assert [c.name for c in event.cpu_children] == ["aten::exp"]
        assert event.cpu_children[0].thread == event.thread


def test_a_range_open_at_the_end_ends_there():
    block = record_function("open")
    with profile() as prof:
        block.__enter__()
    block.__exit__()
    event = prof.events()[0]
    assert event.name == "open" and event.cpu_time_total > 0


def test_a_range_from_before_is_not_noted():
    with record_function("before"):
        prof = profile()
        prof.start()
    gpunn.ones(1)
    prof.stop()
    assert names(prof) == ["aten::ones"]


def test_profiles_after_one_another_are_apart():
    x = gpunn.ones(1)
    with profile() as one:
        x.exp()
    with profile() as two:
        x.sin()
    assert (names(one), names(two)) == (["aten::exp"], ["aten::sin"])


def test_backward_has_pytorchs_names_and_its_operations_numbers():
    x, w = gpunn.ones(2, 3), gpunn.ones(4, 3, requires_grad=True)
    with profile() as prof:
        F.linear(x, w, gpunn.zeros(4)).relu().sum().backward()
    backward = [e for e in prof.events() if e.scope == 1]
    assert [e.name for e in backward if not e.name.startswith("autograd::")] == [
        "SumBackward0", "ReluBackward0", "AddmmBackward0", "torch::autograd::AccumulateGrad"
    ]  # fmt: skip
    assert [e.name for e in backward if e.cpu_parent is None][2] == (
        "autograd::engine::evaluate_function: AddmmBackward0"
    )
    by_name = {e.name: e for e in prof.events()}
    assert by_name["AddmmBackward0"].sequence_nr == by_name["aten::linear"].sequence_nr >= 0


def test_gradients_are_those_without_a_profile():
    def grads():
        gpunn.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
        x = gpunn.randn(3, 5, requires_grad=True)
        model(x).pow(2).sum().backward()
        model(x).sum().backward()  # added to the first ones
        return [x.grad.array, *(p.grad.array for p in model.parameters())]

    plain = grads()
    with profile(profile_memory=True, record_shapes=True, with_modules=True, with_stack=True):
        observed = grads()
    for a, b in zip(plain, observed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_leaf_takes_over_its_gradient_as_it_does_without_a_profile():
    made = []

    class Twice(gpunn.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    def shares(x):
        y = Twice.apply(x)
        node = y.grad_fn
        node.register_hook(lambda gi, go: made.append(gi[0].array.__array_interface__["data"][0]))
        y.sum().backward()
        return x.grad.array.__array_interface__["data"][0] == made[-1]

    plain = shares(gpunn.ones(3, requires_grad=True))
    with profile():
        observed = shares(gpunn.ones(3, requires_grad=True))
    assert plain == observed


def test_a_gradient_that_others_hold_is_not_taken_over():
    x, y = gpunn.ones(3, requires_grad=True), gpunn.ones(3, requires_grad=True)
    with profile():
        (x + y).sum().backward()
        x.grad.add_(1)
    assert y.grad.tolist() == [1, 1, 1] and x.grad.tolist() == [2, 2, 2]


def test_second_order_gradients_under_a_profile():
    x = gpunn.tensor(3.0, requires_grad=True)
    with profile() as prof:
        (g,) = gpunn.autograd.grad(x**3, x, create_graph=True)
        g.backward()
    assert x.grad.item() == 18
    power = next(e for e in prof.events() if e.name == "PowBackward0")
    assert any(e.name == "aten::mul" for e in power.cpu_children)


def test_shapes_of_inputs():
    x = gpunn.ones(2, 3)
    with profile(record_shapes=True) as prof:
        gpunn.cat([x, x], 1)
        x.add(1, alpha=2)
        nn.Conv2d(1, 2, 3)(gpunn.ones(1, 1, 5, 5))
    by_name = {e.name: e for e in prof.events()}
    assert by_name["aten::cat"].input_shapes == [[], []]
    assert by_name["aten::cat"].structured_input_shapes == [[[2, 3], [2, 3]], []]
    assert by_name["aten::cat"].concrete_inputs == ["", 1]
    assert by_name["aten::add"].input_shapes == [[2, 3], [], []]
    assert by_name["aten::conv2d"].input_shapes[:3] == [[1, 1, 5, 5], [2, 1, 3, 3], [2]]


def test_lines_of_code():
    def inner():
        return gpunn.ones(2).exp()

    with profile(with_stack=True) as prof:
        inner()
    stack = prof.events()[-1].stack
    assert stack[0].endswith(": inner") and "test_recorder.py(" in stack[0]
    assert stack[1].endswith(": test_lines_of_code")
    assert not any("gpunn/profiler/" in line or "<profiler>" in line for line in stack)


def test_paths_of_modules():
    block = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    outside = nn.Tanh()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = block
            self.kept = [outside]

        def forward(self, x):
            return self.kept[0](self.block(x)) + 1

    with profile(with_modules=True) as prof:
        Net()(gpunn.ones(1, 2)).sum().backward()
    modules = [e.name for e in prof.events() if e.name.startswith("nn.Module: ")]
    assert modules == [
        "nn.Module: Net", "nn.Module: Net.block", "nn.Module: Net.block.0",
        "nn.Module: Net.block.1", "nn.Module: Net.Tanh",
    ]  # fmt: skip
    where = {e.name: e.module for e in prof.events()}
    assert where["aten::linear"] == where["AddmmBackward0"] == "Net.block.0"
    assert where["aten::tanh"] == where["TanhBackward0"] == "Net.Tanh"
    assert where["aten::add"] == where["AddBackward0"] == "Net"
    assert where["aten::sum"] is None
    accumulations = [e for e in prof.events() if e.name == "torch::autograd::AccumulateGrad"]
    assert [e.module for e in accumulations] == ["Net.block.0"] * 2


def test_time_on_a_gpu():
    with emulate():
        x = gpunn.ones(4, 4, device="cuda")
        with profile(activities=BOTH, profile_memory=True) as prof:
            with record_function("mine"):
                y = x.exp()
            gpunn.ones(8, device="cuda")
            gpunn.ones(8).sin()
        by_name = {e.name: e for e in prof.events()}
        # the stand-in's clock: one millisecond for each event of CUDA that was made between
        assert by_name["aten::exp"].device_time_total == 1000
        mine = by_name["mine"]
        assert (mine.device_time_total, mine.self_device_time_total) == (3000, 2000)
        assert mine.device_memory_usage == y.nbytes and mine.cpu_memory_usage == 0
        ones = [e for e in prof.events() if e.name == "aten::ones"]
        assert [e.device_time_total for e in ones] == [1000, 0]
        assert by_name["aten::sin"].device_time_total == 0
        assert [k.device for k in by_name["aten::exp"].kernels] == [0]


def test_time_on_a_gpu_backward():
    with emulate():
        x = gpunn.ones(4, device="cuda", requires_grad=True)
        with profile(activities=BOTH) as prof:
            (x * 2).sum().backward()
        by_name = {e.name: e for e in prof.events()}
        for name in ("MulBackward0", "SumBackward0", "torch::autograd::AccumulateGrad"):
            assert by_name[name].device_time_total == 1000
        outer = by_name["autograd::engine::evaluate_function: MulBackward0"]
        assert (outer.device_time_total, outer.self_device_time_total) == (1000, 0)


def test_a_recorder_of_the_gpu_alone_needs_no_gpu_work():
    recorder = Recorder(cuda=True)
    recorder.start()
    gpunn.ones(2).exp()
    recorder.stop()
    assert recorder.base == {} and all(r.marks is None for r in recorder.ranges)


def test_sparse_gradients_and_parameters_without_a_shape():
    with profile(record_shapes=True, profile_memory=True, with_stack=True) as prof:
        table, layer = nn.Embedding(4, 2, sparse=True), nn.LazyLinear(3)
        layer(table(gpunn.tensor([1, 1]))).sum().backward()
        table.weight.grad.to_dense()
    assert table.weight.grad.is_sparse and layer.weight.shape == (3, 2)
    assert "aten::embedding" in names(prof)


def code_in_worker(index):
    return gpunn.tensor([len(ACTIVE), int(gpunn.exp.__code__.co_filename == "<profiler>")])


class InWorker(gpunn.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return code_in_worker(index)


def test_workers_of_a_loader_are_not_profiled():
    with profile() as prof:
        (batch,) = gpunn.utils.data.DataLoader(InWorker(), num_workers=1)
        assert code_in_worker(0).tolist() == [1, 1]
    assert batch.tolist() == [[0, 0]]
    batches = [e for e in prof.events() if "_MultiProcessingDataLoaderIter" in e.name]
    assert len(batches) == 2
