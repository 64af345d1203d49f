"""DataParallel on two GPUs, emulated: an array that meets the wrong one is an error."""

import copy

import pytest

import gpunn
from gpunn import nn
from gpunn.nn.utils.rnn import pack_sequence
from tests.nn.parallel.models import (
    Attention,
    Checkpointed,
    Fails,
    Net,
    Packed,
    Perceptron,
    Recurrent,
    Slope,
    close,
    drawn,
    sequences,
)


@pytest.mark.parametrize("device_ids", [None, [1, 0], [0, 0], [1, 0, 1], ["cuda:0", "cpu:1"]])
@pytest.mark.parametrize(
    "kind",
    ["perceptron", "convolution", "recurrent", "packed", "slope", "checkpointed", "attention"],
)
def test_gpus_as_cpus(two_gpus, device_ids, kind):
    make, inputs = {
        "perceptron": (Perceptron, lambda i: (drawn(5, 5, seed=i),)),
        "convolution": (lambda: Net().eval(), lambda i: (drawn(5, 2, 4, 4, seed=i),)),
        "packed": (Packed, lambda i: (pack_sequence(sequences([2, 6, 1, 4, 4], i), False),)),
        "recurrent": (Recurrent, lambda i: (drawn(5, 6, 3, seed=i), gpunn.tensor([2, 6, 1, 3, 6]))),
        "slope": (Slope, lambda i: (drawn(5, 3, seed=i),)),
        "checkpointed": (Checkpointed, lambda i: (drawn(5, 3, seed=i),)),
        "attention": (Attention, lambda i: (gpunn.ones(5, 7, dtype=gpunn.int64) + i,
                                            gpunn.ones(5, 7, dtype=gpunn.bool))),
    }[kind]  # fmt: skip
    devices = device_ids or [0, 1]
    one, twin = make().double(), make().double()
    twin.load_state_dict(one.state_dict())
    net = nn.DataParallel(twin.to(nn.parallel.comm.as_device(devices[0])), device_ids)
    for step in range(2):
        found = []
        for model in (one, net):
            y = model(*inputs(step))
            y = y[1::2] if kind == "packed" else y
            y = sum(v.sum() for v in y) if isinstance(y, tuple) else (y**2).mean()
            found.append(y)
            y.backward()
        close(*found, 1e-8)
        for p, q in zip(one.parameters(), net.parameters(), strict=True):
            assert q.grad.device is q.device
            close(p.grad, q.grad, 1e-8)
    assert gpunn.cuda.current_device() == 0


def test_arrays_of_another_gpu_are_refused_where_it_is_not_current(two_gpus):
    array = gpunn.ones(2, device="cuda:1").array
    assert array.device.id == 1 and (array + 1).tolist() == [2, 2]
    gpunn.cuda.set_device(0)
    with pytest.raises(RuntimeError, match="cuda:1 is computed with, the current device is cuda:0"):
        array + 1


def test_second_derivatives_and_hooks_on_gpus(two_gpus):
    one = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    net = nn.DataParallel(copy.deepcopy(one).cuda())
    seen = []
    net.module[0].weight.register_hook(lambda g: seen.append(g.device.index))
    found = []
    for model, device in ((one, "cpu"), (net, "cuda:0")):
        x = drawn(5, 3).to(device).requires_grad_()
        (g,) = gpunn.autograd.grad(model(x).sum(), x, create_graph=True)
        ((g**2).sum(1) - 1).pow(2).mean().backward()
        found.append([g, *(p.grad for p in model.parameters() if p.grad is not None)])
    for a, b in zip(*found, strict=True):
        close(a, b)
    assert seen == [0]


def test_batch_norm_on_gpus(two_gpus):
    net = nn.DataParallel(nn.BatchNorm1d(2, momentum=None).cuda())
    x = drawn(6, 2).float()
    net(x)
    close(net.module.running_mean, x[:3].mean(0), 1e-5)
    assert net.module.running_mean.device.index == 0


def test_attributes_are_numbers_of_gpus(two_gpus):
    net = nn.DataParallel(nn.Linear(2, 2).cuda())
    assert net.device_ids == [0, 1] and net.output_device == 0
    assert net.src_device_obj == two_gpus[0]
    assert nn.DataParallel(nn.Linear(2, 2).cuda(), output_device="cuda:1").output_device == 1
    there = nn.DataParallel(nn.Linear(2, 2).cuda(), output_device=-1)
    assert there.output_device == there(gpunn.ones(3, 2)).device == gpunn.device("cpu")
    assert nn.DataParallel(nn.Linear(2, 2), [1]).module.weight.device == two_gpus[1]
    with pytest.raises(RuntimeError, match=r"on device cuda:0 \(device_ids\[0\]\) but found one of "
                       "them on device: cpu"):
        nn.DataParallel(nn.Linear(2, 2))(gpunn.ones(2, 2))  # fmt: skip
    with pytest.raises(AssertionError, match="Invalid device id"):
        nn.DataParallel(nn.Linear(2, 2).cuda(), [0, 5])


def test_exceptions_name_the_number_of_the_gpu(two_gpus):
    net = nn.DataParallel(nn.Sequential(Fails()))
    with pytest.raises(LookupError, match=r"Caught LookupError in replica 1 on device 1\."):
        net(gpunn.ones(2))


def test_streams(two_gpus):
    """The caller's streams reach the threads; a device named again has one of its own."""
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            current = gpunn.cuda.current_stream()
            assert current.device is x.device
            seen.append(current)
            return x

    outer = gpunn.cuda.Stream("cuda:0")
    net = nn.DataParallel(Look(), [0, 1, 0])
    log = gpunn.cuda.detect.load().cuda.runtime.log
    with gpunn.cuda.stream(outer):
        log.clear()
        net(gpunn.ones(3))
        assert gpunn.cuda.current_stream() == outer
    seen.sort(key=lambda s: (s.device.index, s != outer))
    assert seen[0] == outer and seen[1] != outer and seen[1].device is two_gpus[0]
    assert seen[2] == gpunn.cuda.default_stream(1)
    side = seen[1].cuda_stream
    marks = [entry for entry in log if entry[0] in ("record", "wait")]
    waits = [m[2] for m in marks if m[0] == "wait"]
    assert side in waits and waits.index(side) < len(waits) - waits[::-1].index(outer.cuda_stream)
    seen.clear()
    net(gpunn.ones(3))
    assert side in {s.cuda_stream for s in seen}  # kept


def test_the_default_stream_of_another_gpu_is_waited_for_there(two_gpus):
    net = nn.DataParallel(nn.Identity(), [0, 1, 1])
    log = gpunn.cuda.detect.load().cuda.runtime.log
    x = gpunn.ones(3, device="cuda:0")
    log.clear()
    net(x)
    made = {event: device for what, device, stream, event in log if what == "record"}
    sides = {stream: device for _, device, stream, _ in log if stream}
    assert set(sides.values()) == {1}
    waits = [entry for entry in log if entry[0] == "wait"]
    assert any(stream in sides and made[event] == 1 for _, _, stream, event in waits)
    assert any(stream == 0 and device == 1 == made[event] for _, device, stream, event in waits)


def test_gpus_of_different_sizes(two_gpus, monkeypatch):
    runtime = gpunn.cuda.detect.load().cuda.runtime
    inner = runtime.getDeviceProperties
    for name in ("totalGlobalMem", "multiProcessorCount"):
        monkeypatch.setattr(runtime, "getDeviceProperties", lambda i, name=name: inner(i) | (
            {name: 2} if i else {name: 3}))  # fmt: skip
        with pytest.warns(UserWarning, match="exclude GPU 1 which has less than 75% of the memory"):
            nn.DataParallel(nn.Identity())


@pytest.mark.multi_gpu
def test_two_real_gpus():
    one = Net()
    net = nn.DataParallel(copy.deepcopy(one).cuda())
    x = drawn(8, 2, 9, 9).float()
    net(x).sum().backward()
    gpunn.cat([one(part) for part in x.tensor_split(gpunn.cuda.device_count())]).sum().backward()
    for p, q in zip(one.parameters(), net.parameters(), strict=True):
        close(p.grad, q.grad, 1e-3)


@pytest.mark.gpu
def test_one_real_gpu_named_twice():
    one = Net()
    net = nn.DataParallel(copy.deepcopy(one).cuda(), [0, 0])
    x = drawn(8, 2, 9, 9).float()
    net(x).sum().backward()
    gpunn.cat([one(part) for part in x.tensor_split(2)]).sum().backward()
    for p, q in zip(one.parameters(), net.parameters(), strict=True):
        close(p.grad, q.grad, 1e-3)
