"""The profiler: what it notes, when (schedules), and where the result goes."""

from __future__ import annotations

import enum
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from gpunn.autograd.profiler_util import EventList
from gpunn.profiler import base

__all__ = [
    "ProfilerAction", "ProfilerActivity", "kineto_available", "profile", "schedule",
    "supported_activities", "tensorboard_trace_handler",
]  # fmt: skip


class ProfilerActivity(enum.Enum):
    """What a profile measures: `CPU`, and `CUDA`, the time of operations on the GPU.

    Source: https://docs.pytorch.org/docs/stable/profiler.html#torch.profiler.ProfilerActivity

    >>> gpunn.profiler.ProfilerActivity.CPU in gpunn.profiler.supported_activities()
    True
    """

    CPU = 0
    CUDA = 2


class ProfilerAction(enum.Enum):
    """What a profiler does in a step.

    Source: https://docs.pytorch.org/docs/stable/profiler.html#torch.profiler.ProfilerAction

    >>> plan = gpunn.profiler.schedule(wait=1, warmup=1, active=1)
    >>> [plan(step).name for step in range(3)]
    ['NONE', 'WARMUP', 'RECORD_AND_SAVE']
    """

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def supported_activities() -> set[ProfilerActivity]:
    """What can be measured here: CPU, and CUDA where there is a GPU.

    Source: https://docs.pytorch.org/docs/stable/profiler.html#torch.profiler.supported_activities

    >>> sorted(activity.name for activity in gpunn.profiler.supported_activities())[0]
    'CPU'
    """
    from gpunn import cuda

    gpu = {ProfilerActivity.CUDA} if cuda.is_available() else set()
    return {ProfilerActivity.CPU} | gpu


def kineto_available() -> bool:
    """Whether PyTorch's tracing library is there: never.

    >>> gpunn.profiler.kineto_available()
    False
    """
    return False


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0,
    skip_first_wait: int = 0,
) -> Callable[[int], ProfilerAction]:  # fmt: skip
    """A plan for `profile(schedule=)`: skip `skip_first` steps, then again and again wait for
    `wait` steps, warm up for `warmup` and record `active`; `repeat` times, 0 for ever.

    With `skip_first_wait` the first cycle does not wait. Raises AssertionError for negative
    numbers, and for `active=0`; warns where there is no warm-up.
    Source: https://docs.pytorch.org/docs/stable/profiler.html#torch.profiler.schedule

    >>> plan = gpunn.profiler.schedule(wait=1, warmup=1, active=2, repeat=1)
    >>> [plan(step).name for step in range(5)]
    ['NONE', 'WARMUP', 'RECORD', 'RECORD_AND_SAVE', 'NONE']
    """
    if min(wait, warmup, repeat, skip_first) < 0 or active <= 0:
        raise AssertionError(
            f"Invalid profiler schedule arguments. Got wait={wait} (need >= 0), warmup={warmup} "
            f"(need >= 0), active={active} (need > 0), repeat={repeat} (need >= 0), "
            f"skip_first={skip_first} (need >= 0)."
        )
    if warmup == 0:
        warnings.warn(
            "Profiler won't be using warmup, this can skew profiler results", stacklevel=2
        )
    length = wait + warmup + active

    def plan(step: int) -> ProfilerAction:
        if step < 0:
            raise AssertionError(f"Step must be non-negative. Got {step}.")
        at = step - skip_first + (wait if skip_first_wait else 0)
        if step < skip_first or (repeat > 0 and at >= repeat * length):
            return ProfilerAction.NONE
        at %= length
        if at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD_AND_SAVE if at == length - 1 else ProfilerAction.RECORD

    return plan


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False,
    use_python_export: bool = False,
) -> Callable[[Any], None]:  # fmt: skip
    """For `profile(on_trace_ready=)`: writes each trace to a folder, which TensorBoard reads.

    `worker_name` tells processes apart, by default host and process. RuntimeError where the
    folder cannot be made.
    Source: https://docs.pytorch.org/docs/stable/profiler.html#torch.profiler.tensorboard_trace_handler

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     handler = gpunn.profiler.tensorboard_trace_handler(folder, "worker0")
    ...     with gpunn.profiler.profile(on_trace_ready=handler):
    ...         x = gpunn.ones(3)
    ...     [name.split(".")[-3:] for name in os.listdir(folder)]
    [['pt', 'trace', 'json']]
    """

    def handler(prof: Any) -> None:
        import socket
        import time

        try:
            os.makedirs(dir_name, exist_ok=True)
        except OSError as error:
            raise RuntimeError(f"Can't create directory: {dir_name}") from error
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        name = f"{worker}.{time.time_ns()}.pt.trace.json{'.gz' if use_gzip else ''}"
        prof.export_chrome_trace(os.path.join(dir_name, name))

    return handler


_RECORDING = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


class profile:  # noqa: N801 (PyTorch's name)
    """Measures the operations of a block, forward and backward.

    `activities`: `ProfilerActivity.CPU`, `.CUDA`, both where there is a GPU by default. Time on the
    GPU is that between events of CUDA around a call: what the GPU waits for the CPU is in it.
    `record_shapes`: the shapes of inputs. `profile_memory`: bytes of what operations return and
    keep for backward, less what is freed meanwhile. `with_stack`: the lines of code.
    `with_flops`: operations of products, convolutions, sums. `with_modules`: each module's call
    is a row, `module_averages()` has them forward and backward.
    `schedule(step)` says what to do in a step, which `step()` ends; `on_trace_ready(prof)` is
    called after each `RECORD_AND_SAVE` step, and at the end. `acc_events` keeps the events of
    earlier cycles. The options that are left are PyTorch's for its tracer, and change nothing.

    While a profile is on, functions of gpunn are exchanged for observed ones, in all threads;
    off, nothing of it is left. An operation that gpunn computes in one step has one row, under
    PyTorch's name of the outermost one: `aten::linear`, without an `aten::addmm` in it.
    Raises RuntimeError where another profile is on, AssertionError without any activity.
    Source: https://docs.pytorch.org/docs/stable/profiler.html#torch.profiler.profile

    >>> model, x = nn.Linear(4, 2), gpunn.ones(3, 4)
    >>> with gpunn.profiler.profile(record_shapes=True) as prof:
    ...     model(x).sum().backward()
    >>> text = prof.key_averages(group_by_input_shape=True).table(sort_by="cpu_time_total")
    >>> "aten::linear" in text and "AddmmBackward0" in text and "[[3, 4], [2, 4], [2]]" in text
    True
    """

    def __init__(
        self, *, activities: Iterable[Any] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[[Any], Any] | None = None, record_shapes: bool = False,
        profile_memory: bool = False, with_stack: bool = False, with_flops: bool = False,
        with_modules: bool = False, experimental_config: Any = None,
        execution_trace_observer: Any = None, acc_events: bool = False,
        use_cuda: bool | None = None,
        custom_trace_id_callback: Callable[[], str] | None = None,
        post_processing_timeout_s: float | None = None,
    ):  # fmt: skip
        self.activities = _activities(activities, use_cuda)
        self.profiler = base.profile(
            use_device="cuda" if ProfilerActivity.CUDA in self.activities else None,
            use_cpu=ProfilerActivity.CPU in self.activities, record_shapes=record_shapes,
            profile_memory=profile_memory, with_stack=with_stack, with_flops=with_flops,
            with_modules=with_modules, acc_events=acc_events,
        )  # fmt: skip
        self.schedule = schedule or (lambda step: ProfilerAction.RECORD)
        self.record_steps = schedule is not None
        self.on_trace_ready = on_trace_ready
        self.step_num = 0
        self.current_action = self.schedule(0)
        self._metadata: dict[str, Any] = {}
        self._step: base.record_function | None = None

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begins, as `with` does."""
        self._go(ProfilerAction.NONE, self.current_action)
        self._begin_step()

    def stop(self) -> None:
        """Ends, and calls `on_trace_ready` where something was recorded."""
        self._end_step()
        if self.current_action is ProfilerAction.WARMUP:
            self.profiler.discard()
        elif self.current_action in _RECORDING:
            self._finish()

    def step(self) -> None:
        """Ends a step: the next one is recorded or not, as the schedule says."""
        self._end_step()
        before, self.step_num = self.current_action, self.step_num + 1
        self.current_action = self.schedule(self.step_num)
        self._go(before, self.current_action)
        self._begin_step()

    def _begin_step(self) -> None:
        if self.record_steps:
            self._step = base.record_function(f"ProfilerStep#{self.step_num}")
            self._step.__enter__()

    def _end_step(self) -> None:
        if self._step is not None:
            self._step.__exit__()
            self._step = None

    def _go(self, before: ProfilerAction, now: ProfilerAction) -> None:
        """From one step's action to the next one's."""
        if before is ProfilerAction.RECORD_AND_SAVE:
            self._finish()
            before = ProfilerAction.NONE
        elif before is ProfilerAction.RECORD and now not in _RECORDING:
            warnings.warn(
                f"Incorrect schedule: RECORD followed by {now.name}", stacklevel=3
            )
            self.profiler.__exit__()
            before = ProfilerAction.NONE
        elif before is ProfilerAction.WARMUP and now is not ProfilerAction.WARMUP:
            if now is ProfilerAction.NONE:
                warnings.warn("Incorrect schedule: WARMUP followed by NONE", stacklevel=3)
            self.profiler.discard()
            before = ProfilerAction.NONE
        if before is ProfilerAction.NONE and now is not ProfilerAction.NONE:
            self.profiler._start()

    def _finish(self) -> None:
        self.profiler.__exit__()
        if self.on_trace_ready is not None:
            self.on_trace_ready(self)

    # --- results ----------------------------------------------------------------------------

    def events(self) -> EventList:
        """The events of the last cycle, in the order in which they began."""
        return self.profiler.function_events

    def key_averages(
        self, group_by_input_shape: bool = False, group_by_stack_n: int = 0,
        group_by_overload_name: bool = False, group_by_module: bool = False,
    ) -> EventList:  # fmt: skip
        """Sums over the events of one name, and on request of one input shape, of one place in
        the code (its innermost `group_by_stack_n` lines) and of one module.

        >>> with gpunn.profiler.profile() as prof:
        ...     x = gpunn.ones(3).exp()
        >>> [average.key for average in prof.key_averages()]
        ['aten::ones', 'aten::exp']
        """
        return self.profiler.key_averages(
            group_by_input_shape, group_by_stack_n, group_by_overload_name, group_by_module
        )

    def module_averages(self) -> Any:
        """What each module costs, forward and backward, by its path; needs `with_modules=True`.

        A list of `gpunn.profiler.module_times.ModuleTimes` with a `table(sort_by, row_limit)`.
        PyTorch has no such table.

        >>> with gpunn.profiler.profile(with_modules=True) as prof:
        ...     nn.Sequential(nn.Linear(4, 2))(gpunn.ones(3, 4)).sum().backward()
        >>> times = prof.module_averages()[1]
        >>> times.path, times.backward > 0
        ('Sequential.0', True)
        """
        from gpunn.profiler.module_times import module_times

        if not self.profiler.with_modules:
            raise AssertionError("module_averages() requires with_modules=True")
        return module_times(self.events(), self.profiler.profile_memory)

    def total_average(self) -> Any:
        """The sum over all events."""
        return self.profiler.total_average()

    def export_chrome_trace(
        self, path: str | os.PathLike[str], use_python_export: bool = False
    ) -> None:
        """Writes a trace for chrome://tracing or ui.perfetto.dev; gzipped for a path in .gz."""
        self.profiler.export_chrome_trace(path, self._metadata)

    def export_stacks(
        self, path: str | os.PathLike[str], metric: str = "self_cpu_time_total"
    ) -> None:
        """Writes lines for flame graphs; `metric` may be "self_cuda_time_total" too."""
        self.profiler.export_stacks(path, metric)

    def add_metadata(self, key: str, value: str) -> None:
        """Adds a text to the trace file."""
        self._metadata[key] = value

    def add_metadata_json(self, key: str, value: str) -> None:
        """Adds what a JSON text says to the trace file; ValueError where it is none.

        >>> with gpunn.profiler.profile() as prof:
        ...     prof.add_metadata_json("run", '{"seed": 1}')
        """
        import json

        self._metadata[key] = json.loads(value)

    preset_metadata_json = add_metadata_json

    def _repr_html_(self) -> str:
        return self.profiler._repr_html_()


def _activities(given: Iterable[Any] | None, use_cuda: bool | None) -> set[ProfilerActivity]:
    found = supported_activities() if given is None else set()
    for item in given or ():
        found.update(item if isinstance(item, dict) else (item,))
    if use_cuda is not None:
        warnings.warn(
            "`use_cuda` is deprecated, use `activities` argument instead", FutureWarning,
            stacklevel=3,
        )  # fmt: skip
        found = found | {ProfilerActivity.CUDA} if use_cuda else found - {ProfilerActivity.CUDA}
    if not found:
        raise AssertionError("No valid profiler activities found")
    unknown = [a for a in found if not isinstance(a, ProfilerActivity)]
    if unknown:
        raise TypeError(f"profile: activities are of ProfilerActivity, not {unknown[0]!r}")
    return found
