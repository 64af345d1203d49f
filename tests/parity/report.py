"""What a check found, and the table of everything."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import scope

PASS, FAIL, MISSING, ABSENT, UNTESTED = "pass", "fail", "missing", "absent", "untested"
STATUSES = (PASS, FAIL, MISSING, ABSENT, UNTESTED)


@dataclass
class Failure:
    """One comparison that failed: what was compared, on which sample, and the mismatch."""

    kind: str
    dtype: str
    sample: str
    text: str

    def __str__(self) -> str:
        return f"[{self.label()}] {self.sample}\n    {self.text}"

    def label(self) -> str:
        return f"{self.kind} {self.dtype}".strip()


@dataclass
class Report:
    """The result for one operation, module, optimizer or scheduler."""

    name: str
    status: str = PASS
    checks: int = 0
    failures: list[Failure] = field(default_factory=list)
    messages: list[Failure] = field(default_factory=list)  # right error type, other words
    known: list[Failure] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    def check(self, kind: str, dtype: Any, sample: str, text: str | None) -> bool:
        """Count a comparison; text says what differs. True where nothing does."""
        self.checks += 1
        if text is None:
            return True
        failure = Failure(kind, str(dtype or "").removeprefix("torch."), sample, text)
        known = scope.known(self.name, failure)
        (self.known if known else self.failures).append(failure)
        return False

    def skip(self, why: str) -> None:
        """Count a sample that could not be compared."""
        self.skipped[why] = self.skipped.get(why, 0) + 1

    def close(self) -> Report:
        """Set the status from what was found."""
        if self.status == PASS and self.failures:
            self.status = FAIL
        elif self.status == PASS and not self.checks:
            self.status, self.reason = UNTESTED, ", ".join(self.skipped) or "no samples"
        return self

    def line(self) -> str:
        """One line for the table."""
        text = f"{self.name}: {self.status}, {self.checks} checks"
        for label in ("failures", "known", "messages"):
            if found := getattr(self, label):
                text += f", {len(found)} {label}"
        if self.failures:
            kinds: dict[str, int] = {}
            for f in self.failures:
                kinds[f.label()] = kinds.get(f.label(), 0) + 1
            text += " (" + ", ".join(f"{k} {n}" for k, n in kinds.items()) + ")"
        return text + (f" ({self.reason})" if self.reason else "") + f", {self.seconds:.1f} s"

    def text(self, limit: int = 12) -> str:
        """The line and the first failures, different kinds first."""
        first: dict[tuple, Failure] = {}
        for f in self.failures:
            first.setdefault((f.kind, f.text[:40]), f)
        chosen = list(first.values())
        chosen += [f for f in self.failures if all(f is not c for c in chosen)]
        lines = [self.line(), *map(str, chosen[:limit])]
        if len(chosen) > limit:
            lines.append(f"... and {len(chosen) - limit} more")
        return "\n".join(lines)


def error_text(error: BaseException) -> str:
    """An unexpected exception in one line: type, message and the innermost frame."""
    frame = traceback.extract_tb(error.__traceback__)[-1] if error.__traceback__ else None
    where = f" ({'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno})" if frame else ""
    message = str(error).strip().split("\n")[0][:200]
    return f"raised {type(error).__name__}: {message}{where}"


def timed(report: Report, body: Callable[[], None]) -> Report:
    """Run the body, which fills the report; an exception that escapes it is a failure."""
    start = time.perf_counter()
    try:
        body()
    except Exception as error:
        report.check("harness", None, report.name, error_text(error))
    report.seconds = time.perf_counter() - start
    return report.close()


def table(reports: list[Report]) -> str:
    """The table: how many of each kind pass, fail, are missing or absent, and their names."""
    lines = [f"{'parity':<14}{'pass':>6}{'fail':>6}{'missing':>9}{'absent':>8}{'untested':>10}"]
    groups = {"operations": [], "modules": [], "optimizers": [], "lr_schedulers": []}
    for r in reports:
        groups[group_of(r.name)].append(r)
    for label, members in groups.items():
        if members:
            n = [sum(r.status == s for r in members) for s in STATUSES]
            lines.append(f"{label:<14}{n[0]:>6}{n[1]:>6}{n[2]:>9}{n[3]:>8}{n[4]:>10}")
    words = sum(len(r.messages) for r in reports)
    known = sum(len(r.known) for r in reports)
    checks = sum(r.checks for r in reports)
    lines.append(f"{checks} comparisons; {words} error messages with other words than PyTorch's;")
    lines.append(f"{known} known differences (tests/parity/scope.py)")
    titles = {
        FAIL: "fail",
        MISSING: "missing (in scope, not written)",
        UNTESTED: "untested (no sample can be run on this machine or carried by NumPy)",
        ABSENT: "absent (out of scope now)",
    }
    for status, title in titles.items():
        names = sorted(r.name for r in reports if r.status == status)
        if names:
            lines.append(f"{title}: {len(names)}\n  " + " ".join(names))
    return "\n".join(lines)


def group_of(name: str) -> str:
    """The row of the table that a name counts in."""
    if name.startswith("optim."):
        return "optimizers"
    if name.startswith("lr_scheduler."):
        return "lr_schedulers"
    parts = name.split(".")
    return "modules" if parts[0] == "nn" and parts[1][:1].isupper() else "operations"
