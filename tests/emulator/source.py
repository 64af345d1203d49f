"""What the text of a .cu file says of its kernels: names, parameters, launch bounds."""

from __future__ import annotations

import re
from typing import NamedTuple

_NO_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_LAUNCH_BOUNDS = "__launch_bounds__"


class Kernel(NamedTuple):
    name: str
    parameters: tuple[str, ...]
    bound: str  # an expression: the most threads of a block


def _closing(text: str, start: int) -> int:
    """The place of the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    return len(text)


def _split(text: str) -> list[str]:
    """At the commas that stand in no bracket."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "(<[{") - (c in ")>]}")
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts if part.strip()]


def _kernel_at(text: str, place: int) -> Kernel | None:
    bound = "1024"
    while True:
        word = re.compile(r"\s*(\w+)\s*").match(text, place)
        if not word or word.end() >= len(text):
            return None
        opens = text[word.end()] == "("
        if opens and word[1] == _LAUNCH_BOUNDS:
            end = _closing(text, word.end())
            bound = _split(text[word.end() + 1 : end])[0]
            place = end + 1
        elif opens:
            inside = text[word.end() + 1 : _closing(text, word.end())]
            names = [re.findall(r"\w+", part)[-1] for part in _split(inside) if part != "void"]
            return Kernel(word[1], tuple(names), bound)
        else:
            place = word.end()


def kernels(text: str) -> dict[str, Kernel]:
    """The kernels of a text by name."""
    text = _NO_CODE.sub(" ", text)  # comments and strings
    places = (found.end() for found in re.finditer(r"\b__global__\b", text))
    found = (_kernel_at(text, place) for place in places)
    return {kernel.name: kernel for kernel in found if kernel}
