"""What goes wrong between processes.

Source: https://docs.pytorch.org/docs/stable/distributed.html
"""

from __future__ import annotations

__all__ = [
    "DistBackendError", "DistError", "DistNetworkError", "DistStoreError", "QueueEmptyError",
]  # fmt: skip


class DistError(RuntimeError):
    """Anything that goes wrong between processes.

    Source: https://docs.pytorch.org/docs/stable/distributed.html

    >>> issubclass(gpunn.distributed.errors.DistBackendError, RuntimeError)
    True
    """


class DistStoreError(DistError):
    """A store did not answer in time, or was asked what it cannot do.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#distributed-key-value-store
    """


class QueueEmptyError(DistStoreError):
    """A queue of a store has nothing to give.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#distributed-key-value-store
    """


class DistNetworkError(DistError):
    """A connection could not be made, or broke.

    Source: https://docs.pytorch.org/docs/stable/distributed.html
    """


class DistBackendError(DistError):
    """An operation between ranks failed; the message names the rank that it failed for.

    Source: https://docs.pytorch.org/docs/stable/distributed.html
    """
