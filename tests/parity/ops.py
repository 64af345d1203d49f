"""Operations: samples of PyTorch's op_db run on both packages.

For each operation: the function, the method, the in-place, operator and out= forms, the aliases,
strided inputs, shared memory of views, first and second gradients, and the error inputs.
"""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import scope
from .calls import Raised, check_error, outcome, signature_difference, verdict
from .compare import difference
from .convert import (
    TORCH,
    Absent,
    Missing,
    Package,
    Unconvertible,
    carried,
    describe,
    elements,
    lookup,
    path_of,
    storage_of,
)
from .gradients import check_gradients
from .report import ABSENT, MISSING, Report, error_text, timed

DTYPES = {  # dtype -> how many samples of it, at most
    torch.float32: 100,
    torch.float64: 30,
    torch.int64: 40,
    torch.bool: 16,
    torch.complex64: 20,
    torch.bfloat16: 16,
    torch.float16: 12,
    torch.uint8: 10,
}
HALVES = (torch.float16, torch.bfloat16)
REFERENCE = {torch.float32: 40, torch.int64: 20}  # of PyTorch's larger set of samples
FORMS, STRIDED, GRADS, SECOND = 15, 15, 30, 10  # for the other forms, strides, gradients
LARGEST = 200_000  # elements of a sample


@dataclass(frozen=True)
class Options:
    """What to run: all dtypes and kinds unless named, sampled unless `every`."""

    dtypes: tuple[torch.dtype, ...] = ()
    kinds: tuple[str, ...] = ()
    every: bool = False
    reference: bool = False
    values: bool = False
    most: int | None = None  # samples of one dtype and kind

    def wants(self, kind: str) -> bool:
        return not self.kinds or kind in self.kinds


def pick(samples: Iterable, count: int | None) -> list:
    """`count` of the samples, the same ones each time, the first always among them."""
    samples = list(samples)
    if count is None or len(samples) <= count:
        return samples
    chosen = random.Random(0).sample(range(1, len(samples)), count - 1)
    return [samples[i] for i in sorted([0, *chosen])]


def exists(package: Package, info: Any) -> bool:
    """Whether the package has the operation: the function, else the method."""
    name = info.name.removeprefix("torch.")
    if getattr(info.op, "__name__", "") == "<lambda>":  # written over a method or a function
        for path in (f"Tensor.{name}", f"Tensor.{name}_", name):
            if lookup(torch, path) is not None:
                return package.find(path) is not None
    if name.startswith("__"):
        return name in dir(package.module.Tensor)
    found = package.translate(info.op)
    return not isinstance(found, Missing) and package.find(name) is not None


def check_op(name: str, infos: list, package: Package, options: Options = Options()) -> Report:
    """Everything about one operation: all OpInfos of that name."""
    report = Report(name)
    present = [info for info in infos if exists(package, info)]
    if not present:
        report.status = MISSING if name in scope.operations([name]) else ABSENT
        return report

    def body() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)  # NumPy's, which users must not see
            for info in present:
                OpCheck(info, package, options, report).run()

    return timed(report, body)


class OpCheck:
    """The checks of one OpInfo."""

    def __init__(self, info: Any, package: Package, options: Options, report: Report) -> None:
        self.info, self.package, self.options, self.report = info, package, options, report
        self.fn = package.translate(info.op)
        self.title = info.name + (f".{info.variant_test_name}" if info.variant_test_name else "")
        self.factor = 1.0
        self.compare_values = info.name not in scope.VALUES_DIFFER

    def compares(self, kwargs: dict) -> bool:
        """Whether values are compared, too, of a sample with these keyword arguments."""
        drawn = self.package.own_numbers and scope.draws(self.info.name, kwargs)
        return self.compare_values and not drawn

    def tolerance(self, dtype: torch.dtype) -> float:
        """The multiple of the usual tolerance."""
        return scope.tolerance_factor(self.info.name, dtype, self.package.own_numbers)

    def run(self) -> None:
        dtypes = self.options.dtypes or tuple(DTYPES)
        for dtype in dtypes:
            if dtype in self.info.dtypes and not scope.out_of_scope(self.info.name, dtype):
                self.run_dtype(dtype)
        kinds = (("signature", self.signature), ("alias", self.aliases), ("error", self.errors))
        for kind, run in kinds:
            if self.options.wants(kind):
                run()
        if self.info.supports_autograd:
            self.gradients()

    def samples(
        self, dtype: torch.dtype, requires_grad: bool = False, reference: bool = False
    ) -> list:
        """All samples of a dtype that are not too large."""
        _seed_generators()
        source = (reference or self.options.reference) and self.info.reference_inputs_func
        source = source or self.info.sample_inputs_func
        try:
            samples = list(source(self.info, "cpu", dtype, requires_grad))
        except Exception as error:
            self.report.skip(f"no samples: {error_text(error)}")
            return []
        fits = [s for s in samples if elements((s.input, s.args, s.kwargs)) <= LARGEST]
        return fits if fits or not samples else samples[:1]

    def limit(self, count: int) -> int | None:
        return None if self.options.every else min(count, self.options.most or count)

    def run_dtype(self, dtype: torch.dtype) -> None:
        self.factor = self.tolerance(dtype)
        samples = self.samples(dtype)
        if self.options.wants("value"):
            chosen = pick(samples, self.limit(DTYPES.get(dtype, 10)))
            if self.info.reference_inputs_func is not None and dtype in REFERENCE:
                larger = self.samples(dtype, reference=True)
                chosen += pick(larger, self.limit(REFERENCE[dtype]))
            for sample in chosen:
                self.form("value", self.info.op, sample, dtype, whole=True)
        if dtype not in (torch.float32, torch.int64) and not self.options.dtypes:
            return
        few = pick(samples, self.limit(FORMS))
        for sample in few:
            self.forms(sample, dtype)
        if self.info.supports_out and self.options.wants("out"):
            for i, sample in enumerate(few):
                self.out(sample, dtype, strided=i % 2 == 1)
        if self.options.wants("strided"):
            for sample in pick(samples, self.limit(STRIDED)):
                self.strided(sample, dtype)

    # -- one call ------------------------------------------------------------------------

    def describe(self, sample: Any) -> str:
        parts = [describe(v, self.options.values) for v in (sample.input, *sample.args)]
        if sample.kwargs:
            parts.append(describe(sample.kwargs, self.options.values))
        return f"{self.title}({', '.join(parts)})"

    def copies(self, sample: Any) -> list[tuple[tuple, dict]] | None:
        """The arguments, translated for PyTorch (fresh copies) and for the package."""
        both = ((sample.input, *sample.args), sample.kwargs)
        try:
            return [p.translate(both, {}) for p in (TORCH, self.package)]
        except Unconvertible as error:
            self.report.skip(str(error))
        except Absent as error:
            self.report.check("arguments", None, self.describe(sample), str(error))
        return None

    def form(
        self, kind: str, fn: Any, sample: Any, dtype: Any, whole: bool = False, same: bool = False
    ) -> None:
        """One form of the operation on one sample; with `same`, it must return its first input."""
        if not self.options.wants(kind) or (pair := self.copies(sample)) is None:
            return
        theirs, mine = pair
        want = outcome(TORCH, TORCH.translate(fn), *theirs)
        if isinstance(want, Raised) and (whole or isinstance(want.error, NotImplementedError)):
            self.report.skip("PyTorch raises")
            return
        if want is NotImplemented or not all(map(carried, TORCH.tensors(want))):
            self.report.skip("NumPy cannot carry the result, or there is none")
            return
        got = outcome(self.package, self.package.translate(fn), *mine)
        text = self.verdict(want, got, sample)
        if text is None and same and not isinstance(want, Raised):
            text = None if got is mine[0][0] else "did not return its first argument"
        if text is None:
            now = TORCH.tensors(theirs), self.package.tensors(mine)
            after = difference(*now, self.package, self.factor, self.compares(sample.kwargs))
            text = after and f"tensor arguments after the call: {after}"
        if not self.report.check(kind, dtype, self.describe(sample), text) or not whole:
            return
        if not dtype.is_complex and not isinstance(want, Raised):
            self.memory(sample, dtype, (theirs, want), (mine, got))

    def verdict(self, want: Any, got: Any, sample: Any) -> str | None:
        """What differs between two outcomes, after what scope.py says of the operation."""
        judge = functools.partial(verdict, package=self.package, factor=self.factor)
        text = judge(want, got, values=self.compares(sample.kwargs))
        if text is None or isinstance(want, Raised) or isinstance(got, Raised):
            return text
        if (structure := judge(want, got, values=False)) is not None:
            return structure
        if self.info.name in scope.UP_TO_SIGN:
            process = sample.output_process_fn_grad
            return judge(TORCH.translate(process)(want), self.package.translate(process)(got))
        if self.info.name in scope.ANY_OF_EQUALS and _holds_equals(sample):
            return None if isinstance(want, torch.Tensor) else judge(want[0], got[0])
        if any(t.dtype in HALVES for t in TORCH.tensors(want)):
            return self.rounded_once(want, got, sample) and text
        return text

    def rounded_once(self, want: Any, got: Any, sample: Any) -> str | None:
        """Whether a 16-bit result is the float32 one rounded, where PyTorch rounds on the way."""
        wide = sample.transform(_widened)
        both = TORCH.translate(((wide.input, *wide.args), wide.kwargs), {})
        exact = outcome(TORCH, TORCH.translate(self.info.op), *both)
        exact = [] if isinstance(exact, Raised) else TORCH.tensors(exact)
        if len(exact) != len(TORCH.tensors(want)):
            return "not comparable"
        rounded = [t.to(w.dtype) for t, w in zip(exact, TORCH.tensors(want), strict=True)]
        return difference(rounded, self.package.tensors(got), self.package)

    def memory(self, sample: Any, dtype: Any, theirs: tuple, mine: tuple) -> None:
        """A result shares memory with an input exactly where PyTorch's does."""
        if not self.options.wants("memory"):
            return
        inputs, outputs = TORCH.tensors(theirs[0]), TORCH.tensors(theirs[1])
        own_inputs, own_outputs = self.package.tensors(mine[0]), self.package.tensors(mine[1])
        for i, (want, got) in enumerate(zip(outputs, own_outputs, strict=True)):
            if not want.numel() or want.layout != torch.strided:
                continue
            shares = [storage_of(want) == storage_of(t) for t in inputs]
            at = self.package.memory(got)
            own = [at == self.package.memory(t) for t in own_inputs]
            text = None
            if any(shares) and not any(own):
                text = f"result {i} is a copy, PyTorch's is a view of its input"
            elif any(own) and not any(shares):
                text = f"result {i} shares memory with its input, PyTorch's is a copy"
            self.report.check("memory", dtype, self.describe(sample), text)

    # -- the other forms -----------------------------------------------------------------

    def forms(self, sample: Any, dtype: Any) -> None:
        """Method, in-place method, operator and in-place operator."""
        info = self.info
        if not isinstance(sample.input, torch.Tensor):
            return
        if info.method_variant is not None and info.method_variant is not info.op:
            self.form("method", info.method_variant, sample, dtype)
        if info.operator_variant is not None and not sample.kwargs and len(sample.args) < 2:
            self.form("operator", info.operator_variant, sample, dtype)
        if info.inplace_variant is not None:
            self.form("inplace", info.inplace_variant, sample, dtype, same=True)
        if info.inplace_operator_variant is not None and not sample.kwargs:
            self.form("inplace", info.inplace_operator_variant, sample, dtype, same=True)

    def strided(self, sample: Any, dtype: Any) -> None:
        """The function on the same values in non-contiguous memory."""
        try:
            sample = sample.noncontiguous()
        except Exception:
            self.report.skip("no non-contiguous form")
            return
        self.form("strided", self.info.op, sample, dtype)

    def out(self, sample: Any, dtype: Any, strided: bool) -> None:
        """out=: the tensors given are returned and hold the result, contiguous or not."""
        if "out" in sample.kwargs or (pair := self.copies(sample)) is None:
            return
        (args, kwargs), (own_args, own_kwargs) = pair
        op = TORCH.translate(self.info.op)
        want = outcome(TORCH, op, args, kwargs)
        if isinstance(want, Raised) or not TORCH.tensors(want):
            return
        spare = [_garbage(t, strided) for t in TORCH.tensors(want)]
        out = spare[0] if isinstance(want, torch.Tensor) else tuple(spare)
        try:
            own = self.package.translate(out)
        except Unconvertible:
            return
        returned = outcome(TORCH, op, args, {**kwargs, "out": out})
        if isinstance(returned, Raised):
            return
        got = outcome(self.package, self.fn, own_args, {**own_kwargs, "out": own})
        text = self.verdict(returned, got, sample)
        text = text or self.verdict(out, own, sample)
        if text is None:
            pairs = zip(self.package.tensors(own), self.package.tensors(got), strict=False)
            text = None if all(a is b for a, b in pairs) else "did not return the tensors of out="
        self.report.check("out", dtype, f"{self.describe(sample)} out={describe(out)}", text)

    def signature(self) -> None:
        """Names, order and defaults of the parameters, where PyTorch's function has them."""
        if path_of(self.info.op) is not None:
            text = signature_difference(self.info.op, self.fn)
            self.report.check("signature", None, self.title, text)

    def aliases(self) -> None:
        """Every alias exists, as function and as methods, and gives the same on one sample."""
        for alias in self.info.aliases:
            name = alias.name.removeprefix("torch.")
            for path in (name, f"Tensor.{name}", f"Tensor.{name}_"):
                if lookup(torch, path) is not None:
                    text = None if self.package.find(path) is not None else "no such name"
                    self.report.check("alias", None, path, text)
            dtype = torch.float32 if torch.float32 in self.info.dtypes else torch.int64
            if self.package.find(name) is not None and dtype in self.info.dtypes:
                self.factor = self.tolerance(dtype)
                for sample in pick(self.samples(dtype), 1):
                    self.form("alias", lookup(torch, name), sample, dtype)

    # -- errors and gradients ------------------------------------------------------------

    def errors(self) -> None:
        """Error inputs raise the same type; other words are counted apart."""
        if self.info.error_inputs_func is None:
            return
        _seed_generators()
        for case in self.info.error_inputs_func(self.info, "cpu"):
            pair = self.copies(case.sample_input)
            if pair is None:
                continue
            theirs = outcome(TORCH, self.info.op, *pair[0])
            if not isinstance(theirs, Raised):
                continue
            sample = self.describe(case.sample_input)
            got = outcome(self.package, self.fn, *pair[1])
            check_error(self.report, self.package, case, sample, theirs, got)

    def gradients(self) -> None:
        """First gradients (of bfloat16 the dtypes only), and second ones in float64."""
        plans = (
            ("grad", torch.float64, GRADS, False),
            ("grad", torch.float32, 4, False),
            ("grad", torch.bfloat16, 2, False),
            ("inplace grad", torch.float64, SECOND, False),
            ("gradgrad", torch.float64, SECOND, True),
        )
        inplace = self.info.inplace_variant if self.info.supports_inplace_autograd else None
        for kind, dtype, count, second in plans:
            if second and not self.info.supports_gradgrad:
                continue
            if kind == "inplace grad" and inplace is None:
                continue
            named = not self.options.dtypes or dtype in self.options.dtypes
            if not named or not self.options.wants(kind) or dtype not in self.info.backward_dtypes:
                continue
            self.factor = self.tolerance(dtype)
            for i, sample in enumerate(pick(self.samples(dtype, True), self.limit(count))):
                if i % 3 == 1 and kind == "grad":
                    sample = _strided_leaves(sample)
                check_gradients(self, kind, sample, dtype, second)


def _seed_generators() -> None:
    """Samples are the same each time."""
    TORCH.seed(0)
    random.seed(0)
    np.random.seed(0)


def _widened(value: Any) -> Any:
    """float32 in place of the 16-bit dtypes: of a tensor, or the dtype itself."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in HALVES else value
    return torch.float32 if value in HALVES else value


def _holds_equals(sample: Any) -> bool:
    """Whether the input holds a value twice and no stable order of the two is asked for."""
    stable = sample.kwargs.get("stable", False)
    return not stable and sample.input.unique().numel() < sample.input.numel()


def _strided_leaves(sample: Any) -> Any:
    """The sample in non-contiguous memory, gradients still required of the same tensors."""
    try:
        return sample.noncontiguous()
    except Exception:
        return sample


def _garbage(like: torch.Tensor, strided: bool) -> torch.Tensor:
    """A tensor of the same shape and dtype, holding other values, contiguous or not."""
    if strided and like.ndim:
        wide = torch.empty((*like.shape[:-1], like.shape[-1] * 2), dtype=like.dtype)
        return wide.fill_(True if like.dtype == torch.bool else 77)[..., ::2]
    return torch.full(like.shape, True if like.dtype == torch.bool else 77, dtype=like.dtype)
