"""The C++ kernels against PyTorch: one process each, taking turns, so that neither warms for or
disturbs the other. Prints the median times and PyTorch's time / ours (above 1: ours is faster).

    python benchmarks/native.py [--threads N] [--rounds N] [case ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np

CONV = {
    # name: x, weight, options
    "conv digits 1-16": ((64, 1, 8, 8), (16, 1, 3, 3), {"padding": 1}),
    "conv digits 16-32": ((64, 16, 8, 8), (32, 16, 3, 3), {"padding": 1}),
    "conv cifar 3-32": ((64, 3, 32, 32), (32, 3, 3, 3), {"padding": 1}),
    "conv cifar 32-64": ((64, 32, 32, 32), (64, 32, 3, 3), {"padding": 1}),
    "conv cifar 64-128": ((64, 64, 16, 16), (128, 64, 3, 3), {"padding": 1}),
    "conv resnet stem": ((8, 3, 224, 224), (64, 3, 7, 7), {"padding": 3, "stride": 2}),
    "conv resnet 56 3x3": ((16, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    "conv resnet 56 1x1": ((16, 256, 56, 56), (64, 256, 1, 1), {}),
    "conv resnet 14 3x3": ((16, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}),
    "conv resnet 7 3x3": ((16, 512, 7, 7), (512, 512, 3, 3), {"padding": 1}),
    "conv resnet stride 2": ((16, 128, 56, 56), (128, 128, 3, 3), {"padding": 1, "stride": 2}),
    "conv one image 14": ((1, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}),
    "conv depthwise 56": ((16, 64, 56, 56), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    "conv depthwise 14": ((16, 384, 14, 14), (384, 1, 3, 3), {"padding": 1, "groups": 384}),
    "conv 1d": ((32, 256, 128), (256, 256, 5), {"padding": 2}),
    "conv 3d": ((4, 16, 16, 16, 16), (32, 16, 3, 3, 3), {"padding": 1}),
}
POOL = {
    "pool 2x2": ((64, 64, 32, 32), 2, 2, 0),
    "pool 3x3 stride 2": ((16, 64, 112, 112), 3, 2, 1),
}
ROWS = {"softmax 512x10": (512, 10), "softmax 256x10000": (256, 10000)}
EMBEDDING = {"embedding 32k of 64": (32768, 64, 30000), "embedding 8k of 512": (8192, 512, 30000)}
NORM = {
    "layer norm": (2048, 768),
    "batch norm": (32, 64, 56, 56),
    "group norm": (16, 256, 28, 28),
}
SIZES = {"optimizer 25M": [25_000_000 // 50] * 50, "optimizer 1M": [1_000_000 // 40] * 40}
UNARY = {"exp": 1 << 20, "tanh": 1 << 20, "sigmoid": 1 << 20, "gelu": 1 << 20, "silu": 1 << 20}


def cases() -> list[str]:
    """The name of every measurement, "case: pass"."""
    passes = {
        "forward,dx,dw": CONV,
        "max,max back,avg,avg back": POOL,
        "softmax,softmax back,log,log back,loss,loss back": ROWS,
        "gather,scatter": EMBEDDING,
        "forward,backward": {**NORM, **UNARY},
        "sgd,adam,norm": SIZES,
    }
    return [f"{name}: {p}" for keys, table in passes.items() for name in table
            for p in keys.split(",")]  # fmt: skip


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def torch_conv(name: str, what: str):
    import torch

    x_shape, w_shape, options = CONV[name]
    n = len(x_shape) - 2
    x, w, b = (torch.from_numpy(draw(*s)) for s in (x_shape, w_shape, w_shape[:1]))
    rest = (
        [options.get("stride", 1)] * n, [options.get("padding", 0)] * n, [1] * n, False, [0] * n,
        options.get("groups", 1),
    )  # fmt: skip
    if what == "forward":
        return lambda: torch.ops.aten.convolution(x, w, b, *rest)
    dy = torch.ops.aten.convolution(x, w, b, *rest)
    mask = [what == "dx", what == "dw", what == "dw"]
    return lambda: torch.ops.aten.convolution_backward(dy, x, w, [len(b)], *rest, mask)


def gpunn_conv(name: str, what: str):
    from gpunn import native

    x_shape, w_shape, options = CONV[name]
    n = len(x_shape) - 2
    x, w, b = (draw(*s) for s in (x_shape, w_shape, w_shape[:1]))
    rest = ((options.get("stride", 1),) * n, (options.get("padding", 0),) * n, (1,) * n,
            options.get("groups", 1))  # fmt: skip
    if what == "forward":
        return lambda: native.conv_forward(x, w, b, *rest)
    dy = native.conv_forward(x, w, b, *rest)
    if what == "dx":
        return lambda: native.conv_input_grad(dy, w, x_shape[2:], *rest)
    return lambda: native.conv_weight_grad(x, dy, w_shape[2:], *rest, bias=True)


def torch_other(name: str, what: str):
    import torch
    import torch.nn.functional as F

    def backward(f, *inputs):
        """Only the backward pass of f."""
        inputs = [i.requires_grad_() if i.is_floating_point() else i for i in inputs]
        y = f(*inputs)
        dy = torch.ones_like(y)
        wanted = [i for i in inputs if i.requires_grad]
        return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)

    if name in POOL:
        shape, kernel, stride, padding = POOL[name]
        x = torch.from_numpy(draw(*shape))
        pool = F.max_pool2d if what.startswith("max") else F.avg_pool2d
        f = lambda x: pool(x, kernel, stride, padding)  # noqa: E731
        return backward(f, x) if "back" in what else lambda: f(x.requires_grad_())
    if name in ROWS:
        x = torch.from_numpy(draw(*ROWS[name]))
        target = torch.arange(len(x)) % x.shape[1]
        f = {"softmax": lambda x: x.softmax(-1), "log": lambda x: x.log_softmax(-1),
             "loss": lambda x: F.cross_entropy(x, target)}[what.split()[0]]  # fmt: skip
        return backward(f, x) if "back" in what else lambda: f(x)
    if name in EMBEDDING:
        n, row, count = EMBEDDING[name]
        weight = torch.from_numpy(draw(count, row))
        index = torch.from_numpy(np.random.default_rng(1).integers(0, count, n))
        if what == "gather":
            return lambda: F.embedding(index, weight)
        return backward(lambda w: F.embedding(index, w), weight)
    if name in NORM:
        x = torch.from_numpy(draw(*NORM[name]))
        w, b = torch.from_numpy(draw(2, x.shape[1])).clone()
        f = {"layer norm": lambda x, w, b: F.layer_norm(x, x.shape[1:], w, b),
             "batch norm": lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
             "group norm": lambda x, w, b: F.group_norm(x, 32, w, b)}[name]  # fmt: skip
        return backward(f, x, w, b) if what == "backward" else lambda: f(x, w, b)
    if name in SIZES:
        params = [torch.from_numpy(draw(n)).requires_grad_() for n in SIZES[name]]
        for p in params:
            p.grad = p.detach() * 1e-3
        if what == "norm":
            return lambda: torch.nn.utils.clip_grad_norm_(params, 1e9)
        make = {"sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True),
                "adam": lambda p: torch.optim.AdamW(p, fused=True)}  # fmt: skip
        return make[what](params).step
    x = torch.from_numpy(draw(UNARY[name]))
    f = {"gelu": F.gelu, "silu": F.silu}.get(name) or getattr(torch, name)
    return backward(f, x) if what == "backward" else lambda: f(x)


def gpunn_other(name: str, what: str):
    from gpunn import native

    if name in POOL:
        shape, kernel, stride, padding = POOL[name]
        x, size = draw(*shape), shape[2:]
        k, s, p = (kernel,) * 2, (stride,) * 2, (padding,) * 2
        out = native.conv_size(size, k, s, p, (1, 1))
        y, index = native.max_pool_forward(x, k, s, p, (1, 1), out)
        return {
            "max": lambda: native.max_pool_forward(x, k, s, p, (1, 1), out),
            "max back": lambda: native.max_pool_backward(y, index, size),
            "avg": lambda: native.avg_pool_forward(x, k, s, p, out),
            "avg back": lambda: native.avg_pool_backward(y, size, k, s, p),
        }[what]
    if name in ROWS:
        x = draw(*ROWS[name])
        target, scale = np.arange(len(x)) % x.shape[1], np.full(len(x), 1 / len(x), np.float32)
        y, log = native.softmax_forward(x), native.log_softmax_forward(x)
        _, lse = native.cross_entropy_forward(x, target)
        return {
            "softmax": lambda: native.softmax_forward(x),
            "softmax back": lambda: native.softmax_backward(y, y),
            "log": lambda: native.log_softmax_forward(x),
            "log back": lambda: native.log_softmax_backward(log, y),
            "loss": lambda: native.cross_entropy_forward(x, target)[0].mean(),
            "loss back": lambda: native.cross_entropy_backward(x, target, lse, scale),
        }[what]
    if name in EMBEDDING:
        n, row, count = EMBEDDING[name]
        weight, grad = draw(count, row), draw(n, row)
        index = np.random.default_rng(1).integers(0, count, n)
        if what == "gather":
            return lambda: native.embedding_forward(weight, index)
        return lambda: native.embedding_backward(grad, index, count)
    if name in NORM:
        return gpunn_norm(name, what)
    if name in SIZES:
        params = [draw(n) for n in SIZES[name]]
        grads, m, v = ([p * s for p in params] for s in (1e-3, 0, 0))
        return {
            "sgd": lambda: native.sgd_step(params, grads, m, 1e-3, 0.9),
            "adam": lambda: native.adam_step(params, grads, m, v, 10, 1e-3, decoupled=True),
            "norm": lambda: native.square_sum(grads),
        }[what]
    x = draw(UNARY[name])
    if what == "backward":
        return lambda: native.unary_grad(name, x, x)
    return lambda: native.unary(name, x)


def gpunn_norm(name: str, what: str):
    from gpunn import native

    x = draw(*NORM[name])
    w, b = draw(2, x.shape[1])
    if name == "batch norm":

        def forward():
            mean, variance = native.batch_norm_stats(x)
            scale = w / np.sqrt(variance + 1e-5)
            return native.batch_norm_apply(x, scale, b - mean * scale)

        mean, variance = native.batch_norm_stats(x)
        rstd = 1 / np.sqrt(variance + np.float32(1e-5))
        backward = lambda: native.batch_norm_backward(x, x, w, mean, rstd)  # noqa: E731
        return forward if what == "forward" else backward
    groups, run = (1, 1) if name == "layer norm" else (32, int(np.prod(x.shape[2:])))
    rows = x.reshape(x.shape[0] * groups, -1)
    _, mean, rstd = native.row_norm_forward(rows, w, b, 1e-5, groups, run)
    if what == "forward":
        return lambda: native.row_norm_forward(rows, w, b, 1e-5, groups, run)
    return lambda: native.row_norm_backward(rows, rows, w, mean, rstd, groups, run)


def serve(side: str, threads: int) -> None:
    """Reads case names, answers each with the times of some calls, in seconds."""
    if side == "torch":
        import torch

        torch.set_num_threads(threads)
        conv, other = torch_conv, torch_other
    else:
        from gpunn import native

        native.set_num_threads(threads)
        conv, other = gpunn_conv, gpunn_other
    kept: dict = {}
    for line in sys.stdin:
        case = line.strip()
        if case not in kept:
            name, what = case.split(": ")
            kept = {case: conv(name, what) if name in CONV else other(name, what)}
        times, end = [], time.perf_counter() + 0.05
        kept[case]()
        while len(times) < 3 or time.perf_counter() < end:
            begin = time.perf_counter()
            kept[case]()
            times.append(time.perf_counter() - begin)
        print(json.dumps(times), flush=True)


def compare(wanted: list[str], threads: int, rounds: int) -> None:
    sides = {
        side: subprocess.Popen(
            [sys.executable, __file__, "--serve", side, "--threads", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for side in ("torch", "gpunn")
    }  # fmt: skip
    print(f"{threads} threads, median of {rounds} rounds")
    print(f"{'case':34} {'PyTorch':>11} {'gpunn':>11} {'ratio':>6} {'best':>6}")
    for case in cases():
        if wanted and not any(part in case for part in wanted):
            continue
        times: dict[str, list[list[float]]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, process in sides.items():
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(case + "\n")
                process.stdin.flush()
                times[side].append(json.loads(process.stdout.readline()))
        medians = {s: [statistics.median(t) for t in runs] for s, runs in times.items()}
        ratios = [a / b for a, b in zip(medians["torch"], medians["gpunn"], strict=True)]
        best = [min(min(t) for t in times[side]) for side in ("torch", "gpunn")]
        theirs, ours = (statistics.median(medians[s]) * 1e6 for s in ("torch", "gpunn"))
        print(f"{case:34} {theirs:9.0f}us {ours:9.0f}us {statistics.median(ratios):6.2f} "
              f"{best[0] / best[1]:6.2f}", flush=True)  # fmt: skip
    for process in sides.values():
        process.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="*", help="only the cases whose name has one of these in it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", choices=("torch", "gpunn"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.threads)
    else:
        compare(options.case, options.threads, options.rounds)
