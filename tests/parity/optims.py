"""Optimizers: the configurations of PyTorch's optim_db; schedulers: every class of lr_scheduler.

An optimizer takes the same steps on the same parameters in both packages: parameters, state
dict, resuming from PyTorch's state dict, repr, pickling, error inputs. A scheduler runs 30 steps.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import torch

from . import scope
from .calls import Raised, check_error, outcome, signature_difference
from .compare import difference
from .convert import TORCH, Package, describe
from .ops import Options, pick
from .report import ABSENT, MISSING, UNTESTED, Report, error_text, timed

STEPS = 6
EPOCHS = 30
SHAPES = ((3, 4), (2, 5))  # Muon takes matrices only


@functools.cache
def optimizer_infos() -> dict[str, Any]:
    """name -> OptimizerInfo of optim_db."""
    from torch.testing._internal.common_optimizers import optim_db

    return {f"optim.{info.name}": info for info in optim_db}


def _quietly(body: Callable[[], None]) -> Callable[[], None]:
    def quiet() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            body()

    return quiet


def check_optimizer(name: str, package: Package, options: Options = Options()) -> Report:
    """Everything about one optimizer."""
    report = Report(name)
    if package.find(name) is None:
        wanted = name.removeprefix("optim.") in scope.OPTIMIZERS.split()
        report.status = MISSING if wanted else ABSENT
        return report
    check = OptimizerCheck(optimizer_infos()[name], name, package, report, options)
    return timed(report, _quietly(check.run))


class Training:
    """Parameters, an optimizer and a quadratic loss in one package."""

    def __init__(self, package: Package, cls: Any, kwargs: dict, dtype: Any, groups: bool) -> None:
        self.package = package
        TORCH.seed(3)
        values = [torch.nn.Parameter(torch.randn(s, dtype=dtype)) for s in SHAPES]
        targets = [torch.randn(s, dtype=dtype) for s in SHAPES]
        self.params, self.targets = package.translate((values, targets), {})
        given: Any = list(self.params)
        if groups:
            given = [{"params": self.params[:1]}, {"params": self.params[1:], "lr": 0.05}]
        self.optimizer = cls(given, **package.translate(copy.deepcopy(kwargs)))

    def closure(self) -> Any:
        self.optimizer.zero_grad()
        both = zip(self.params, self.targets, strict=True)
        loss = sum(((p - t) ** 2).sum() * (0.5 + i) for i, (p, t) in enumerate(both))
        loss.backward()
        return loss

    def step(self) -> Any:
        return self.optimizer.step(self.closure)


class OptimizerCheck:
    """The checks of one OptimizerInfo."""

    def __init__(
        self, info: Any, name: str, package: Package, report: Report, options: Options
    ) -> None:
        self.info, self.name, self.package, self.report = info, name, package, report
        self.options = options
        self.cls = package.find(name)
        self.title = name
        self.dtype: Any = None
        self.factor = 1.0

    def check(self, kind: str, text: str | None) -> bool:
        return self.report.check(kind, self.dtype, self.title, text)

    def run(self) -> None:
        text = signature_difference(self.info.optim_cls, self.cls)
        self.check("signature", text)
        if not self.info.only_supports_sparse_grads:  # NumPy carries no sparse gradients
            for kwargs in self.configurations():
                for groups in (False, True)[: 1 + self.info.supports_param_groups]:
                    self.one(kwargs, torch.float64, groups)
            self.one({}, torch.float32, False)
        self.dtype = None
        self.errors()

    def configurations(self) -> list[dict]:
        """The constructor arguments of PyTorch's list, then each implementation flag."""
        listed = [given.kwargs for given in self.info.optim_inputs_func("cpu")]
        flags = [{flag: True} for flag in self.info.supported_impls if flag != "differentiable"]
        return pick(listed + flags, self.options.most)

    def one(self, kwargs: dict, dtype: Any, groups: bool) -> None:
        """A few steps in both packages, then again from PyTorch's state."""
        self.dtype = dtype
        self.factor = scope.tolerance_factor(self.name, dtype)
        if kwargs.get("foreach") or kwargs.get("fused"):
            self.factor *= 100  # PyTorch's own forms differ: some scalars are float32 in these
        self.title = f"{self.name}({describe(kwargs, True)}){' two groups' if groups else ''}"
        theirs = outcome(TORCH, Training, (TORCH, self.info.optim_cls, kwargs, dtype, groups))
        if isinstance(theirs, Raised):
            self.report.skip("PyTorch raises")
            return
        mine = outcome(self.package, Training, (self.package, self.cls, kwargs, dtype, groups))
        if isinstance(mine, Raised):
            self.check("construct", error_text(mine.error))
            return
        try:
            self.check("state", self.states(theirs, mine))
            self.steps("steps", theirs, mine)
            self.check("state", self.states(theirs, mine))
            if self.package.own_numbers:
                self.check("state devices", self.devices(kwargs, mine))
            text = repr(mine.optimizer)
            same = text == repr(theirs.optimizer)
            self.check("repr", None if same else f"{text}, PyTorch {theirs.optimizer!r}")
            self.resume(theirs, mine, kwargs, groups)
        except Exception as error:
            self.check("steps", error_text(error))

    def steps(self, kind: str, theirs: Training, mine: Training) -> None:
        for i in range(STEPS):
            want = [theirs.step(), theirs.params]
            got = [mine.step(), mine.params]
            if text := difference(want, got, self.package, self.factor):
                self.check(kind, f"after step {i + 1}: {text}")
                return
        self.check(kind, None)

    def states(self, theirs: Training, mine: Training) -> str | None:
        self.package.begin(())
        want, got = theirs.optimizer.state_dict(), mine.optimizer.state_dict()
        return difference(want, got, self.package, self.factor)

    def devices(self, kwargs: dict, mine: Training) -> str | None:
        """On a GPU: what differs in where the state lies; PyTorch's runs on its meta device."""
        p = torch.nn.Parameter(torch.zeros(3, 4, device="meta"))
        p.grad = torch.zeros_like(p)
        try:
            theirs = self.info.optim_cls([p], **copy.deepcopy(kwargs))
        except Exception:  # fused: wants a real device
            return None
        with contextlib.suppress(Exception):  # values are asked for after the state is made
            theirs.step()
        got = mine.optimizer.state.get(mine.params[0], {})
        for key, value in theirs.state[p].items():
            if isinstance(value, torch.Tensor):
                want = "cpu" if value.device.type == "cpu" else "cuda"
                if got[key].device.type != want:
                    return f"{key!r} is on {got[key].device}, PyTorch's on {want}"
        return None

    def resume(self, theirs: Training, mine: Training, kwargs: dict, groups: bool) -> None:
        """A new optimizer loads PyTorch's state dict and goes on; another goes through pickle."""
        want = theirs.optimizer.state_dict()
        self.package.begin(())
        pickled = pickle.loads(pickle.dumps(mine.optimizer)).state_dict()
        self.check("pickle", difference(want, pickled, self.package, self.factor))
        pair = []
        for package, old in ((TORCH, theirs), (self.package, mine)):
            new = Training(package, type(old.optimizer), kwargs, self.dtype, groups)
            with package.module.no_grad():
                for p, q in zip(new.params, old.params, strict=True):
                    p.copy_(q)
            new.optimizer.load_state_dict(package.translate(copy.deepcopy(want), {}))
            pair.append(new)
        self.check("load_state_dict", self.states(*pair))
        self.steps("steps after load_state_dict", *pair)

    def errors(self) -> None:
        """Error inputs raise (or warn) the same, at construction or at the step."""
        for case in self.info.optim_error_inputs_func("cpu", torch.float32):
            given = case.optimizer_error_input
            self.title = f"{self.name}({given.desc})"

            def run(package: Package, cls: Any, given: Any = given, case: Any = case) -> Any:
                params = given.params
                if params is None:
                    params = [torch.nn.Parameter(torch.randn(2, 2))]
                params, kwargs = package.translate((params, dict(given.kwargs)), {})
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    made = outcome(package, cls, (params,), kwargs)
                if isinstance(made, Raised) or case.error_on.name == "CONSTRUCTION_ERROR":
                    return made
                return outcome(package, made.step)

            try:
                theirs = run(TORCH, self.info.optim_cls)
                mine = run(self.package, self.cls)
            except Exception as error:
                self.report.skip(f"error input: {error_text(error)}")
                continue
            if isinstance(theirs, Raised):
                check_error(self.report, self.package, case, self.title, theirs, mine)


# -- schedulers ----------------------------------------------------------------------------


def _chained(lrs: Any, opt: Any) -> Any:
    return lrs.ChainedScheduler([lrs.ConstantLR(opt, 0.1, 4), lrs.ExponentialLR(opt, 0.9)])


def _sequence(lrs: Any, opt: Any) -> Any:
    first, second = lrs.ConstantLR(opt, 0.1, 3), lrs.ExponentialLR(opt, 0.9)
    return lrs.SequentialLR(opt, [first, second], milestones=[5])


def _three(lrs: Any, opt: Any) -> Any:
    parts = [lrs.LinearLR(opt, 0.1, 1.0, 4), lrs.StepLR(opt, 3), lrs.CosineAnnealingLR(opt, 9)]
    return lrs.SequentialLR(opt, parts, milestones=[4, 15])


SCHEDULERS: dict[str, list[Callable[[Any, Any], Any]]] = {
    "LambdaLR": [
        lambda lrs, opt: lrs.LambdaLR(opt, lambda epoch: 0.95**epoch),
        lambda lrs, opt: lrs.LambdaLR(opt, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
    ],
    "MultiplicativeLR": [lambda lrs, opt: lrs.MultiplicativeLR(opt, lambda epoch: 0.95)],
    "StepLR": [
        lambda lrs, opt: lrs.StepLR(opt, step_size=7),
        lambda lrs, opt: lrs.StepLR(opt, 3, gamma=0.5),
    ],
    "MultiStepLR": [
        lambda lrs, opt: lrs.MultiStepLR(opt, [2, 5, 9, 20], gamma=0.3),
        lambda lrs, opt: lrs.MultiStepLR(opt, [4, 4, 9]),
    ],
    "ConstantLR": [
        lambda lrs, opt: lrs.ConstantLR(opt),
        lambda lrs, opt: lrs.ConstantLR(opt, factor=0.5, total_iters=10),
    ],
    "LinearLR": [
        lambda lrs, opt: lrs.LinearLR(opt),
        lambda lrs, opt: lrs.LinearLR(opt, 0.2, 0.7, 12),
    ],
    "ExponentialLR": [lambda lrs, opt: lrs.ExponentialLR(opt, 0.9)],
    "SequentialLR": [_sequence, _three],
    "PolynomialLR": [
        lambda lrs, opt: lrs.PolynomialLR(opt),
        lambda lrs, opt: lrs.PolynomialLR(opt, total_iters=20, power=2.0),
    ],
    "CosineAnnealingLR": [
        lambda lrs, opt: lrs.CosineAnnealingLR(opt, T_max=10),
        lambda lrs, opt: lrs.CosineAnnealingLR(opt, 30, eta_min=0.01),
    ],
    "ChainedScheduler": [_chained],
    "ReduceLROnPlateau": [
        lambda lrs, opt: lrs.ReduceLROnPlateau(opt, patience=2),
        lambda lrs, opt: lrs.ReduceLROnPlateau(
            opt,
            "max",
            factor=0.5,
            patience=1,
            cooldown=2,
            threshold_mode="abs",
            min_lr=[0.02, 0.01],
        ),
    ],
    "CyclicLR": [
        lambda lrs, opt: lrs.CyclicLR(opt, 0.01, 0.1, step_size_up=4),
        lambda lrs, opt: lrs.CyclicLR(opt, [0.01, 0.02], 0.1, 3, 5, mode="triangular2"),
        lambda lrs, opt: lrs.CyclicLR(
            opt, 0.01, 0.1, 5, mode="exp_range", gamma=0.98, cycle_momentum=False
        ),
        lambda lrs, opt: lrs.CyclicLR(opt, 0.01, 0.1, 5, scale_fn=lambda x: 0.9**x),
    ],
    "CosineAnnealingWarmRestarts": [
        lambda lrs, opt: lrs.CosineAnnealingWarmRestarts(opt, 5),
        lambda lrs, opt: lrs.CosineAnnealingWarmRestarts(opt, 3, T_mult=2, eta_min=0.001),
    ],
    "OneCycleLR": [
        lambda lrs, opt: lrs.OneCycleLR(opt, 0.1, total_steps=40),
        lambda lrs, opt: lrs.OneCycleLR(
            opt, [0.1, 0.2], epochs=8, steps_per_epoch=5, anneal_strategy="linear", three_phase=True
        ),
        lambda lrs, opt: lrs.OneCycleLR(opt, 0.1, total_steps=35, cycle_momentum=False),
    ],
}


def scheduler_names() -> list[str]:
    """Every scheduler class of torch.optim.lr_scheduler."""
    space = torch.optim.lr_scheduler
    return [
        f"lr_scheduler.{name}"
        for name, cls in sorted(vars(space).items())
        if inspect.isclass(cls) and issubclass(cls, space.LRScheduler)
        and cls is not space.LRScheduler and not name.startswith("_")
    ]  # fmt: skip


def check_scheduler(name: str, package: Package, options: Options = Options()) -> Report:
    """Everything about one learning-rate scheduler."""
    report = Report(name)
    short = name.removeprefix("lr_scheduler.")
    if package.find(f"optim.{name}") is None:
        report.status = MISSING if short in scope.SCHEDULERS.split() else ABSENT
        return report
    if short not in SCHEDULERS:
        report.status, report.reason = UNTESTED, "no case in tests/parity/optims.py"
        return report

    def body() -> None:
        theirs, mine = TORCH.find(f"optim.{name}"), package.find(f"optim.{name}")
        report.check("signature", None, name, signature_difference(theirs, mine))
        for i, build in enumerate(SCHEDULERS[short]):
            for resume in (False, True):
                _run_scheduler(report, f"{name} case {i}", build, package, resume)

    return timed(report, _quietly(body))


def _run_scheduler(
    report: Report, title: str, build: Callable, package: Package, resume: bool
) -> None:
    """30 steps in both packages; with `resume`, a new scheduler takes over the state half way."""
    histories, states = [], []
    for p in (TORCH, package):
        try:
            history, state = _history(p, build, resume)
        except Exception as error:
            report.check("steps", None, title, error_text(error))
            return
        histories.append(history)
        states.append(state)
    kind = "steps after load_state_dict" if resume else "steps"
    for i, (want, got) in enumerate(zip(*histories, strict=True)):
        text = difference(want, got, package)
        if text:
            report.check(kind, None, title, f"after step {i}: {text}")
            return
    report.check(kind, None, title, None)
    report.check("state", None, title, difference(*states, package))


def _history(package: Package, build: Callable, resume: bool) -> tuple[list, dict]:
    """Learning rates, momenta and last_lr at each step, and the final state of plain values."""
    m = package.module
    params = [m.nn.Parameter(m.zeros(2)) for _ in range(2)]
    groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.5}]
    optimizer = m.optim.SGD(groups, lr=0.1, momentum=0.9)
    scheduler = build(m.optim.lr_scheduler, optimizer)
    plateau = type(scheduler).__name__ == "ReduceLROnPlateau"
    history = []
    for epoch in range(EPOCHS):
        now = [[g["lr"], g["momentum"]] for g in optimizer.param_groups]
        history.append([now, list(scheduler.get_last_lr())])
        if resume and epoch == EPOCHS // 2:
            state = copy.deepcopy(scheduler.state_dict())
            saved = copy.deepcopy(optimizer.state_dict())
            scheduler = build(m.optim.lr_scheduler, optimizer)
            scheduler.load_state_dict(state)
            optimizer.load_state_dict(saved)
        optimizer.step()
        scheduler.step(*([_metric(epoch)] if plateau else []))
    return history, _plain(scheduler.state_dict())


def _metric(epoch: int) -> float:
    """A loss that falls, stays and rises again."""
    return [1.0, 0.8, 0.7, 0.7, 0.7, 0.71, 0.9, 0.69, 0.69, 0.69][epoch % 10]


def _plain(state: Any) -> Any:
    """A state without functions and containers that only compare by identity."""
    if isinstance(state, dict):
        return {k: _plain(v) for k, v in state.items() if not callable(v)}
    if isinstance(state, list | tuple):
        return [_plain(v) for v in state if not callable(v)]
    return state if isinstance(state, int | float | str | bool | type(None)) else str(state)
