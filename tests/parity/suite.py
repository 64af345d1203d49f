"""PyTorch's lists of operations, modules, optimizers and schedulers, and one way to run a name."""

from __future__ import annotations

import functools
import signal
import warnings
from typing import Any

import torch

from . import modules, optims
from .convert import Package, package
from .ops import Options, check_op
from .report import Report, group_of

TIMEOUT = 240  # seconds for one name: a loop without end must not stop the rest


@functools.cache
def operations() -> dict[str, list]:
    """name -> OpInfos of PyTorch's op_db."""
    _import_quietly("torch.testing._internal.common_methods_invocations")
    from torch.testing._internal.common_methods_invocations import op_db

    found: dict[str, list] = {}
    for info in op_db:  # one test for all variants of a name
        found.setdefault(info.name, []).append(info)
    return found


def _import_quietly(name: str) -> None:
    """Import one of PyTorch's test modules and leave hypothesis' profile as it was."""
    import importlib

    from hypothesis import settings

    profile = settings.get_current_profile_name()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(name)
    settings.load_profile(profile)


def names() -> list[str]:
    """All names: operations, nn.Module classes, optim.Classes, lr_scheduler.Classes."""
    return [*operations(), *modules.module_infos(), *optims.optimizer_infos(),
            *optims.scheduler_names()]  # fmt: skip


@functools.cache
def _package(name: str) -> Package:
    return package(name)


def run(name: str, under_test: str = "gpunn", options: Options = Options()) -> Report:
    """Check one name."""
    pkg = _package(under_test)
    group = group_of(name)
    if group == "modules":
        return modules.check_module(name, pkg, options)
    if group == "optimizers":
        return optims.check_optimizer(name, pkg, options)
    if group == "lr_schedulers":
        return optims.check_scheduler(name, pkg, options)
    return check_op(name, operations()[name], pkg, options)


def run_task(task: tuple[str, str, Options]) -> Report:
    """run() for a process pool, with a time limit."""
    name, under_test, options = task
    torch.set_num_threads(1)
    limit = TIMEOUT * (20 if options.every else 1)

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"{name}: more than {limit} seconds")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(limit)
    try:
        return run(name, under_test, options)
    finally:
        signal.alarm(0)
