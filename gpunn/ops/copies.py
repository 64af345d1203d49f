"""The functions `*_copy`: what a view would show, as new tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunn.ops import diagonal, shape, split, strided, views
from gpunn.ops._rows import document, write_out
from gpunn.tensor import Tensor


def _copying(
    name: str, op: Callable[..., Any], example: str, size: tuple[int, ...] = (2, 2)
) -> Any:
    def copy(input: Tensor, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        seen = op(input, *args, **kwargs)
        if isinstance(seen, Tensor):
            copied = seen.clone().contiguous()  # type: ignore[attr-defined]
            return copied if out is None else write_out(out, copied, name)
        if out is None:
            return tuple(s.clone() for s in seen)
        for o, s in zip(out, seen, strict=True):
            write_out(o, s, name)
        return None

    document(copy, name, f"`{name.removesuffix('_copy')}` as a copy, not a view.",
             f"gpunn.{name}({example}).shape\ntorch.Size({list(size)})",
             "as the view's", "any")  # fmt: skip
    return copy


def _many(name: str, op: Callable[..., Any], example: str) -> Any:
    made = _copying(name, op, "")
    document(made, name, f"`{name.removesuffix('_copy')}` as copies, not views.",
             f"len(gpunn.{name}({example}))\n2", "as the views'", "any")  # fmt: skip
    return made


alias_copy = _copying("alias_copy", views.alias, "gpunn.ones(2, 2)")
as_strided_copy = _copying("as_strided_copy", strided.as_strided, "gpunn.ones(4), (2, 2), (1, 1)")
diagonal_copy = _copying("diagonal_copy", diagonal.diagonal, "gpunn.ones(2, 2, 2)")
expand_copy = _copying("expand_copy", views.expand, "gpunn.ones(2), (2, 2)")
permute_copy = _copying("permute_copy", views.permute, "gpunn.ones(2, 2), (1, 0)")
select_copy = _copying("select_copy", split.select, "gpunn.ones(2, 2, 3), 2, 0")
squeeze_copy = _copying("squeeze_copy", views.squeeze, "gpunn.ones(1, 2, 2)")
t_copy = _copying("t_copy", views.t, "gpunn.ones(2, 2)")
transpose_copy = _copying("transpose_copy", views.transpose, "gpunn.ones(2, 2), 0, 1")
unfold_copy = _copying("unfold_copy", shape.unfold, "gpunn.ones(3), 0, 2, 1")
unsqueeze_copy = _copying("unsqueeze_copy", views.unsqueeze, "gpunn.ones(2, 2), 0", (1, 2, 2))
view_copy = _copying("view_copy", views.view_, "gpunn.ones(4), (2, 2)")
split_copy = _many("split_copy", split.split, "gpunn.ones(2), 1")
split_with_sizes_copy = _many(
    "split_with_sizes_copy", split.split_with_sizes, "gpunn.ones(2), [1, 1]"
)
unbind_copy = _many("unbind_copy", split.unbind, "gpunn.ones(2)")

__all__ = [
    "alias_copy", "as_strided_copy", "diagonal_copy", "expand_copy", "permute_copy", "select_copy",
    "split_copy", "split_with_sizes_copy", "squeeze_copy", "t_copy", "transpose_copy",
    "unbind_copy", "unfold_copy", "unsqueeze_copy", "view_copy",
]  # fmt: skip
