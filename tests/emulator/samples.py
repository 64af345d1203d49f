"""Sample kernels: their texts, and a run of each against NumPy."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

from gpunn.cuda.kernels.loader import pasted
from gpunn.native.loader import source

from . import RawModule, compiler

BF16 = np.dtype(ml_dtypes.bfloat16)
KERNELS = compiler.HERE / "kernels"
_C_NAMES = {
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
    np.dtype(np.float16): "__half",
    BF16: "__nv_bfloat16",
    np.dtype(np.int32): "int",
    np.dtype(np.int64): "long long",
}


def _read(name: str) -> str:
    path = KERNELS / name
    return path.read_text() if path.exists() else source(name)


def text(name: str, change=lambda text: text, **names) -> str:
    """A sample's text, changed by a function; names are given types or constants."""
    lines = ["#include <cuda_fp16.h>"]
    for key, value in names.items():
        if isinstance(value, (bool, int)):
            lines.append(f"constexpr int {key} = {int(value)};")
        else:
            lines.append(f"typedef {_C_NAMES[np.dtype(value)]} {key};")
    return "\n".join(lines) + "\n" + pasted(name, change(_read(name)), _read)


def line_of(name: str, marker: str) -> str:
    """FILE:LINE of the line of a sample that ends with the comment `// marker`."""
    lines = (KERNELS / name).read_text().splitlines()
    found = [i + 1 for i, line in enumerate(lines) if line.endswith("// " + marker)]
    assert len(found) == 1, f"{len(found)} lines end with // {marker}"
    return f"{Path(name).name}:{found[0]}"


def _random(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(dtype)


def _up(n, by):
    return -(-n // by)


def embedding(change=lambda text: text, n=300, dim=40, vocabulary=20):
    """The gradient of an embedding: by atomic sums, and by sorting."""
    module = RawModule(text("embedding.cu", change, T=np.float32, I=np.int64))
    dy, ids = _random((n, dim)), np.random.default_rng(1).integers(0, vocabulary, n)
    want = np.zeros((vocabulary, dim))
    np.add.at(want, ids, dy.astype(np.float64))
    sizes = np.int32(n), np.int32(dim)
    table = np.zeros((vocabulary, dim), np.float32)
    args = (dy, ids, table, *sizes, np.int32(vocabulary))
    module.get_function("scatter_add")((n,), (256,), args)
    np.testing.assert_allclose(table, want, atol=1e-4)
    keys, order = np.zeros(n, np.int32), np.zeros(n, np.int32)
    padded = 1 << (n - 1).bit_length()
    args = (ids, keys, order, np.int32(n), np.int32(padded))
    module.get_function("sort_ids")((1,), (256,), args, shared_mem=8 * padded)
    np.testing.assert_array_equal(keys, np.sort(ids))
    np.testing.assert_array_equal(order, np.argsort(ids, kind="stable"))
    by_runs = np.zeros((vocabulary, dim), np.float32)
    module.get_function("sum_runs")((_up(n, 4),), (128,), (dy, keys, order, by_runs, *sizes))
    np.testing.assert_allclose(by_runs, want, atol=1e-4)
    return table, by_runs


def conv(change=lambda text: text, n=2, cin=5, size=9, cout=20, pad=1):
    """A convolution of 3 x 3."""
    x, w = _random((n, cin, size, size)), _random((cout, cin, 3, 3), seed=1)
    out = size + 2 * pad - 2
    y = np.zeros((n, cout, out, out), np.float32)
    numbers = (n, cin, size, size, cout, 3, 3, out, out, pad, 1)
    sizes = np.array(numbers, np.int32).view([("sizes", np.int32, len(numbers))])[0]
    kernel = RawModule(text("conv.cu", change)).get_function("conv2d")
    kernel((_up(n * out * out, 64), _up(cout, 64)), (256,), (x, w, y, sizes))
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    want = np.einsum("nchwrs,kcrs->nkhw", windows.astype(np.float64), w)
    np.testing.assert_allclose(y, want, atol=2e-3)
    return (y,)


def attention(change=lambda text: text, heads=1, length=70, causal=False):
    """Attention with a running softmax."""
    q, k, v = (_random((heads, length, 64), seed=i) for i in range(3))
    out, log_sum = np.zeros_like(q), np.zeros((heads, length), np.float32)
    kernel = RawModule(text("attention.cu", change, CAUSAL=causal)).get_function("attention")
    args = (q, k, v, out, log_sum, np.int32(length), np.float32(0.125))
    kernel((_up(length, 16), heads), (128,), args)
    scores = q.astype(np.float64) @ k.transpose(0, 2, 1) * 0.125
    if causal:
        scores[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
    top = scores.max(-1, keepdims=True)
    e = np.exp(scores - top)
    total = e.sum(-1, keepdims=True)
    np.testing.assert_allclose(out, e / total @ v, atol=1e-5)
    np.testing.assert_allclose(log_sum, (top + np.log(total))[..., 0], atol=1e-5)
    return out, log_sum


def gemm(change=lambda text: text, m=72, n=72, k=72, dtype=np.float16):
    """A matrix product on tensor cores."""
    A, B, C = _random((m, k), dtype), _random((k, n), dtype, 1), np.zeros((m, n), np.float32)
    kernel = RawModule(text("gemm.cu", change, T=dtype)).get_function("gemm")
    args = (A, B, C, np.int32(m), np.int32(n), np.int32(k))
    kernel((_up(n, 64), _up(m, 64)), (128,), args, shared_mem=2 * 2 * (64 * 40 + 32 * 72))
    np.testing.assert_allclose(C, A.astype(np.float64) @ B.astype(np.float64), atol=1e-3)
    return (C,)
