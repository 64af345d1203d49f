"""Parameters and buffers: the tensors that a Module owns, also before their shape is known."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any

from gpunn import dtypes
from gpunn.device import Device, resolve
from gpunn.tensor import Size, Tensor, wrap

__all__ = [
    "Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter",
    "UninitializedTensorMixin", "is_lazy",
]  # fmt: skip


class _ParameterMeta(type):
    """Counts a tensor of a class of its own, marked `_is_param`, as a Parameter."""

    def __instancecheck__(cls, instance: Any) -> bool:
        if super().__instancecheck__(instance):
            return True
        return cls is Parameter and isinstance(instance, Tensor) and hasattr(instance, "_is_param")


class Parameter(Tensor, metaclass=_ParameterMeta):
    """A tensor that a Module learns: assigned to a module, it is among its `parameters()`.

    It shares the memory of `data` (an empty tensor by default) and requires a gradient unless
    `requires_grad` is False, also inside `no_grad`. Given a tensor of a subclass of Tensor, the
    parameter is of that subclass. Raises RuntimeError for a dtype that has no gradient.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.Parameter.html

    >>> nn.Parameter(gpunn.ones(2))
    Parameter containing:
    tensor([1., 1.], requires_grad=True)
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = wrap(resolve().xp.empty(0, dtypes.get_default_dtype().numpy), resolve())
        if type(data) is Tensor or type(data) is Parameter:
            param = wrap(data.array, data.device, cls)
        else:
            param = _marked(data)
        if requires_grad and param.dtype.category < dtypes.FLOATING:
            raise RuntimeError(
                f"Only Tensors of floating point and complex dtype can require gradients, got "
                f"{param.dtype}: pass requires_grad=False"
            )
        param.requires_grad = requires_grad
        return param  # type: ignore[return-value]

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) not in memo:
            copied = self.array.copy(order="K")
            memo[id(self)] = type(self)(wrap(copied, self.device), self.requires_grad)
        return memo[id(self)]

    def __repr__(self) -> str:  # type: ignore[override]
        return "Parameter containing:\n" + super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        args: tuple[Any, ...] = (self.data, self.requires_grad, OrderedDict())
        if self.__dict__:
            return _rebuild_parameter_with_state, (*args, dict(self.__dict__))
        return _rebuild_parameter, args


def _marked(data: Tensor) -> Tensor:
    """`data` without history as a parameter of data's own class."""
    param = data.detach()
    if type(param) is not type(data):
        raise RuntimeError(
            f"Creating a Parameter from an instance of type {type(data).__name__} requires that "
            f"detach() returns an instance of the same type, but return type "
            f"{type(param).__name__} was found instead"
        )
    param._is_param = True  # type: ignore[attr-defined]
    return param


def _rebuild_parameter(data: Tensor, requires_grad: bool, hooks: Any) -> Parameter:
    return Parameter(data, requires_grad)


def _rebuild_parameter_with_state(
    data: Tensor, requires_grad: bool, hooks: Any, state: dict[str, Any]
) -> Parameter:
    param = Parameter(data, requires_grad)
    param.__dict__.update(state)
    return param


class _BufferMeta(type):
    """Counts every tensor that `Buffer(...)` made, whatever its class, as a Buffer."""

    def __instancecheck__(cls, instance: Any) -> bool:
        if super().__instancecheck__(instance):
            return True
        return cls is Buffer and isinstance(instance, Tensor) and hasattr(instance, "_is_buffer")


class Buffer(Tensor, metaclass=_BufferMeta):
    """A tensor that is part of a Module's state without being learned.

    Assigned to a module, it is registered like `register_buffer(name, data, persistent)`: a
    persistent buffer is saved in the `state_dict`. It shares the memory of `data`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.Buffer.html

    >>> module = nn.Module()
    >>> module.mean = nn.Buffer(gpunn.zeros(2))
    >>> list(module.state_dict())
    ['mean']
    """

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        if data is None:
            data = wrap(resolve().xp.empty(0, dtypes.get_default_dtype().numpy), resolve())
        buffer = data.detach().requires_grad_(data.requires_grad)
        buffer.persistent = persistent  # type: ignore[attr-defined]
        buffer._is_buffer = True  # type: ignore[attr-defined]
        return buffer  # type: ignore[return-value]


def _memory(tensor: Tensor) -> Any:
    """The raw array of an uninitialised tensor, of which only dtype and device mean anything."""
    return Tensor.array.__get__(tensor)  # type: ignore[attr-defined]


class UninitializedTensorMixin:
    """A tensor that has a dtype and a device but no shape yet.

    It can be moved and cast, and `materialize` makes an ordinary tensor of it. Every
    operation reads `array`, which raises ValueError here.
    """

    cls_to_become: type[Tensor]
    device: Device

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Turns it, in place, into an ordinary parameter or tensor of `shape`, uninitialised."""
        array: Any = _memory(self)  # type: ignore[arg-type]
        where = self.device if device is None else resolve(device)
        numpy_dtype = array.dtype if dtype is None else dtypes.as_dtype(dtype).numpy
        self.device = where
        self.__class__ = self.cls_to_become  # type: ignore[assignment]
        self.array = where.xp.empty(tuple(shape), numpy_dtype)  # type: ignore[misc]

    @property
    def array(self) -> Any:
        operation = sys._getframe(1).f_code.co_name
        raise ValueError(
            f"Attempted to use an uninitialized parameter in {operation}. This error happens when "
            f"you are using a `LazyModule` or explicitly manipulating "
            f"`gpunn.nn.parameter.{type(self).__name__}` objects. When using LazyModules Call "
            f"`forward` with a dummy batch to initialize the parameters before calling other "
            f"functions"
        )

    @array.setter
    def array(self, value: Any) -> None:
        Tensor.array.__set__(self, value)  # type: ignore[attr-defined]

    @property
    def shape(self) -> Any:
        raise RuntimeError(
            "Can't access the shape of an uninitialized parameter or buffer. This error usually "
            "happens in `load_state_dict` when trying to load an uninitialized parameter into an "
            "initialized one. Call `forward` to initialize the parameters before accessing their "
            "attributes."
        )

    @property
    def dtype(self) -> dtypes.dtype:
        return dtypes.of(_memory(self).dtype)  # type: ignore[arg-type]

    @property
    def data(self) -> Tensor:
        return wrap(_memory(self), self.device)  # type: ignore[arg-type]

    @data.setter
    def data(self, value: Tensor) -> None:
        self.array, self.device = value.data.array, value.device

    def size(self, dim: int | None = None) -> Any:
        return Size((0,)) if dim is None else 0

    def copy_(self, src: Tensor, non_blocking: bool = False) -> Any:
        """Nothing, from another uninitialised tensor; there is no shape to copy others into."""
        self.data.copy_(src.data)  # type: ignore[attr-defined]
        return self

    def share_memory_(self) -> Any:
        raise RuntimeError(
            "Can't share memory on an uninitialized parameter or buffer. Call `forward` to "
            "initialize the parameters before calling `module.share_memory()`."
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (self.requires_grad, self.device, self.dtype)  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            build, args = self.__reduce_ex__(4)
            memo[id(self)] = build(*args)
        return memo[id(self)]


def _conversion(name: str) -> Any:
    def convert(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = getattr(self.data, name)(*args, **kwargs)
        if not isinstance(made, Tensor):
            return made
        lazy = wrap(made.array, made.device, type(self))
        lazy._requires_grad = self._requires_grad
        lazy.__dict__.update(self.__dict__)
        return lazy

    convert.__name__ = name
    return convert


for _name in (
    "bfloat16", "char", "cpu", "cuda", "double", "float", "half", "int", "long", "short", "to",
    "type",
):  # fmt: skip
    setattr(UninitializedTensorMixin, _name, _conversion(_name))


def is_lazy(param: Any) -> bool:
    """Whether `param` still waits for its shape.

    >>> nn.parameter.is_lazy(nn.UninitializedParameter())
    True
    """
    return isinstance(param, UninitializedTensorMixin)


def _uninitialized(cls: Any, requires_grad: bool, device: Any, dtype: Any) -> Any:
    where = resolve(device)
    numpy_dtype = (dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)).numpy
    made = wrap(where.xp.empty(0, numpy_dtype), where, cls)
    made.requires_grad = requires_grad
    return made


class UninitializedParameter(UninitializedTensorMixin, Parameter):  # type: ignore[misc]
    """A Parameter whose shape is not known yet, as lazy modules have before their first call.

    Raises RuntimeError where its shape, ValueError where its values are asked for.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.UninitializedParameter.html

    >>> weight = nn.UninitializedParameter()
    >>> weight.materialize((2, 3))
    >>> weight.shape
    torch.Size([2, 3])
    """

    cls_to_become = Parameter

    def __new__(  # type: ignore[misc]
        cls, requires_grad: bool = True, device: Any = None, dtype: Any = None
    ) -> UninitializedParameter:
        return _uninitialized(cls, requires_grad, device, dtype)


class UninitializedBuffer(UninitializedTensorMixin, Tensor):  # type: ignore[misc]
    """A Buffer whose shape is not known yet; `materialize` makes it an ordinary Tensor.

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.UninitializedBuffer.html

    >>> mean = nn.UninitializedBuffer()
    >>> mean
    <UninitializedBuffer>
    """

    cls_to_become = Tensor

    def __new__(  # type: ignore[misc]
        cls, requires_grad: bool = False, device: Any = None, dtype: Any = None,
        persistent: bool = True,
    ) -> UninitializedBuffer:  # fmt: skip
        buffer = _uninitialized(cls, requires_grad, device, dtype)
        buffer.persistent = persistent
        buffer._is_buffer = True
        return buffer
