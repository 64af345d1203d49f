"""Lookup in a table, its gradient, index_add, and bags: uniform, Zipf and constant indices.

Zipf(1.0): the k-th most frequent row has a share of 1 / k, as words of a text have; constant: all
of the batch reads one row, as where half of it is padding. The bytes are those that must move: the
indices, each row of the batch once and each distinct row of the table once; the dense gradient is
written whole.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from benchmarks.gpu import harness
from benchmarks.gpu.harness import Case, backward_of, draw

SIZE = {"float16": 2, "bfloat16": 2, "float32": 4}


@functools.cache
def indices(kind: str, rows: int, n: int) -> np.ndarray:
    """n indices below `rows`."""
    rng = np.random.default_rng(0)
    if kind == "uniform":
        return rng.integers(0, rows, n)
    if kind == "constant":
        return np.full(n, rows // 2)
    share = 1 / np.arange(1, rows + 1)
    return rng.permutation(rows)[rng.choice(rows, n, p=share / share.sum())]


def lookup(kind: str, rows: int, n: int, width: int, dtype: str) -> list[Case]:
    """Forward and backward of an embedding."""
    index = indices(kind, rows, n)

    def forward(T: Any) -> Any:
        i, w = T.from_numpy(index).to(harness.DEVICE), draw(T, (rows, width), dtype)
        return lambda: T.nn.functional.embedding(i, w)

    def backward(T: Any) -> Any:
        i = T.from_numpy(index).to(harness.DEVICE)
        return backward_of(T, lambda w: T.nn.functional.embedding(i, w),
                           draw(T, (rows, width), dtype))  # fmt: skip

    def in_order(T: Any) -> Any:
        run = backward(T)

        def call() -> Any:
            T.use_deterministic_algorithms(True)
            try:
                return run()
            finally:
                T.use_deterministic_algorithms(False)

        return call

    row, distinct = width * SIZE[dtype], len(np.unique(index))
    name = f"{kind} {n} of {rows} x {width}, {dtype}"
    tolerance = {"float32": 1e-3}.get(dtype)  # many terms, another order
    moved = (n + rows) * row + 8 * n
    return [
        Case(f"lookup {name}", forward, (n + distinct) * row + 8 * n, dtype=dtype),
        Case(f"gradient {name}", backward, moved, dtype=dtype, tolerance=tolerance),
        Case(f"gradient in order {name}", in_order, moved, dtype=dtype, tolerance=tolerance),
    ]


def index_add(kind: str, rows: int, n: int, width: int, dtype: str) -> Case:
    """Rows added to some rows of an array, in place."""
    index = indices(kind, rows, n)

    def build(T: Any) -> Any:
        i = T.from_numpy(index).to(harness.DEVICE)
        x, values = draw(T, (rows, width), dtype), draw(T, (n, width), dtype, seed=1)
        return lambda: T.index_add(x, 0, i, values)

    moved = (n + 2 * rows) * width * SIZE[dtype] + 8 * n
    name = f"index_add {kind} {n} to {rows} x {width}, {dtype}"
    return Case(name, build, moved, dtype=dtype, tolerance=1e-3)


def bag(mode: str, rows: int, bags: int, each: int, width: int, dtype: str) -> list[Case]:
    """Forward and backward of bags of Zipf indices, begun at offsets."""
    index = indices("zipf", rows, bags * each)
    starts = np.arange(0, bags * each, each)

    def call(T: Any) -> Any:
        i, o = T.from_numpy(index).to(harness.DEVICE), T.from_numpy(starts).to(harness.DEVICE)
        return lambda w: T.nn.functional.embedding_bag(i, w, o, mode=mode)

    def forward(T: Any) -> Any:
        f, w = call(T), draw(T, (rows, width), dtype)
        return lambda: f(w)

    def backward(T: Any) -> Any:
        return backward_of(T, call(T), draw(T, (rows, width), dtype))

    row, distinct, n = width * SIZE[dtype], len(np.unique(index)), bags * each
    name = f"{mode} {bags} x {each} of {rows} x {width}"
    return [
        Case(f"bag {name}", forward, (distinct + bags) * row + 8 * n, dtype=dtype,
             tolerance=1e-2 if dtype != "float32" else None),
        Case(f"bag gradient {name}", backward, (bags + rows) * row + 8 * n, dtype=dtype,
             tolerance=1e-3 if dtype == "float32" else 2e-2),
    ]  # fmt: skip


def cases(tiny: bool = False) -> list[Case]:
    """Words of a language model in two batch sizes, and categories of a recommender."""
    found = []
    for kind in ("uniform", "zipf", "constant"):
        shapes = [(40, 70, 8)] if tiny else [(50257, 32768, 1024), (50257, 1 << 20, 64)]
        for rows, n, width in shapes:
            for dtype in ("float32", "bfloat16"):
                found += lookup(kind, rows, n, width, dtype)
        shapes = [(40, 70, 8)] if tiny else [(50257, 1 << 18, 64), (1 << 16, 1 << 22, 1)]
        found += [index_add(kind, *shape, "float32") for shape in shapes]
    rows, bags, each, width = (40, 5, 7, 8) if tiny else (1_000_000, 8192, 50, 64)
    for mode in ("sum", "mean", "max"):
        found += bag(mode, rows, bags, each, width, "float32")
    return found
