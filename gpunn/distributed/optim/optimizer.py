"""DistributedOptimizer: an optimizer for parameters on several workers.

Source: https://docs.pytorch.org/docs/stable/distributed.optim.html#torch.distributed.optim.DistributedOptimizer
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from gpunn.distributed import autograd, rpc
from gpunn.futures import wait_all
from gpunn.optim.optimizer import Optimizer

__all__ = ["DistributedOptimizer"]

_one_at_a_time = threading.Lock()


class _LocalOptimizer:
    """The optimizer of the parameters that one worker owns."""

    def __init__(self, optimizer_class: type[Optimizer], rrefs: Sequence[Any], *args: Any,
                 **kwargs: Any):  # fmt: skip
        self.params = [rref.local_value() for rref in rrefs]
        self.optimizer = optimizer_class(self.params, *args, **kwargs)

    def step(self, context_id: int) -> None:
        """A step with the gradients of a context."""
        found = autograd.get_gradients(context_id)
        with _one_at_a_time:
            before = [p.grad for p in self.params]
            for p in self.params:
                p.grad = found.get(p)
            try:
                self.optimizer.step()
            finally:
                for p, grad in zip(self.params, before, strict=True):
                    p.grad = grad


def _new(*args: Any, **kwargs: Any) -> rpc.RRef:
    return rpc.RRef(_LocalOptimizer(*args, **kwargs))


def _step(rref: Any, context_id: int) -> None:
    rref.local_value().step(context_id)


class DistributedOptimizer:
    """`optimizer_class(params, *args, **kwargs)` on every worker, for the parameters it owns.

    `params_rref`: references to the parameters. `step(context_id)` uses the gradients of a context
    of distributed autograd. ValueError without parameters; what `optimizer_class` raises.
    Source: https://docs.pytorch.org/docs/stable/distributed.optim.html#torch.distributed.optim.DistributedOptimizer
    """

    def __init__(
        self, optimizer_class: type[Optimizer], params_rref: Sequence[Any], *args: Any,
        **kwargs: Any,
    ):  # fmt: skip
        owners: dict[Any, list[Any]] = {}
        for rref in params_rref:
            owners.setdefault(rref.owner(), []).append(rref)
        if not owners:
            raise ValueError("optimizer got an empty parameter list")
        self.is_functional_optim = False
        self.remote_optimizers = wait_all([
            rpc.rpc_async(owner, _new, (optimizer_class, rrefs, *args), kwargs)
            for owner, rrefs in owners.items()
        ])  # fmt: skip

    def step(self, context_id: int) -> None:
        """A step on every worker; returns when all are done. RuntimeError for no such context."""
        autograd.get_gradients(context_id)  # where it is wrong, no worker takes a step
        wait_all([
            rpc.rpc_async(rref.owner(), _step, (rref, context_id))
            for rref in self.remote_optimizers
        ])  # fmt: skip
