"""Automatic differentiation. See `graph` for how operations are recorded, `walk` for backward."""

from typing import Any

from gpunn.autograd import functional
from gpunn.autograd.function import Function, FunctionCtx, once_differentiable
from gpunn.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from gpunn.autograd.graph import (
    Node,
    NodeOfSeveral,
    adopt,
    check_inplace,
    mode,
    namespace,
    needs,
    result,
    results,
    touch,
    unbroadcast,
    vertex,
    view,
    vjp,
)
from gpunn.autograd.modes import (
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_anomaly_enabled,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_detect_anomaly,
    set_grad_enabled,
)
from gpunn.autograd.walk import backward, grad
from gpunn.tensor import Tensor as Variable

__all__ = [
    "Function", "FunctionCtx", "GradcheckError", "Node", "NodeOfSeveral", "Variable", "adopt",
    "backward", "check_inplace", "detect_anomaly", "enable_grad", "functional", "grad",
    "gradcheck", "gradgradcheck", "inference_mode", "is_anomaly_enabled", "is_grad_enabled",
    "is_inference_mode_enabled", "mode", "namespace", "needs", "no_grad", "once_differentiable",
    "result", "results", "set_detect_anomaly", "set_grad_enabled", "touch", "unbroadcast",
    "vertex", "view", "vjp",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The profiler's modules, imported when they are first asked for."""
    if name in ("profiler", "profiler_util"):
        import importlib

        return importlib.import_module(f"gpunn.autograd.{name}")
    raise AttributeError(f"module 'gpunn.autograd' has no attribute '{name}'")
