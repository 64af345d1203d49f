"""Tests of the emulator are skipped where it cannot run, and say what to install."""

import pytest

from . import missing


@pytest.fixture(autouse=True)
def toolchain():
    reason = missing()
    if reason:
        pytest.skip(reason)
