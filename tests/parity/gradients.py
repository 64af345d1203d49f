"""First and second gradients of one sample, in both packages."""

from __future__ import annotations

from typing import Any

import torch

from .compare import values_difference
from .convert import TORCH, Package, Unconvertible, carried
from .report import error_text


class Walk:
    """One sample in one package: its differentiable inputs and outputs."""

    def __init__(self, package: Package, check: Any, sample: Any, inplace: bool) -> None:
        self.package = package
        both = package.translate(((sample.input, *sample.args), sample.kwargs))
        (args, kwargs) = both
        self.inputs = [t for t in _unique(package.tensors(both)) if t.requires_grad]
        package.seed(7)
        op = package.translate(check.info.inplace_variant if inplace else check.info.op)
        if inplace:
            args = (args[0].clone(), *args[1:])
        wrapper = package.translate(check.info.gradcheck_wrapper)
        process = package.translate(sample.output_process_fn_grad)
        self.all = package.tensors(process(wrapper(op, *args, **kwargs)))
        self.outputs = [t for t in self.all if t.requires_grad]

    def first(self, cotangents: list) -> list:
        """Gradients by backward()."""
        self.package.module.autograd.backward(self.outputs, cotangents)
        return [t.grad for t in self.inputs]

    def second(self, cotangents: list, directions: list) -> list:
        """Gradients, of the inputs and the cotangents, of the first gradients along directions."""
        grad = self.package.module.autograd.grad
        cotangents = [c.requires_grad_() for c in cotangents]
        once = grad(self.outputs, self.inputs, cotangents, create_graph=True, allow_unused=True)
        used = [(g, v) for g, v in zip(once, directions, strict=True) if _differentiable(g)]
        targets = self.inputs + cotangents
        if not used:
            return [None] * len(targets)
        return list(grad([g for g, _ in used], targets, [v for _, v in used], allow_unused=True))


def check_gradients(check: Any, kind: str, sample: Any, dtype: torch.dtype, second: bool) -> None:
    """Compare the gradients of one sample; `check` is the OpCheck that asks."""
    try:
        theirs = Walk(TORCH, check, sample, kind == "inplace grad")
    except Unconvertible as error:
        check.report.skip(str(error))
        return
    except Exception:
        check.report.skip("PyTorch raises")
        return
    if not theirs.inputs or not theirs.outputs or not all(map(carried, theirs.outputs)):
        return
    TORCH.seed(1)
    cotangents = [torch.randn_like(t) for t in theirs.outputs]
    directions = [torch.randn_like(t) for t in theirs.inputs] if second else []
    try:
        want = _gradients(theirs, cotangents, directions, second)
    except Exception:
        check.report.skip("PyTorch has no such gradient")
        return
    try:
        mine = Walk(check.package, check, sample, kind == "inplace grad")
        text = _compare(check, mine, theirs, want, cotangents, directions, second,
                        check.compares(sample.kwargs) and dtype != torch.bfloat16)  # fmt: skip
    except Exception as error:
        text = error_text(error)
    check.report.check(kind, dtype, check.describe(sample), text)


def _gradients(walk: Walk, cotangents: list, directions: list, second: bool) -> list:
    """The gradients of one package from cotangents given as PyTorch tensors."""
    cotangents = [walk.package.translate(c) for c in cotangents]
    directions = [walk.package.translate(v) for v in directions]
    return walk.second(cotangents, directions) if second else walk.first(cotangents)


def _compare(
    check: Any, mine: Walk, theirs: Walk, want: list, cotangents: list, directions: list,
    second: bool, values: bool,
) -> str | None:  # fmt: skip
    flags = [[t.requires_grad for t in w.all] for w in (mine, theirs)]
    if flags[0] != flags[1]:
        return f"requires_grad of the results {flags[0]}, PyTorch {flags[1]}"
    got = _gradients(mine, cotangents, directions, second)
    single = any(t.dtype == torch.float32 for t in theirs.inputs)
    factor = check.factor * (10 if second or single else 1)  # longer sums than the results
    check.package.settle()
    for i, (w, g) in enumerate(zip(want, got, strict=True)):
        if text := gradient_difference(w, g, check.package, factor, values):
            return f"gradient of differentiable input {i}: {text}"
    return None


def gradient_difference(
    want: Any, got: Any, package: Package, factor: float, values: bool = True
) -> str | None:
    """What differs between two gradients; none at all and zeros are the same."""
    if got is not None:
        if want is not None and not package.well_placed(got, want):
            return f"device {got.device}"
        got = package.to_torch(got)
    if want is None or got is None:
        other = got if want is None else want
        if other is None:
            return None
        other = other.detach()
        if values_difference(torch.zeros_like(other), other, factor) is None:
            return None
        return "none, PyTorch has one" if got is None else "there is one, PyTorch has none"
    want = want.detach().resolve_conj().resolve_neg()
    if (want.dtype, want.shape) != (got.dtype, got.shape):
        return f"{got.dtype} {tuple(got.shape)}, PyTorch {want.dtype} {tuple(want.shape)}"
    return values_difference(want, got, factor) if values else None


def _unique(tensors: list) -> list:
    """Each tensor once, in order."""
    return list({id(t): t for t in tensors}.values())


def _differentiable(gradient: Any) -> bool:
    return gradient is not None and gradient.requires_grad
