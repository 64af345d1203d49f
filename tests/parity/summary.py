"""The parity table at the end of a pytest run; tests/conftest.py takes the hook from here."""

from __future__ import annotations


def pytest_terminal_summary(terminalreporter) -> None:
    """Collect what the tests recorded, in this process or in xdist's workers, and print it."""
    lines = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key == "parity":
                    lines[value["name"]] = value
                elif key == "parity absent":
                    lines |= {v["name"]: v for v in value}
    if lines:
        from .report import table

        terminalreporter.section("parity with PyTorch")
        terminalreporter.write_line(table(list(lines.values())))
