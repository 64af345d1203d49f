"""The state behind gpunn.backends, which the kernels read, and how its modules show it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

allow_tf32 = False
benchmark = False
benchmark_limit: int | None = 10
deterministic = False
cudnn_enabled = True
reduced_float16 = True
reduced_bfloat16 = True


def shared(name: str, kind: type | None = bool) -> Any:
    """A property that reads and sets the variable `name` of this module.

    RuntimeError for a value that is no `kind`, in PyTorch's words.
    """

    def get(self: Any) -> Any:
        return globals()[name]

    def put(self: Any, value: Any) -> None:
        if kind is not None and not isinstance(value, kind):
            raise RuntimeError(
                f"set_{name} expects a {kind.__name__}, but got {type(value).__name__}"
            )
        globals()[name] = value

    return property(get, put)


class Switchboard(ModuleType):
    """A module some of whose attributes are properties."""

    def __dir__(self) -> list[str]:
        names = [n for n in vars(type(self)) if not n.startswith("_")]
        return sorted({*super().__dir__(), *names})
