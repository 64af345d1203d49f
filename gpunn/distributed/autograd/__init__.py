"""Gradients through remote calls.

Within a `context`, tensors that remote calls send and return stay in the graph; `backward` follows
them to every worker.
Source: https://docs.pytorch.org/docs/stable/rpc.html#distributed-autograd-framework
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunn.distributed.autograd import contexts
from gpunn.tensor import Tensor

__all__ = ["backward", "context", "get_gradients"]


def is_available() -> bool:
    """True: the package is always here.

    >>> gpunn.distributed.autograd.is_available()
    True
    """
    return True


class context:  # noqa: N801
    """One forward and backward pass over several workers; `with` gives its number.

    RuntimeError before `rpc.init_rpc`, or within another context.
    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.autograd.context
    """

    def __enter__(self) -> int:
        from gpunn.distributed.rpc.agent import agent

        if contexts.current.context is not None:
            raise RuntimeError(
                "Already have an autograd context id for this thread. Contexts do not nest."
            )
        self._made = contexts.current.context = contexts.new(agent().info.id)
        return self._made.number

    def __exit__(self, *exc: object) -> None:
        from gpunn.distributed.autograd import engine

        contexts.current.context = None
        engine.release(self._made.number)


def backward(context_id: int, roots: Sequence[Tensor], retain_graph: bool = False) -> None:
    """The gradients of scalar `roots`, on every worker that had a part in them.

    They add up in the context, not in `.grad`: `get_gradients` gives those of this worker,
    `DistributedOptimizer.step` uses those of all. It returns when all workers are done. Graphs are
    kept until the context ends, whatever `retain_graph` says.
    RuntimeError for a context that there is not, for roots that are no scalars or have no graph.
    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.autograd.backward
    """
    from gpunn.distributed.autograd import engine

    found, roots = contexts.find(context_id), list(roots)
    if not roots:
        raise RuntimeError("No tensors provided for gradient computation.")
    for root in roots:
        if not root.requires_grad:
            raise RuntimeError("requires_grad not set on root")
        if root.array.size != 1:
            raise RuntimeError(
                f"{list(root.shape)} is not a scalar, all roots need to be scalar: call .sum()"
            )
    engine.backward(found, roots)


def get_gradients(context_id: int) -> dict[Tensor, Tensor]:
    """This worker's leaves and their gradients in a context.

    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.autograd.get_gradients
    """
    found: dict[Any, Any] = contexts.find(context_id).gradients
    return dict(found)
