"""A CUDA device on a machine without a GPU: CuPy's stand-in on NumPy, kernels run by the emulator.

Inside `device()` CUDA is available: `gpunn.device("cuda")` has arrays of a NumPy subclass that
refuses to mix with host arrays as CuPy's does, and its `RawModule` is the emulator, so the
launchers run as they are and the kernels' own text is what computes.

What CuPy lacks of NumPy is refused (cupy_lacks.py), and an index out of range wraps around.

`on_both` compares an operation there with the same on the CPU in float64, `same_bits` runs it in
several orders of threads and blocks, `check_build` looks for races, bad accesses and barriers.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import types

import cupy_lacks
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

    def __array_finalize__(self, source):
        self.device_id = source.device_id if isinstance(source, ndarray) else current_device()

    @property
    def device(self):
        return types.SimpleNamespace(id=self.device_id)

    @property
    def data(self):
        address = self.view(np.ndarray).ctypes.data
        return types.SimpleNamespace(ptr=address, mem=None, device_id=self.device_id)

    @property
    def flags(self):
        flags = super().flags
        names = ("c_contiguous", "f_contiguous", "fnc", "forc", "owndata")
        return types.SimpleNamespace(**{name: getattr(flags, name) for name in names})

    @property
    def _c_contiguous(self):
        return super().flags.c_contiguous

    def get(self):
        return self.view(np.ndarray).copy()

    def set(self, source):
        plain(self)[...] = source

    def copy(self, order="C"):
        return up(self.view(np.ndarray).copy(order=order))

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        call = Ufunc(ufunc) if method == "__call__" else getattr(Ufunc(ufunc), method)
        return call(*inputs, **(options if out is None else {**options, "out": tuple(out)}))

    def __array_function__(self, function, types, args, options):
        return _function(function)(*args, **options)

    @property
    def base(self):
        """The array that this is a view of: one of the stand-in, which keeps NumPy's to itself."""
        base = super().base
        return None if type(base) is np.ndarray else base

    def __getitem__(self, key):
        key = _wrapped(self.shape, plain(key, strict=False))
        found = super().__getitem__(key)
        if isinstance(found, np.generic):  # CuPy gives a view
            found = super().__getitem__((*(key if isinstance(key, tuple) else (key,)), ...))
        return found

    def __setitem__(self, key, value):
        plain(self)[_wrapped(self.shape, plain(key, strict=False))] = plain(value)

    def __array_wrap__(self, made, context=None, return_scalar=False):
        return up(made)


ndarray.__module__ = "cupy"


def current_device():
    return module().cuda.runtime.getDevice()


def plain(x, strict=True):
    """NumPy's arrays for those of the stand-in, inside containers too; host arrays are refused, and
    those of a device that is not the current one."""
    if isinstance(x, ndarray):
        if x.device_id != current_device():
            raise RuntimeError(
                f"an array of cuda:{x.device_id} is computed with, the current device is "
                f"cuda:{current_device()}"
            )
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


def _wrapped(shape, key):
    """The index with its arrays of integers brought into range: CuPy's wrap around."""
    parts = [_list_as_array(p) for p in (key if isinstance(key, tuple) else (key,))]
    whole = [isinstance(p, np.ndarray) and p.dtype.kind in "iu" for p in parts]
    if not any(whole):
        return key
    widths = [_width(p) for p in parts]
    rest, axis = len(shape) - sum(widths), 0
    for i, part in enumerate(parts):
        if whole[i] and axis < len(shape) and shape[axis]:
            parts[i] = part % shape[axis]
        axis += rest if part is Ellipsis else widths[i]
    return tuple(parts)


def _list_as_array(part):
    return np.asarray(part) if isinstance(part, list) and part else part


def _width(part):
    """The number of dimensions that a part of an index stands for."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1


def _refuse(name, args, options):
    """The errors of what CuPy's function (or method) of this name does not take."""
    bad = sorted(set(options) & set(cupy_lacks.KEYWORDS.get(name, "").split()))
    if bad:
        raise TypeError(f"cupy.{name} takes no {', '.join(bad)}=")
    if name in ("concatenate", "stack") and not all(isinstance(x, ndarray) for x in args[0]):
        raise TypeError(f"cupy.{name}: only arrays of the device can be joined")
    if name == "solve" and args[1].ndim > 1 and args[0].shape[:-1] != args[1].shape[:-1]:
        raise ValueError("a must have (..., M, M) shape and b must have (..., M, K)")
    kinds = {x.dtype.kind for x in args if isinstance(x, np.ndarray)}
    if "c" in kinds and name in cupy_lacks.NO_COMPLEX.split():
        raise TypeError(f"Wrong type (complex) of arguments for cupy_{name}")


def _dtype_of_cupy(name, made):
    """The result as CuPy's kernels give it where its table of dtypes has no bfloat16."""
    bf16 = isinstance(made, np.ndarray) and made.dtype.name == "bfloat16"
    return made.astype(np.float32) if bf16 and name in cupy_lacks.TO_FLOAT32.split() else made


def _method(name):
    def call(self, *args, **options):
        _refuse(name, (self,), options)
        if name == "take":
            options["mode"] = "wrap"
        made = getattr(plain(self), name)(*plain(args), **plain(options))
        if options.get("out") is not None:
            return options["out"]
        return up(_dtype_of_cupy(name, made))

    return functools.wraps(getattr(np.ndarray, name))(call)


def _absent(name):
    def get(self):
        raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")

    return property(get)


for _name in cupy_lacks.METHODS.split():
    if not _name.startswith("__"):  # NumPy itself looks for those
        setattr(ndarray, _name, _absent(_name))


_METHODS = """
    sum prod mean var std max min argmax argmin any all cumsum cumprod argsort argpartition clip
    round astype repeat take nonzero ravel flatten trace conj conjugate dot searchsorted
"""
for _name in _METHODS.split():
    setattr(ndarray, _name, _method(_name))


def _diagonal(self, *args, **options):
    made = np.ndarray.diagonal(self, *args, **options)
    np.ndarray.setflags(made, write=True)  # CuPy's is
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
        if any(a is None for a in args):
            raise TypeError(f"{self.name}: CuPy makes a wild address of None, pass np.uint64(0)")
        self.launches.append(self.name)
        ready = []
        for arg in args:
            record = Pinned.at(arg) if type(arg) is np.uint64 else None
            if hasattr(arg, "arrays"):  # a table of pointers
                arg.arrays = plain(arg.arrays)
            ready.append(plain(arg, strict=False) if record is None else record)
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
    name = f.__name__

    @functools.wraps(f)
    def call(*args, **options):
        _refuse(name, args, options)
        args, given = plain(args), plain(options)
        if name == "take":
            given["mode"] = "wrap"
        if name == "take_along_axis":
            n = args[0].size if args[2] is None else args[0].shape[args[2]]
            args = (args[0], args[1] % n if n else args[1], args[2])
        made = f(*args, **given)
        if options.get("out") is not None:
            return options["out"]
        return up(_dtype_of_cupy(name, made))

    return call


class Ufunc:
    """One of CuPy's ufuncs: fewer keywords and methods than NumPy's, wide products of halves."""

    def __init__(self, ufunc):
        self.ufunc, self.__name__ = ufunc, ufunc.__name__

    def __call__(self, *args, **options):
        if set(options) - cupy_lacks.OPTIONS:
            raise TypeError(f"Wrong arguments {options}")
        _refuse(self.__name__, args, options)
        outs = args[self.ufunc.nin :] or options.get("out")
        args, options = plain(args), plain(options)
        if self.__name__ == "matmul" and getattr(args[0], "itemsize", 0) == 2 and not options:
            return up(np.matmul(*(x.astype(np.float32) for x in args)).astype(args[0].dtype))
        made = self.ufunc(*args, **options)
        outs = outs if isinstance(outs, tuple) else (outs,) if outs is not None else ()
        return outs[0] if len(outs) == 1 else up(made)

    def at(self, array, key, *values):
        dtypes = cupy_lacks.AT_DTYPES.split()
        dtypes += ["float16"] if self.__name__ in ("add", "subtract") else []
        if self.__name__ not in cupy_lacks.AT.split():
            raise NotImplementedError(f"`cupy_{self.__name__}.at` is not supported yet")
        if array.dtype.name not in dtypes:
            raise TypeError(f"cupy.{self.__name__}.at supports {dtypes}, not {array.dtype}")
        key = _wrapped(array.shape, plain(key, strict=False))
        passing = {np.maximum: np.fmax, np.minimum: np.fmin}  # NaN loses, as in CUDA's atomicMax
        passing.get(self.ufunc, self.ufunc).at(plain(array), key, *plain(values))

    def outer(self, a, b, **options):
        return up(self.ufunc.outer(plain(a), plain(b), **plain(options)))

    def __getattr__(self, name):
        if name in cupy_lacks.ONLY and self.__name__ not in cupy_lacks.ONLY[name].split():
            return lambda *args, **options: self._unsupported(name)
        found = getattr(self.ufunc, name)
        return _function(found) if name in cupy_lacks.ONLY else found

    def _unsupported(self, method):
        raise NotImplementedError(f"`cupy_{self.__name__}.{method}` is not supported yet")


def _linalg(f):
    """As `_function`, but several results are a tuple without names."""
    call = _function(f)

    @functools.wraps(f)
    def unnamed(*args, **options):
        made = call(*args, **options)
        return tuple(made) if isinstance(made, tuple) else made

    return unnamed


def _namespace(source, missing, prefix, function):
    """A function that finds what CuPy has of one of NumPy's namespaces."""

    def find(name):
        if name.startswith("__") or name in missing.split():
            raise AttributeError(f"module {prefix!r} has no attribute {name!r}")
        found = getattr(source, name)
        if isinstance(found, np.ufunc):
            return Ufunc(found)
        return function(found) if callable(found) and not isinstance(found, type) else found

    return find


_AS_ARRAY = {name: getattr(np, name) for name in ("array", "asarray", "ascontiguousarray")}


@contextlib.contextmanager
def no_implicit_transfers():
    """np.asarray(array of the device) and its like are errors, as with CuPy's arrays."""

    def strict(f):
        @functools.wraps(f)
        def call(source, *args, **options):
            if isinstance(source, ndarray) and options.get("subok") is not True:
                raise TypeError(
                    "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to "
                    "construct a NumPy array explicitly."
                )
            return f(source, *args, **options)

        return call

    for name, f in _AS_ARRAY.items():
        setattr(np, name, strict(f))
    try:
        yield
    finally:
        for name, f in _AS_ARRAY.items():
            setattr(np, name, f)


@functools.cache
def module():
    """The stand-in `cupy`, one for all tests, so that a kernel is compiled once."""
    cupy = fake_cupy.make(capacity=1 << 40)

    find = _namespace(np, cupy_lacks.NAMES, "cupy", _function)

    def from_numpy(name):
        found = find(name)
        setattr(cupy, name, found)
        return found

    def array(source, dtype=None, copy=True, order="K"):
        if isinstance(source, (list, tuple)) and source:
            kinds = {isinstance(v, ndarray) for v in source}
            if len(kinds) == 2:
                raise TypeError("Implicit conversion to a NumPy array is not allowed.")
        return up(_AS_ARRAY["array"](plain(source, strict=False), dtype, order=order))

    def asarray(source, dtype=None, order=None):
        if isinstance(source, ndarray) and (dtype is None or source.dtype == dtype):
            return source
        return array(source, dtype, order=order or "K")

    cupy.__getattr__ = from_numpy
    cupy.linalg = types.ModuleType("cupy.linalg")
    cupy.linalg.__getattr__ = _namespace(
        np.linalg, cupy_lacks.LINALG, "cupy.linalg", _linalg
    )
    cupy.ndarray, cupy.array, cupy.asarray = ndarray, array, asarray
    cupy.asnumpy = lambda x: x.get()
    del cupy.zeros
    cupy.diagonal = lambda a, *args, **options: a.diagonal(*args, **options)
    cupy.broadcast_to = functools.partial(np.broadcast_to._implementation, subok=True)
    cupy.lib = types.ModuleType("cupy.lib")
    cupy.lib.stride_tricks = tricks = types.ModuleType("cupy.lib.stride_tricks")
    tricks.as_strided = _function(np.lib.stride_tricks.as_strided)  # without a base, as CuPy's
    tricks.sliding_window_view = _function(np.lib.stride_tricks.sliding_window_view)
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
def device(count=1):
    """A context in which CUDA is available, on an emulated device, or on several."""
    missing = emulator.missing()
    if missing:
        pytest.skip(f"the CUDA emulator cannot run: {missing}")
    runtime = module().cuda.runtime
    with fake_cupy.installed(module()), no_implicit_transfers():
        Function.launches.clear()
        sys.modules.update(extras())
        runtime.devices = count
        try:
            yield gpunn.device("cuda")
        finally:
            runtime.devices = 1
            runtime.local.device = 0
            for name in extras():
                sys.modules.pop(name, None)
            if faults._records is not None:
                faults._records.view(np.uint8)[:] = 0


@pytest.fixture
def emulated():
    """`gpunn.device("cuda")`, whose kernels the emulator runs."""
    with device() as cuda:
        yield cuda


@pytest.fixture
def two_gpus():
    """`cuda:0` and `cuda:1`, emulated: arrays are refused where their device is not current."""
    with device(2):
        yield gpunn.device("cuda:0"), gpunn.device("cuda:1")


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
    array = x.detach().cpu().array if hasattr(x, "detach") else plain(x, strict=False)
    return np.ascontiguousarray(array).tobytes()
