"""Progress of what takes long: tqdm's bars wherever they can be shown, and one line for the rest.

tqdm is imported when the first bar is shown.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any


def bar(iterable: Any = None, **options: Any) -> Any:
    """A tqdm bar: a notebook's where ipywidgets are installed, else a plain one.

    `options` are tqdm's: total, desc, unit, disable, ... `for step in bar(range(100))` moves it;
    without an iterable, `update()` does.

    >>> [step for step in gpunn.utils.progress.bar(range(3), disable=True)]
    [0, 1, 2]
    """
    from tqdm import tqdm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):  # no ipywidgets, or none that fit
            from tqdm.auto import tqdm as auto_tqdm

            return auto_tqdm(iterable, **options)
    return tqdm(iterable, **options)


@contextlib.contextmanager
def said(doing: str, after: float = 1.0) -> Iterator[None]:
    """Says on stderr what is being done once it has taken `after` seconds, and how long it took.

    >>> with gpunn.utils.progress.said("compiling conv.cu"):
    ...     pass
    """
    begun = time.perf_counter()
    lock, slow = threading.Lock(), []

    def say() -> None:
        with lock:
            slow.append(True)
            print(f"gpunn: {doing} ...", file=sys.stderr, flush=True)

    timer = threading.Timer(after, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            if slow:
                seconds = time.perf_counter() - begun
                print(f"gpunn: {doing}: {seconds:.1f} s", file=sys.stderr, flush=True)
