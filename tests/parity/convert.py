"""Values between PyTorch and the package under test.

`Package` is the package under test. Its `translate` takes anything a PyTorch sample holds
(tensors, dtypes, devices, functions, nested containers) to the same thing of that package, and
`to_torch` brings tensors back for the comparison. The package may be torch itself: the suite is
validated by running PyTorch against PyTorch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import math
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

_NUMPY_NAMES = {torch.bool: "bool", torch.bfloat16: "bfloat16"}
_PUBLIC = (
    "", "nn.functional", "nn", "nn.utils.rnn", "nn.init", "nn.parameter", "optim", "linalg",
    "special", "fft", "autograd", "masked", "signal.windows", "Tensor",
)  # fmt: skip


class Unconvertible(Exception):
    """The sample holds something NumPy cannot carry (a sparse layout, complex32, ...)."""


class Absent(AttributeError):
    """The package under test lacks a name that the sample's arguments need."""


class Missing:
    """Stands for a name that the package under test does not have; using it says so."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, *args, **kwargs):
        raise Absent(f"no {self.path!r} in the package under test")

    def __getattr__(self, name: str):
        raise Absent(f"no {self.path!r} in the package under test")


def lookup(root: Any, path: str) -> Any:
    """The object at a dotted path below root, or None."""
    for name in path.split("."):
        root = getattr(root, name, None)
        if root is None:
            return None
    return root


@functools.cache
def _paths() -> dict[int, tuple[str, Any]]:
    """id of each public PyTorch callable -> its dotted path below torch, and the callable."""
    found: dict[int, tuple[str, Any]] = {}
    for prefix in _PUBLIC:
        space = lookup(torch, prefix) if prefix else torch
        for name in sorted(dir(space), key=lambda name: (name[0] == "_", name)):
            value = getattr(space, name, None)
            home = getattr(value, "__module__", None) or "torch"
            if callable(value) and home.startswith("torch"):
                found.setdefault(id(value), (f"{prefix}.{name}".lstrip("."), value))
    return found


def path_of(value: Any) -> str | None:
    """The dotted path of a PyTorch object below torch, None for anything else."""
    return _paths().get(id(value), (None,))[0]


def storage_of(t: torch.Tensor) -> int:
    """The address of the memory that a tensor lives in (0 where it has none)."""
    return t.untyped_storage().data_ptr() if t.layout == torch.strided else 0


class Package:
    """The package under test: how to find its functions and how to build its values."""

    own_numbers = False  # whether its random numbers are others than PyTorch's on the CPU

    def __init__(self, name: str = "gpunn") -> None:
        self.name = name
        self.module = importlib.import_module(name)
        self._functions: dict[int, tuple[Any, Any]] = {}

    # -- names ---------------------------------------------------------------------------

    def find(self, path: str) -> Any:
        """The object at a dotted path of PyTorch's, or None."""
        return lookup(self.module, path)

    def need(self, path: str) -> Any:
        """The object at a dotted path, or a stand-in that raises when it is used."""
        value = self.find(path)
        return Missing(path) if value is None else value

    # -- values --------------------------------------------------------------------------

    def translate(self, value: Any, memo: dict | None = None) -> Any:
        """The same value for the package under test.

        Tensors keep shape, strides, dtype and requires_grad; tensors that share memory (or are
        the same object) within one call still do. Unconvertible is raised where that is
        impossible.
        """
        memo = {} if memo is None else memo
        if isinstance(value, torch.Tensor):
            key = ("tensor", id(value))
            if key not in memo:
                memo[key] = (self._tensor(value, memo), value)
            return memo[key][0]
        if isinstance(value, torch.Size):
            return self.need("Size")(value)
        if isinstance(value, torch.nn.utils.rnn.PackedSequence):
            packed = self.need("nn.utils.rnn.PackedSequence")
            return packed(*(self.translate(v, memo) for v in value))
        if isinstance(value, list | tuple):
            items = [self.translate(v, memo) for v in value]
            if hasattr(value, "_fields"):
                return type(value)(*items)
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, dict):
            return type(value)((k, self.translate(v, memo)) for k, v in value.items())
        if isinstance(value, slice):
            parts = (value.start, value.stop, value.step)
            return slice(*(self.translate(v, memo) for v in parts))
        return self._constant(value)

    def _constant(self, value: Any) -> Any:
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
            path = str(value).removeprefix("torch.")
            if (found := self.find(path)) is None:
                raise Absent(f"no {path!r} in the package under test")
            return found
        if isinstance(value, torch.device):
            return self.need("device")(str(value))
        if isinstance(value, torch.Generator):
            return self.need("Generator")().manual_seed(value.initial_seed())
        if isinstance(value, torch.nn.Module):
            return self._module(value)
        if isinstance(value, torch.nn.LinearCrossEntropyOptions):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return self.need("nn.LinearCrossEntropyOptions")(**self.translate(fields))
        if isinstance(value, types.ModuleType) and value.__name__.split(".")[0] == "torch":
            path = value.__name__.partition(".")[2]
            return self.need(path) if path else self.module
        if callable(value):
            return self._function(value)
        return value

    def _module(self, module: torch.nn.Module) -> Any:
        """A module without parameters, as samples pass them for distance functions."""
        cls = type(module)
        if next(module.parameters(), None) is not None:
            raise Unconvertible(f"module {cls.__name__} with parameters")
        names = cls.__init__.__code__.co_varnames[1 : cls.__init__.__code__.co_argcount]
        kwargs = {n: getattr(module, n) for n in names if hasattr(module, n)}
        return self.need(f"nn.{cls.__name__}")(**kwargs)

    # -- functions -----------------------------------------------------------------------

    def _function(self, fn: Any) -> Any:
        if id(fn) in self._functions:
            return self._functions[id(fn)][0]
        path = path_of(fn)
        if path is not None:
            result = self.need(path)
        elif isinstance(fn, functools.partial):
            kwargs = {k: self.translate(v) for k, v in fn.keywords.items()}
            args = [self.translate(a) for a in fn.args]
            return functools.partial(self._function(fn.func), *args, **kwargs)
        elif isinstance(fn, types.FunctionType) and fn.__module__.startswith("torch"):
            return self._rebound(fn)
        elif type(fn).__module__.startswith("torch._ops"):
            result = Missing(str(fn))
        else:
            result = fn
        self._functions[id(fn)] = (result, fn)
        return result

    def _rebound(self, fn: types.FunctionType) -> Any:
        """A copy of a Python function whose global `torch` is the package under test."""
        if fn.__name__ == "wrapper_set_seed":  # the suite seeds both packages before each call
            return lambda op, *args, **kwargs: op(*args, **kwargs)
        scope: dict[str, Any] = {"__builtins__": __builtins__, "__name__": fn.__module__}
        cells = None
        if fn.__closure__ is not None:
            cells = tuple(types.CellType(self.translate(c.cell_contents)) for c in fn.__closure__)
        copy = types.FunctionType(fn.__code__, scope, fn.__name__, None, cells)
        self._functions[id(fn)] = (copy, fn)
        copy.__defaults__ = self.translate(fn.__defaults__)
        copy.__kwdefaults__ = self.translate(fn.__kwdefaults__)
        for name in _global_names(fn.__code__):
            if name in fn.__globals__:
                try:
                    scope[name] = self.translate(fn.__globals__[name])
                except Absent:
                    scope[name] = Missing(name)
        return copy

    # -- tensors -------------------------------------------------------------------------

    def _tensor(self, t: torch.Tensor, memo: dict) -> Any:
        if not carried(t):
            raise Unconvertible(f"{t.dtype}, {t.layout}, {t.device}, {t.ndim} dimensions")
        source = t.detach().resolve_conj().resolve_neg()
        key = ("storage", storage_of(source) or id(source))
        if key not in memo:  # the source is kept with its copy: its address must not be reused
            memo[key] = (self._storage(source), source)
        result = self._view(source, memo[key][0])
        if isinstance(t, torch.nn.Parameter):
            return self.need("nn.Parameter")(result, requires_grad=t.requires_grad)
        return result.requires_grad_() if t.requires_grad else result

    def _storage(self, t: torch.Tensor) -> Any:
        raw = torch.empty(0, dtype=torch.uint8).set_(t.untyped_storage())
        return raw.numpy().copy()

    def _view(self, t: torch.Tensor, storage: np.ndarray) -> Any:
        dtype = numpy_dtype(t.dtype)
        if not t.numel():
            array = np.empty(tuple(t.shape), dtype)
        else:
            size = dtype.itemsize
            strides = tuple(s * size for s in t.stride())
            offset = t.storage_offset() * size
            array = np.ndarray(tuple(t.shape), dtype, storage, offset, strides)
        return importlib.import_module("gpunn.tensor").wrap(array)

    def seed(self, seed: int) -> None:
        """Start the package's random numbers anew."""
        self.module.manual_seed(seed)

    # -- calls ---------------------------------------------------------------------------

    def active(self) -> contextlib.AbstractContextManager:
        """A context in which the package can be called."""
        return contextlib.nullcontext()

    def begin(self, args: Any) -> None:
        """Before a call with these arguments: its random numbers start anew."""
        self.seed(7)

    def settle(self) -> None:
        """Wait for what the calls so far have left to do: an error may come late."""

    # -- back ----------------------------------------------------------------------------

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, self.module.Tensor)

    def tensors(self, value: Any) -> list:
        """The package's tensors inside nested containers, in order."""
        if self.is_tensor(value):
            return [value]
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            return [t for v in value for t in self.tensors(v)]
        return []

    def to_torch(self, value: Any) -> torch.Tensor:
        """A tensor of the package under test as a plain PyTorch tensor (a copy)."""
        array = value.array
        if value.dtype != self.module.bfloat16:
            return torch.from_numpy(np.array(array, order="C", copy=True).reshape(array.shape))
        bits = np.ascontiguousarray(array).reshape(array.shape).view(np.int16)
        return torch.from_numpy(bits.copy()).view(torch.bfloat16)

    def well_placed(self, got: Any, want: torch.Tensor) -> bool:
        """Whether a tensor lies on the device where it should, PyTorch's being `want`."""
        return str(got.device) == str(want.device)

    def memory(self, value: Any) -> int:
        """Where the memory of a tensor starts: equal for tensors that share it."""
        array = base = value.array
        while base is not None:  # as_strided puts an object with a `base` in between
            array = base if isinstance(base, np.ndarray) else array
            base = getattr(base, "base", None)
        return array.__array_interface__["data"][0]


class Itself(Package):
    """PyTorch as the package under test: every case must pass."""

    def _storage(self, t: torch.Tensor) -> Any:
        return t.untyped_storage().clone()

    def _view(self, t: torch.Tensor, storage: Any) -> Any:
        if not t.numel():
            return torch.empty(t.shape, dtype=t.dtype)
        return torch.empty(0, dtype=t.dtype).set_(storage, t.storage_offset(), t.shape, t.stride())

    def to_torch(self, value: torch.Tensor) -> torch.Tensor:
        return value.detach().resolve_conj().resolve_neg().clone()

    def memory(self, value: torch.Tensor) -> int:
        return storage_of(value)

    def seed(self, seed: int) -> None:
        # torch.manual_seed formats three stack traces for devices that are not there: 1 ms.
        torch.default_generator.manual_seed(seed)


class Emulated(Package):
    """gpunn on an emulated CUDA device, which takes the place of the CPU in all samples."""

    own_numbers = True  # Philox's
    index, count = 0, 1  # of the device, and of all that there are

    def __init__(self) -> None:
        super().__init__("gpunn")
        folder = str(Path(__file__).parents[1])
        if folder not in sys.path:
            sys.path.append(folder)
        self.stand_in = importlib.import_module("emulated")
        self.device = self.module.device("cuda", self.index)
        self.without_tensors = False

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The device is there, and the default for new tensors."""
        with self.stand_in.device(self.count):
            self.module.set_default_device(self.device)
            try:
                yield
            finally:
                self.module.set_default_device("cpu")

    def begin(self, args: Any) -> None:
        super().begin(args)
        self.without_tensors = not self.tensors(args)

    def settle(self) -> None:
        self.module.cuda.synchronize(self.device)

    def _constant(self, value: Any) -> Any:
        if isinstance(value, torch.device) or value == "cpu":
            return self.device
        return super()._constant(value)

    def _storage(self, t: torch.Tensor) -> Any:
        with self.module.cuda.device(self.device):
            return self.stand_in.up(super()._storage(t))

    def _view(self, t: torch.Tensor, storage: np.ndarray) -> Any:
        array = super()._view(t, storage).array
        wrap = importlib.import_module("gpunn.tensor").wrap
        with self.module.cuda.device(self.device):
            if t.numel():  # a view of the storage, which lies on the device
                parts = array.shape, array.dtype, storage
                start = t.storage_offset() * array.itemsize
                array = self.stand_in.ndarray(*parts, start, array.strides)
            return wrap(self.stand_in.up(array), self.device)

    def well_placed(self, got: Any, want: torch.Tensor) -> bool:
        """Results of numbers alone, and an optimizer's scalars, may lie on the CPU."""
        scalar = self.without_tensors and got.ndim == 0
        return got.device is self.device or (scalar and str(got.device) == "cpu")

    def seed(self, seed: int) -> None:
        super().seed(seed)
        self.module.cuda.manual_seed_all(seed)

    def to_torch(self, value: Any) -> torch.Tensor:
        return super().to_torch(value.detach().cpu())


class Second(Emulated):
    """gpunn on the second of two emulated GPUs, while the first is the current one: each call
    starts with the first one current in the runtime, too, and must leave it current for users."""

    index, count = 1, 2

    def begin(self, args: Any) -> None:
        super().begin(args)
        self._first()

    def settle(self) -> None:
        super().settle()
        self._first()

    def _first(self) -> None:
        assert self.module.cuda.current_device() == 0
        self.stand_in.module().cuda.runtime.setDevice(0)


TORCH = Itself("torch")


def package(name: str) -> Package:
    """The package under test by name: "torch" is PyTorch itself, "emulated" gpunn on a GPU,
    "second" on the second of two."""
    kinds: dict[str, Any] = {"torch": lambda: TORCH, "emulated": Emulated, "second": Second}
    return kinds.get(name, lambda: Package(name))()


def numpy_dtype(dtype: torch.dtype) -> np.dtype:
    """NumPy's dtype of a PyTorch dtype."""
    if dtype == torch.bfloat16:
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(_NUMPY_NAMES.get(dtype, str(dtype).removeprefix("torch.")))


def _global_names(code: types.CodeType) -> set[str]:
    """Names that a code object or a function inside it may read from its globals."""
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= _global_names(const)
    return names


def describe(value: Any, values: bool = False) -> str:
    """A short form of a sample: `f32[2,3]`, strides where not contiguous, g where it needs one."""
    if isinstance(value, torch.Tensor):
        return _describe_tensor(value, values)
    if isinstance(value, list | tuple):
        inner = ", ".join(describe(v, values) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, dict):
        return ", ".join(f"{k}={describe(v, values)}" for k, v in value.items())
    if isinstance(value, types.FunctionType | functools.partial):
        return "<function>"
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _describe_tensor(t: torch.Tensor, values: bool) -> str:
    letter = {"complex": "c", "bfloat": "bf", "float": "f", "int": "i", "uint": "u", "bool": "b"}
    name = str(t.dtype).removeprefix("torch.")
    stem = name.rstrip("0123456789")
    text = f"{letter.get(stem, stem)}{name[len(stem) :]}[{','.join(map(str, t.shape))}]"
    if t.layout == torch.strided and not t.is_contiguous():
        text += f"/strides{tuple(t.stride())}"
    if t.requires_grad:
        text += "g"
    if values and t.layout == torch.strided and 0 < t.numel() <= 24:
        text += "=" + str(t.detach().tolist())
    return text


def carried(t: torch.Tensor) -> bool:
    """Whether NumPy has the like of a tensor: dense, of a dtype it knows, at most 64 dimensions."""
    dense = t.layout == torch.strided and not t.is_quantized and not t.is_nested
    odd = t.dtype == torch.complex32 or "float8" in str(t.dtype)
    return dense and not odd and t.ndim <= 64 and t.device.type == "cpu"


def elements(value: Any) -> int:
    """The number of elements of all tensors of a sample."""
    return sum(math.prod(t.shape) for t in TORCH.tensors(value))
