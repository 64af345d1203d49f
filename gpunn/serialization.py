"""Saving and loading tensors: PyTorch's checkpoint files, both ways, and safetensors.

`save` writes the zip format that `torch.load(weights_only=True)` opens; `load` opens what
`torch.save` wrote, also in the format from before PyTorch 1.6. Both choose safetensors for a
path that ends in `.safetensors`. Nothing in a file is ever run: see `gpunn/weights_only.py`.

Source: https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.archive import ALIGNMENT, Reader, Writer, fill
from gpunn.device import CPU, Device, resolve, to_host, transfer
from gpunn.pickler import Pickler
from gpunn.storage import UntypedStorage, as_bytes, overwrite
from gpunn.tensor import Tensor, address, wrap
from gpunn.weights_only import (
    Unpickler,
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    safe_globals,
)

__all__ = [
    "add_safe_globals", "clear_safe_globals", "default_restore_location", "get_safe_globals",
    "load", "load_safetensors", "safe_globals", "save", "save_safetensors",
]  # fmt: skip

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the start of the format before PyTorch 1.6


# --- saving -----------------------------------------------------------------------------------


def save(
    obj: Any,
    f: Any,
    pickle_module: Any = pickle,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
    *,
    fsync: bool = False,
) -> None:
    """Writes `obj`, tensors in any nesting of containers, to a path or an open binary file.

    PyTorch opens the file with `torch.load`. Tensors that share memory are written as one
    storage and share it after loading; a view takes its whole storage along (save
    `view.clone()` where only the view is wanted). `requires_grad` is kept, gradients, hooks and
    history are not. Objects of other classes are named in the file, and load only where their
    classes are allowed (`add_safe_globals`): save `model.state_dict()`, not the model.

    A path is replaced at once when the file is complete: a failure leaves what was there. With
    `fsync` it is on the disk when this returns. A path ending in `.safetensors` is written by
    `save_safetensors`. The pickle protocol is always 2, the one that PyTorch reads safely.

    Raises RuntimeError for a missing folder and for one storage under two dtypes, ValueError
    for another pickle module and for the format from before PyTorch 1.6.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.save.html

    >>> import io
    >>> file = io.BytesIO()
    >>> gpunn.save({"weight": gpunn.ones(2), "epoch": 3}, file)
    >>> gpunn.load(io.BytesIO(file.getvalue()))
    {'weight': tensor([1., 1.]), 'epoch': 3}
    """
    if pickle_module not in (None, pickle) or not _use_new_zipfile_serialization:
        raise ValueError(
            f"save: writes zip files with Python's own pickle only, got pickle_module="
            f"{pickle_module!r} and _use_new_zipfile_serialization="
            f"{_use_new_zipfile_serialization}. Leave both out."
        )
    if not isinstance(f, (str, os.PathLike)):
        if not hasattr(f, "write"):
            raise AttributeError(
                "expected 'f' to be string, path, or a file-like object with a 'write' attribute"
            )
        _write_archive(_pickled(obj), f, "archive")
        return
    path = os.fspath(f)
    if path.endswith(".safetensors"):
        save_safetensors(obj, path, fsync=fsync)
        return
    name = os.path.splitext(os.path.basename(path))[0]
    pickled = _pickled(obj)
    with _replacing(path, fsync) as temporary, open(temporary, "wb") as file:
        _write_archive(pickled, file, name if name and name.isascii() else "archive")


def _pickled(obj: Any) -> tuple[bytes, list[Any]]:
    text = io.BytesIO()
    pickler = Pickler(text)
    pickler.dump(obj)
    return text.getvalue(), [found.owner for found in pickler.storages.values()]


def _write_archive(pickled: tuple[bytes, list[Any]], file: Any, name: str) -> None:
    text, owners = pickled
    archive = Writer(file, name)
    archive.record("data.pkl", text)
    archive.record(".format_version", b"1")
    archive.record(".storage_alignment", str(ALIGNMENT).encode())
    archive.record("byteorder", sys.byteorder.encode())
    for key, owner in enumerate(owners):
        archive.record(f"data/{key}", to_host(as_bytes(owner)))
    archive.record("version", b"3\n")
    archive.close()
    file.flush()


@contextlib.contextmanager
def _replacing(path: str, fsync: bool = False) -> Iterator[str]:
    """A new file beside `path` that takes its name if the block succeeds, else is removed."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise RuntimeError(f"Parent directory {os.path.dirname(path)} does not exist.")
    if os.path.isdir(target):
        raise IsADirectoryError(f"save: {path} is a folder; give the name of a file in it")
    if os.path.exists(target) and not os.path.isfile(target):  # a pipe or /dev/null stays one
        yield target
        return
    temporary = os.path.join(folder, f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        if fsync:
            with open(temporary, "r+b") as file:
                os.fsync(file.fileno())
        if os.path.exists(target):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if fsync and os.name == "posix":  # the new name, too
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


# --- loading ----------------------------------------------------------------------------------


def load(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = True,
    mmap: bool | None = None,
    encoding: str = "utf-8",
) -> Any:
    """Reads what `save` or PyTorch's `torch.save` wrote, from a path or an open binary file.

    Tensors, parameters, containers, numbers, strings, dtypes, devices, NumPy scalars and arrays
    of numbers are read; names of anything else are refused, and `weights_only=False` with them:
    gpunn never runs code from a file. Tensors that shared memory share it. Sparse COO tensors
    come as dense ones.

    `map_location` says where storages go: None where they were, a device or its name, a dict
    {"cuda:0": "cpu"} of names, or a callable that receives an `UntypedStorage` on the CPU and
    the name of the device it was on, and gives an `UntypedStorage` (`storage`,
    `storage.cuda(1)`) or None for where it was; a file from before PyTorch 1.6 calls it before
    the values are read. `mmap=True` maps a zip file into memory and reads what is used; its
    checksums are not tested then. `encoding` is that of strings that Python 2 pickled.

    Raises pickle.UnpicklingError for names, calls and pickles that are refused, RuntimeError or
    EOFError for damaged files and for devices that do not exist here, ValueError for
    `weights_only=False`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.load.html

    >>> import io
    >>> file = io.BytesIO()
    >>> gpunn.save(gpunn.arange(3), file)
    >>> _ = file.seek(0)
    >>> gpunn.load(file, map_location="cpu:1").device
    device(type='cpu', index=1)
    """
    if weights_only not in (True, None):
        raise ValueError(
            "load: weights_only=False would run code that the file names, which gpunn never does. "
            "Leave it out; allow classes that you trust by name with "
            "gpunn.serialization.add_safe_globals, or save a state_dict instead."
        )
    if pickle_module is not None:
        raise RuntimeError(
            "Can not safely load weights when explicit pickle_module is specified: leave it out"
        )
    if not isinstance(f, (str, os.PathLike)):
        if mmap:
            raise ValueError("f must be a file path in order to use the mmap argument")
        _check_seekable(f)
        return _load(f, _restorer(map_location), False, encoding)
    path = os.fspath(f)
    if path.endswith(".safetensors"):
        if map_location is not None and not isinstance(map_location, (str, Device)):
            raise RuntimeError(
                f"Loading safetensors file with {_kind(map_location)} map_location is not "
                f"supported. Use a device string or gpunn.device instead."
            )
        return load_safetensors(path, "cpu" if map_location is None else map_location)
    try:
        with open(path, "rb") as file:
            return _load(file, _restorer(map_location), bool(mmap), encoding)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        error.args = (f"{error} (load: {path})",)
        raise


def _kind(map_location: Any) -> str:
    return "callable" if callable(map_location) else type(map_location).__name__


def _load(file: Any, restore: Any, mmap: bool, encoding: str) -> Any:
    start = file.tell()
    head = file.read(512)
    file.seek(start)
    if head.startswith(b"PK\3\4"):
        return _load_archive(Reader(file, mmap), restore, encoding)
    if mmap:
        raise RuntimeError(
            "mmap can only be used with files saved with `torch.save(..., "
            "_use_new_zipfile_serialization=True)`: leave mmap out, or load and save it again"
        )
    if head[257:262] == b"ustar":
        raise RuntimeError(
            "Cannot use ``weights_only=True`` with files saved in the legacy .tar format: load "
            "and save it again in PyTorch"
        )
    return _load_legacy(_Bounded(file), restore, encoding)


def _load_archive(archive: Reader, restore: Any, encoding: str) -> Any:
    if "constants.pkl" in archive.records:
        raise RuntimeError(
            "Cannot use ``weights_only=True`` with TorchScript archives passed to ``load``: in "
            "PyTorch, save torch.jit.load(path).state_dict() instead"
        )
    order = archive.read("byteorder") if "byteorder" in archive.records else b"little"
    if order not in (b"little", b"big"):
        raise ValueError(f"Unknown endianness type: {order!r}")
    loaded: dict[Any, UntypedStorage] = {}

    def load_storage(dtype: dtypes.dtype, key: Any, location: str, count: int) -> UntypedStorage:
        if key not in loaded:
            array = archive.array(f"data/{key}", count * dtype.itemsize)
            _make_native(array, dtype, order.decode())
            loaded[key] = restore(UntypedStorage(array), location)
        return loaded[key]

    unpickler = Unpickler(io.BytesIO(archive.read("data.pkl")), load_storage, encoding)
    result = unpickler.load()
    for finish in unpickler.later:
        finish()
    return result


def _make_native(array: np.ndarray, dtype: dtypes.dtype, order: str) -> None:
    if order != sys.byteorder:
        part = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
        array.view(f"u{part}").byteswap(inplace=True)
    if dtype is dtypes.bool_ and array.size and array.max() > 1:  # NumPy relies on 0 and 1
        np.not_equal(array, 0, out=array.view(bool))


class _Bounded:
    """A file that refuses to read past its end, so that no claimed length costs memory."""

    def __init__(self, file: Any):
        self.file = file
        start = file.tell()
        self.end = file.seek(0, os.SEEK_END)
        file.seek(start)
        self.readline = file.readline

    def rest(self) -> int:
        return self.end - self.file.tell()

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.rest()))


def _load_legacy(file: _Bounded, restore: Any, encoding: str) -> Any:
    if Unpickler(file).load() != _MAGIC:
        raise RuntimeError("Invalid magic number; corrupt file?")
    version = Unpickler(file).load()
    if version != _PROTOCOL:
        raise RuntimeError(f"Invalid protocol version: {version}")
    system = Unpickler(file).load()
    big = isinstance(system, dict) and not system.get("little_endian", True)
    loaded: dict[Any, tuple[UntypedStorage, dtypes.dtype]] = {}
    claimed = 0

    def load_storage(
        dtype: dtypes.dtype, key: Any, location: str, count: int, part: Any = None
    ) -> UntypedStorage:
        nonlocal claimed
        if key not in loaded:
            claimed += count * dtype.itemsize
            if claimed > file.rest():
                raise RuntimeError(
                    f"unexpected EOF, the storages need {claimed} bytes of the {file.rest()} left. "
                    f"The file might be corrupted."
                )
            empty = UntypedStorage(np.empty(count * dtype.itemsize, np.uint8))
            loaded[key] = restore(empty, location), dtype
        whole = loaded[key][0]
        if part is None:
            return whole
        if type(part) is not tuple or [type(n) for n in part[1:]] != [int, int]:
            raise RuntimeError(f"a storage has the strange part {part!r:.80}. Corrupt file?")
        _name, start, length = part
        first, last = start * dtype.itemsize, (start + length) * dtype.itemsize
        if not 0 <= first <= last <= whole.nbytes():
            raise RuntimeError(f"a part {part} reaches outside of its storage. Corrupt file?")
        return UntypedStorage(whole.array[first:last], whole.device)

    unpickler = Unpickler(file, load_storage, encoding)
    result = unpickler.load()
    keys = Unpickler(file).load()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(map(str, loaded)):
        raise RuntimeError("the storages in the file are not those of its tensors. Corrupt file?")
    for key in keys:
        _fill_storage(file, *loaded[key], "big" if big else "little")
    for finish in unpickler.later:
        finish()
    return result


def _fill_storage(file: _Bounded, storage: UntypedStorage, dtype: dtypes.dtype, order: str) -> None:
    count = int.from_bytes(file.read(8), "little")
    if count * dtype.itemsize != storage.nbytes():
        raise RuntimeError(
            f"a storage of {storage.nbytes() // dtype.itemsize} elements has {count} in the file. "
            f"Corrupt file?"
        )
    data = np.empty(storage.nbytes(), np.uint8)
    fill(file.file, data)
    _make_native(data, dtype, order)
    overwrite(storage.array, storage.device, data)


def _check_seekable(f: Any) -> None:
    try:
        f.seek(f.tell())
    except (io.UnsupportedOperation, AttributeError) as error:
        raise type(error)(
            f"{error}. You can only load from a file that is seekable. Please pre-load the data "
            f"into a buffer like io.BytesIO and try to load from it instead."
        ) from None


def _restorer(map_location: Any) -> Callable[[UntypedStorage, str], UntypedStorage]:
    if map_location is None:
        return default_restore_location
    if isinstance(map_location, (str, Device)):
        return lambda storage, location: default_restore_location(storage, str(map_location))
    if isinstance(map_location, Mapping):
        return lambda storage, location: default_restore_location(
            storage, str(map_location.get(location, location))
        )
    if not callable(map_location):
        raise TypeError(
            f"load: map_location must be None, a device, its name, a dict or a callable, got "
            f"'{type(map_location).__name__}' object"
        )

    def restore(storage: UntypedStorage, location: str) -> UntypedStorage:
        found = map_location(storage, location)
        if found is None:
            return default_restore_location(storage, location)
        if not isinstance(found, UntypedStorage) or found.nbytes() != storage.nbytes():
            raise TypeError(
                f"load: map_location must give the storage, moved or not, or None; got "
                f"{found!r:.80} for {storage}"
            )
        return found

    return restore


def default_restore_location(storage: UntypedStorage, location: str) -> UntypedStorage:
    """`storage` on the device that a file calls `location`: "cpu", "cpu:1", "cuda:0".

    Raises RuntimeError where there is no such device, with the way out.

    >>> x = gpunn.ones(2).untyped_storage()
    >>> gpunn.serialization.default_restore_location(x, "cpu:1")
    UntypedStorage(8 bytes, device='cpu:1')
    """
    kind, colon, index = location.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not index.isdigit()):
        raise RuntimeError(
            f"don't know how to restore data location of {type(storage).__name__} (tagged with "
            f"{location}). Load with map_location='cpu'."
        )
    if kind == "cuda":
        _check_cuda(int(index or 0))
    return storage.to(location)


def _check_cuda(index: int) -> None:
    from gpunn import cuda

    if not cuda.is_available():
        raise RuntimeError(
            "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is "
            "False. If you are running on a CPU-only machine, please use torch.load with "
            "map_location=torch.device('cpu') to map your storages to the CPU."
        )
    if index >= cuda.device_count():
        raise RuntimeError(
            f"Attempting to deserialize object on CUDA device {index} but "
            f"torch.cuda.device_count() is {cuda.device_count()}. Please use torch.load with "
            f"map_location to map your storages to an existing device."
        )


# --- safetensors ------------------------------------------------------------------------------


def save_safetensors(
    tensors: Mapping[str, Tensor],
    path: Any,
    metadata: dict[str, str] | None = None,
    *,
    fsync: bool = False,
) -> None:
    """Writes a flat dict of tensors, such as a state_dict, as a safetensors file.

    Only values, shapes and dtypes are written: no strides, `requires_grad` or device. Raises
    ValueError for anything but a dict of name to tensor, and RuntimeError for tensors that
    share memory, which the format cannot express, and for complex128.
    Source: https://huggingface.co/docs/safetensors

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gpunn.save({"weight": gpunn.ones(2)}, f"{folder}/model.safetensors")
    ...     gpunn.load(f"{folder}/model.safetensors")
    {'weight': tensor([1., 1.])}
    """
    import safetensors
    import safetensors.numpy

    if not isinstance(tensors, Mapping):
        raise ValueError(
            f"Expected a dict of [str, Tensor] but received {type(tensors)}. Nested checkpoints "
            f"need a path that ends in .pt instead of .safetensors."
        )
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or not isinstance(key, str):
            raise ValueError(
                f"Key `{key}` is invalid, expected str to Tensor but received {type(value)}. "
                f"Nested checkpoints need a path that ends in .pt instead of .safetensors."
            )
    _check_no_sharing(tensors)
    arrays = {key: np.asarray(to_host(t.array), order="C") for key, t in tensors.items()}
    try:
        with _replacing(os.fspath(path), fsync) as temporary:
            safetensors.numpy.save_file(arrays, temporary, metadata or {"format": "pt"})
    except safetensors.SafetensorError as error:
        raise RuntimeError(f"save_safetensors: {error}") from None


def _check_no_sharing(tensors: Mapping[str, Tensor]) -> None:
    """Raises RuntimeError naming the keys of tensors whose memory overlaps."""
    spans = []
    for key, tensor in tensors.items():
        array, start = tensor.array, address(tensor.array)
        if array.size:
            reach = sum((n - 1) * abs(s) for n, s in zip(array.shape, array.strides, strict=True))
            spans.append((str(tensor.device), start, start + reach + array.itemsize, key))
    end: tuple[str, int, str] = ("", 0, "")
    for device, start, stop, key in sorted(spans):
        if device == end[0] and start < end[1]:
            raise RuntimeError(
                f"Some tensors share memory, this will lead to duplicate memory on disk and "
                f"potential differences when loading them again: {end[2]!r} and {key!r}. Leave "
                f"one of them out where the model ties them, write {key!r}: tensor.clone() where "
                f"it does not, or save to a .pt file, which keeps the sharing."
            )
        end = max(end, (device, stop, key)) if device == end[0] else (device, stop, key)


def load_safetensors(path: Any, device: Any = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on `device`, in the order of the file.

    Raises RuntimeError for a damaged file and for dtypes that gpunn has not.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     gpunn.serialization.save_safetensors({"b": gpunn.zeros(1)}, f"{folder}/x.safetensors")
    ...     gpunn.serialization.load_safetensors(f"{folder}/x.safetensors", device="cpu:1")
    {'b': tensor([0.], device='cpu:1')}
    """
    import safetensors

    target = resolve(device)
    if target.type == "cuda":
        _check_cuda(target.index or 0)
    out = {}
    try:
        with safetensors.safe_open(os.fspath(path), framework="np") as file:
            for key in file.offset_keys():
                array = np.array(file.get_tensor(key))
                array = array if target is CPU else transfer(array, CPU, target)
                out[key] = wrap(array, target)
                dtypes.of(array.dtype)
    except safetensors.SafetensorError as error:
        raise RuntimeError(f"load: {path} is no complete safetensors file: {error}") from None
    except (AttributeError, TypeError) as error:  # float8 and float4
        raise RuntimeError(f"load: {path} holds a dtype that gpunn has not: {error}") from None
    return out
