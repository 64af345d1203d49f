"""After an error in a notebook: the failed cell's tensors are freed before the next cell runs.

IPython keeps the last error, and its traceback keeps every local variable of the functions that
were running: the activations of a failed forward, the batch of a failed step. When the next cell
starts, they are let go, if the error came out of gpunn's code. Variables of the notebook itself
stay. A cell that looks at the error (`%debug`, `%tb`, `pdb`, `sys.last_value`) still finds all.

`import gpunn` installs this in IPython, and only there.
"""

from __future__ import annotations

import re
import sys
import traceback
from typing import Any

__all__ = ["clear_frames", "forget_last_error", "install"]

_LOOKS_AT_IT = re.compile(
    r"%debug|%tb\b|^\s*(debug|tb)\b|\bpdb\b|\blast_(exc|value|traceback)\b"
)


def install() -> None:
    """Lets go of a failed cell's tensors whenever a cell starts; does nothing outside IPython.

    >>> gpunn.notebook.install()
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and _before_a_cell not in shell.events.callbacks["pre_run_cell"]:
        shell.events.register("pre_run_cell", _before_a_cell)


def _before_a_cell(info: Any) -> None:
    if not _LOOKS_AT_IT.search(info.raw_cell or ""):
        forget_last_error()


def forget_last_error() -> bool:
    """Clears the local variables that the last uncaught error keeps, if it came out of gpunn.

    After an OutOfMemoryError the GPU's freed blocks are given back, too. Returns whether
    anything was cleared.

    >>> gpunn.notebook.forget_last_error()
    False
    """
    found = [getattr(sys, name, None) for name in ("last_exc", "last_value")]
    errors: list[BaseException] = []
    while found:
        error = found.pop()
        if error is not None and not any(error is known for known in errors):
            errors.append(error)
            found += [error.__cause__, error.__context__]
    if not any(map(_came_out_of_gpunn, errors)):
        return False
    for error in errors:
        clear_frames(error)
    from gpunn import cuda

    if any(isinstance(error, cuda.OutOfMemoryError) for error in errors):
        cuda.empty_cache()
    return True


def clear_frames(error: BaseException) -> None:
    """Clears the local variables of all functions that an error came through and that have ended.

    >>> try:
    ...     gpunn.ones(2) @ gpunn.ones(3)
    ... except RuntimeError as error:
    ...     gpunn.notebook.clear_frames(error)
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        try:
            frame.clear()
        except RuntimeError:  # it is still running
            continue
        # IPython looked at the variables to print them. Before Python 3.13 the frame keeps the
        # dictionary that it was given; asking again removes from it what is no more.
        _ = frame.f_locals


def _came_out_of_gpunn(error: BaseException) -> bool:
    return any(
        str(frame.f_globals.get("__name__")).partition(".")[0] == "gpunn"
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
