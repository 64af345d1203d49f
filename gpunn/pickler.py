"""Writing pickles in which tensors have PyTorch's names, without PyTorch.

The pickle holds names such as `torch._utils._rebuild_tensor_v2` and refers to storages by
number; their bytes are written beside it.
"""

from __future__ import annotations

import codecs
import functools
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

from gpunn import dtypes
from gpunn.device import Device
from gpunn.storage import locate
from gpunn.tensor import Size, Tensor
from gpunn.weights_only import STORAGE_NAMES

_PythonPickler: Any = pickle._Pickler  # type: ignore[attr-defined]


class _Global(NamedTuple):
    """A name that a pickle refers to without it existing here."""

    module: str
    name: str


_global = functools.cache(_Global)  # one object per name, so that pickles refer back to it


class _Stored(NamedTuple):
    key: str
    owner: Any
    dtype: dtypes.dtype


class Pickler(_PythonPickler):
    """Python's own pickler, writing tensors, dtypes and devices under PyTorch's names.

    `storages` are the storages met, in the order of their numbers.
    """

    dispatch = dict(_PythonPickler.dispatch)

    def __init__(self, file: Any):
        super().__init__(file, protocol=2)
        self.storages: dict[int, _Stored] = {}

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Tensor) and id(obj) not in self.memo:
            self._save_tensor(obj)
        else:
            super().save(obj, save_persistent_id)

    def _save_call(self, obj: Any, module: str, name: str, *args: Any) -> None:
        self.save(_global(module, name))
        self.save(args)
        self.write(pickle.REDUCE)
        self.memoize(obj)

    def _save_tensor(self, tensor: Tensor) -> None:
        from gpunn.nn.parameter import Parameter

        state = tensor.__dict__
        if type(tensor) is Parameter:
            hooks: Any = OrderedDict()
            parts = (tensor.data, tensor.requires_grad, hooks)
            if state:
                self._save_call(
                    tensor, "torch._utils", "_rebuild_parameter_with_state", *parts, state
                )
            else:
                self._save_call(tensor, "torch._utils", "_rebuild_parameter", *parts)
            return
        name, args = self._describe(tensor)
        if type(tensor) is Tensor and not state:
            self._save_call(tensor, "torch._utils", name, *args)
            return
        cls = _global("torch", "Tensor") if type(tensor) is Tensor else type(tensor)
        call = (_global("torch._utils", name), cls, args, state)
        self._save_call(tensor, "torch._tensor", "_rebuild_from_type_v2", *call)

    def _describe(self, tensor: Tensor) -> tuple[str, tuple[Any, ...]]:
        owner, offset, steps = locate(tensor.array)
        stored = self.storages.get(id(owner))
        if stored is None:
            stored = _Stored(str(len(self.storages)), owner, tensor.dtype)
            self.storages[id(owner)] = stored
        elif stored.dtype is not tensor.dtype and owner.nbytes:
            raise RuntimeError(
                f"Cannot save multiple tensors or storages that view the same data as different "
                f"types: {stored.dtype} and {tensor.dtype}. Save one of them, or its clone()."
            )
        storage = _Persistent(stored, str(tensor.device))
        hooks: Any = OrderedDict()
        args = (storage, offset, tensor.array.shape, steps, tensor.requires_grad, hooks)
        if tensor.dtype in STORAGE_NAMES:
            return "_rebuild_tensor_v2", args
        return "_rebuild_tensor_v3", (*args, tensor.dtype)

    def _save_storage(self, storage: _Persistent) -> None:
        stored = storage.stored
        name, itemsize = STORAGE_NAMES.get(stored.dtype), stored.dtype.itemsize
        kind = _global("torch", name) if name else _global("torch.storage", "UntypedStorage")
        count = stored.owner.nbytes // (itemsize if name else 1)
        self.save(("storage", kind, stored.key, storage.location, count))
        self.write(pickle.BINPERSID)

    def _save_global_name(self, name: _Global) -> None:
        self.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode("ascii"))
        self.memoize(name)

    def _save_device(self, device: Device) -> None:
        index = () if device.index is None else (device.index,)
        self._save_call(device, "torch", "device", device.type, *index)

    def _save_bytes(self, data: bytes) -> None:
        # b"" in protocol 2 is a call of `bytes`, which PyTorch's safe loading refuses
        self.save_reduce(codecs.encode, (data.decode("latin1"), "latin1"), obj=data)


class _Persistent(NamedTuple):
    stored: _Stored
    location: str


Pickler.dispatch.update(
    {
        _Persistent: Pickler._save_storage,
        _Global: Pickler._save_global_name,
        Device: Pickler._save_device,
        bytes: Pickler._save_bytes,
        dtypes.dtype: lambda self, dtype: self.save(_global("torch", dtype.name)),
        Size: lambda self, size: self._save_call(size, "torch", "Size", tuple(size)),
    }
)
