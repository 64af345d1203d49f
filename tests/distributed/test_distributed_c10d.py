"""PyTorch's other path to the same names."""

from gpunn import distributed as dist


def test_the_same_names_are_there():
    from gpunn.distributed import distributed_c10d
    from gpunn.distributed.distributed_c10d import ReduceOp, all_reduce

    assert all_reduce is dist.all_reduce and ReduceOp is dist.ReduceOp
    assert set(distributed_c10d.__all__) == set(dist.__all__)
    assert all(getattr(distributed_c10d, n) is getattr(dist, n) for n in dist.__all__)
