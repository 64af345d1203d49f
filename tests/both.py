"""The same lines run by PyTorch and by gpunn, and what comes of them compared."""

import numpy as np
import pytest

import gpunn


def packages():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    return torch, gpunn


def plain(value):
    """Tensors, in nested containers, as (dtype, shape, values)."""
    if hasattr(value, "requires_grad"):
        array = np.asarray(value.detach().tolist()).reshape(tuple(value.shape))
        return str(value.dtype), tuple(value.shape), array
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def compare(want, got):
    if isinstance(want, tuple) and isinstance(want[-1], np.ndarray):
        assert want[:2] == got[:2]
        np.testing.assert_allclose(got[2], want[2], rtol=1e-5, atol=1e-7)
    elif isinstance(want, list):
        assert len(want) == len(got)
        for w, g in zip(want, got, strict=True):
            compare(w, g)
    else:
        assert want == got


def same(program):
    """program(torch) and program(gpunn) give the same."""
    torch, mine = packages()
    compare(plain(program(torch)), plain(program(mine)))


def refused(program, match):
    """Both raise, the same type of exception, with these words."""
    raised = []
    for package in packages():
        with pytest.raises(Exception, match=match) as caught:
            program(package)
        raised.append(caught.type)
    assert issubclass(*reversed(raised)) or issubclass(*raised), raised


def same_in_place(functions, values=(-1.0, 0.25, 2.0)):
    """functions(T.nn.functional, T) are in-place forms: each changes its argument, returns it, and
    gives PyTorch's values and gradient."""

    def program(T):
        found = []
        for f in functions(T.nn.functional, T):
            leaf = T.tensor(values, requires_grad=True)
            y = leaf * 3
            assert f(y) is y
            y.sum().backward()
            found += [y, leaf.grad]
        return found

    same(program)
