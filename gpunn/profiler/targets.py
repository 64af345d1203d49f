"""Which functions a profiler observes, and what PyTorch calls them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import numpy as np

from gpunn.profiler.recorder import Recorder
from gpunn.tensor import Tensor, wrap

#: Public functions that PyTorch's operators have another name for.
_RENAMED: dict[str, dict[str, str]] = {
    "": {"unique": "_unique2"},
    "nn.functional": {
        "cross_entropy": "cross_entropy_loss", "logsigmoid": "log_sigmoid", "fold": "col2im",
        "unfold": "im2col", "dropout1d": "feature_dropout", "dropout2d": "feature_dropout",
        "dropout3d": "feature_dropout", "affine_grid": "affine_grid_generator",
        "grid_sample": "grid_sampler", "nll_loss": "nll_loss_nd",
        "max_unpool1d": "max_unpool2d",
    },
    "Tensor": {
        "T": "numpy_T", "H": "matrix_H", "mT": "mT", "mH": "mH", "real": "real", "imag": "imag",
        **dict.fromkeys(
            ("cpu", "cuda", "type", "bfloat16", "bool", "byte", "cdouble", "cfloat", "char",
             "double", "float", "half", "int", "long", "short"), "to",
        ),
    },
}  # fmt: skip
_OPERATORS = {
    "and": "__and__", "or": "__or__", "xor": "__xor__", "lshift": "__lshift__",
    "rshift": "__rshift__", "truediv": "div", "mod": "remainder", "floordiv": "floor_divide",
    "neg": "neg", "pos": "positive", "invert": "bitwise_not", "abs": "abs",
    **{name: name for name in ("add", "sub", "mul", "div", "pow", "matmul")},
    **{name: name for name in ("eq", "ne", "lt", "le", "gt", "ge")},
}  # fmt: skip
#: What computes nothing, or is made of operations alone, which are seen.
_LEFT_OUT = {
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d_with_indices", "apply_", "as_subclass", "as_tensor", "asarray",
    "broadcast_shapes", "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d_with_indices", "from_numpy", "frombuffer", "get_rng_state",
    "initial_seed", "is_conj", "is_contiguous", "is_neg", "is_pinned", "is_shared",
    "manual_seed", "map_", "multi_head_attention_forward", "new", "new_tensor", "seed",
    "set_default_tensor_type", "set_rng_state", "share_memory_",
    "triplet_margin_with_distance_loss", "upsample", "upsample_bilinear", "upsample_nearest",
}  # fmt: skip
_MODULES = ("gpunn.ops.", "gpunn.nn.", "gpunn.linalg.", "gpunn.special.", "gpunn.random")
_NOT_MODULES = ("gpunn.ops.query", "gpunn.ops.interop", "gpunn.nn.parameter")


@functools.cache
def operations() -> dict[FunctionType, Any]:
    """The functions and their names; a function of the arguments where the name depends on them."""
    import gpunn
    from gpunn import linalg, special
    from gpunn.nn import functional

    found: dict[FunctionType, Any] = {}
    for space, members, prefix in (
        ("", vars(gpunn), ""), ("Tensor", vars(Tensor), ""),
        ("nn.functional", vars(functional), ""), ("linalg", vars(linalg), "linalg_"),
        ("special", vars(special), "special_"),
    ):  # fmt: skip
        renamed = _RENAMED.get(space, {})
        for name, function in _functions(members, renamed):
            found.setdefault(function, f"aten::{renamed.get(name) or prefix + name}")
    found.update(_of_tensor())
    found[functional.interpolate] = _resize_name  # type: ignore[index]
    return found


def _functions(members: Any, wanted: Any) -> Iterator[tuple[str, FunctionType]]:
    """The operations of a namespace with their names there, aliases after the true names."""
    for name, value in sorted(members.items(), key=lambda item: _is_alias(*item)):
        if isinstance(value, property):
            value = value.fget if name in wanted else None
        if not isinstance(value, FunctionType) or name.startswith("_") or name in _LEFT_OUT:
            continue
        module = value.__globals__["__name__"]  # __module__ is where pickle finds it
        if module.startswith(_MODULES) and not module.startswith(_NOT_MODULES):
            yield name, value


def _is_alias(name: str, value: Any) -> bool:
    return getattr(value, "__name__", name) != name


def _of_tensor() -> Iterator[tuple[FunctionType, Any]]:
    """Python's operators, indexing, and the methods that stand in tensor.py."""
    members = vars(Tensor)
    for name, aten in _OPERATORS.items():
        yield from _operator(members, name, aten)
    yield members["__getitem__"], _read_name
    yield members["__setitem__"], _write_name
    yield members["__rsub__"], "aten::rsub"
    yield members["__bool__"], "aten::is_nonzero"
    yield members["item"], "aten::item"
    yield members["detach"], "aten::detach"


def _operator(members: Any, name: str, aten: str) -> Iterator[tuple[FunctionType, str]]:
    for form, suffix in ((f"__{name}__", ""), (f"__r{name}__", ""), (f"__i{name}__", "_")):
        function = members.get(form)
        if not isinstance(function, FunctionType):
            continue
        known = getattr(function, "__name__", "")
        if known in ("op", "operator", "reflected", "<lambda>", "_rsub") or suffix:
            in_place = f"__i{aten[2:]}" if aten.startswith("__") else f"{aten}_"
            yield function, f"aten::{in_place if suffix else aten}"


def _read_name(args: Any, kwargs: Any) -> str:
    key = args[1] if len(args) > 1 else None
    parts = key if type(key) is tuple else (key,)
    if any(isinstance(k, (Tensor, list, np.ndarray)) for k in parts):
        return "aten::index"
    if any(isinstance(k, slice) for k in parts):
        return "aten::slice"
    if any(k is None for k in parts):
        return "aten::unsqueeze"
    return "aten::select" if any(isinstance(k, int) for k in parts) else "aten::alias"


def _write_name(args: Any, kwargs: Any) -> str:
    return "aten::index_put_" if _read_name(args, kwargs) == "aten::index" else "aten::copy_"


_LAYERS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}


def _workers() -> Iterator[tuple[Any, Any, int]]:
    """What modules call in the place of public functions: its name from its arguments, and how
    many of them are no inputs."""
    from gpunn.nn import conv, conv_transpose, rnn_layers

    by_name = lambda args, kwargs: f"aten::{args[0]}"  # noqa: E731
    by_kind = lambda args, kwargs: f"aten::{_LAYERS[args[0]]}"  # noqa: E731
    yield conv.conv, by_name, 2
    yield conv_transpose._transposed, by_name, 2
    yield rnn_layers.padded, by_kind, 1
    yield rnn_layers.packed, by_kind, 1


def _resize_name(args: Any, kwargs: Any) -> str:
    """PyTorch's operator for a call of `interpolate`."""
    given = dict(zip(("input", "size", "scale_factor", "mode", "_", "_", "antialias"), args))  # noqa: B905
    given.update(kwargs)
    dims, mode = getattr(given.get("input"), "ndim", 4) - 2, given.get("mode", "nearest")
    if mode == "area":
        return f"aten::adaptive_avg_pool{dims}d"
    if mode == "nearest-exact":
        return f"aten::_upsample_nearest_exact{dims}d"
    smooth = given.get("antialias")
    return f"aten::{'_' if smooth else ''}upsample_{mode}{dims}d{'_aa' if smooth else ''}"


# --- what is not an operation ---------------------------------------------------------------


def install(recorder: Any) -> None:
    """Lets a recorder observe operations, backward, optimizers, data loading and modules."""
    from gpunn.autograd.function import Function
    from gpunn.autograd.walk import _Walk
    from gpunn.nn.module import Module
    from gpunn.utils.data.dataloader import _BaseDataLoaderIter

    on = recorder.switches.on
    if recorder.modules:
        on(Module.__call__, recorder.module(Module.__call__))
    if not recorder.cpu and not recorder.cuda:
        return
    owners = _owners_added()
    on(_Walk.apply, recorder.backward(_Walk.apply))
    on(_Walk.accumulate, recorder.accumulation(_Walk.accumulate, owners))
    for function, name in operations().items():
        on(function, recorder.operation(function, name))
    for worker, name, skip in _workers():
        on(worker, recorder.operation(worker, name, skip))
    apply = Function.apply.__func__  # type: ignore[attr-defined]
    on(apply, recorder.operation(apply, lambda args, kwargs: args[0].__name__))
    _install_optimizers(recorder)
    on(_BaseDataLoaderIter.__next__, recorder.span(_BaseDataLoaderIter.__next__, _batch_name))


def _batch_name(args: Any, kwargs: Any) -> str:
    return f"enumerate(DataLoader)#{type(args[0]).__name__}.__next__"


def _install_optimizers(recorder: Any) -> None:
    from gpunn.optim.optimizer import Optimizer

    steps = {}
    kinds: list[type] = [Optimizer]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        step = vars(kind).get("step")
        if isinstance(step, FunctionType):
            steps[step] = functools.partial(_step_name, step)
    for step, name in steps.items():
        recorder.switches.on(step, recorder.span(step, name, _gpu_of_optimizer))
    clear = Optimizer.zero_grad
    recorder.switches.on(clear, recorder.span(clear, _clear_name, _gpu_of_optimizer))


def _step_name(step: FunctionType, args: Any, kwargs: Any) -> str | None:
    """None where a subclass's step has called this one."""
    kind = type(args[0])
    own = kind.step
    return f"Optimizer.step#{kind.__name__}.step" if own is step else None


def _clear_name(args: Any, kwargs: Any) -> str:
    kind = type(args[0]).__name__
    return f"Optimizer.zero_grad#{kind}.zero_grad"


def _gpu_of_optimizer(args: Any) -> Any:
    for group in getattr(args[0], "param_groups", ()):
        for p in group["params"]:
            return p.device if p.device.type == "cuda" else None
    return None


def _owners_added() -> int:
    """How many references to a gradient an observed `accumulate` counts more than an unobserved
    one: it takes over an array that nobody else has."""
    seen = []

    def accumulate(walk: Any, leaf: Any, g: Any, owned: int) -> None:
        seen.append(sys.getrefcount(g))

    probe = Recorder()
    leaf = wrap(np.zeros(1))

    def pass_on() -> None:
        accumulate(None, leaf, np.ones(1), 0)

    pass_on()
    probe.switches.on(accumulate, probe.accumulation(accumulate, 0))  # type: ignore[arg-type]
    pass_on()
    probe.switches.off()
    return seen[1] - seen[0]
