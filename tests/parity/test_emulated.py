"""Operations, modules and optimizers on the emulated CUDA device against PyTorch, by name.

The same samples as on the CPU, with CuPy's stand-in under them and the kernels' own text run by
the emulator: what mixes host arrays with the device's, asks CuPy for what it lacks, or computes
something else than on the CPU fails here by name. Forms of a call (methods, out=, strides, shared
memory) do not depend on the device: test_ops.py has them.
"""

import pytest

torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
pytest.importorskip("expecttest", reason="PyTorch's sample generators need expecttest")

from . import scope, suite  # noqa: E402
from .modules import module_infos  # noqa: E402
from .optims import optimizer_infos  # noqa: E402
from .report import FAIL, MISSING, UNTESTED  # noqa: E402

OPERATIONS = [n for n in suite.operations() if suite.present(n)]
NAMES = OPERATIONS + [n for n in module_infos() if suite.present(n)]
SINGLE = suite.Options((torch.float32,), ("value", "grad", "error"), most=40)
OTHERS = suite.Options(
    (torch.bfloat16, torch.int64, torch.bool, torch.complex64), ("value", "grad"), most=6
)
SECOND = suite.Options((torch.float64,), ("gradgrad",), most=6)


FEW = suite.Options(most=4)
FIRST = suite.Options((torch.float32,), ("value", "grad"), most=3)


def check(name, options, device="emulated"):
    report = suite.run_task((name, device, options))
    if report.status == UNTESTED:
        pytest.skip(report.reason)
    assert report.status not in (FAIL, MISSING), report.text()


@pytest.mark.parametrize("name", NAMES)
def test_on_the_device(name):
    """Results, gradients and errors of float32 samples are PyTorch's."""
    check(name, SINGLE)


@pytest.mark.parametrize("name", OPERATIONS)
def test_other_dtypes_on_the_device(name):
    """A few samples of bfloat16 (which CuPy's tables have gaps for), integers, complex numbers."""
    check(name, OTHERS)


@pytest.mark.parametrize("name", [n for n in optimizer_infos() if suite.present(n)])
def test_optimizer_on_the_device(name):
    """A few configurations take PyTorch's steps, and keep its state where it keeps it."""
    check(name, FEW)


@pytest.mark.parametrize("name", NAMES)
def test_on_the_second_of_two_devices(name):
    """Work enters the device of its tensors, which is not the current one."""
    check(name, FIRST, "second")


@pytest.mark.parametrize("name", [n for n in optimizer_infos() if suite.present(n)])
def test_optimizer_on_the_second_of_two_devices(name):
    """Parameters and states stay on the device that is not the current one."""
    check(name, FEW, "second")


@pytest.mark.parametrize("name", sorted(scope.with_kernels(suite.operations())))
def test_second_gradients_on_the_device(name):
    """What has kernels of its own: second gradients, which go through other code."""
    check(name, SECOND)
