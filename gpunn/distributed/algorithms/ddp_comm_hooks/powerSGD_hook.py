# ruff: noqa: N999
"""PowerSGD: gradients sent as the product of two thin matrices, with the error carried on.

Source: Vogels, Karimireddy and Jaggi 2019, PowerSGD: practical low-rank gradient compression for
distributed optimization. The file's name is PyTorch's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace as _namespace
from gpunn.distributed.algorithms.ddp_comm_hooks.default_hooks import mean
from gpunn.distributed.collectives import all_reduce
from gpunn.distributed.group import ProcessGroup, default_group
from gpunn.futures import Future
from gpunn.nn.parallel.bucket import GradBucket
from gpunn.tensor import Tensor, wrap

__all__ = ["PowerSGDState", "powerSGD_hook"]


class PowerSGDState:
    """What PowerSGD keeps between iterations: errors, and the matrices it starts from.

    `matrix_approximation_rank`: columns of the thin matrices. Until `start_powerSGD_iter` steps are
    done gradients are sent whole. A matrix is compressed where that sends at most one part in
    `min_compression_rate`. `use_error_feedback` adds what was lost to the next gradient,
    `warm_start` begins with the last step's matrix. ValueError where one of these is to start
    before the second step.
    Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html#torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook.PowerSGDState
    """

    def __init__(
        self, process_group: ProcessGroup | None, matrix_approximation_rank: int = 1,
        start_powerSGD_iter: int = 1000, min_compression_rate: float = 2,
        use_error_feedback: bool = True, warm_start: bool = True,
        orthogonalization_epsilon: float = 0, random_seed: int = 0,
        compression_stats_logging_frequency: int = 10_000,
        batch_tensors_with_same_shape: bool = False,
    ):  # fmt: skip
        if (use_error_feedback or warm_start) and start_powerSGD_iter <= 1:
            raise ValueError(
                "Expect `start_powerSGD_iter` > 1 if `use_error_feedback` or `warm_start` is "
                "enabled, because PowerSGD can only be applied after the first two iterations in "
                "DDP."
            )
        self.process_group = process_group
        self.matrix_approximation_rank = matrix_approximation_rank
        self.start_powerSGD_iter = start_powerSGD_iter
        self.min_compression_rate = min_compression_rate
        self.use_error_feedback, self.warm_start = use_error_feedback, warm_start
        self.orthogonalization_epsilon = orthogonalization_epsilon
        self.random_seed = random_seed
        self.iter = 0
        self.error_dict: dict[int, Any] = {}
        self.q_memory: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the process group stays behind, and becomes the default one."""
        return {**self.__dict__, "process_group": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, process_group=default_group())

    def _low_rank(self, shape: tuple[int, ...]) -> int:
        """The rank to compress a gradient of this shape to; 0: it is sent whole."""
        if len(shape) < 2:
            return 0
        rows, columns = shape[0], math.prod(shape[1:])
        rank = min(rows, columns, self.matrix_approximation_rank)
        sent = (rows + columns) * rank * self.min_compression_rate
        return rank if sent < rows * columns else 0


def _orthogonal(p: Any, epsilon: float) -> None:
    """Makes the columns of p orthonormal, in place; with `epsilon` by Gram and Schmidt's way."""
    wide = p.astype(np.float32) if p.dtype.itemsize == 2 else p
    if epsilon == 0:  # Householder's way has no division by the length of a column of zeros
        p[...] = _namespace(p).linalg.qr(wide)[0]
        return
    for k in range(p.shape[1]):
        column = wide[:, k]
        column /= (column * column).sum() ** 0.5 + epsilon
        if k + 1 < p.shape[1]:
            rest = wide[:, k + 1 :]
            rest -= column[:, None] * (column @ rest)[None, :]
    p[...] = wide


def _split(state: PowerSGDState, bucket: GradBucket) -> tuple[list[Any], list[tuple[Any, int]]]:
    """The bucket's gradients that are sent whole, and the others as matrices with their ranks."""
    whole, matrices = [], []
    for g in bucket.gradients():
        rank = state._low_rank(tuple(g.shape))
        if rank:
            matrices.append((g.array.reshape(g.shape[0], -1), rank))
        else:
            whole.append(g.array.reshape(-1))
    return whole, matrices


def _starts(
    state: PowerSGDState, index: int, step: int, matrices: list[tuple[Any, int]], xp: Any
) -> Any:
    """The right matrices to start from: the last ones, or the same random ones on all ranks."""
    found = state.q_memory.get(index)
    if found is None or not state.warm_start:
        draw = np.random.default_rng((state.random_seed, step, index))
        found = [
            xp.asarray(draw.standard_normal((m.shape[1], rank)).astype(m.dtype))
            for m, rank in matrices
        ]
    for q in found:
        _orthogonal(q, state.orthogonalization_epsilon)
    return found


def powerSGD_hook(state: PowerSGDState, bucket: GradBucket) -> Future[Tensor]:  # noqa: N802
    """The mean over the ranks, approximately: matrices go as thin factors, the rest as it is.

    Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html#torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook.powerSGD_hook

    >>> hooks = gpunn.distributed.algorithms.ddp_comm_hooks
    >>> state = hooks.powerSGD_hook.PowerSGDState(None, start_powerSGD_iter=2)
    >>> state._low_rank((64, 64)), state._low_rank((64,))
    (1, 0)
    """
    group = default_group() if state.process_group is None else state.process_group
    buffer = bucket.buffer()
    step = state.iter
    state.iter += bucket.is_last()  # the buckets of a step come in the same order on all ranks
    if step < state.start_powerSGD_iter:
        return mean(group, buffer)
    index, xp, size = bucket.index(), buffer.device.xp, group.size()
    if state.use_error_feedback and index in state.error_dict:
        buffer.array[...] += state.error_dict[index]
    mine = buffer.array.copy() if state.use_error_feedback else None
    whole, matrices = _split(state, bucket)
    rights = _starts(state, index, step, matrices, xp)
    lefts = [m @ q for (m, _), q in zip(matrices, rights, strict=True)]

    def sum_of(arrays: list[Any]) -> Future[Any]:
        """A future of the arrays after they were summed over the ranks, in place."""
        if not arrays:
            done: Future[Any] = Future()
            done.set_result(None)
            return done
        flat = wrap(xp.concatenate([a.reshape(-1) for a in arrays]), buffer.device)
        work = all_reduce(flat, group=group, async_op=True)
        assert work is not None

        def spread(_: Any) -> None:
            start = 0
            for a in arrays:
                a[...] = flat.array[start : start + a.size].reshape(a.shape)
                start += a.size

        return work.get_future().then(spread)

    def right_side(_: Any) -> Any:
        for left, right, (m, _rank) in zip(lefts, rights, matrices, strict=True):
            _orthogonal(left, state.orthogonalization_epsilon)
            xp.matmul(m.T, left, out=right)
        return sum_of(rights)

    def product(_: Any) -> Tensor:
        for part in whole:
            part /= size
        for left, right, (m, _rank) in zip(lefts, rights, matrices, strict=True):
            right /= size
            xp.matmul(left, right.T, out=m)
        if mine is not None:
            state.error_dict[index] = mine - buffer.array
        if state.warm_start:
            state.q_memory[index] = rights
        return buffer

    first = sum_of([*whole, *lefts]).then(right_side)
    return first.then(lambda done: done.value().wait()).then(product)
