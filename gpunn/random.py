"""Random tensors, seeding, and the states of the default generators.

The numbers themselves are drawn in `gpunn/draw.py` and `gpunn/draw_integers.py`, which say how
far they equal PyTorch's.
Sources: https://docs.pytorch.org/docs/stable/random.html,
https://docs.pytorch.org/docs/stable/torch.html#random-sampling
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from gpunn import draw, draw_integers, dtypes
from gpunn.autograd.graph import check_inplace, namespace, result, unbroadcast, vjp
from gpunn.device import CPU, Device, resolve
from gpunn.dtypes import as_dtype
from gpunn.generator import Generator, default_for, default_generator, defaults, unforeseen
from gpunn.ops._rows import cast, write
from gpunn.ops.create import finish
from gpunn.ops.views import int_list
from gpunn.tensor import Tensor, method

__all__ = [
    "Generator", "bernoulli", "default_generator", "get_rng_state", "initial_seed",
    "manual_seed", "multinomial", "normal", "rand", "rand_like", "randint", "randint_like",
    "randn", "randn_like", "randperm", "seed", "set_rng_state",
]  # fmt: skip


# --- seeds and states --------------------------------------------------------------------------


def manual_seed(seed: int) -> Generator:
    """Seeds the default generators of all devices; returns the CPU's.

    `seed` is what `int` takes, from -2**63 to 2**64 - 1; ValueError beyond.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.manual_seed.html

    >>> _ = gpunn.manual_seed(0)
    >>> gpunn.randn(2)
    tensor([ 1.5410, -0.2934])
    """
    for generator in list(defaults.values()):
        generator.manual_seed(int(seed))
    return default_generator


def seed() -> int:
    """Seeds the default generators with a number that cannot be foreseen, and returns it.

    >>> gpunn.seed() == gpunn.initial_seed()
    True
    """
    number = unforeseen()
    manual_seed(number)
    return number


def initial_seed() -> int:
    """The seed of the CPU's default generator.

    >>> gpunn.manual_seed(7).initial_seed(), gpunn.initial_seed()
    (7, 7)
    """
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the CPU's default generator, 5,056 uint8 in PyTorch's layout.

    >>> gpunn.get_rng_state().shape
    torch.Size([5056])
    """
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Makes the CPU's default generator go on from a state of `get_rng_state`, or of PyTorch's.

    Raises TypeError for anything but a uint8 tensor, RuntimeError for a state that is none.

    >>> gpunn.set_rng_state(gpunn.get_rng_state())
    """
    default_generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(
    devices: Iterable[Any] | None = None, enabled: bool = True, device_type: str = "cuda"
) -> Iterator[None]:
    """A block after which the default generators go on as if it had not drawn anything.

    `devices`: the devices (numbers are of type `device_type`) beside the CPU, by default all.
    With `enabled=False` it does nothing.
    Source: https://docs.pytorch.org/docs/stable/random.html#torch.random.fork_rng

    >>> _ = gpunn.manual_seed(0)
    >>> with gpunn.random.fork_rng():
    ...     _ = gpunn.rand(100)
    >>> gpunn.rand(2)
    tensor([0.4963, 0.7682])
    """
    if not enabled:
        yield
        return
    kept = {CPU: default_generator}
    if devices is None:
        kept.update(defaults)
    else:
        for d in devices:
            device = resolve(Device(device_type, d) if isinstance(d, int) else d)
            kept[device] = default_for(device)
    states = [(generator, generator.get_state()) for generator in kept.values()]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)
        if devices is None:  # a generator first used in the block starts anew at its next use
            for device in defaults.keys() - kept.keys():
                del defaults[device]


# --- new tensors -------------------------------------------------------------------------------


def _shape(size: Any) -> tuple[int, ...]:
    shape = int_list(size)
    for n in shape:
        if n < 0:
            raise RuntimeError(
                f"Trying to create tensor with negative dimension {n}: {list(shape)}"
            )
    return shape


def _integer(value: Any, function: str, name: str, position: int) -> int:
    """An argument as an int; TypeError, worded as PyTorch's, for floats and others."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"{function}(): argument '{name}' (position {position}) must be int, not "
            f"{type(value).__name__}"
        ) from None


def _new(
    function: Callable[..., Any], shape: tuple[int, ...], dtype: Any, device: Any, *args: Any,
    requires_grad: bool = False, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The tensor of `function(shape, dtype, *args)`; `out` decides dtype and device if given."""
    if out is not None and out.array.shape == shape:
        if out.array.size and any(s == 0 < n - 1 for s, n in zip(out.array.strides, shape)):
            raise RuntimeError(
                "unsupported operation: more than one element of the written-to tensor refers to "
                "a single memory location. Please clone() the tensor before performing the "
                "operation."
            )
        array = draw.like(out.array, function, *args, device=out.device)
        return finish(array, out.device, False, out)
    where = out.device if out is not None else resolve(device)
    d = out.dtype if out is not None else as_dtype(dtype)
    return finish(function(shape, d.numpy, *args, device=where), where, requires_grad, out)


def rand(
    *sizes: Any, size: Any = None, generator: Generator | None = None, out: Tensor | None = None,
    dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Uniform numbers in [0, 1), in the default float unless `dtype` is given.

    NotImplementedError for a dtype that is neither floating nor complex.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.rand.html

    >>> _ = gpunn.manual_seed(0)
    >>> gpunn.rand(2)
    tensor([0.4963, 0.7682])
    """
    return _new(
        draw.uniform, _shape(_one(sizes, size, "rand")), dtype or dtypes.get_default_dtype(),
        device, generator, requires_grad=requires_grad, out=out,
    )  # fmt: skip


def randn(
    *sizes: Any, size: Any = None, generator: Generator | None = None, out: Tensor | None = None,
    dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Normal numbers of mean 0 and variance 1, in the default float unless `dtype` is given.

    NotImplementedError for a dtype that is neither floating nor complex.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.randn.html

    >>> _ = gpunn.manual_seed(0)
    >>> gpunn.randn(2)
    tensor([ 1.5410, -0.2934])
    """
    return _new(
        draw.normal, _shape(_one(sizes, size, "randn")), dtype or dtypes.get_default_dtype(),
        device, generator, requires_grad=requires_grad, out=out,
    )  # fmt: skip


def _one(sizes: tuple[Any, ...], size: Any, function: str) -> tuple[Any, ...]:
    if bool(sizes) == (size is not None):
        raise TypeError(
            f"{function}() received an invalid combination of arguments: the size must be given "
            f"once, such as {function}(2, 3) or {function}((2, 3))"
        )
    return sizes or (size,)


def randint(
    low: Any = 0, high: Any = None, size: Any = None, *, generator: Generator | None = None,
    out: Tensor | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Integers in [low, high): `randint(high, size)` or `randint(low, high, size)`; int64.

    RuntimeError where the range is empty or does not fit the dtype, TypeError for bounds that
    are no integers.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.randint.html

    >>> _ = gpunn.manual_seed(0)
    >>> gpunn.randint(3, 10, (4,))
    tensor([7, 6, 3, 5])
    """
    if size is None:
        high, size = None, high
    if high is None:
        low, high = 0, low
    if not hasattr(size, "__len__"):
        raise TypeError(
            f"randint(): argument 'size' must be tuple of ints, not {type(size).__name__}"
        )
    low, high = _integer(low, "randint", "low", 1), _integer(high, "randint", "high", 2)
    return _new(
        draw_integers.randint, _shape((size,)), dtypes.int64 if dtype is None else dtype, device,
        generator, low, high, requires_grad=requires_grad, out=out,
    )  # fmt: skip


def randperm(
    n: int, *, generator: Generator | None = None, out: Tensor | None = None, dtype: Any = None,
    layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """The integers 0 to n - 1 in random order, int64 unless `dtype` is given.

    RuntimeError for n that is negative or more than the dtype can count.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.randperm.html

    >>> _ = gpunn.manual_seed(0)
    >>> gpunn.randperm(5)
    tensor([4, 0, 1, 3, 2])
    """

    def draw_order(shape: Any, d: np.dtype, device: Device) -> Any:
        return draw_integers.randperm(shape[0], d, generator, device=device)

    count = _integer(n, "randperm", "n", 1)
    kind = dtypes.int64 if dtype is None else dtype
    return _new(draw_order, (count,), kind, device, requires_grad=requires_grad, out=out)


def _like(
    function: Callable[..., Any], input: Tensor, dtype: Any, device: Any, requires_grad: bool,
    *args: Any,
) -> Tensor:  # fmt: skip
    where = input.device if device is None else resolve(device)
    d = input.array.dtype if dtype is None else as_dtype(dtype).numpy
    dense = input.device.xp.empty_like(input.array)  # the order of its memory, without gaps
    return finish(draw.like(dense, function, *args, dtype=d, device=where), where, requires_grad)


def rand_like(
    input: Tensor, *, generator: Generator | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, memory_format: Any = None,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """`rand` in the shape, dtype, device and memory order of `input`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.rand_like.html

    >>> gpunn.rand_like(gpunn.zeros(2, 3)).shape
    torch.Size([2, 3])
    """
    return _like(draw.uniform, input, dtype, device, requires_grad, generator)


def randn_like(
    input: Tensor, *, generator: Generator | None = None, dtype: Any = None, layout: Any = None,
    device: Any = None, requires_grad: bool = False, memory_format: Any = None,
    pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """`randn` in the shape, dtype, device and memory order of `input`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.randn_like.html

    >>> gpunn.randn_like(gpunn.zeros(2, 3)).shape
    torch.Size([2, 3])
    """
    return _like(draw.normal, input, dtype, device, requires_grad, generator)


def randint_like(
    input: Tensor, low: Any = 0, high: Any = None, *, generator: Generator | None = None,
    dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
    memory_format: Any = None, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """`randint` in the shape, dtype, device and memory order of `input`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.randint_like.html

    >>> gpunn.randint_like(gpunn.zeros(2), 1)
    tensor([0., 0.])
    """
    if high is None:
        low, high = 0, low
    low, high = _integer(low, "randint_like", "low", 2), _integer(high, "randint_like", "high", 3)
    return _like(draw_integers.randint, input, dtype, device, requires_grad, generator, low, high)


def normal(
    mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None,
    out: Tensor | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
    requires_grad: bool = False, pin_memory: bool = False,
) -> Tensor:  # fmt: skip
    """Normal numbers: of tensors `mean` and `std`, which broadcast, or of two numbers and a size.

    RuntimeError for a negative `std`, TypeError for two numbers without a size.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.normal.html

    >>> gpunn.normal(gpunn.tensor([1.0, 2.0]), 0.0)
    tensor([1., 2.])
    """
    like = mean if isinstance(mean, Tensor) else std
    if not isinstance(like, Tensor):
        if size is None:
            raise TypeError(
                "normal() received an invalid combination of arguments: two numbers need a size"
            )
        return _new(
            draw.normal, _shape((size,)), dtype or dtypes.get_default_dtype(), device, generator,
            mean, std, requires_grad=requires_grad, out=out,
        )  # fmt: skip
    if isinstance(std, Tensor) and not bool((std.array >= 0).all()):
        raise RuntimeError("normal expects all elements of std >= 0.0")
    array = _normal_of(mean, std, like, generator)
    if out is not None:
        return finish(array, like.device, False, out)
    parents = tuple(
        cast(v, like.array.dtype) if isinstance(v, Tensor) else None for v in (mean, std)
    )
    shapes = tuple(None if p is None else p.array.shape for p in parents)
    return result(array, like, _normal_vjp, parents, shapes)


def _normal_of(mean: Any, std: Any, like: Tensor, generator: Generator | None) -> Any:
    """The array of `normal` of one or two tensors, in the dtype of `like`."""
    kind = like.array.dtype
    a, b = (v.array if isinstance(v, Tensor) else v for v in (mean, std))
    try:
        shape = np.broadcast_shapes(np.shape(a), np.shape(b))
    except ValueError:
        raise RuntimeError(
            f"normal: the size of mean {list(a.shape)} must match the size of std {list(b.shape)}"
        ) from None
    scale = 1.0 if isinstance(std, Tensor) else b
    drawn = draw.normal(shape, kind, generator, 0.0, scale, device=like.device)
    if isinstance(std, Tensor):
        drawn = (drawn * b).astype(kind)
    return (drawn + a).astype(kind)


def _zeros(g: Any, shape: Any) -> Any:
    return None if shape is None else namespace(g).zeros_like(unbroadcast(g, tuple(shape)))


@vjp((None, None), name="NormalBackward0")
def _normal_vjp(g: Any, mean: Any, std: Any) -> Any:
    return _zeros(g, mean), _zeros(g, std)


@vjp((None,), name="RandomBackward0")
def _drawn_vjp(g: Any, shape: Any) -> Any:
    return _zeros(g, shape)


@method
def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """1 with the probability that `input` holds (or with `p`, in the shape of input), or else 0.

    RuntimeError for probabilities outside of [0, 1].
    Source: https://docs.pytorch.org/docs/stable/generated/torch.bernoulli.html

    >>> gpunn.bernoulli(gpunn.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    chance = input.array if p is None else float(p)
    drawn = _new(
        draw_integers.bernoulli, input.array.shape, input.dtype, input.device, generator, chance,
        out=out,
    )  # fmt: skip
    if out is not None:
        return drawn
    return result(drawn.array, input, _drawn_vjp, (input,), (input.array.shape,))


@method
def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *,
    generator: Generator | None = None, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Indices drawn from each row of the weights `input`, of shape (n,) or (rows, n).

    Returns int64 (num_samples,) or (rows, num_samples). RuntimeError for weights that are
    negative, not finite or all zero, and for more samples than weights without `replacement`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.multinomial.html

    >>> gpunn.multinomial(gpunn.tensor([0.0, 3.0]), 3, replacement=True)
    tensor([1, 1, 1])
    """
    if out is not None and out.dtype is not dtypes.int64:
        raise RuntimeError(f"multinomial expects Long tensor out, got: {out.dtype}")
    array = draw_integers.multinomial(
        input.array, num_samples, replacement, generator, device=input.device
    )
    return finish(array, input.device, False, out)


# --- in place ----------------------------------------------------------------------------------


def _fill(self: Tensor, name: str, function: Callable[..., Any], *args: Any) -> Tensor:
    check_inplace(self)
    array = draw.like(self.array, function, *args, device=self.device)
    return write(self, result(array, self, _drawn_vjp, (self,), (array.shape,)), name)


def _filler(name: str, function: Callable[..., Any], defaults: dict[str, Any], what: str) -> None:
    """Attaches an in-place method with the parameters of PyTorch's (one is called `from`)."""

    def fill(
        self: Tensor, *args: Any, generator: Generator | None = None, **named: Any
    ) -> Tensor:
        given = dict(zip(defaults, args, strict=False)) | named
        wrong = given.keys() - defaults.keys() or defaults.keys() - given.keys() - known
        if wrong or len(args) > len(defaults):
            raise TypeError(
                f"{name}() takes ({', '.join(defaults)}, *, generator), got {args} and {named}"
            )
        values = (float(given.get(key, default)) for key, default in defaults.items())
        return _fill(self, name[:-1], function, generator, *values)

    known = {key for key, default in defaults.items() if default is not None}
    fill.__name__ = fill.__qualname__ = name
    fill.__doc__ = (
        f"Fills the tensor with {what}, and returns it.\n\n"
        f"Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.{name}.html"
    )
    method(fill)


_filler("uniform_", draw.uniform, {"from": 0.0, "to": 1.0}, "uniform numbers in [from, to)")
_filler("normal_", draw.normal, {"mean": 0.0, "std": 1.0}, "normal numbers")
_filler("log_normal_", draw.log_normal, {"mean": 1.0, "std": 2.0}, "exp of normal numbers")
_filler("exponential_", draw.exponential, {"lambd": 1.0}, "exponential numbers of rate lambd")
_filler("cauchy_", draw.cauchy, {"median": 0.0, "sigma": 1.0}, "Cauchy numbers")
_filler("geometric_", draw_integers.geometric, {"p": None}, "trials up to a success")


@method
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with 1 of probability p (a number, or a tensor that broadcasts), or else 0.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.bernoulli_.html

    >>> gpunn.zeros(2).bernoulli_(1.0)
    tensor([1., 1.])
    """
    chance = p.array if isinstance(p, Tensor) else float(p)
    return _fill(self, "bernoulli", draw_integers.bernoulli, generator, chance)


@method
def random_(self: Tensor, *args: Any, generator: Generator | None = None, **named: Any) -> Tensor:
    """Fills the tensor with integers: `random_()`, `random_(to)`, `random_(from, to)`.

    Without bounds, from 0 to the largest integer up to which the dtype holds all. RuntimeError
    for bounds that do not fit the dtype.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.random_.html

    >>> gpunn.zeros(2).random_(1)
    tensor([0., 0.])
    """
    low, high = named.pop("from", None), named.pop("to", None)
    if named or len(args) > 2:
        raise TypeError(f"random_() takes (from, to, *, generator), got {args} and {named}")
    if len(args) == 1 and high is None:
        low, high = 0, args[0]
    elif args:
        low, high = args[0], args[1] if len(args) > 1 else high
    elif low is None and high is not None:
        low = 0
    low = None if low is None else _integer(low, "random_", "from", 1)
    high = None if high is None else _integer(high, "random_", "to", 2)
    return _fill(self, "random", draw_integers.randint, generator, low, high)
