"""What a check found, and the table of everything."""

from __future__ import annotations

import textwrap
import time
import traceback
from collections import Counter
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

    def summary(self) -> dict[str, Any]:
        """The counts, as plain values."""
        return {
            "name": self.name, "status": self.status, "reason": self.reason,
            "checks": self.checks, "failures": len(self.failures), "known": len(self.known),
            "messages": len(self.messages), "seconds": self.seconds,
        }  # fmt: skip

    def line(self) -> str:
        """One line: the status and the counts, failures by kind."""
        text = f"{self.name}: {self.status}, {self.checks} checks"
        for label in ("failures", "known", "messages"):
            if found := getattr(self, label):
                text += f", {len(found)} {label}"
        if self.failures:
            kinds = Counter(f.label() for f in self.failures)
            text += " (" + ", ".join(f"{k} {n}" for k, n in kinds.items()) + ")"
        return text + (f" ({self.reason})" if self.reason else "") + f", {self.seconds:.1f} s"

    def text(self, everything: bool = False) -> str:
        """The line and the failures; those alike are shown once unless everything is asked."""
        if everything:
            left_out = [f"not compared: {n} samples: {why}" for why, n in self.skipped.items()]
            found = map(str, [*self.failures, *self.messages])
            return "\n".join([self.line(), *found, *left_out])
        alike = Counter((f.kind, f.text[:60]) for f in self.failures)
        lines, seen = [self.line()], set()
        for f in self.failures:
            key = (f.kind, f.text[:60])
            if key not in seen:
                seen.add(key)
                more = f"\n    ... and {alike[key] - 1} like it" if alike[key] > 1 else ""
                lines.append(f"{f}{more}")
        return "\n".join(lines[:40])


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


def table(lines: list[dict[str, Any]]) -> str:
    """The table: how many of each group pass, fail, are missing or absent, and their names."""
    text = [f"{'parity':<14}" + "".join(f"{s:>10}" for s in STATUSES)]
    for group in ("operations", "modules", "optimizers", "lr_schedulers"):
        count = Counter(r["status"] for r in lines if group_of(r["name"]) == group)
        if count:
            text.append(f"{group:<14}" + "".join(f"{count[s]:>10}" for s in STATUSES))
    checks, known, words = (sum(r[k] for r in lines) for k in ("checks", "known", "messages"))
    text.append(f"{checks} comparisons; {known} known differences (tests/parity/scope.py);")
    text.append(f"{words} errors of PyTorch's type with other words than PyTorch's")
    for status, title in _TITLES.items():
        names = sorted(r["name"] for r in lines if r["status"] == status)
        if names:
            wrapped = textwrap.fill(" ".join(names), 98, initial_indent="  ",
                                    subsequent_indent="  ", break_on_hyphens=False)  # fmt: skip
            text.append(f"{title}: {len(names)}\n{wrapped}")
    return "\n".join(text)


_TITLES = {
    FAIL: "fail",
    MISSING: "missing (in scope, not there)",
    UNTESTED: "untested (no sample that runs on a CPU and that NumPy can carry)",
    ABSENT: "absent (not in scope)",
}


def group_of(name: str) -> str:
    """The row of the table that a name counts in."""
    if name.startswith("optim."):
        return "optimizers"
    if name.startswith("lr_scheduler."):
        return "lr_schedulers"
    parts = name.split(".")
    return "modules" if parts[0] == "nn" and parts[1][:1].isupper() else "operations"
