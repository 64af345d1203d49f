"""Whether operations are recorded: no_grad, enable_grad, inference_mode, anomaly detection."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, overload

from gpunn.autograd.graph import anomaly, mode

F = TypeVar("F", bound=Callable[..., Any])


class _Switch:
    """A context manager and decorator that sets attributes of the thread's mode for a while."""

    def __init__(self, **values: bool):
        self._values = values
        self._before: list[dict[str, bool]] = []

    def __enter__(self) -> Any:
        self._before.append({k: getattr(mode, k) for k in self._values})
        for k, v in self._values.items():
            setattr(mode, k, v)
        return self

    def __exit__(self, *exc: object) -> None:
        for k, v in self._before.pop().items():
            setattr(mode, k, v)

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function):
            return self._generator(function)  # type: ignore[return-value]

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _Switch(**self._values):
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The mode holds while the generator runs, not while its caller does."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            inner = function(*args, **kwargs)
            sent = None
            while True:
                try:
                    with _Switch(**self._values):
                        value = inner.send(sent)
                except StopIteration as stop:
                    return stop.value
                sent = yield value

        return wrapped


class no_grad(_Switch):  # noqa: N801
    """Within it, or in a function decorated with it, nothing is recorded for gradients.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.no_grad.html

    >>> x = gpunn.ones(2, requires_grad=True)
    >>> with gpunn.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    @overload
    def __new__(cls, function: None = None) -> no_grad: ...
    @overload
    def __new__(cls, function: F) -> F: ...  # type: ignore[misc]

    def __new__(cls, function: Any = None) -> Any:
        made = object.__new__(cls)
        if function is None:
            return made
        cls.__init__(made)  # used as a bare decorator, without parentheses
        return made(function)

    def __init__(self) -> None:
        super().__init__(grad=False)


class enable_grad(no_grad):  # noqa: N801
    """Within it, operations are recorded even inside `no_grad`.

    >>> x = gpunn.ones(2, requires_grad=True)
    >>> with gpunn.no_grad(), gpunn.enable_grad():
    ...     y = x * 2
    >>> y.requires_grad
    True
    """

    def __init__(self) -> None:
        _Switch.__init__(self, grad=True)


class set_grad_enabled(_Switch):  # noqa: N801
    """Turns recording on or off: at once as a function, for a while as a context manager.

    >>> with gpunn.set_grad_enabled(False):
    ...     gpunn.is_grad_enabled()
    False
    """

    def __init__(self, mode: bool):
        self._values = {"grad": bool(mode)}
        self._before = [{"grad": is_grad_enabled()}]
        _set(bool(mode))

    def __enter__(self) -> Any:
        _set(self._values["grad"])
        return self

    def __exit__(self, *exc: object) -> None:
        _set(self._before[0]["grad"])

    def __call__(self, function: F) -> F:
        _set(self._before[0]["grad"])  # decorating a function changes nothing here
        return super().__call__(function)


def _set(value: bool) -> None:
    mode.grad = value


def is_grad_enabled() -> bool:
    """Whether operations are being recorded in this thread.

    >>> gpunn.is_grad_enabled()
    True
    """
    return mode.grad


class inference_mode(_Switch):  # noqa: N801
    """Like `no_grad`, for code that will never need gradients; `mode=False` records again.

    >>> with gpunn.inference_mode():
    ...     gpunn.is_inference_mode_enabled(), gpunn.is_grad_enabled()
    (True, False)
    """

    @overload
    def __new__(cls, mode: bool = True) -> inference_mode: ...
    @overload
    def __new__(cls, mode: F) -> F: ...  # type: ignore[misc]

    def __new__(cls, mode: Any = True) -> Any:
        made = object.__new__(cls)
        if callable(mode):
            cls.__init__(made)
            return made(mode)
        return made

    def __init__(self, mode: bool = True):
        super().__init__(grad=not mode, inference=mode)


def is_inference_mode_enabled() -> bool:
    """Whether `inference_mode` holds in this thread."""
    return mode.inference


class set_detect_anomaly:  # noqa: N801
    """Anomaly detection on or off: each recorded operation remembers its line of code, and a
    gradient that is NaN raises RuntimeError naming that line. Slow; for debugging.

    Source: https://docs.pytorch.org/docs/stable/autograd.html#anomaly-detection

    >>> with gpunn.autograd.set_detect_anomaly(True):
    ...     gpunn.is_anomaly_enabled()
    True
    """

    def __init__(self, mode: bool, check_nan: bool = True):
        self._before = anomaly.on
        anomaly.on = bool(mode)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        anomaly.on = self._before


class detect_anomaly(set_detect_anomaly):  # noqa: N801
    """A context in which anomaly detection is on: see `set_detect_anomaly`."""

    def __init__(self, check_nan: bool = True):
        super().__init__(True)
        anomaly.on = self._before
        warnings.warn(
            "Anomaly Detection has been enabled. This mode will increase the runtime and should "
            "only be enabled for debugging.",
            stacklevel=2,
        )

    def __enter__(self) -> None:
        anomaly.on = True


def is_anomaly_enabled() -> bool:
    """Whether anomaly detection is on."""
    return anomaly.on
