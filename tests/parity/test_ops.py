"""Operations against PyTorch: one test for each name of its op_db that gpunn has or should have."""

import pytest

torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
pytest.importorskip("expecttest", reason="PyTorch's sample generators need expecttest")

from . import scope, suite  # noqa: E402
from .convert import Itself  # noqa: E402
from .ops import check_op  # noqa: E402
from .report import ABSENT, FAIL, MISSING, UNTESTED  # noqa: E402

OPERATIONS = [name for name in suite.operations() if suite.present(name)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name, record_property):
    """Every form of the operation agrees with PyTorch on PyTorch's own samples."""
    report = suite.run_task((name, "gpunn", suite.Options()))
    record_property("parity", report.summary())
    if report.status == UNTESTED:
        pytest.skip(report.reason)
    assert report.status not in (FAIL, MISSING), report.text()


def test_what_is_absent_is_out_of_scope(record_property):
    """Names of PyTorch's lists without a test are those that gpunn leaves out for now."""
    reports = [suite.run(name) for name in suite.names() if not suite.present(name)]
    record_property("parity absent", [r.summary() for r in reports])
    assert {r.name for r in reports if r.status != ABSENT} == set()


def test_scope_names_what_pytorch_has():
    """No pattern of scope.py is misspelt."""
    names = suite.operations()
    for text in scope.OPERATIONS.values():
        for pattern in text.split():
            assert any(scope.fnmatchcase(n, pattern) for n in names), pattern
    everything = set(suite.names())
    assert {f"nn.{m}" for m in scope.MODULES.split()} <= everything
    assert {f"optim.{m}" for m in scope.OPTIMIZERS.split()} <= everything
    assert {f"lr_scheduler.{m}" for m in scope.SCHEDULERS.split()} <= everything
    singled = {
        *scope.VALUES_DIFFER,
        *scope.TOLERANCE_FACTOR,
        *scope.UP_TO_SIGN,
        *scope.ANY_OF_EQUALS,
    }
    assert singled <= everything


def test_the_suite_finds_nothing_between_pytorch_and_itself():
    """PyTorch under test passes: what the suite reports about gpunn is not the suite's."""
    for name in ("add", "linalg.svd", "index_put", "nn.Linear", "optim.Adam"):
        report = suite.run_task((name, "torch", suite.Options()))
        assert report.checks and not report.failures, report.text()


CROOKED = {
    "values": (lambda x: torch.exp(x) * 1.001, "value"),
    "dtype": (lambda x: torch.exp(x).double(), "value"),
    "shape": (lambda x: torch.exp(x)[None], "value"),
    "error": (lambda x: torch.exp(x, 1), "value"),
    "memory": (lambda x: x.copy_(torch.exp(x)) if not x.requires_grad else torch.exp(x), "value"),
    "gradient": (lambda x: torch.exp(x.detach()) + x - x.detach(), "grad"),
    "no gradient": (lambda x: torch.exp(x.detach()), "grad"),
    "second": (lambda x: torch.exp(x.detach()) * (1 + x - x.detach()), "gradgrad"),
}


@pytest.mark.parametrize("fault", CROOKED)
def test_the_suite_notices(fault):
    """A fault in one operation is found, by the comparison that is meant to find it."""
    wrong, kind = CROOKED[fault]

    class Crooked(Itself):
        def _function(self, fn):
            return wrong if fn is torch.exp else super()._function(fn)

    report = check_op("exp", suite.operations()["exp"], Crooked("torch"))
    assert report.status == FAIL
    assert kind in {f.kind for f in report.failures}, report.text()
