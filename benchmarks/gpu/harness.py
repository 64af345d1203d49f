"""gpunn's CUDA kernels against PyTorch, in one process, on one GPU, taking turns.

    python -m benchmarks.gpu [names] [--out FILE] [--quick]

A file `benchmarks/gpu/X.py` for `kernels/X.cu` defines `cases(tiny=False)`, a list of `Case`s:

    from benchmarks.gpu.harness import Case, backward_of, draw

    def cases(tiny=False):
        rows, n = (3, 33) if tiny else (8192, 1024)

        def forward(T):                             # T is gpunn or torch
            x = draw(T, (rows, n), "float16")       # the same numbers in both
            return lambda: T.softmax(x, -1)         # what is timed; its result is compared

        def backward(T):
            return backward_of(T, lambda x: T.softmax(x, -1), draw(T, (rows, n), "float16"))

        size = rows * n * 2
        return [Case("softmax 8192x1024", forward, moved_bytes=2 * size, dtype="float16"),
                Case("softmax back", backward, moved_bytes=3 * size, dtype="float16")]

`build(T)` makes the tensors (with `draw`, `integers`, `fill`, or else on `harness.DEVICE`) and
returns the function to time; this returns a tensor, a list of tensors or None. Everything made is
freed before the next case. With `tiny=True` the sizes are such that the emulator runs a case in
well under a second: a test runs every case so and compares it with PyTorch on the CPU.
`moved_bytes` counts each array that must be read or written once, `flops` the multiplications and
additions; `dtype` is that of the arithmetic and picks the peak (and, as "tf32", lets PyTorch use
TF32, which it otherwise may not). First both results are compared: the largest difference,
relative to the largest value, is to be below `tolerance`.

What is measured: the time on the GPU between two CUDA events around a call, with all the work
queued behind a write that empties the L2 cache and lasts longer than the host needs for the call
(so the host's time does not show), the median of many, gpunn and PyTorch in turns. The host's time
a call is shown apart. `ratio` is PyTorch's time / gpunn's: above 1, gpunn is faster. "% limit" is
the time that the bytes and the FLOPs need at the GPU's peaks / gpunn's time.
"""

from __future__ import annotations

import gc
import json
import math
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

DEVICE = "cuda"  # of all tensors; a test builds PyTorch's side on the CPU
RESULTS = Path(__file__).parent.parent / "results"
TOLERANCE = {"float16": 5e-3, "bfloat16": 4e-2, "float64": 1e-10, "tf32": 5e-3, "float32": 1e-4}
Run = Callable[[], Any]


@dataclass
class Case:
    """One row of the table: see the module's text."""

    name: str
    build: Callable[[Any], Run]
    moved_bytes: float = 0
    flops: float = 0
    dtype: str = "float32"
    tolerance: float | None = None


# --- what cases are made of -----------------------------------------------------------------


def draw(
    T: Any, shape: Sequence[int], dtype: str = "float32", seed: int = 0, scale: float = 1.0
) -> Any:
    """Normal numbers on the GPU as a tensor of gpunn or PyTorch: the same for the same seed."""
    count = min(math.prod(shape), 1_000_003)  # a prime: after these, the numbers come again
    values = np.random.default_rng(seed).standard_normal(count, np.float32) * np.float32(scale)
    values = np.resize(values, tuple(shape)) if count else np.zeros(tuple(shape), np.float32)
    return T.from_numpy(values).to(DEVICE).to(stored(T, dtype))


def stored(T: Any, dtype: str) -> Any:
    """The package's dtype of that name; numbers for TF32 are stored as float32."""
    return getattr(T, "float32" if dtype == "tf32" else dtype)


def integers(T: Any, high: int, shape: Sequence[int], dtype: str = "int64", seed: int = 0) -> Any:
    """Numbers from 0 to `high` - 1 on the GPU."""
    values = np.random.default_rng(seed).integers(0, high, tuple(shape), dtype)
    return T.from_numpy(values).to(DEVICE)


def fill(T: Any, module: Any, dtype: str = "float32", scale: float = 0.05) -> Any:
    """The module on the GPU with parameters that are the same in both packages."""
    module = module.to(DEVICE).to(stored(T, dtype))
    with T.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(draw(T, p.shape, dtype, seed=i + 1, scale=scale))
    return module


def backward_of(T: Any, f: Callable[..., Any], *inputs: Any, seed: int = 99) -> Run:
    """The backward pass alone of f with respect to the inputs that have gradients."""
    wanted = [x.requires_grad_() for x in inputs if x.is_floating_point()]
    y = f(*inputs)
    dtype = str(y.dtype).removeprefix("torch.")
    dy = draw(T, y.shape, dtype, seed)
    return lambda: T.autograd.grad(y, wanted, dy, retain_graph=True)


# --- the limits of the GPU ------------------------------------------------------------------

# Bytes a second, and 10^12 FLOP/s of dense work: float64, float32 (no tensor cores), TF32, 16 bits.
# Makers' data sheets; the longest name that is found in the device's counts.
_PEAKS = {
    "H100": (3.35e12, 34, 67, 494.7, 989.4),
    "H100 PCIe": (2.0e12, 26, 51, 378, 756),
    "H100 NVL": (3.9e12, 30, 60, 417.5, 835),
    "H200": (4.8e12, 34, 67, 494.7, 989.4),
    "H200 NVL": (4.8e12, 30, 60, 417.5, 835.5),
    "A100": (1.555e12, 9.7, 19.5, 156, 312),
    "A100-SXM4-80GB": (2.039e12, 9.7, 19.5, 156, 312),
    "A100 80GB PCIe": (1.935e12, 9.7, 19.5, 156, 312),
    "L40S": (0.864e12, 1.43, 91.6, 183, 362),
    "L4": (0.3e12, 0.47, 30.3, 60, 121),
    "T4": (0.32e12, 0.25, 8.1, 8.1, 65),
    "V100": (0.9e12, 7.8, 15.7, 15.7, 125),
}


@dataclass
class Limits:
    """Peaks of a GPU: bytes a second, FLOP/s by dtype; `source` says where they come from."""

    bandwidth: float
    flops: dict[str, float]
    source: str

    def seconds(self, case: Case) -> float:
        """The least time in which the bytes can move and the FLOPs can run."""
        work = case.flops / self.flops[case.dtype] if case.flops else 0.0
        return max(case.moved_bytes / self.bandwidth, work)


def known_limits(name: str) -> Limits | None:
    """The data sheet's numbers, of a device that is in the table."""
    found = [key for key in _PEAKS if re.search(rf"(?<!\w){re.escape(key)}(?!\w)", name)]
    if not found:
        return None
    key = max(found, key=len)
    bandwidth, f64, f32, tf32, half = _PEAKS[key]
    flops = {"float64": f64, "float32": f32, "tf32": tf32, "float16": half, "bfloat16": half}
    return Limits(bandwidth, {k: v * 1e12 for k, v in flops.items()}, f"data sheet of the {key}")


def measured_limits(torch: Any) -> Limits:
    """What a large copy and large matrix products of PyTorch reach on this device."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * source.numel() / _best(torch, lambda: target.copy_(source))
    flops = {}
    for dtype in ("float64", "float32", "tf32", "float16", "bfloat16"):
        allow_tf32(torch, dtype == "tf32")
        n = 2048 if dtype == "float64" else 8192
        a = draw(torch, (n, n), dtype)
        flops[dtype] = 2 * n**3 / _best(torch, lambda a=a: a @ a)
    return Limits(bandwidth, flops, "measured: a copy, and matrix products of PyTorch")


def _best(T: Any, run: Run) -> float:
    """Seconds of the quickest of some calls, timed by events."""
    run()
    return min(elapsed(T, run) for _ in range(10)) / 1e3


def allow_tf32(T: Any, allowed: bool) -> None:
    """Whether matrix products and convolutions of float32 may use TF32."""
    backends = getattr(T, "backends", None)
    if backends is not None:
        backends.cuda.matmul.allow_tf32 = allowed
        backends.cudnn.allow_tf32 = allowed


# --- comparing ------------------------------------------------------------------------------


def to_numpy(T: Any, result: Any) -> list[np.ndarray]:
    """The tensors of a result on the host, half precision as float32."""
    if result is None:
        return []
    if isinstance(result, (list, tuple)):
        return [array for item in result for array in to_numpy(T, item)]
    if result.dtype in (T.float16, T.bfloat16):
        result = result.float()
    return [result.detach().cpu().numpy()]


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest difference relative to the largest value of its tensor; inf if not alike."""
    if len(ours) != len(theirs):
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return float("inf")
        finite = np.isfinite(b)
        a, b = a[finite].astype(np.float64), b[finite].astype(np.float64)
        if b.size:
            largest = np.abs(b).max()
            worst = max(worst, float(np.abs(a - b).max() / (largest or 1.0)))
    return worst


# --- timing ---------------------------------------------------------------------------------


def elapsed(T: Any, run: Run, events: Any = None) -> float:
    """Milliseconds of a call on the GPU, between two events of package T."""
    start, end = events or [T.cuda.Event(enable_timing=True) for _ in range(2)]
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def host_time(T: Any, run: Run) -> float:
    """Milliseconds that the host needs to give a call to an idle GPU: the median of a few."""
    times = []
    for _ in range(5):
        T.cuda.synchronize()
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    T.cuda.synchronize()
    return statistics.median(times)


@dataclass
class Flush:
    """Writes a buffer several times the size of the L2 cache, for at least some milliseconds."""

    T: Any
    buffer: Any = None
    once: float = 0.0  # milliseconds of one write
    longest: float = field(default=50.0, repr=False)

    def __post_init__(self) -> None:
        size = max(64 << 20, 4 * self.T.cuda.get_device_properties(0).L2_cache_size)
        self.buffer = self.T.empty(size // 4, device="cuda")
        self.buffer.zero_()
        self.once = min(elapsed(self.T, self.buffer.zero_) for _ in range(5))

    def __call__(self, milliseconds: float) -> None:
        for _ in range(1 + int(min(milliseconds, self.longest) / self.once)):
            self.buffer.zero_()


def interleaved(
    packages: Sequence[Any], runs: Sequence[Run], flush: Callable[[float], None], rounds: int
) -> tuple[list[float], list[float]]:
    """The medians, in milliseconds, of each run on the GPU and on the host."""
    pairs = list(zip(packages, runs, strict=True))
    for T, run in pairs:
        for _ in range(3):
            run()
        T.cuda.synchronize()
    host = [host_time(T, run) for T, run in pairs]
    events = [[T.cuda.Event(enable_timing=True) for _ in range(2)] for T in packages]
    times: list[list[float]] = [[] for _ in pairs]
    for i in range(rounds):
        order = range(len(pairs)) if i % 2 == 0 else reversed(range(len(pairs)))
        for k in order:
            flush(1.5 * host[k])
            times[k].append(elapsed(*pairs[k], events[k]))
    return [statistics.median(t) for t in times], host


def measure(case: Case, packages: Sequence[Any], flush: Any, limits: Limits, quick: bool) -> dict:
    """A row: both results compared, then both timed."""
    row: dict[str, Any] = {"dtype": case.dtype, "bytes": case.moved_bytes, "flops": case.flops}
    for T in packages:
        allow_tf32(T, case.dtype == "tf32")
    runs = [case.build(T) for T in packages]
    row["difference"] = difference(*(to_numpy(T, run()) for T, run in zip(packages, runs)))
    tolerance = TOLERANCE[case.dtype] if case.tolerance is None else case.tolerance
    if not row["difference"] <= tolerance:
        row["error"] = f"wrong: differs from PyTorch by {row['difference']:.2g} > {tolerance:g}"
        return row
    (ours, theirs), host = interleaved(packages, runs, flush, 10 if quick else 50)
    row |= {"gpunn_ms": ours, "torch_ms": theirs, "ratio": theirs / ours}
    row |= {"gpunn_host_ms": host[0], "torch_host_ms": host[1]}
    least = limits.seconds(case) * 1e3
    if least:
        row |= {"percent_of_limit": 100 * least / ours, "torch_percent": 100 * least / theirs}
    return row


def measure_all(
    named: Sequence[tuple[str, Case]], packages: Sequence[Any], limits: Limits, quick: bool
) -> dict[str, dict[str, Any]]:
    """All rows, printed as they come; a case that fails does not stop the others."""
    flush = Flush(packages[0])
    width = max([len(name) for name, _ in named] + [8])
    print(header(width))
    rows: dict[str, dict[str, Any]] = {}
    for name, case in named:
        try:
            rows[name] = measure(case, packages, flush, limits, quick)
        except Exception as error:
            rows[name] = {"dtype": case.dtype, "error": f"{type(error).__name__}: {error}"}
        print(line(name, rows[name], width), flush=True)
        gc.collect()
        for T in packages:
            T.cuda.empty_cache()
    return rows


# --- reporting ------------------------------------------------------------------------------


def header(width: int) -> str:
    """The table's first line."""
    return (
        f"{'case':{width}s} {'gpunn ms':>9s} {'torch ms':>9s} {'ratio':>6s} "
        f"{'% limit':>8s} {'torch %':>8s} {'gpunn host':>11s} {'torch host':>11s}"
    )


def line(name: str, row: dict[str, Any], width: int) -> str:
    """A line of the table."""
    if "error" in row:
        return f"{name:{width}s} {row['error'].splitlines()[0]}"
    shares = [row.get(key) for key in ("percent_of_limit", "torch_percent")]
    limit = " ".join(f"{'-':>8s}" if s is None else f"{s:8.1f}" for s in shares)
    times = f"{row['gpunn_ms']:9.4f} {row['torch_ms']:9.4f} {row['ratio']:6.2f}"
    return (
        f"{name:{width}s} {times} {limit} "
        f"{row['gpunn_host_ms']:11.4f} {row['torch_host_ms']:11.4f}"
    )


def summary(rows: dict[str, dict[str, Any]]) -> str:
    """The table's last line: the mean of the ratios, and how many cases are slower or failed."""
    ratios = [row["ratio"] for row in rows.values() if "ratio" in row]
    failed = len(rows) - len(ratios)
    mean = statistics.geometric_mean(ratios) if ratios else float("nan")
    slower = sum(ratio < 1 for ratio in ratios)
    return (
        f"{len(rows)} cases: geometric mean of the ratios {mean:.2f}, {slower} slower than "
        f"PyTorch, {failed} failed"
    )


def environment(gpunn: Any, torch: Any, limits: Limits) -> dict[str, Any]:
    """What the numbers depend on."""
    cupy = gpunn.device("cuda").xp
    runtime = cupy.cuda.runtime.runtimeGetVersion()
    return {
        "device": gpunn.cuda.get_device_name(), "driver": _driver(),
        "cuda": f"{runtime // 1000}.{runtime % 1000 // 10}", "cuda of torch": torch.version.cuda,
        "cupy": cupy.__version__, "torch": torch.__version__, "gpunn": gpunn.__version__,
        "numpy": np.__version__, "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "bandwidth": limits.bandwidth, "flops": limits.flops, "limits": limits.source,
    }  # fmt: skip


def _driver() -> str:
    """The NVIDIA driver's version."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return text.splitlines()[0].strip() if text else "unknown"


def result_path(device: str) -> Path:
    """results/<device>-<date>.json"""
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return RESULTS / f"{slug}-{time.strftime('%Y-%m-%d')}.json"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, path)
