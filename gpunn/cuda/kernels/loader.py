"""Kernel files: the text of kernels/X.cu made complete, and the variants that it is compiled in.

A kernel file is plain CUDA C++ whose types are names. The loader puts in front what they stand for
(`typedef __half T;`), and pastes local includes as text, because the disk cache of compiled kernels
is keyed by the text alone. `#line` directives keep the compiler's messages on the files as written.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.cuda.kernels.launch import Kernel
from gpunn.native.loader import source as read

FLOATS = (np.dtype(np.float16), dtypes.BF16, np.dtype(np.float32), np.dtype(np.float64))
INDICES = (np.dtype(np.int32), np.dtype(np.int64))

C_NAMES = {
    np.dtype(np.float16): "__half", dtypes.BF16: "__nv_bfloat16",
    np.dtype(np.float32): "float", np.dtype(np.float64): "double",
    np.dtype(np.bool_): "bool", np.dtype(np.int8): "signed char",
    np.dtype(np.uint8): "unsigned char", np.dtype(np.int16): "short",
    np.dtype(np.uint16): "unsigned short", np.dtype(np.int32): "int",
    np.dtype(np.uint32): "unsigned int", np.dtype(np.int64): "long long",
    np.dtype(np.uint64): "unsigned long long",
}  # fmt: skip
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*$', re.MULTILINE)
_known: list[Source] = []


def sources() -> list[Source]:
    """Every kernel file that a launcher has declared, of the launchers imported so far."""
    return list(_known)


def prelude(choice: dict[str, Any]) -> str:
    """What a choice of types and constants says in C++."""
    lines = ["#include <cuda_fp16.h>", "#include <cuda_bf16.h>"]
    for name, value in choice.items():
        if isinstance(value, np.dtype):
            lines.append(f"typedef {C_NAMES[value]} {name};")
        elif isinstance(value, bool):
            lines.append(f"[[maybe_unused]] constexpr bool {name} = {str(value).lower()};")
        else:
            lines.append(f"[[maybe_unused]] constexpr int {name} = {value};")
    if "T" in choice and "Acc" not in choice:
        lines.append(f"typedef {'double' if choice['T'] == np.float64 else 'float'} Acc;")
    return "\n".join(lines) + "\n"


def pasted(name: str, text: str, read: Callable[[str], str] = read) -> str:
    """The text with its local includes in place, each once, and every line's origin kept."""
    seen: set[str] = set()

    def paste(name: str, text: str) -> str:
        def replace(match: re.Match[str]) -> str:
            other = match[1]
            here = text.count("\n", 0, match.start()) + 2
            if other in seen:
                return ""
            seen.add(other)
            return f'{paste(other, read(other))}\n#line {here} "{name}"'

        return f'#line 1 "{name}"\n' + _INCLUDE.sub(replace, text.replace("#pragma once", ""))

    return paste(name, text)


class Source:
    """kernels/<stem>.cu and the variants that it is compiled in.

    Each keyword is a name that the file uses: a tuple of NumPy dtypes makes it a type, a tuple of
    ints or bools a constant. `only`, a function of a choice, says which combinations there are.
    """

    def __init__(
        self, stem: str, *, only: Callable[[dict[str, Any]], bool] | None = None,
        **variants: tuple[Any, ...],
    ):  # fmt: skip
        self.stem, self.declared = stem, variants
        self._only = only
        self._kernels: dict[Any, Kernel] = {}
        _known.append(self)

    def variants(self) -> Iterator[dict[str, Any]]:
        """The choices of types and constants that the file is compiled with."""
        for values in itertools.product(*self.declared.values()):
            choice = dict(zip(self.declared, values, strict=True))
            if self._only is None or self._only(choice):
                yield choice

    def serves(self, **choice: Any) -> bool:
        """Whether these types and constants are among the declared ones."""
        return all(value in self.declared[name] for name, value in choice.items())

    def text(self, **choice: Any) -> str:
        """The complete text that is compiled for a choice."""
        return prelude(choice) + pasted(f"{self.stem}.cu", read(f"{self.stem}.cu"))

    def get(self, name: str, **choice: Any) -> Kernel:
        """The kernel of that name for a choice; a name with one declared value may be left out."""
        key = (name, *choice.items())
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = Kernel(name, self.text(**self._whole(choice)))
        return kernel

    def _whole(self, choice: dict[str, Any]) -> dict[str, Any]:
        whole = {}
        for name, values in self.declared.items():
            if name not in choice and len(values) != 1:
                raise TypeError(f"{self.stem}.cu is compiled for one {name} of {values}: say which")
            whole[name] = choice.get(name, values[0])
        if not self.serves(**choice) or not (self._only is None or self._only(whole)):
            raise ValueError(
                f"{self.stem}.cu is not declared for {choice}, but for {self.declared}"
            )
        return whole

    def forget(self) -> None:
        """Drops the compiled kernels, so that the next call reads the file again."""
        self._kernels.clear()


def reload_kernels() -> None:
    """Reads the kernel files again at their next use, and compiles those that changed.

    For editing kernels/X.cu beside a running notebook: save, call this, run the cell again.

    >>> gpunn.cuda.reload_kernels()
    """
    for source in _known:
        source.forget()
