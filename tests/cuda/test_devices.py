"""Choosing and asking devices, and copies between them."""

import fake_cupy
import numpy as np
import pytest

from gpunn import cuda
from gpunn.device import CPU, Device, resolve, transfer, transfer_all
from gpunn.tensor import wrap


@pytest.fixture
def cupy():
    with fake_cupy.installed(fake_cupy.make(devices=3)) as cupy:
        yield cupy


@pytest.fixture
def cpu_machine():
    with fake_cupy.installed(packages=()):
        yield


def test_current_device(cupy):
    assert cuda.current_device() == 0
    cuda.set_device("cuda:2")
    assert cuda.current_device() == 2
    cuda.set_device(-1)
    assert cuda.current_device() == 2
    assert resolve("cuda") is Device("cuda:2")
    with cuda.device(1):
        assert cuda.current_device() == 1
        with cuda.device(None), cuda.device(-1), cuda.device("cuda"):
            assert cuda.current_device() == 1
        cuda.set_device(0)
    assert cuda.current_device() == 2


def test_device_is_restored_after_an_error(cupy):
    with pytest.raises(ZeroDivisionError), cuda.device(1):
        1 / 0  # noqa: B018
    assert cuda.current_device() == 0


def test_device_of(cupy):
    there = wrap(cupy.zeros(3), Device("cuda:2"))
    with cuda.device_of(there):
        assert cuda.current_device() == 2
        with cuda.device_of(wrap(np.zeros(3))):
            assert cuda.current_device() == 2
    assert cuda.current_device() == 0


@pytest.mark.parametrize(
    "use",
    [
        cuda.set_device,
        cuda.device,
        cuda.synchronize,
        cuda.Stream,
        cuda.mem_get_info,
        lambda index: Device("cuda", index).xp,
    ],
)
@pytest.mark.parametrize("index", [3, 99])
def test_no_such_device(cupy, use, index):
    with pytest.raises(cuda.AcceleratorError, match=f"invalid device ordinal.*no cuda:{index}"):
        use(index)


def test_no_such_device_in_properties(cupy):
    with pytest.raises(AssertionError, match="Invalid device id.*only cuda:0 to cuda:2"):
        cuda.get_device_properties(3)


@pytest.mark.parametrize("use", [cuda.device, cuda.set_device, cuda.synchronize])
def test_another_type_of_device(cupy, use):
    with pytest.raises(ValueError, match="Expected a cuda device, but got: cpu"):
        use("cpu")


def test_properties(cupy):
    assert cuda.get_device_name() == "Fake GPU 0"
    assert cuda.get_device_name(Device("cuda:1")) == "Fake GPU 1"
    assert cuda.get_device_capability("cuda:1") == (9, 0)
    found = cuda.get_device_properties(2)
    assert found.total_memory == fake_cupy.GIB and found.multi_processor_count == 132
    assert (found.major, found.minor, found.name) == (9, 0, "Fake GPU 2")
    assert cuda.can_device_access_peer(0, 1) and not cuda.can_device_access_peer(1, 1)
    assert cuda.is_bf16_supported() and cuda.is_bf16_supported(including_emulation=False)


def test_synchronize(cupy):
    cuda.synchronize()
    cuda.synchronize("cuda:1")
    assert cupy.cuda.runtime.log == [("synchronize", 0), ("synchronize", 1)]
    assert cuda.current_device() == 0


def test_cpu_machine(cpu_machine):
    assert cuda.device_count() == 0 and not cuda.is_bf16_supported()
    cuda.set_device(-1)
    with cuda.device(-1), cuda.device(None), cuda.stream(None):
        pass
    for use in (
        cuda.current_device,
        cuda.synchronize,
        cuda.get_device_name,
        cuda.get_device_properties,
        cuda.get_device_capability,
        cuda.mem_get_info,
        cuda.initial_seed,
        cuda.current_stream,
        lambda: cuda.set_device(0),
        lambda: cuda.device(0),
    ):
        with pytest.raises(RuntimeError, match="CuPy is not installed"):
            use()


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.complex64, np.bool_])
def test_transfer(cupy, dtype):
    host = (np.arange(24).reshape(2, 3, 4) % 5).astype(dtype)
    there = transfer(host.swapaxes(0, 2), CPU, Device("cuda:1"))
    assert type(there) is cupy.ndarray and there.block.device_id == 1
    back = transfer(there, Device("cuda:1"), Device("cpu:1"))
    assert type(back) is np.ndarray and (back == host.swapaxes(0, 2)).all()
    assert back.dtype == dtype and cuda.current_device() == 0


def test_transfer_within_a_device_copies(cupy):
    there = transfer(np.zeros(3), CPU, Device("cuda:1"))
    twin = transfer(there, Device("cuda:1"), Device("cuda:1"))
    twin[0] = 1
    assert there[0] == 0 and twin.block is not there.block and twin.block.device_id == 1


@pytest.mark.parametrize("contiguous", [True, False])
def test_transfer_between_devices_keeps_the_order_of_work(cupy, contiguous):
    there = transfer(np.arange(12.0).reshape(3, 4), CPU, Device("cuda:1"))
    there = there if contiguous else there[:, ::2]
    streams = {index: cuda.current_stream(index).cuda_stream for index in (1, 2)}
    cupy.cuda.runtime.log.clear()
    copied = transfer(there, Device("cuda:1"), Device("cuda:2"))
    assert copied.block.device_id == 2 and (np.asarray(copied) == np.asarray(there)).all()
    ready, wait, done, free = cupy.cuda.runtime.log
    assert ready[:3] == ("record", 1, streams[1]) and wait == ("wait", 2, streams[2], ready[3])
    assert done[:3] == ("record", 2, streams[2]) and free == ("wait", 1, streams[1], done[3])
    assert cuda.current_device() == 0


def test_transfer_of_several_arrays_waits_once(cupy):
    arrays = [transfer(np.full(n, n), CPU, Device("cuda:1")) for n in (1, 2, 3)]
    cupy.cuda.runtime.log.clear()
    copied = transfer_all(arrays, Device("cuda:1"), Device("cuda:0"))
    assert [a.block.device_id for a in copied] == [0] * 3 and copied[2].tolist() == [3] * 3
    assert [entry[0] for entry in cupy.cuda.runtime.log] == ["record", "wait", "record", "wait"]
    assert [type(a) for a in transfer_all(copied, Device("cuda:0"), CPU)] == [np.ndarray] * 3
    assert transfer_all([], Device("cuda:1"), Device("cuda:0")) == []


def test_functions_of_cupy_run_on_their_device(cupy):
    there = Device("cuda:2").xp
    assert there.zeros(3).block.device_id == 2 and cuda.current_device() == 0
    assert there.ndarray is cupy.ndarray and there.zeros is there.zeros
    seen = []

    def at():
        seen.append(cupy.cuda.runtime.getDevice())

    cupy.add = lambda: None
    cupy.add.at, cupy.add.name = at, "add"
    there.add.at()
    assert seen == [2] and there.add.name == "add"
    with pytest.raises(AttributeError):
        there.nothing  # noqa: B018


def test_one_device_is_not_entered():
    with fake_cupy.installed(fake_cupy.make(devices=1)) as cupy:
        assert Device("cuda:0").xp is cupy


@pytest.mark.gpu
def test_on_a_gpu():
    cuda.set_device(0)
    assert cuda.current_device() == 0 and cuda.get_device_name()
    assert cuda.get_device_properties().total_memory > 1 << 30
    assert cuda.get_device_capability() >= (6, 0)
    with pytest.raises(cuda.AcceleratorError, match="invalid device ordinal"):
        cuda.set_device(cuda.device_count())
    host = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    device = Device("cuda:0")
    there = transfer(host.swapaxes(0, 2), CPU, device)
    twin = transfer(there, device, device)
    twin *= 2
    assert (transfer(there, device, CPU) == host.swapaxes(0, 2)).all()
    assert (transfer(twin, device, CPU) == 2 * host.swapaxes(0, 2)).all()
    cuda.synchronize()
