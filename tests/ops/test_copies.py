"""The *_copy functions: views' values in memory of their own."""

import pytest

import gpunn
from gpunn.ops import copies

CALLS = {
    "permute_copy": (1, 0), "t_copy": None, "transpose_copy": (0, 1), "view_copy": (4,),
    "unsqueeze_copy": (0,), "squeeze_copy": None, "diagonal_copy": None, "expand_copy": (2, 2),
    "select_copy": (0, 1), "alias_copy": None,
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_copy_has_the_views_values_and_its_own_memory(name):
    x = gpunn.arange(4.0).reshape(2, 2)
    args = CALLS[name]
    if name in ("view_copy", "expand_copy", "permute_copy"):
        args = (args,)
    made = getattr(gpunn, name)(x, *(args or ()))
    view = getattr(x, name.removesuffix("_copy"), lambda: x)(*(args or ()))
    assert made.tolist() == view.tolist()
    before = made.tolist()
    x.fill_(9)
    assert made.tolist() == before


def test_every_name_is_there():
    assert set(CALLS) <= set(copies.__all__)
