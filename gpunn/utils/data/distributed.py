"""The sampler of distributed training: each rank reads its own part of the dataset.

Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.distributed.DistributedSampler
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sized

import gpunn
from gpunn.utils.data.sampler import Sampler

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler[int]):
    """Every `num_replicas`-th index of one permutation that all ranks share, from `rank` on.

    `num_replicas` and `rank` are the process group's unless given. The permutation follows
    from `seed + epoch`, so call `set_epoch(epoch)` before each epoch. A second pass without
    any `set_epoch` repeats the first, as in PyTorch, and warns once; with `auto_epoch=True`
    the epoch advances by itself after each full pass. Without `drop_last` indices are repeated
    until every rank has the same number. Raises ValueError for a rank outside the group, and
    where there is no group to ask.

    >>> from gpunn.utils.data import DistributedSampler
    >>> list(DistributedSampler("abcde", num_replicas=2, rank=1, shuffle=False))
    [1, 3, 0]
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        *,
        auto_epoch: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            from gpunn import distributed

            if not distributed.is_initialized():
                raise ValueError(
                    "Default process group has not been initialized, please make sure to call "
                    "init_process_group, or give DistributedSampler num_replicas= and rank="
                )
            num_replicas = distributed.get_world_size() if num_replicas is None else num_replicas
            rank = distributed.get_rank() if rank is None else rank
        if not 0 <= rank < num_replicas:
            raise ValueError(
                f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]"
            )
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.auto_epoch = auto_epoch
        self.epoch = 0
        share, rest = divmod(len(dataset), num_replicas)
        self.num_samples = share + (rest > 0 and not drop_last)
        self.total_size = self.num_samples * num_replicas
        self._epoch_set = False
        self._passes = 0

    def __iter__(self) -> Iterator[int]:
        if self._passes == 1 and self.shuffle and not self._epoch_set and not self.auto_epoch:
            warnings.warn(
                "DistributedSampler: a second pass in the order of the first one. Call "
                "sampler.set_epoch(epoch) before each epoch, or make the sampler with "
                "auto_epoch=True",
                stacklevel=2,
            )
        yield from self._indices()
        self._passes += 1
        self.epoch += self.auto_epoch

    def _indices(self) -> list[int]:
        size = len(self.dataset)
        if self.shuffle:
            generator = gpunn.Generator().manual_seed(self.seed + self.epoch)
            order = gpunn.randperm(size, generator=generator).tolist()
        else:
            order = list(range(size))
        order *= -(-self.total_size // max(size, 1))  # repeated until it is long enough
        return order[self.rank : self.total_size : self.num_replicas]

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next pass: it changes the permutation, on all ranks alike."""
        self.epoch = epoch
        self._epoch_set = True
