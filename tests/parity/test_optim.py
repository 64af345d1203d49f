"""Optimizers and learning-rate schedulers against PyTorch: one test for each."""

import pytest

torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
pytest.importorskip("expecttest", reason="PyTorch's sample generators need expecttest")

from . import suite  # noqa: E402
from .optims import SCHEDULERS, optimizer_infos, scheduler_names  # noqa: E402
from .report import FAIL, MISSING, UNTESTED  # noqa: E402

NAMES = [n for n in [*optimizer_infos(), *scheduler_names()] if suite.present(n)]


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_or_scheduler(name, record_property):
    """The same steps from the same start, and the same state."""
    report = suite.run_task((name, "gpunn", suite.Options()))
    record_property("parity", report.summary())
    if report.status == UNTESTED:
        pytest.skip(report.reason)
    assert report.status not in (FAIL, MISSING), report.text()


def test_every_scheduler_has_a_case():
    """A scheduler new in PyTorch needs a case here."""
    assert {n.removeprefix("lr_scheduler.") for n in scheduler_names()} == set(SCHEDULERS)
