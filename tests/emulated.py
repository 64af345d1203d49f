"""A CUDA device on a machine without a GPU: CuPy's stand-in on NumPy, kernels run by the emulator.

Inside `device()` CUDA is available: `gpunn.device("cuda")` has arrays of a NumPy subclass that
refuses to mix with host arrays as CuPy's does, and its `RawModule` is the emulator, so the
launchers run as they are and the kernels' own text is what computes.

`on_both` compares an operation there with the same on the CPU in float64, `same_bits` runs it in
several orders of threads and blocks, `check_build` looks for races, bad accesses and barriers.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import types

import emulator
import fake_cupy
import numpy as np
import pytest
from check import TOLERANCE, in_dtype, strided

import gpunn
from gpunn.cuda.kernels import faults

# --- arrays -------------------------------------------------------------------------------


class ndarray(np.ndarray):  # noqa: N801
    """An array "on the GPU": operations give arrays again, never NumPy's scalars."""

    device = type("Device", (), {"id": 0})()

    @property
    def data(self):
        return type("MemoryPointer", (), {"ptr": self.ctypes.data, "mem": None, "device_id": 0})

    @property
    def _c_contiguous(self):
        return self.flags.c_contiguous

    def get(self):
        return np.array(self, subok=False)

    def set(self, source):
        plain(self)[...] = source

    def copy(self, order="C"):
        return up(plain(self).copy(order=order))

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        options = plain(options if out is None else {**options, "out": tuple(out)})
        made = getattr(ufunc, method)(*(plain(x) for x in inputs), **options)
        return out[0] if out is not None and len(out) == 1 else up(made)

    def __array_function__(self, function, types, args, options):
        return up(function(*plain(args), **plain(options)))

    @property
    def base(self):
        """The array that this is a view of: one of the stand-in, which keeps NumPy's to itself."""
        base = super().base
        return None if type(base) is np.ndarray else base

    def __getitem__(self, key):
        key = plain(key, strict=False)
        found = super().__getitem__(key)
        if isinstance(found, np.generic):  # CuPy gives a view
            found = super().__getitem__((*(key if isinstance(key, tuple) else (key,)), ...))
        return found

    def __setitem__(self, key, value):
        plain(self)[plain(key, strict=False)] = plain(value)

    def __array_wrap__(self, made, context=None, return_scalar=False):
        return up(made)


ndarray.__module__ = "cupy"


def plain(x, strict=True):
    """NumPy's arrays for those of the stand-in, inside containers too; host arrays are refused."""
    if isinstance(x, ndarray):
        return x.view(np.ndarray)
    if isinstance(x, np.ndarray) and strict:
        raise TypeError(f"Unsupported type {type(x)}: a host array met one of the GPU")
    if isinstance(x, (list, tuple)) and not hasattr(x, "_fields"):
        return type(x)(plain(v, strict) for v in x)
    if isinstance(x, dict):
        return {key: plain(v, strict) for key, v in x.items()}
    return x


def up(x):
    """Arrays and scalars of NumPy as arrays of the stand-in, inside containers too."""
    if isinstance(x, np.ndarray):
        return x.view(ndarray)
    if isinstance(x, np.generic):
        return np.asarray(x).view(ndarray)
    if isinstance(x, (list, tuple)):
        parts = [up(v) for v in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return x


def _method(name):
    def call(self, *args, **options):
        made = getattr(plain(self), name)(*plain(args), **plain(options))
        return options["out"] if options.get("out") is not None else up(made)

    return functools.wraps(getattr(np.ndarray, name))(call)


_METHODS = """
    sum prod mean var std max min argmax argmin any all cumsum cumprod argsort argpartition clip
    round astype repeat take nonzero ravel flatten trace conj conjugate dot searchsorted
"""
for _name in _METHODS.split():
    setattr(ndarray, _name, _method(_name))


def _diagonal(self, *args, **options):
    made = np.ndarray.diagonal(self, *args, **options)
    made.flags.writeable = True  # CuPy's is
    return made


ndarray.diagonal = _diagonal


# --- the module ---------------------------------------------------------------------------


class Pinned(bytearray):
    """Host memory that the device can reach."""

    known: dict[int, Pinned] = {}

    def __init__(self, size):
        super().__init__(size)
        self.ptr = ctypes.addressof(ctypes.c_char.from_buffer(self))
        self.size = size
        self.known[self.ptr] = self

    @classmethod
    def at(cls, address):
        """The `Fault` at an address inside pinned memory, or None."""
        for start, memory in cls.known.items():
            if start <= address < start + len(memory):
                return np.frombuffer(memory, faults.RECORD, 1, int(address) - start)
        return None


class Function:
    """A kernel as CuPy's RawKernel is called; the addresses of pinned memory become arrays."""

    launches: list[str] = []  # the names of the kernels launched, for tests to look at

    def __init__(self, name, inner):
        self.name, self.inner = name, inner

    @property
    def max_dynamic_shared_size_bytes(self):
        return self.inner.max_dynamic_shared_size_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        self.inner.max_dynamic_shared_size_bytes = size

    def __call__(self, grid, block, args, shared_mem=0):
        self.launches.append(self.name)
        ready = []
        for arg in args:
            record = Pinned.at(arg) if type(arg) is np.uint64 else None
            ready.append(arg if record is None else record)
        self.inner(grid, block, tuple(ready), shared_mem=shared_mem)


class CompileException(Exception):
    """CuPy's error for a text that does not compile."""


class RawModule:
    def __init__(self, **options):
        self.inner = emulator.RawModule(**options)

    def get_function(self, name):
        try:
            self.inner.compile()
        except emulator.CompileError as error:
            raise CompileException(str(error)) from None
        return Function(name, self.inner.get_function(name))


def _function(f):
    @functools.wraps(f)
    def call(*args, **options):
        made = f(*plain(args), **plain(options))
        return options["out"] if options.get("out") is not None else up(made)

    return call


@functools.cache
def module():
    """The stand-in `cupy`, one for all tests, so that a kernel is compiled once."""
    cupy = fake_cupy.make(capacity=1 << 40)

    def from_numpy(name):
        if name.startswith("__"):  # of the module itself: its file is not NumPy's
            raise AttributeError(name)
        found = getattr(np, name)
        if isinstance(found, (np.ufunc, type)) or not callable(found):
            return found
        made = _function(found)
        setattr(cupy, name, made)
        return made

    def array(source, dtype=None, copy=True, order="K"):
        return up(np.array(plain(source, strict=False), dtype, order=order, copy=True))

    def asarray(source, dtype=None, order=None):
        if isinstance(source, ndarray) and (dtype is None or source.dtype == dtype):
            return source
        return up(np.array(plain(source, strict=False), dtype, order=order or "K"))

    cupy.__getattr__ = from_numpy
    cupy.ndarray, cupy.array, cupy.asarray = ndarray, array, asarray
    cupy.asnumpy = lambda x: x.get()
    del cupy.zeros
    cupy.diagonal = lambda a, *args, **options: a.diagonal(*args, **options)
    cupy.broadcast_to = lambda a, shape: np.broadcast_to(a, shape, subok=True)
    cupy.lib = types.SimpleNamespace(stride_tricks=types.SimpleNamespace(
        as_strided=_function(np.lib.stride_tricks.as_strided),  # without a base, as CuPy's
        sliding_window_view=_function(np.lib.stride_tricks.sliding_window_view),
    ))  # fmt: skip
    cupy.RawModule = RawModule
    cupy.cuda.alloc_pinned_memory = Pinned
    properties = cupy.cuda.runtime.getDeviceProperties
    cupy.cuda.runtime.getDeviceProperties = lambda index: properties(index) | {
        "multiProcessorCount": 4, "sharedMemPerBlock": 48 << 10,
        "sharedMemPerBlockOptin": 227 << 10, "l2CacheSize": 1 << 20,
    }  # fmt: skip
    return cupy


@functools.cache
def extras():
    """The stand-in `cupyx` and what of it is used: SciPy's functions on NumPy arrays."""
    scipy = types.ModuleType("cupyx.scipy")
    special = types.ModuleType("cupyx.scipy.special")

    def from_scipy(name):
        if name.startswith("__"):
            raise AttributeError(name)
        scipys = pytest.importorskip(
            "scipy.special", reason="CuPy's special functions are emulated by SciPy's"
        )
        return _function(getattr(scipys, name))

    special.__getattr__ = from_scipy
    cupyx = types.ModuleType("cupyx")
    cupyx.errstate = lambda **options: contextlib.nullcontext()
    cupyx.scipy, scipy.special = scipy, special
    return {m.__name__: m for m in (cupyx, scipy, special)}


@contextlib.contextmanager
def device():
    """A context in which CUDA is available, on the emulated device."""
    missing = emulator.missing()
    if missing:
        pytest.skip(f"the CUDA emulator cannot run: {missing}")
    with fake_cupy.installed(module()):
        Function.launches.clear()
        sys.modules.update(extras())
        try:
            yield gpunn.device("cuda")
        finally:
            for name in extras():
                sys.modules.pop(name, None)
            if faults._records is not None:
                faults._records["set"] = 0


@pytest.fixture
def emulated():
    """`gpunn.device("cuda")`, whose kernels the emulator runs."""
    with device() as cuda:
        yield cuda


def check_build():
    """A context in which races, bad accesses and barriers that not all reach are errors."""
    return emulator.settings(check=True)


def order(name, seed=0):
    """A context in which threads and blocks run "forward", in "reverse" or at "random"."""
    return emulator.settings(order=name, seed=seed)


# --- comparing ----------------------------------------------------------------------------


def host(t):
    """A Tensor's values in float64 (integers and bools as they are) on the host."""
    array = t.detach().cpu().array
    return array.astype(np.float64) if array.dtype.kind in "fV" else array


def run(f, arrays, grads, where):
    """(outputs, gradients of the floating arrays) of f on Tensors of the arrays on a device."""
    inputs = [gpunn.from_numpy(a).to(where) for a in arrays]
    floating = [x for x in inputs if x.dtype.is_floating_point]
    if grads is not None:
        for x in floating:
            x.requires_grad_()
    made = f(*inputs)
    made = made if isinstance(made, (list, tuple)) else [made]
    found = []
    if grads is not None:
        outs = [y for y in made if y.requires_grad]
        seeds = [grads(i, y) for i, y in enumerate(outs)]
        found = gpunn.autograd.grad(outs, floating, seeds, allow_unused=True)
    return made, [None if g is None else host(g) for g in found]


def on_both(
    f, arrays, *, dtypes=("float64", "float32", "float16", "bfloat16"), grad=True, rtol=None,
    layouts=(np.ascontiguousarray, strided), where="cuda",
):  # fmt: skip
    """f on the device in each dtype against f on the CPU in float64: values and gradients.

    `rtol`: a number, or a dict by dtype. Inputs must be left as they were.
    """
    arrays = [np.asarray(a) for a in arrays]

    def seeds(i, y):
        rng = np.random.default_rng(i)
        drawn = in_dtype(rng.normal(size=tuple(y.shape)), y.dtype.name.replace("torch.", ""))
        return gpunn.from_numpy(np.asarray(drawn)).to(y.device)

    for name in dtypes:
        tolerance = rtol.get(name) if isinstance(rtol, dict) else rtol
        tolerance = TOLERANCE[name] if tolerance is None or name == "float64" else tolerance
        cast = [in_dtype(a, name) for a in arrays]
        wide = [a.astype(np.float64) if a.dtype.kind in "fV" else a for a in cast]

        def same_seeds(i, y, name=name):
            drawn = np.random.default_rng(i).normal(size=tuple(y.shape))
            return gpunn.from_numpy(np.asarray(in_dtype(drawn, name).astype(np.float64)))

        wanted, wanted_grads = run(f, wide, same_seeds if grad else None, "cpu")
        for layout in layouts:
            inputs = [layout(a) if a.ndim else a.copy() for a in cast]
            made, found = run(f, inputs, seeds if grad else None, where)
            label = f"{name}, {layout.__name__}"
            for y, w in zip(made, wanted, strict=True):
                assert str(y.device).startswith(str(where)), label
                assert y.shape == w.shape, label
                np.testing.assert_allclose(
                    host(y), host(w), rtol=tolerance, atol=tolerance, err_msg=label
                )
            for g, w in zip(found, wanted_grads, strict=True):
                assert (g is None) == (w is None), label
                if g is not None:
                    scale = max(1.0, float(np.abs(w).max(initial=0)))
                    np.testing.assert_allclose(
                        g, w, rtol=tolerance, atol=tolerance * scale, err_msg=f"gradient, {label}"
                    )


def same_bits(f):
    """f() gives arrays (or Tensors) of the same bits in every order of threads and blocks."""
    results = []
    for name in ("forward", "reverse", "random"):
        with order(name, seed=7):
            made = f()
        made = made if isinstance(made, (list, tuple)) else [made]
        results.append([host_bits(x) for x in made])
    for other in results[1:]:
        assert results[0] == other


def host_bits(x):
    array = x.detach().cpu().array if hasattr(x, "detach") else np.asarray(x)
    return np.ascontiguousarray(array).tobytes()
