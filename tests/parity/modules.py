"""Modules: samples of PyTorch's module_db, and of a few modules that are not in it.

For each: signature, initial weights under one seed, repr, state dict, forward in training and
evaluation mode, gradients of inputs and parameters, pickling, copying, error inputs.
"""

from __future__ import annotations

import copy
import functools
import pickle
import warnings
from typing import Any

import torch

from . import scope
from .calls import Raised, check_error, outcome, signature_difference, verdict
from .compare import difference
from .convert import TORCH, Package, Unconvertible, describe
from .gradients import gradient_difference
from .ops import Options, pick
from .report import ABSENT, MISSING, Report, error_text, timed

SAMPLES = 60  # of one module, dtype and mode, at most
DTYPES = (torch.float64, torch.float32)

_EXTRA = {  # modules that PyTorch's list leaves out: constructor arguments, input shape
    "LazyLinear": [((4,), {}, (5, 3)), ((4,), {"bias": False}, (2, 5, 3))],
    "Dropout": [((), {}, (4, 5)), ((0.2,), {"inplace": True}, (4, 5)), ((0.0,), {}, (3,))],
    "Dropout1d": [((), {}, (2, 3, 5)), ((0.2,), {"inplace": True}, (3, 5))],
    "Dropout2d": [((), {}, (2, 3, 2, 5)), ((0.2,), {"inplace": True}, (2, 3, 5))],
    "Dropout3d": [((), {}, (2, 3, 2, 2, 5)), ((0.2,), {"inplace": True}, (3, 2, 2, 5))],
    "AlphaDropout": [((), {}, (4, 5)), ((0.2,), {"inplace": True}, (2, 3, 5))],
    "FeatureAlphaDropout": [((), {}, (2, 3, 5)), ((0.2,), {"inplace": True}, (4, 5))],
    "RReLU": [((), {}, (4, 5)), ((-0.5, 0.75), {"inplace": True}, (2, 3))],
    "Hardsigmoid": [((), {}, (4, 5)), ((True,), {}, (2, 3))],
    "AdaptiveLogSoftmaxWithLoss": [
        ((16, 20, [5, 10, 15]), {}, (6, 16)),
        ((16, 20, [5, 10, 15]), {"div_value": 2.0, "head_bias": True}, (1, 16)),
        ((8, 7, (2,)), {"div_value": 1.5}, (2, 8)),
    ],
    "Identity": [((), {}, (4, 5)), ((1, 2), {"unused": 3}, (2,))],
    "Flatten": [((), {}, (2, 3, 4)), ((0,), {"end_dim": 1}, (2, 3, 4)), ((), {}, (2, 0, 3))],
    "Unflatten": [((1, (2, 3)), {}, (4, 6)), ((-1, (2, -1)), {}, (3, 4))],
    "PixelShuffle": [((2,), {}, (1, 8, 2, 3)), ((1,), {}, (2, 3, 2, 2))],
    "PixelUnshuffle": [((2,), {}, (1, 2, 4, 6)), ((1,), {}, (2, 3, 2, 2))],
    "ChannelShuffle": [((2,), {}, (1, 4, 2, 3)), ((1,), {}, (2, 3, 2))],
    "Upsample": [
        ((), {"scale_factor": 2}, (2, 3, 4)),
        ((5,), {"mode": "linear"}, (2, 3, 4)),
        ((), {"scale_factor": (1.7, 0.6), "mode": "bicubic"}, (1, 2, 4, 5)),
        ((), {"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": True},
         (1, 2, 4, 5)),
        (((2, 5, 3),), {"mode": "trilinear", "align_corners": True}, (1, 2, 3, 4, 5)),
    ],
    "UpsamplingNearest2d": [((3,), {}, (1, 2, 4, 5)), ((), {"scale_factor": 1.5}, (1, 2, 4, 5))],
    "UpsamplingBilinear2d": [((3,), {}, (1, 2, 4, 5)), ((), {"scale_factor": 1.5}, (1, 2, 4, 5))],
    "EmbeddingBag": [
        ((10, 3), {}, None),
        ((10, 3), {"mode": "sum"}, None),
        ((10, 3), {"mode": "max"}, None),
        ((10, 3), {"mode": "sum", "padding_idx": 2, "max_norm": 1.0}, None),
        ((10, 3), {"mode": "sum", "include_last_offset": True}, None),
    ],
}


@functools.cache
def module_infos() -> dict[str, Any]:
    """name -> ModuleInfo, of module_db and the extra ones."""
    from torch.testing._internal.common_modules import ModuleInfo, module_db

    found = {info.name: info for info in module_db}
    for name in _EXTRA:
        inputs = functools.partial(_extra_inputs, name)
        differs = "Dropout" in name or name == "RReLU"
        info = ModuleInfo(
            getattr(torch.nn, name), module_inputs_func=inputs, train_and_eval_differ=differs
        )
        found[f"nn.{name}"] = info
    return dict(sorted(found.items()))


def _extra_inputs(name: str, info: Any, device: str, dtype: Any, requires_grad: bool, **_: Any):
    from torch.testing._internal.common_modules import FunctionInput, ModuleInput

    for args, kwargs, shape in _EXTRA[name]:
        if shape is None:
            index = torch.tensor([1, 2, 4, 5, 4, 3, 2, 9])
            inputs = (index, torch.tensor([0, 4, 8] if "include_last_offset" in kwargs else [0, 3]))
        else:
            inputs = (torch.randn(shape, dtype=dtype, requires_grad=requires_grad),)
            if name == "AdaptiveLogSoftmaxWithLoss":
                inputs += ((3 * torch.arange(shape[0])) % args[1],)
            if kwargs.get("inplace") or args[0:1] == (True,):
                inputs = (inputs[0].detach(),)
        yield ModuleInput(FunctionInput(*args, **kwargs), FunctionInput(*inputs))


def check_module(name: str, package: Package, options: Options = Options()) -> Report:
    """Everything about one module."""
    report = Report(name)
    if package.find(name) is None:
        report.status = MISSING if name.removeprefix("nn.") in scope.MODULES.split() else ABSENT
        return report

    def body() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            ModuleCheck(module_infos()[name], package, options, report).run()

    return timed(report, body)


class ModuleCheck:
    """The checks of one ModuleInfo."""

    def __init__(self, info: Any, package: Package, options: Options, report: Report) -> None:
        self.info, self.package, self.options, self.report = info, package, options, report
        self.cls = package.find(info.name)
        self.dtype: Any = None
        self.title = ""

    def check(self, kind: str, text: str | None) -> bool:
        return self.report.check(kind, self.dtype, self.title, text)

    def run(self) -> None:
        text = signature_difference(self.info.module_cls, self.cls)
        self.title = self.info.name
        self.check("signature", text)
        for self.dtype in self.options.dtypes or DTYPES:
            for training in (True, False)[: 1 + self.info.train_and_eval_differ]:
                TORCH.seed(0)
                cases = self.info.module_inputs_func(
                    self.info, "cpu", self.dtype, True, training=training
                )
                count = None if self.options.every else SAMPLES
                for i, case in enumerate(pick(cases, count)):
                    self.case(case, training, first=i == 0)
        self.errors()

    def describe(self, given: Any) -> str:
        parts = [describe(a, self.options.values) for a in given.args]
        if given.kwargs:
            parts.append(describe(given.kwargs, self.options.values))
        return ", ".join(parts)

    def case(self, case: Any, training: bool, first: bool) -> None:
        """One sample: construct, compare, run."""
        self.title = f"{self.info.name}({self.describe(case.constructor_input)})"
        self.title += "" if training else ".eval()"
        if (pair := self.construct(case.constructor_input)) is None:
            return
        theirs, mine = pair
        if not self.info.is_lazy:
            self.check("initial weights", self.states(theirs, mine, not self.package.own_numbers))
        text = None if str(mine) == str(theirs) else f"{mine}, PyTorch {theirs}"
        self.check("repr", text)
        try:
            for p, m in ((TORCH, theirs), (self.package, mine)):
                m.to(p.translate(self.dtype))
                m.train(training)
            if self.info.is_lazy and self.package.own_numbers:
                self.materialise(case.forward_input, theirs, mine)
            if not self.info.is_lazy or self.package.own_numbers:
                self.load(theirs, mine)
            if first:
                self.copies(theirs, mine)
        except Exception as error:
            self.check("module", error_text(error))
            return
        if case.forward_input is not None:
            self.title += f"({self.describe(case.forward_input)})"
            self.forward(case.forward_input, theirs, mine)

    def construct(self, given: Any) -> tuple | None:
        """The module in both packages from the same seed; None where one cannot be built."""
        both = (tuple(given.args), given.kwargs)
        try:
            theirs_given, mine_given = (p.translate(both, {}) for p in (TORCH, self.package))
        except Unconvertible as error:
            self.report.skip(str(error))
            return None
        theirs = outcome(TORCH, self.info.module_cls, *theirs_given)
        mine = outcome(self.package, self.cls, *mine_given)
        if isinstance(theirs, Raised):
            self.report.skip("PyTorch raises")
            return None
        if isinstance(mine, Raised):
            self.check("construct", error_text(mine.error))
            return None
        return theirs, mine

    def states(self, theirs: Any, mine: Any, values: bool = True) -> str | None:
        """What differs between two state dicts: keys and their order, shapes, dtypes, values."""
        pair = dict(theirs.state_dict()), dict(mine.state_dict())
        return difference(*pair, self.package, values=values)

    def materialise(self, given: Any, theirs: Any, mine: Any) -> None:
        """Lazy modules get their parameters from a first call."""
        for package, module in ((TORCH, theirs), (self.package, mine)):
            args, kwargs = package.translate((tuple(given.args), given.kwargs), {})
            module(*args, **kwargs)

    def compares(self, training: bool) -> bool:
        """Whether the values of results are compared, too."""
        return not (training and self.package.own_numbers and scope.draws(self.info.name, {}))

    def load(self, theirs: Any, mine: Any) -> None:
        """The other's state dict goes in."""
        state = self.package.translate(dict(theirs.state_dict()))
        result = mine.load_state_dict(state)
        ok = str(result) == "<All keys matched successfully>"
        self.check("load_state_dict", None if ok else str(result))

    def copies(self, theirs: Any, mine: Any) -> None:
        """Pickled and copied modules keep state and repr."""
        if self.info.is_lazy:
            return
        for kind, made in (
            ("pickle", pickle.loads(pickle.dumps(mine))),
            ("deepcopy", copy.deepcopy(mine)),
        ):
            text = self.states(theirs, made)
            self.check(kind, text or (None if str(made) == str(theirs) else f"repr {made}"))

    def forward(self, given: Any, theirs: Any, mine: Any) -> None:
        """Results, changed buffers, and gradients."""
        both = (tuple(given.args), given.kwargs)
        try:
            want_given, got_given = (p.translate(both, {}) for p in (TORCH, self.package))
        except Unconvertible as error:
            self.report.skip(str(error))
            return
        want = outcome(TORCH, theirs, *want_given)
        if isinstance(want, Raised):
            self.report.skip("PyTorch raises")
            return
        got = outcome(self.package, mine, *got_given)
        values = self.compares(mine.training)
        if not self.check("forward", verdict(want, got, self.package, values=values)):
            return
        self.check("state after", self.states(theirs, mine))
        walks = [(TORCH, want, want_given, theirs), (self.package, got, got_given, mine)]
        self.check("grad", self.gradients(walks, values))

    def gradients(self, walks: list[tuple], values: bool) -> str | None:
        """What differs between the gradients of inputs and parameters."""
        found, cotangents = [], None
        for package, result, given, module in walks:
            outputs = [t for t in package.tensors(result) if t.requires_grad]
            if cotangents is None:
                TORCH.seed(1)
                cotangents = [torch.randn_like(t) for t in outputs]
            if len(outputs) != len(cotangents):
                return f"{len(outputs)} differentiable results, PyTorch {len(cotangents)}"
            if not outputs:
                return None
            try:
                package.module.autograd.backward(outputs, package.translate(cotangents))
            except Exception as error:
                return error_text(error) if package is not TORCH else None
            grads = [(f"input {i}", t.grad) for i, t in enumerate(package.tensors(given))]
            found.append(grads + [(n, p.grad) for n, p in module.named_parameters()])
        factor = 10.0 if self.dtype == torch.float32 else 1.0
        for (name, want), (_, got) in zip(*found, strict=True):
            if text := gradient_difference(want, got, self.package, factor, values):
                return f"gradient of {name}: {text}"
        return None

    def errors(self) -> None:
        """Error inputs raise the same type, at construction or in forward."""
        if self.info.module_error_inputs_func is None:
            return
        self.dtype = None
        TORCH.seed(0)
        for training in (True, False)[: 1 + self.info.train_and_eval_differ]:
            cases = self.info.module_error_inputs_func(
                self.info, "cpu", torch.float32, False, training=training
            )
            for case in cases:
                self.error(case, training)

    def error(self, case: Any, training: bool) -> None:
        given = case.module_error_input
        both = [(tuple(g.args), g.kwargs) for g in (given.constructor_input, given.forward_input)
                if g is not None]  # fmt: skip
        self.title = f"{self.info.name}({self.describe(given.constructor_input)})"
        if given.forward_input is not None:
            self.title += f"({self.describe(given.forward_input)})"

        def run(package: Package, cls: Any) -> Any:
            calls = package.translate(both, {})
            module = outcome(package, cls, *calls[0])
            if isinstance(module, Raised) or case.error_on.name == "CONSTRUCTION_ERROR":
                return module
            return outcome(package, module.train(training), *calls[1])

        theirs = run(TORCH, self.info.module_cls)
        if isinstance(theirs, Raised):
            mine = run(self.package, self.cls)
            check_error(self.report, self.package, case, self.title, theirs, mine)
