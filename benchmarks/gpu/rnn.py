"""kernels/rnn.cu: steps of LSTM and GRU cells, alone and with their matrix products.

The point-wise steps are timed against PyTorch's own fused ones, `aten::_thnn_fused_lstm_cell` and
`_thnn_fused_gru_cell`, on the same gates; the bytes are those of the kernel's header. PyTorch's GRU
keeps five values an entry for the gradient, gpunn four (gpunn's are counted).
"""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.harness import Case, backward_of, draw, fill

SIZES = {"float32": 4, "float16": 2}
GATES = {"lstm": 4, "gru": 3}
# Values an entry of a state that a step must move: forward (with what is kept), backward.
MOVED = {"lstm": (15, 14), "gru": (12, 13)}
STATES = [(64, 512), (256, 1024), (4096, 1024)]


def step(T: Any, kind: str) -> Any:
    """The point-wise step, of gates and state to the new h."""
    from gpunn.nn import rnn_step

    if T.__name__ != "torch":
        fused, plain = (getattr(rnn_step, f"{kind}_step"),) * 2
    else:  # PyTorch has its fused steps on the GPU alone; the formulas are anyone's
        fused = getattr(T.ops.aten, f"_thnn_fused_{kind}_cell")
        plain = getattr(rnn_step, f"{kind}_composed")

    def run(gi: Any, gh: Any, state: Any) -> Any:
        made = (fused if state.is_cuda else plain)(gi, gh, state)
        return made[0] if isinstance(made, tuple) else made

    return run


def pointwise(kind: str, rows: int, n: int, dtype: str) -> list[Case]:
    def inputs(T: Any) -> list[Any]:
        wide = (rows, GATES[kind] * n)
        shapes = (wide, wide, (rows, n))
        return [draw(T, s, dtype, seed=i).requires_grad_() for i, s in enumerate(shapes)]

    def forward(T: Any) -> Any:
        parts, f = inputs(T), step(T, kind)
        return lambda: f(*parts).detach()

    def backward(T: Any) -> Any:
        return backward_of(T, step(T, kind), *inputs(T))

    name, entry = f"{kind} step {rows}x{n} {dtype}", rows * n * SIZES[dtype]
    there, back = MOVED[kind]
    return [Case(name, forward, moved_bytes=there * entry, dtype=dtype),
            Case(f"{name} back", backward, moved_bytes=back * entry, dtype=dtype)]  # fmt: skip


def cell(kind: str, rows: int, n: int, dtype: str) -> Case:
    """A whole cell, forward and backward."""

    def build(T: Any) -> Any:
        made = fill(T, getattr(T.nn, f"{kind.upper()}Cell")(n, n), dtype)
        x, h = draw(T, (rows, n), dtype), draw(T, (rows, n), dtype, seed=1)

        def run() -> Any:
            y = made(x, (h, h))[0] if kind == "lstm" else made(x, h)
            return T.autograd.grad(y, made.parameters(), x)

        return run

    flops = 3 * 2 * 2 * rows * n * GATES[kind] * n  # two products, each with two gradients
    flops -= 2 * 2 * rows * n * GATES[kind] * n  # x and h need none
    return Case(f"{kind} cell {rows}x{n} {dtype}, both ways", build, flops=flops, dtype=dtype)


def cases(tiny: bool = False) -> list[Case]:
    found = []
    for kind in GATES:
        for dtype in ("float32",) if tiny else SIZES:
            for rows, n in [(3, 5), (2, 8)] if tiny else STATES:
                found += pointwise(kind, rows, n, dtype)
                found.append(cell(kind, rows, n, dtype))
    return found
