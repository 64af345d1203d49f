"""Devices: names, several CPUs, defaults, and errors where they meet."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import gpunn


def test_names():
    assert gpunn.device("cpu") is gpunn.device("cpu") and gpunn.device("cpu:1").index == 1
    assert gpunn.device("cuda", 1) is gpunn.device("cuda:1") is gpunn.device(1)
    assert repr(gpunn.device("cuda:1")) == "device(type='cuda', index=1)"
    assert str(gpunn.device("cpu")) == "cpu" and str(gpunn.device("cpu:1")) == "cpu:1"
    assert pickle.loads(pickle.dumps(gpunn.device("cpu:1"))) is gpunn.device("cpu:1")


@pytest.mark.parametrize("name", ["gpu", "cpu:", "cuda:x", ""])
def test_a_wrong_name_is_an_error(name):
    with pytest.raises(RuntimeError, match="Invalid device string"):
        gpunn.device(name)


def test_a_second_cpu_has_arrays_of_its_own():
    x = gpunn.ones(3)
    y = x.to("cpu:1")
    y[0] = 5
    assert x.tolist() == [1, 1, 1] and y.device is gpunn.device("cpu:1")
    assert y.cpu().device is gpunn.device("cpu")
    assert gpunn.zeros(1, device="cpu:1").device.index == 1
    assert x.to("cpu") is x and x.to("cpu:0") is x
    assert (y + y).device is y.device and y.sum().device is y.device


def test_gradients_come_back_across_devices():
    x = gpunn.ones(3, requires_grad=True)
    (x.to("cpu:1") * 2).sum().backward()
    assert x.grad.tolist() == [2, 2, 2] and x.grad.device is x.device


def test_mixing_devices_is_pytorchs_error():
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device.*cpu:1"):
        gpunn.ones(3) + gpunn.ones(3, device="cpu:1")
    assert (gpunn.ones(3, device="cpu:1") + gpunn.tensor(1.0)).tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="same device"):
        gpunn.nn.functional.linear(gpunn.ones(1, 2), gpunn.ones(3, 2, device="cpu:1"))


def test_defaults():
    try:
        gpunn.set_default_device("cpu:1")
        assert gpunn.zeros(1).device.index == 1 and gpunn.nn.Linear(1, 1).weight.device.index == 1
    finally:
        gpunn.set_default_device(None)
    with gpunn.device("cpu:2"):
        assert gpunn.tensor([1]).device.index == 2
    assert gpunn.tensor([1]).device is gpunn.device("cpu")


def test_modules_move():
    layer = gpunn.nn.Linear(2, 2).to("cpu:1")
    assert layer.weight.device.index == 1 and layer.weight.is_leaf
    layer(gpunn.ones(1, 2, device="cpu:1")).sum().backward()
    assert layer.weight.grad.device.index == 1


def test_without_a_gpu_the_error_says_why():
    if gpunn.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError) as caught:
        gpunn.ones(1).cuda()
    assert str(caught.value) == gpunn.cuda.probe().message


def test_import_touches_no_gpu_package():
    code = "import sys, gpunn; gpunn.ones(2).sum(); print('cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_numpy_sees_the_same_memory():
    x = gpunn.zeros(3)
    a = x.numpy()
    a[1] = 7
    assert x.tolist() == [0, 7, 0] and np.shares_memory(np.asarray(x), a)
