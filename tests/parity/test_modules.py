"""Modules against PyTorch: one test for each that gpunn has or should have."""

import pytest

torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
pytest.importorskip("expecttest", reason="PyTorch's sample generators need expecttest")

from . import suite  # noqa: E402
from .modules import module_infos  # noqa: E402
from .report import FAIL, MISSING, UNTESTED  # noqa: E402

MODULES = [name for name in module_infos() if suite.present(name)]


@pytest.mark.parametrize("name", MODULES)
def test_module(name, record_property):
    """Weights, repr, state dict, results and gradients agree with PyTorch's module."""
    report = suite.run_task((name, "gpunn", suite.Options()))
    record_property("parity", report.summary())
    if report.status == UNTESTED:
        pytest.skip(report.reason)
    assert report.status not in (FAIL, MISSING), report.text()
