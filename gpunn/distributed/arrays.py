"""What the operations between ranks share: ReduceOp, checks, and the way of tensors to an engine.

A tensor that is not contiguous, or that the engine cannot read where it lies, goes through a copy.
"""

from __future__ import annotations

import contextlib
import enum
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gpunn.autograd.graph import touch
from gpunn.device import Device, to_host
from gpunn.distributed.comm import Comm
from gpunn.distributed.group import ProcessGroup, table
from gpunn.distributed.queries import get_group_rank
from gpunn.distributed.work import Work
from gpunn.tensor import Tensor


class RedOpType(enum.Enum):
    """How values of the ranks are combined; under PyTorch's name `ReduceOp.SUM` and so on."""

    SUM = 0
    AVG = 1
    PRODUCT = 2
    MIN = 3
    MAX = 4
    BAND = 5
    BOR = 6
    BXOR = 7


class ReduceOp:
    """SUM, AVG (mean), PRODUCT, MIN, MAX, and of integers BAND, BOR, BXOR.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.ReduceOp

    >>> gpunn.distributed.ReduceOp.SUM
    <RedOpType.SUM: 0>
    """

    RedOpType = RedOpType
    SUM, AVG, PRODUCT, MIN, MAX = list(RedOpType)[:5]
    BAND, BOR, BXOR = list(RedOpType)[5:]


# --- arrays of an operation ---------------------------------------------------------------


class Arrays:
    """Raw contiguous arrays of tensors for an engine, and the way back for the results."""

    def __init__(self, comm: Comm, device: Device):
        self.comm, self.device = comm, device
        self.late: list[tuple[Tensor, Any]] = []

    def of(self, tensor: Tensor) -> Any:
        """The tensor's values where the engine can read them."""
        array = tensor.array
        if self.device.type not in self.comm.device_types:
            return np.ascontiguousarray(to_host(array))
        return array if array.flags.c_contiguous else tensor.device.xp.ascontiguousarray(array)

    def out(self, tensor: Tensor) -> Any:
        """An array for a result, which `finish` brings into the tensor."""
        touch(tensor)
        array = self.of(tensor)
        if array is not tensor.array:
            self.late.append((tensor, array))
        return array

    def empty(self, shape: tuple[int, ...], like: Tensor) -> Any:
        """New memory where the engine can write."""
        xp = np if self.device.type not in self.comm.device_types else like.device.xp
        return xp.empty(shape, like.array.dtype)

    def finish(self) -> None:
        """Writes the results that went through copies."""
        for tensor, array in self.late:
            put(tensor, array)


def put(tensor: Tensor, array: Any) -> None:
    """Writes a raw array, perhaps of the host, into a tensor."""
    if type(tensor.array) is not np.ndarray and type(array) is np.ndarray:
        array = tensor.device.xp.asarray(array)
    tensor.array[...] = array.reshape(tensor.array.shape)


def check(name: str, value: Any, several: bool = False) -> None:
    """TypeError in PyTorch's words for what is no tensor, or no list of them."""
    if several:
        if isinstance(value, (list, tuple)) and all(isinstance(v, Tensor) for v in value):
            return
        kinds = [type(v) for v in value] if isinstance(value, (list, tuple)) else type(value)
        raise TypeError(
            f"Invalid function argument. Expected parameter `{name}` of type List[torch.Tensor]\n"
            f"             but got {kinds} instead."
        )
    if not isinstance(value, Tensor):
        raise TypeError(
            f"Invalid function argument. Expected parameter `{name}` of type torch.Tensor\n"
            f"             but got {type(value)} instead."
        )


def check_given(name: str, given: Any, found: ProcessGroup, root: int, where: str) -> None:
    """ValueError where a list is not there on the root, or is there elsewhere."""
    if found.rank() == root and not given:
        raise ValueError(f"Argument ``{name}`` must be specified on {where} rank.")
    if found.rank() != root and given:
        raise ValueError(f"Argument ``{name}`` must NOT be specified on non-{where} ranks.")


def check_dtypes(what: str, tensors: Sequence[Tensor], like: Tensor) -> None:
    """The tensors have the dtype of `like`."""
    for t in tensors:
        if t.dtype is not like.dtype:
            raise ValueError(
                f"{what}: Invalid usage of tensors with different dtypes: found {like.dtype} and "
                f"{t.dtype}"
            )


def check_same(what: str, tensors: Sequence[Tensor], like: Tensor) -> None:
    """The tensors have the dtype, shape and device of `like`."""
    check_dtypes(what, tensors, like)
    for k, t in enumerate(tensors):
        if t.shape != like.shape:
            raise RuntimeError(
                f"{what}: invalid tensor size at index {k} (expected {tuple(like.shape)}, got "
                f"{tuple(t.shape)})"
            )
        if t.device is not like.device:
            raise RuntimeError(f"{what}: tensor {k} is on {t.device}, the first on {like.device}")


def check_many(what: str, tensors: Sequence[Tensor], size: int) -> None:
    if len(tensors) != size:
        raise RuntimeError(
            f"{what}: invalid tensor list (expected length {size}, got {len(tensors)}): one tensor "
            "for each rank of the group"
        )


def root_of(
    found: ProcessGroup, given: int | None, in_group: int | None, name: str,
    default: int | None = None,
) -> int:  # fmt: skip
    """The rank within the group of src= or dst=, a global rank, or of group_src=, group_dst=."""
    if given is None and in_group is None:
        given = default
    if given is not None and in_group is not None:
        raise ValueError(
            f"Can't specify both group_rank and global_rank: {name}={given} and "
            f"group_{name}={in_group}"
        )
    if in_group is None:
        if given is None:
            raise ValueError(f"Must specify global_rank or group_rank: {name}= or group_{name}=")
        in_group = given if found is table.default else get_group_rank(found, given)
    if not 0 <= in_group < found.size():
        raise RuntimeError(
            f"invalid root rank: {name}={in_group}; the group has the ranks 0 to "
            f"{found.size() - 1}"
        )
    return in_group


def finish_mean(op: Any, array: Any, size: int) -> None:
    """What AVG still needs after the sum."""
    if op is RedOpType.AVG:
        if array.dtype.kind in "fVc":
            array /= array.dtype.type(size)
        else:
            array //= size


def op_name(op: Any, tensor: Tensor) -> str:
    """The engine's name of a ReduceOp; errors for what the dtype cannot do."""
    if not isinstance(op, RedOpType):
        raise TypeError(f"op must be one of ReduceOp.SUM, AVG, PRODUCT, MIN, MAX, ..., got {op!r}")
    kind = tensor.array.dtype.kind
    if kind == "b" and op is RedOpType.AVG:
        raise RuntimeError("Cannot use ReduceOp.AVG with torch.bool: use MAX, or a float dtype")
    if kind == "c" and op not in (RedOpType.SUM, RedOpType.AVG):
        raise ValueError(f"all_reduce does not support {op} on complex tensors")
    if kind not in "iub" and op in (RedOpType.BAND, RedOpType.BOR, RedOpType.BXOR):
        raise RuntimeError(f"Cannot use ReduceOp.{op.name} with non-integral dtype: {tensor.dtype}")
    return "sum" if op is RedOpType.AVG else op.name.lower()


def settled(comm: Comm, device: Device) -> Any:
    """Makes a GPU current; what is launched on it is done at the end, for an engine of the host.

    Such an engine reads and writes memory at once, perhaps in another thread with a stream of its
    own.
    """
    if device.type == "cpu" or comm.deferred:
        return contextlib.nullcontext()
    return _settled(device)


@contextlib.contextmanager
def _settled(device: Device) -> Iterator[None]:
    from gpunn import cuda

    with cuda.device(device):
        yield
        cuda.current_stream().synchronize()


def run(
    what: str, found: ProcessGroup, like: Tensor, results: list[Any], async_op: bool,
    prepare: Callable[[Comm, Arrays], Callable[[], Any]],
) -> Work | None:  # fmt: skip
    """Runs what `prepare(engine, arrays)` returns on the engine of like's device."""
    comm = found.engine(like.device)
    arrays = Arrays(comm, like.device)
    with settled(comm, like.device):
        step = prepare(comm, arrays)

    def body() -> Any:
        with settled(comm, like.device):
            answer = step()
            arrays.finish()
        return answer

    return found.run(what, comm, body, results, async_op)


def outside(what: str) -> Any:
    """Warns that this process is not in the group of an operation."""
    warnings.warn(
        f"Running {what} on global rank {table.default.rank() if table.default else -1} which "
        "does not belong to the given group.",
        stacklevel=3,
    )
