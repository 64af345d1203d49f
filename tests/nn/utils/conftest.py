"""What the tests of nn.utils share."""

import numpy as np
import pytest

import gpunn


def _plain(value):
    """Tensors as arrays, containers as lists of pairs; everything else as it is."""
    if hasattr(value, "detach"):
        return value.detach().numpy()
    if isinstance(value, dict):
        return [[key, _plain(item)] for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _compare(ours, theirs, where):
    if isinstance(ours, list):
        assert isinstance(theirs, list) and len(ours) == len(theirs), (where, ours, theirs)
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            _compare(one, other, f"{where}[{i}]")
    elif isinstance(ours, np.ndarray):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, where
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=where)
    else:
        assert ours == theirs, where


@pytest.fixture
def near_torch():
    """Runs a scenario, a function of the library, on both from one seed; returns our result."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def compare(scenario, seed=0):
        results = []
        for library in (gpunn, torch):
            library.manual_seed(seed)
            results.append(scenario(library))
        _compare(_plain(results[0]), _plain(results[1]), "result")
        return results[0]

    return compare


def _message(call, *args, **kwargs):
    """The type and message of the error that a call raises; None if it raises none."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, str(error)
    return None


@pytest.fixture
def message():
    return _message
