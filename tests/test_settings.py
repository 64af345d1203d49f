"""Switches that are kept and returned."""

import pytest

import gpunn


def test_precision():
    try:
        gpunn.set_float32_matmul_precision("high")
        assert gpunn.get_float32_matmul_precision() == "high"
        with pytest.warns(UserWarning, match="foo is not one of 'highest', 'high', or 'medium'"):
            gpunn.set_float32_matmul_precision("foo")
        assert gpunn.get_float32_matmul_precision() == "high"
    finally:
        gpunn.set_float32_matmul_precision("highest")


def test_determinism():
    try:
        for given, mode, warn_only in (("error", 2, False), (1, 1, True), ("default", 0, False)):
            gpunn.set_deterministic_debug_mode(given)
            assert gpunn.get_deterministic_debug_mode() == mode
            assert gpunn.are_deterministic_algorithms_enabled() == (mode > 0)
            assert gpunn.is_deterministic_algorithms_warn_only_enabled() == warn_only
        gpunn.use_deterministic_algorithms(True, warn_only=True)
        assert gpunn.get_deterministic_debug_mode() == 1
    finally:
        gpunn.use_deterministic_algorithms(False)
    for bad in ("x", 5):
        with pytest.raises(RuntimeError, match="invalid value of debug_mode"):
            gpunn.set_deterministic_debug_mode(bad)
    with pytest.raises(TypeError, match="must be bool, not int"):
        gpunn.use_deterministic_algorithms(1)


def test_the_rest():
    assert gpunn.set_flush_denormal(True) is False
    gpunn.set_warn_always(True)
    assert gpunn.is_warn_always_enabled()
    gpunn.set_warn_always(False)
    gpunn.set_num_interop_threads(2)
    assert gpunn.get_num_interop_threads() == 2
    gpunn.set_num_interop_threads(1)
    with pytest.raises(RuntimeError, match="positive integer"):
        gpunn.set_num_interop_threads(0)
