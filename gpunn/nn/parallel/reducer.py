"""The reducer: gradients are averaged over the ranks while the backward pass goes on.

A hook on each parameter fires when its gradient is complete. Buckets are reduced in a fixed order,
each as soon as its gradients and the buckets before it are there; at the end of the backward pass
the averages are brought to the parameters.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunn.autograd.graph import touch, vertex
from gpunn.autograd.walk import leaf_uses, queue_callback
from gpunn.device import to_host
from gpunn.distributed.arrays import Arrays, run
from gpunn.distributed.collectives import all_reduce
from gpunn.distributed.comm import Comm
from gpunn.distributed.group import ProcessGroup
from gpunn.distributed.objects import all_gather_object
from gpunn.futures import Future
from gpunn.nn.parallel.bucket import Bucket, GradBucket
from gpunn.sparse import SparseTensor
from gpunn.tensor import Tensor, wrap

_UNFINISHED = (
    "Expected to have finished reduction in the prior iteration before starting a new one. These "
    "took no part in the loss of that iteration: use all outputs of forward in it, or pass "
    "find_unused_parameters=True to DistributedDataParallel. Parameters which did not receive grad "
    "for rank {rank}: {names}"
)
_TWICE = (
    "Expected to mark a variable ready only once. The gradient of {name} was complete twice in one "
    "backward pass, as when a part of the model is run again by a checkpoint, or it is used "
    "outside of forward. Pass static_graph=True to DistributedDataParallel where every iteration "
    "does the same."
)
_CHANGED = (
    "Your training graph has changed in this iteration, which is not compatible with static_graph "
    "set to True: {name} got a gradient {got} times, in the first iteration {wanted} times."
)
_NO_FUTURE = (
    "A communication hook of DistributedDataParallel must return a torch.futures.Future of the "
    "bucket's result, not {got}: of a Work, return work.get_future()."
)


class Reducer:
    """Averages the gradients of `params` over a group.

    `prepare(outputs)` at the end of a forward pass makes the next backward pass reduce; without
    it gradients only add up. `hook(state, bucket) -> Future` replaces the averaging. The parameters
    know the reducer by a weak reference only: without a DDP it is gone.
    """

    def __init__(
        self, params: Sequence[Tensor], names: Sequence[str], buckets: list[Bucket],
        group: ProcessGroup, find_unused: bool = False, as_view: bool = False, static: bool = False,
        skip_unused: bool = False,
    ):  # fmt: skip
        self.params, self.names, self.group = list(params), list(names), group
        self.buckets = buckets
        self.place = {k: (b, i) for b in self.buckets for i, k in enumerate(b.numbers)}
        self.find_unused, self.as_view, self.static = find_unused, as_view, static
        self.skip_unused = skip_unused
        self.hook: Callable[[Any, GradBucket], Any] | None = None
        self.state: Any = None
        self.divisor = group.size()
        self.fires: list[int] | None = None  # of a static graph, how often each hook fires
        self.timing: dict[str, int] = {}
        self._used: Any = None  # of a static graph, which parameters some rank uses
        self._expecting = self._begun = False
        self._begins: list[Any] = []
        self._intervals: list[list[int]] = []  # when each reduction began and was done
        me = weakref.ref(self)
        self._handles = [
            p.register_post_accumulate_grad_hook(lambda _, k=k: me()._arrived(k))  # type: ignore[attr-defined, union-attr]
            for k, p in enumerate(self.params)
        ]
        weakref.finalize(self, _remove, self._handles)

    def remove(self) -> None:
        """Takes the hooks off the parameters."""
        _remove(self._handles)

    # --- before a backward pass ---

    def prepare(self, outputs: Sequence[Tensor]) -> None:
        """The next backward pass from the outputs of a forward pass reduces."""
        self.check_finished()
        self._expecting, self._begun, self._ending, self._next = True, False, False, 0
        self._count = [0] * len(self.params)
        self._there = [False] * len(self.params)
        for bucket in self.buckets:
            bucket.left, bucket.future = len(bucket.params), None
        self._unused: list[int] = []
        if self.static and self.fires is not None:
            self._unused = [k for k, n in enumerate(self.fires) if n == 0]
        elif self.find_unused and not self.static:
            used = leaf_uses([vertex(t) for t in outputs if t.requires_grad])
            self._unused = [k for k, p in enumerate(self.params) if p not in used]
        _remove(self._begins)
        self._begins = []
        if self._waits_for_the_end():
            self._begins = [_on_gradient(t, weakref.ref(self)) for t in outputs if t._requires_grad]

    def _waits_for_the_end(self) -> bool:
        """Whether only the end of the backward pass tells which gradients do not come."""
        return self.fires is None if self.static else self.find_unused

    def check_finished(self) -> None:
        """RuntimeError, with names, where the last backward pass did not reach all parameters."""
        if not (self._expecting and self._begun):
            return
        waiting = [self.names[k] for k, there in enumerate(self._there) if not there]
        self._expecting = False
        if waiting:  # else a reduction failed, and has said so
            names = ", ".join(waiting)
            raise RuntimeError(_UNFINISHED.format(rank=self.group.rank(), names=names))

    # --- in a backward pass ---

    def _arrived(self, k: int) -> None:
        """The gradient of parameter k is complete."""
        if not self._expecting:
            return
        self._begin()
        self._count[k] += 1
        if self.static and self.fires is None:
            return
        if self.static and self._count[k] > self.fires[k]:  # type: ignore[index]
            told = {"got": self._count[k], "wanted": self.fires[k]}  # type: ignore[index]
            raise RuntimeError(_CHANGED.format(name=self.names[k], **told))
        if self._there[k]:
            raise RuntimeError(_TWICE.format(name=self.names[k]))
        if not self.static or self._count[k] == self.fires[k]:  # type: ignore[index]
            self._ready(k)

    def _begin(self) -> None:
        """A backward pass begins, in its outermost walk: unused parameters count as there."""
        if self._begun or not self._expecting:
            return
        self._begun = True
        self._start, self._intervals = time.perf_counter_ns(), []
        if self._waits_for_the_end():
            queue_callback(self._complete)
        for k in self._unused:
            self._ready(k)

    def _complete(self) -> None:
        """All gradients that come are there."""
        if self.static:
            self.fires = list(self._count)
            self._unused = [k for k, n in enumerate(self.fires) if n == 0]
        for k, there in enumerate(self._there):
            if not there:
                self._ready(k)

    def _ready(self, k: int) -> None:
        bucket, i = self.place[k]
        self._there[k] = True
        bucket.fill(i, self.divisor if self.hook is None else 1)
        bucket.left -= 1
        while self._next < len(self.buckets) and not self.buckets[self._next].left:
            self._launch(self.buckets[self._next])
            self._next += 1
            if self._next == len(self.buckets):
                queue_callback(self._finish)

    def _launch(self, bucket: Bucket) -> None:
        """Begins the reduction of a bucket that is full."""
        if self.skip_unused and set(bucket.numbers) <= set(self._unused):
            bucket.future = Future()
            bucket.future.set_result([])
        elif bucket.sparse:
            bucket.future = self._reduce_sparse(bucket)
        elif self.hook is None:
            bucket.future = self._sum(bucket)
        else:
            bucket.future = self._hooked(self.hook, bucket)

    def _hooked(self, hook: Callable[[Any, GradBucket], Any], bucket: Bucket) -> Any:
        """What a communication hook makes of a bucket, under way."""
        interval = [time.perf_counter_ns(), 0]
        self._intervals.append(interval)
        future = hook(self.state, GradBucket(bucket, bucket is self.buckets[-1]))
        if not isinstance(future, Future):
            raise RuntimeError(_NO_FUTURE.format(got=type(future).__name__))
        future.add_done_callback(lambda _: interval.__setitem__(1, time.perf_counter_ns()))
        return future

    def _sum(self, bucket: Bucket) -> Any:
        """The bucket's sum over the ranks, under way: of shares of the mean."""
        flat, interval = bucket.flat, [0, 0]
        self._intervals.append(interval)

        def prepare(comm: Comm, arrays: Arrays) -> Callable[[], None]:
            x = arrays.out(flat)

            def step() -> None:
                interval[0] = time.perf_counter_ns()
                comm.all_reduce(x, "sum")
                interval[1] = time.perf_counter_ns()

            return step

        what = f"all_reduce of {bucket.title()}"
        work = run(what, self.group, flat, [flat], True, prepare)
        assert work is not None
        return work.get_future()

    def _reduce_sparse(self, bucket: Bucket) -> Any:
        """Sparse gradients: the places and values of all ranks one after the other."""
        param = bucket.params[0]
        grad, mine = (param.grad if self._expecting else None), None
        if grad is not None:
            grad = grad if isinstance(grad, SparseTensor) else grad.to_sparse(1)  # type: ignore[attr-defined]
            mine = (to_host(grad._places), to_host(grad._entries))
        parts: list[Any] = [None] * self.group.size()
        all_gather_object(parts, mine, self.group)
        found = [part for part in parts if part is not None]
        done: Future[Any] = Future()
        if found:
            xp = param.device.xp
            places = xp.asarray(np.concatenate([part[0] for part in found], axis=1))
            values = xp.asarray(np.concatenate([part[1] for part in found]))
            total = SparseTensor(places, values, param.shape, param.device)
            param.grad = total / self.divisor
        done.set_result([])
        return done

    def shadow(self) -> None:
        """What the ranks with data do in a backward pass, with zeros: for one that has none."""
        self._intervals, self._unused = [], []
        for bucket in self.buckets:
            bucket.flat.array[...] = 0
            self._launch(bucket)
        self._count = [0] * len(self.params)
        self._used_anywhere()
        for bucket in self.buckets:
            bucket.future.wait()

    # --- at the end ---

    def _finish(self) -> None:
        """The averages become the parameters' gradients."""
        backward_done = time.perf_counter_ns()
        used = self._used_anywhere()
        for bucket in self.buckets:
            found = bucket.future.wait()
            found = found[0] if isinstance(found, (list, tuple)) and found else found
            if isinstance(found, Tensor) and found is not bucket.flat:
                bucket.flat.array[...] = found.array.reshape(-1)
            for i, k in enumerate(bucket.numbers):
                if used is None or used[k]:
                    bucket.empty(i, self.as_view)
                    grad = self.params[k].grad
                    if type(grad) is Tensor:
                        touch(grad)
        self._expecting = False
        self._time(backward_done)

    def _used_anywhere(self) -> Any:
        """Which parameters some rank used; None: all. The others keep the gradients they had."""
        if not (self.find_unused or self.static):
            return None
        if self._used is not None:
            return self._used
        mine = np.zeros(len(self.params), np.int32)
        mine[[k for k, n in enumerate(self._count) if n]] = 1
        device = self.params[0].device
        everyones = wrap(device.xp.asarray(mine), device)
        all_reduce(everyones, group=self.group)
        found = everyones.cpu().array
        if self.static:
            self._used = found
        return found

    def _time(self, backward_done: int) -> None:
        """How long the reductions took, and how much of it while the backward pass went on."""
        spans = [(a, b) for a, b in self._intervals if b]
        hidden = sum(max(0, min(b, backward_done) - a) for a, b in spans)
        self.timing = {
            "backward_compute_time": backward_done - self._start,
            "backward_comm_time": sum(b - a for a, b in spans),
            "backward_compute_comm_overlap_time": hidden,
        }


def _on_gradient(output: Tensor, reducer: Any) -> Any:
    """A hook on an output, through which the reducer learns of a backward pass as it begins."""

    def hook(_: Any) -> None:
        found = reducer()
        if found is not None:
            found._begin()

    return output.register_hook(hook)  # type: ignore[attr-defined]


def _remove(handles: Sequence[Any]) -> None:
    for handle in handles:
        handle.remove()
