"""The *_copy functions."""

import numpy as np
import pytest
from both import same
from check import check_grad

import gpunn
from gpunn.ops import copies

X = np.arange(12.0).reshape(1, 3, 4)
CALLS = {
    "alias_copy": (), "as_strided_copy": ((2, 2), (1, 3)), "diagonal_copy": (1, 1, 2),
    "expand_copy": ((2, 3, 4),), "permute_copy": ((2, 0, 1),), "select_copy": (1, 2),
    "split_copy": (2, 1), "split_with_sizes_copy": ([1, 2], 1), "squeeze_copy": (),
    "transpose_copy": (0, 2), "unbind_copy": (1,), "unfold_copy": (2, 2, 1),
    "unsqueeze_copy": (0,), "view_copy": ((3, 4),), "t_copy": (),
}  # fmt: skip


def test_every_function_has_a_case():
    assert set(CALLS) == set(copies.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_copies(name):
    args = CALLS[name]

    def call(T, x):
        return getattr(T, name)(x[0] if name == "t_copy" else x, *args)

    same(lambda T: call(T, T.arange(12.0).reshape(1, 3, 4)))
    x = gpunn.tensor(X)
    made = call(gpunn, x)
    for part in made if isinstance(made, tuple) else [made]:
        assert not np.shares_memory(part.array, x.array) and part.is_contiguous()
    if isinstance(made, tuple):
        check_grad(lambda x: sum(p.sum() for p in call(gpunn, x * x)), [X])
    else:
        check_grad(lambda x: call(gpunn, x), [X])


def test_out():
    out = gpunn.empty(4, 3, 1)
    assert gpunn.transpose_copy(gpunn.tensor(X), 0, 2, out=out) is not None
    outs = [gpunn.empty(4), gpunn.empty(4), gpunn.empty(4)]
    gpunn.unbind_copy(gpunn.tensor(X)[0], out=outs)
    assert outs[2].tolist() == [8.0, 9.0, 10.0, 11.0]
