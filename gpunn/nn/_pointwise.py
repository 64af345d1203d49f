"""Activations as rows: a forward and a VJP make the function, its in-place form and its module.

A row's `forward(x, xp, ...)` names its parameters and their defaults; `rule(g, x, xp, ...)` is
its VJP. Both are written for raw arrays with xp = numpy or cupy; the VJP is also called with
Tensors and xp = gpunn, for the gradient of the gradient. 16-bit floats are computed in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn import native
from gpunn.amp.casts import AUTOCAST, casts_one
from gpunn.amp.lists import NAMES
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import pointwise as kernels
from gpunn.draw import need
from gpunn.dtypes import F32
from gpunn.nn.module import Module
from gpunn.ops._rows import _camel, half, inplace, not_a_tensor, write_out
from gpunn.tensor import Tensor

_Parameter = inspect.Parameter
_INPUT = _Parameter("input", _Parameter.POSITIONAL_OR_KEYWORD, annotation=Tensor)
_IN_PLACE = _Parameter("inplace", _Parameter.POSITIONAL_OR_KEYWORD, default=False, annotation=bool)
_OUT = _Parameter("out", _Parameter.KEYWORD_ONLY, default=None, annotation=Tensor | None)

NATIVE_SIZE = 1024  # elements from which on one call of C++ is quicker than NumPy's several

_PAGE = "https://docs.pytorch.org/docs/stable/generated/torch.nn"

_DOC = """{summary}

    Shapes: any; the result has the same. dtypes: {types}, NotImplementedError for others.
    {source}: {page}.functional.{name}.html{paper}

    >>> F.{name}(gpunn.tensor([-1., 2.]){args})
    {shows}
    """

_CLASS_DOC = """{summary}

    It calls `nn.functional.{name}`.
    Source: {page}.{class_name}.html

    >>> nn.{class_name}({given})(gpunn.tensor([-1., 2.]))
    {shows}
    """


class Activation(Module):
    """A module that calls one function with its attributes: `class X(Activation, function=x)`.

    The constructor's parameters are the function's own, without the input. `words` is the format
    of what stands in the module's repr; without it all parameters stand there, `inplace` if True.
    """

    __constants__: list[str] = []
    _function: Callable[..., Any]
    _names: tuple[str, ...] = ()
    _words: str | None = None

    def __init_subclass__(
        cls, function: Any = None, words: str | None = None, **options: Any
    ) -> None:
        super().__init_subclass__(**options)
        if function is None:
            return
        parameters = [
            p for p in list(inspect.signature(function).parameters.values())[1:]
            if p.kind is _Parameter.POSITIONAL_OR_KEYWORD and p.name[0] != "_"
        ]  # fmt: skip
        cls._function = staticmethod(function)
        cls._names = tuple(p.name for p in parameters)
        cls._words = words
        given = [p for p in parameters if p.name != "training"]
        cls.__constants__ = [p.name for p in given]
        if cls.__init__ is Module.__init__:
            cls.__init__ = _constructor(inspect.Signature(given))  # type: ignore[assignment]

    def forward(self, input: Tensor) -> Tensor:
        return self._function(input, *[getattr(self, name) for name in self._names])

    def extra_repr(self) -> str:
        if self._words is not None:
            return self._words.format(**vars(self))
        shown = [f"{n}={getattr(self, n)}" for n in self._names if n not in ("inplace", "training")]
        return ", ".join([*shown, *["inplace=True"] * getattr(self, "inplace", False)])


def _constructor(signature: inspect.Signature) -> Callable[..., None]:
    """An `__init__` that sets an attribute for each parameter."""

    def __init__(self: Any, *args: Any, **named: Any) -> None:  # noqa: N807
        Module.__init__(self)
        bound = signature.bind(*args, **named)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            setattr(self, name, value)

    me = _Parameter("self", _Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [me, *signature.parameters.values()]
    )
    return __init__


def pointwise(
    name: str,
    class_name: str,
    forward: Callable[..., Any],
    rule: Callable[..., Any],
    *,
    home: str,
    summary: str,
    shows: str,
    args: str = "",
    paper: str = "",
    refusal: str = "",
    integers: bool = False,
    in_place: bool = True,
    out: bool = False,
    words: str | None = None,
    check: Callable[..., None] | None = None,
    kernel: Callable[..., tuple[Any, ...]] | None = None,
    node_name: str | None = None,
) -> tuple[Any, Any, Any]:
    """The function, its in-place form, and the module class (None without a `class_name`).

    `home` is the module of the row (its `__name__`). `refusal` is the kernel that PyTorch names
    when it refuses a dtype. `integers`: they are taken, too. `in_place`: the function has
    PyTorch's parameter `inplace`; `out`: it has `out`. `check(x, ...)` may refuse raw array and
    parameters. `kernel(...)` names the function of kernels/pointwise.cu and .cpp, which do it
    in one pass, with its parameters made of the row's. `words`: see `Activation`. `args` are
    parameters of the examples, and `shows` what comes of -1 and 2.
    """
    own = list(inspect.signature(forward).parameters.values())[2:]
    kinds = "fViu" if integers else "fV"
    listed = name in NAMES

    def core(input: Tensor, *values: Any) -> Tensor:
        if not isinstance(input, Tensor):
            raise not_a_tensor(name, input)
        if listed and AUTOCAST:
            input = casts_one(name, input)
        x = input.array
        if values and not all(type(v) is float or type(v) is int for v in values):
            values = tuple(map(number, [name] * len(values), own, values))
        if check is not None:
            check(x, *values)
        need(x.dtype.kind in kinds, refusal or f"{name}_cpu", x.dtype)
        return result(value(x, values), input, backward, (input,), (x, values))

    @vjp((0, None), name=node_name or _camel(name) + "Backward0")
    def backward(g: Any, x: Any, values: tuple[Any, ...]) -> Any:
        if isinstance(g, Tensor):
            return rule(g, x, ns(x), *values)
        return slope(g, x, values)

    def value(x: Any, values: tuple[Any, ...]) -> Any:
        """f of a raw array by whatever is quickest there."""
        y = _fused("pointwise", kernel, values, x)
        if y is None and half(x.dtype):
            return value(x.astype(F32), values).astype(x.dtype)
        return forward(x, ns(x), *values) if y is None else y

    def slope(g: Any, x: Any, values: tuple[Any, ...]) -> Any:
        """g f'(x) of raw arrays."""
        gx = _fused("pointwise_grad", kernel, values, x, g)
        if gx is None and half(g.dtype):
            return slope(g.astype(F32), x.astype(F32), values).astype(g.dtype)
        return rule(g, x, ns(x), *values) if gx is None else gx

    flags = [_IN_PLACE] * in_place + [_OUT] * out
    signature = inspect.Signature([_INPUT, *own, *flags], return_annotation=Tensor)
    signature_ = inspect.Signature([_INPUT, *own], return_annotation=Tensor)
    values, values_ = _binder(signature), _binder(signature_)
    core_, last = inplace(core, name), 1 + len(own)

    def op(*given: Any, **named: Any) -> Tensor:
        given = values(given, named)
        if in_place and given[last]:
            return core_(*given[:last])
        made = core(*given[:last])
        return made if not out or given[-1] is None else write_out(given[-1], made, name)

    def op_(*given: Any, **named: Any) -> Tensor:
        return core_(*values_(given, named))

    op_.__name__ = op_.__qualname__ = name + "_"
    op_.__module__, op_.__doc__ = home, core_.__doc__
    op_.__signature__ = signature_  # type: ignore[attr-defined]
    doc = {"summary": summary, "name": name, "class_name": class_name, "args": args and f", {args}",
           "given": args, "shows": shows, "page": _PAGE, "paper": paper and f";\n    {paper}",
           "source": "Sources" if paper else "Source",
           "types": "floating and integers" if integers else "floating"}  # fmt: skip
    op.__name__ = op.__qualname__ = name
    op.__module__, op.__doc__ = home, _DOC.format(**doc)
    op.__signature__ = signature  # type: ignore[attr-defined]
    made = None
    if class_name:
        space = {"__doc__": _CLASS_DOC.format(**doc), "__module__": home}
        made = type(class_name, (Activation,), space, function=op, words=words)  # type: ignore[call-overload]
    return op, op_, made


def _fused(which: str, kernel: Any, values: tuple[Any, ...], *arrays: Any) -> Any:
    """What the C++ library or a CUDA kernel makes of it in one pass; None where they do not."""
    on_cpu = type(arrays[0]) is np.ndarray
    if kernel is None or (on_cpu and arrays[0].size < NATIVE_SIZE):
        return None
    name, *parameters = kernel(*values)
    return getattr(native if on_cpu else kernels, which)(name, tuple(parameters), *arrays)


def number(function: str, parameter: inspect.Parameter, value: Any) -> Any:
    """A parameter's value as a Python number; TypeError for what is none.

    Tensors of one element without dimensions are numbers, unless they require a gradient.
    """
    if isinstance(value, Tensor) and value.array.ndim == 0 and not value.requires_grad:
        return value.item()
    if isinstance(value, (int, float, np.integer, np.floating)):
        return value if isinstance(value, (int, float)) else value.item()
    raise TypeError(
        f"{function}(): argument '{parameter.name}' must be Number, not {type(value).__name__}"
    )


def _binder(signature: inspect.Signature) -> Callable[..., tuple[Any, ...]]:
    """values(given, named): all arguments of a call in their order, defaults where none are given.

    Without keywords, the usual case, they are only filled up: `bind` takes ten times as long.
    """
    parameters = signature.parameters.values()
    positional = [p for p in parameters if p.kind is not _Parameter.KEYWORD_ONLY]
    required = sum(p.default is _Parameter.empty for p in positional)
    defaults = tuple(p.default for p in parameters)

    def values(given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        if not named and required <= len(given) <= len(positional):
            return given + defaults[len(given) :]
        bound = signature.bind(*given, **named)
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    return values
