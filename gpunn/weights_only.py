"""Reading pickles without running code from them.

A pickle is a program: it names functions and says what to call them with. This unpickler knows
a fixed list of names, each mapped to a function of this file that checks its arguments, and
refuses every other name, every call of something that did not come from that list, and every
change to an object that a checkpoint has no reason to change. Classes that a user trusts are
added with `add_safe_globals`.

Source: https://docs.pytorch.org/docs/stable/notes/serialization.html#weights-only
"""

from __future__ import annotations

import math
import pickle
import re
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np

from gpunn import dtypes
from gpunn.device import CPU, Device, to_host, transfer
from gpunn.storage import UntypedStorage, overwrite, view
from gpunn.tensor import Size, Tensor, wrap

_NEVER = {"sys", "os", "posix", "nt", "subprocess"}
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "torch.tensor": "torch._tensor"}
_user: dict[str, Any] = {}


def add_safe_globals(safe_globals: list[Any]) -> None:
    """Lets files name these classes or functions from now on: they are called by `gpunn.load`.

    Each is a class or function, or a pair (class, "module.name" as the file has it). What is
    added runs with the arguments that a file chooses, so add only what is harmless with any.
    Source: https://docs.pytorch.org/docs/stable/notes/serialization.html

    >>> class Config: ...
    >>> gpunn.serialization.add_safe_globals([(Config, "my_package.Config")])
    >>> gpunn.serialization.clear_safe_globals()
    """
    global _user
    _user = {**_user, **dict(map(_named, safe_globals))}


def get_safe_globals() -> list[Any]:
    """The classes and functions added by `add_safe_globals`.

    >>> gpunn.serialization.get_safe_globals()
    []
    """
    return [f if _named(f)[0] == name else (f, name) for name, f in _user.items()]


def clear_safe_globals() -> None:
    """Forgets everything that `add_safe_globals` added.

    >>> gpunn.serialization.clear_safe_globals()
    """
    global _user
    _user = {}


@contextmanager
def safe_globals(safe_globals: list[Any]) -> Iterator[None]:
    """`add_safe_globals` for the length of a `with` block.

    >>> with gpunn.serialization.safe_globals([dict]):
    ...     len(gpunn.serialization.get_safe_globals())
    1
    """
    global _user
    before = _user
    add_safe_globals(safe_globals)
    try:
        yield
    finally:
        _user = before


def _named(entry: Any) -> tuple[str, Any]:
    if not isinstance(entry, tuple):
        return f"{entry.__module__}.{entry.__qualname__}", entry
    if len(entry) != 2:
        raise ValueError(
            f"Expected tuple of length 2 (global, str of callable full path), but got tuple of "
            f"length: {len(entry)}"
        )
    if type(entry[1]) is not str:
        raise TypeError(
            f"Expected second item in tuple to be str of callable full path, but got: "
            f"{type(entry[1])}"
        )
    return entry[1], entry[0]


class TypedStorage(NamedTuple):
    """A storage as a file refers to it: with the dtype of its elements."""

    storage: UntypedStorage
    dtype: dtypes.dtype


class _Name(NamedTuple):
    """A name of a file that stands for itself and cannot be called."""

    path: str


class StorageType(NamedTuple):
    """`torch.FloatStorage` and its like: the dtype of a storage's elements."""

    dtype: dtypes.dtype


_FAILED = "Weights only load failed."


def _refuse(message: str) -> UnpicklingError:
    return UnpicklingError(f"{_FAILED} {message}")


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise _refuse(f"The file asks for {what}. It is corrupt, or made to do harm.")


def _check_keys(keys: Any) -> None:
    """Hashing follows tuples in tuples without a limit, to the end of the stack: set one."""
    for key in keys:
        level, depth, count = [key], 0, 0
        while level and type(key) in (tuple, frozenset):
            level = [x for part in level if type(part) in (tuple, frozenset) for x in part]
            depth, count = depth + 1, count + len(level)
            _check(depth < 100 and count < 10_000, "a key of deeply nested tuples")


# --- what a file may call ---------------------------------------------------------------------


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2: (requires_grad, hooks, metadata)."""
    _check(type(storage) is TypedStorage, f"a tensor over {type(storage).__name__}, no storage")
    out = view(storage.storage, storage.dtype, offset, size, stride)
    requires_grad, _hooks, metadata = (*rest, None, None, None)[:3]
    if metadata:
        out = _lazy_bits(out, metadata)
    out.requires_grad = bool(requires_grad)
    return out


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any,
    element: Any, metadata: Any = None,
) -> Tensor:  # fmt: skip
    _check(type(storage) is TypedStorage, f"a tensor over {type(storage).__name__}, no storage")
    _check(type(element) is dtypes.dtype, f"a tensor of dtype {element!r}")
    typed = TypedStorage(storage.storage, element)
    return _tensor(typed, offset, size, stride, requires_grad, hooks, metadata)


def _lazy_bits(tensor: Tensor, metadata: Any) -> Tensor:
    """PyTorch's conjugate and negative views, worked out: arrays have no such flags."""
    _check(type(metadata) is dict and metadata.keys() <= {"conj", "neg"}, "unknown tensor flags")
    array = tensor.array
    array = array.conj() if metadata.get("conj") else array
    return wrap(-array if metadata.get("neg") else array, tensor.device)


def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> Tensor:
    from gpunn.nn.parameter import Parameter

    _check(isinstance(data, Tensor), f"a Parameter of {type(data).__name__}")
    return Parameter(data, bool(requires_grad))


def _parameter_with_state(data: Any, requires_grad: Any, hooks: Any, state: Any) -> Tensor:
    return _set_attributes(_parameter(data, requires_grad), state)


def _set_attributes(out: Any, state: Any) -> Any:
    """The attributes that PyTorch keeps in `__dict__`, but none that would hide a method."""
    if type(state) is tuple and len(state) == 2 and not state[1]:
        state = state[0]
    state = {} if state is None else state
    _check(type(state) is dict, f"attributes of a {type(out).__name__} that are no dict")
    for key, value in state.items():
        safe = type(key) is str and not hasattr(type(out), key)
        _check(safe, f"an attribute {key!r} that {type(out).__name__} uses itself")
        out.__dict__[key] = value
    return out


def _size(numbers: Any) -> Size:
    _check(all(type(n) is int for n in numbers), "a torch.Size of other things than ints")
    return Size(numbers)


def _device(kind: Any, index: Any = None) -> Device:
    _check(type(kind) is str and type(index) in (int, type(None)), "a strange torch.device")
    return Device(kind, index)


def _layout(name: Any) -> str:
    _check(type(name) is str, "a layout that has no name")
    return name


def _encode(text: Any, encoding: Any) -> bytes:
    _check(type(text) is str and encoding in ("latin1", "latin-1"), "a codec other than latin1")
    return text.encode("latin1")


def _bytes() -> bytes:
    return b""


def _bytearray(data: Any = b"") -> bytearray:
    _check(type(data) is bytes, f"a bytearray of {type(data).__name__}")
    return bytearray(data)


def _set(items: Any = ()) -> set[Any]:
    _check(type(items) in (list, tuple), f"a set of {type(items).__name__}")
    _check_keys(items)
    return set(items)


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    _check(type(items) in (list, tuple, dict), f"an OrderedDict of {type(items).__name__}")
    pairs = [(key, value) for key, value in (items.items() if type(items) is dict else items)]
    _check_keys(key for key, _ in pairs)
    return OrderedDict(pairs)


def _counter(counts: Any = None) -> Counter[Any]:
    _check(type(counts) in (dict, type(None)), f"a Counter of {type(counts).__name__}")
    return Counter(counts)


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _numpy_dtype(code: Any, align: Any = False, copy: Any = False) -> np.dtype[Any]:
    """A dtype of its own, never NumPy's shared one: `_set_byte_order` changes it in place."""
    plain = type(code) is str and re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16", code)
    if not plain and "numpy.dtype" not in _user:
        raise _refuse(
            f"The file has a NumPy array or scalar of dtype {code!r:.80}; only plain numbers are "
            f"read. Where you trust it, gpunn.serialization.add_safe_globals([numpy.dtype]) "
            f"allows dates and strings, too."
        )
    return np.dtype(np.dtype(code), copy=True)


def _numpy_scalar(element: Any, data: Any) -> Any:
    fits = isinstance(element, np.dtype) and type(data) is bytes and len(data) == element.itemsize
    _check(fits, "a NumPy scalar whose bytes do not fit its dtype")
    return np.frombuffer(data, element)[0]


def _numpy_array(*unused: Any) -> np.ndarray:
    return np.empty(0, np.int8)


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.serialization._get_layout": _layout,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter_with_state,
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytearray,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.complex": complex,
    "numpy.dtype": _numpy_dtype,
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")
        for name, function in (("scalar", _numpy_scalar), ("_reconstruct", _numpy_array))
    },
}
_STORAGES = {
    "Double": dtypes.float64, "Float": dtypes.float32, "Half": dtypes.float16,
    "BFloat16": dtypes.bfloat16, "Long": dtypes.int64, "Int": dtypes.int32,
    "Short": dtypes.int16, "Char": dtypes.int8, "Byte": dtypes.uint8, "Bool": dtypes.bool_,
    "ComplexFloat": dtypes.complex64, "ComplexDouble": dtypes.complex128,
}  # fmt: skip
STORAGE_NAMES = {element: f"{name}Storage" for name, element in _STORAGES.items()}
_VALUES: dict[str, Any] = {
    "torch.Tensor": Tensor,
    "torch._tensor.Tensor": Tensor,
    "numpy.ndarray": _Name("numpy.ndarray"),
    "torch.storage.UntypedStorage": StorageType(dtypes.uint8),
    "torch.UntypedStorage": StorageType(dtypes.uint8),
    **{f"torch.{element.name}": element for element in dtypes.ALL},
    **{
        f"{module}.{name}Storage": StorageType(element)
        for module in ("torch", "torch.cuda")
        for name, element in _STORAGES.items()
    },
}


# --- the unpickler ----------------------------------------------------------------------------

_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]
_OPCODES = [
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT",
    "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET",
    "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GLOBAL",
    "STACK_GLOBAL", "BINPERSID",
]  # fmt: skip
_CORRUPT = (UnpicklingError, KeyError, IndexError, AttributeError, TypeError, ValueError,
            OverflowError, struct.error, MemoryError, RecursionError)  # fmt: skip


class Unpickler(_PythonUnpickler):
    """Python's own unpickler, cut down to the opcodes and names of this file.

    `load_storage(type, key, location, count)` gives the storage for a persistent id. After
    `load` and once the storages hold their values, the functions in `later` are to be called.
    """

    dispatch = {
        code: _PythonUnpickler.dispatch[code]
        for code in [getattr(pickle, name)[0] for name in _OPCODES]
    }

    def __init__(self, file: Any, load_storage: Any = None, encoding: str = "utf-8"):
        super().__init__(file, encoding=encoding)
        self.load_storage = load_storage
        self.later: list[Callable[[], None]] = []
        self._callable: dict[int, Any] = {}  # the things that `find_class` gave, by id
        self._trusted: dict[int, Any] = {}  # those among them that the user added
        self._outside: Exception | None = None  # what `load_storage` raised

    def load(self) -> Any:
        """The object; UnpicklingError, EOFError or RuntimeError for what is no safe pickle."""
        try:
            return super().load()
        except EOFError:
            raise EOFError("Ran out of input: the file ends inside of its pickle") from None
        except _CORRUPT as error:
            if error is self._outside or str(error).startswith(_FAILED):
                raise
            reason = f"{type(error).__name__}: {error!s:.200}"
            if type(error) is KeyError and [int] == [type(a) for a in error.args]:
                reason = f"Unsupported operand {error}"
            raise _refuse(f"The file is corrupt or no checkpoint: {reason}") from error

    def find_class(self, module: str, name: str) -> Any:
        module = _RENAMED.get(module, module)
        path = f"{module}.{name}"
        if module.partition(".")[0] in _NEVER:
            raise _refuse(
                f"Trying to load unsupported GLOBAL {path} whose module {module} is blocked."
            )
        if path in _VALUES:
            return _VALUES[path]
        found = _CALLS.get(path) or {
            "torch._utils._rebuild_sparse_tensor": self._sparse,
            "torch._tensor._rebuild_from_type_v2": self._from_type,
        }.get(path)
        if found is None and path in _user:
            found = self._trusted[id(_user[path])] = _user[path]
        if found is None:
            raise _refuse(_unsupported(path.removeprefix("builtins.")))
        self._callable[id(found)] = found
        return found

    def persistent_load(self, pid: Any) -> TypedStorage:
        is_storage = type(pid) is tuple and len(pid) in (5, 6) and _text(pid[0]) == "storage"
        _check(is_storage and self.load_storage is not None, "a persistent id that is no storage")
        kind, key, location, count = pid[1:5]
        _check(type(kind) is StorageType, f"a storage of type {kind!r:.80}")
        _check(type(count) is int and count >= 0, f"a storage of {count!r:.80} elements")
        key, location = _text(key), _text(location)
        _check(type(key) in (str, int) and type(location) is str, "a storage of a strange name")
        try:
            found = self.load_storage(kind.dtype, key, location, count, *pid[5:])
        except Exception as error:
            self._outside = error
            raise
        return TypedStorage(found, kind.dtype)

    def _call(self, function: Any, args: Any) -> Any:
        _check(id(function) in self._callable, f"a call of {function!r:.80}")
        _check(type(args) is tuple, "a call whose arguments are no tuple")
        return function(*args)

    def _load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _load_newobj(self) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        if cls is _parameter:
            self.append(self._call(cls, args))
            return
        _check(id(cls) in self._trusted, f"a new object of {cls!r:.80}")
        self.append(cls.__new__(cls, *args))

    def _load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if id(type(made)) in self._trusted:
            self.stack.append(state)
            _PythonUnpickler.load_build(self)
        elif type(made) is OrderedDict:
            _set_attributes(made, state)
        elif isinstance(made, np.dtype):
            _set_byte_order(made, state)
        elif type(made) is np.ndarray:
            _fill_array(made, state)
        else:  # PyTorch before 0.4: (requires_grad, volatile, hooks) of a Parameter
            old = isinstance(made, Tensor) and type(state) is tuple and len(state) == 3
            _check(old, f"a change to a {type(made).__name__}")
            made.requires_grad = bool(state[0])

    def _only(self, *types: type) -> None:
        made = self.stack[-1]
        _check(type(made) in types or id(type(made)) in self._trusted,
               f"items added to a {type(made).__name__}")  # fmt: skip

    def _load_append(self) -> None:
        item = self.stack.pop()
        self._only(list)
        self.stack[-1].append(item)

    def _load_appends(self) -> None:
        items = self.pop_mark()
        self._only(list)
        self.stack[-1].extend(items)

    def _load_additems(self) -> None:
        items = self.pop_mark()
        self._only(set)
        _check_keys(items)
        self.stack[-1].update(items)

    def _load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(_frozenset(items))

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._only(dict, OrderedDict, Counter)
        _check_keys((key,))
        self.stack[-1][key] = value

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        self._only(dict, OrderedDict, Counter)
        _check_keys(items[::2])
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][key] = value

    def _from_type(self, function: Any, cls: Any, args: Any, state: Any) -> Any:
        """Tensors with attributes, and tensor subclasses that the user trusts."""
        out = self._call(function, args)
        _check(isinstance(out, Tensor), "a tensor made by something else")
        if cls is Tensor:
            return _set_attributes(out, state)
        known = id(cls) in self._trusted and isinstance(cls, type) and issubclass(cls, Tensor)
        _check(known, f"a tensor of class {cls!r:.80}")
        made = wrap(out.array, out.device, cls)
        made._requires_grad = out.requires_grad
        return _set_attributes(made, state)

    def _sparse(self, layout: Any, data: Any) -> Tensor:
        """A sparse COO tensor, as the dense one of the same values."""
        if layout != "torch.sparse_coo":
            raise _refuse(
                f"The file has a tensor of layout {layout}, which is not read. "
                f"In PyTorch, save tensor.to_dense() or tensor.to_sparse_coo() instead."
            )
        indices, values, size = data[:3]
        tensors = isinstance(indices, Tensor) and isinstance(values, Tensor)
        _check(tensors and type(size) is Size, f"a sparse tensor of {type(values).__name__}")
        _check(indices.dtype is dtypes.int64 and indices.ndim == 2
               and 0 < indices.shape[0] <= len(size)
               and values.shape == (indices.shape[1], *size[indices.shape[0] :]),
               "a sparse tensor whose indices, values and size do not fit")  # fmt: skip
        dense = np.zeros(size, values.dtype.numpy)
        out = wrap(transfer(dense, CPU, values.device), values.device)
        self.later.append(lambda: _scatter(out, dense, indices, values))
        return out


Unpickler.dispatch.update(
    {
        pickle.REDUCE[0]: Unpickler._load_reduce,
        pickle.NEWOBJ[0]: Unpickler._load_newobj,
        pickle.BUILD[0]: Unpickler._load_build,
        pickle.APPEND[0]: Unpickler._load_append,
        pickle.APPENDS[0]: Unpickler._load_appends,
        pickle.ADDITEMS[0]: Unpickler._load_additems,
        pickle.FROZENSET[0]: Unpickler._load_frozenset,
        pickle.SETITEM[0]: Unpickler._load_setitem,
        pickle.SETITEMS[0]: Unpickler._load_setitems,
    }
)


def _text(value: Any) -> Any:
    """Strings that Python 2 wrote may be bytes."""
    return value.decode("ascii") if isinstance(value, bytes) else value


def _unsupported(path: str) -> str:
    last = path.rpartition(".")[2]
    if path.startswith("torch."):
        return (
            f"Unsupported global: GLOBAL {path} was not an allowed global by default: gpunn has "
            f"no counterpart of it. In PyTorch, save plain tensors of the usual dtypes on the "
            f"CPU instead, such as x.float(), x.dequantize() or model.state_dict()."
        )
    return (
        f"Unsupported global: GLOBAL {path} was not an allowed global by default. gpunn reads "
        f"tensors and plain containers, and runs no code from files. Save a state_dict instead; "
        f"or, where you trust {last} with any arguments, allow it with "
        f"`gpunn.serialization.add_safe_globals([{last}])` or the "
        f"`gpunn.serialization.safe_globals([{last}])` context manager."
    )


def _set_byte_order(element: Any, state: Any) -> None:
    plain = type(state) is tuple and len(state) >= 5 and state[2:5] == (None, None, None)
    plain = plain and state[1] in ("<", ">", "|", "=")
    _check(plain or "numpy.dtype" in _user, "a NumPy dtype with fields")
    as_is = element.kind in "biufc"
    element.__setstate__((3, state[1], None, None, None, -1, -1, 0) if as_is else state)


def _fill_array(array: Any, state: Any) -> None:
    _check(type(state) is tuple and len(state) == 5, "a strange NumPy array")
    _version, shape, element, fortran, data = state
    numbers = type(shape) is tuple and all(type(n) is int and n >= 0 for n in shape)
    _check(numbers and isinstance(element, np.dtype) and type(data) is bytes, "a strange array")
    fits = math.prod(shape) * element.itemsize == len(data) and not element.hasobject
    _check(fits, "a NumPy array whose bytes do not fit its shape")
    array.__setstate__((1, shape, element, bool(fortran), data))


def _scatter(out: Tensor, dense: np.ndarray, indices: Tensor, values: Tensor) -> None:
    """Adds `values` up at `indices`, which are only known to be numbers."""
    index = to_host(indices.array)
    limit = np.array(dense.shape[: len(index)]).reshape(-1, 1)
    if ((index < 0) | (index >= limit)).any():
        raise RuntimeError(f"a sparse tensor of size {list(dense.shape)} has an index outside it")
    np.add.at(dense, tuple(index), to_host(values.array))
    overwrite(out.array, out.device, dense)
