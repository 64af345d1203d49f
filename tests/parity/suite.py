"""PyTorch's lists of operations, modules, optimizers and schedulers, and one way to run a name."""

from __future__ import annotations

import functools
import signal
import warnings
from typing import Any

import torch

from . import modules, optims, scope
from .convert import Package, package
from .ops import Options, check_op, exists
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
    with pkg.active():
        report = _check(name, pkg, options)
    if options == Options() and under_test == "gpunn":
        scope.check_still_known(report)
    return report


def _check(name: str, pkg: Package, options: Options) -> Report:
    group = group_of(name)
    if group == "modules":
        return modules.check_module(name, pkg, options)
    if group == "optimizers":
        return optims.check_optimizer(name, pkg, options)
    if group == "lr_schedulers":
        return optims.check_scheduler(name, pkg, options)
    return check_op(name, operations()[name], pkg, options)


def run_task(task: tuple[str, str, Options]) -> Report:
    """run() for a process pool, with a time limit where the system has one."""
    name, under_test, options = task
    torch.set_num_threads(1)
    limit = TIMEOUT * (20 if options.every else 1)

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"{name}: more than {limit} seconds")

    if not hasattr(signal, "SIGALRM"):
        return run(name, under_test, options)
    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(limit)
    try:
        return run(name, under_test, options)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def present(name: str, under_test: str = "gpunn") -> bool:
    """Whether a name is to be tested: the package has it, or it is in scope."""
    pkg = _package(under_test)
    group, short = group_of(name), name.rpartition(".")[2]
    if group == "modules":
        return pkg.find(name) is not None or short in scope.MODULES.split()
    if group == "optimizers":
        return pkg.find(name) is not None or short in scope.OPTIMIZERS.split()
    if group == "lr_schedulers":
        return pkg.find(f"optim.{name}") is not None or short in scope.SCHEDULERS.split()
    return name in scope.operations([name]) or any(exists(pkg, i) for i in operations()[name])
