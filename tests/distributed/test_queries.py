"""What groups tell of themselves, groups of neighbours, and the names that PyTorch has."""

import importlib
import types

import pytest

import gpunn
from gpunn import distributed as dist
from gpunn.distributed import queries
from tests.distributed.alike import ours

# Of `torch.distributed` and its `distributed_c10d.__all__`: what gpunn has not.
MISSING = {
    # settings of PyTorch's C++ calls
    "AllToAllOptions", "AllreduceCoalescedOptions", "AllreduceOptions", "BackendConfig",
    "BarrierOptions", "BroadcastOptions", "GatherOptions", "ReduceOptions", "ReduceScatterOptions",
    "ScatterOptions",
    # classes of its C++ engines and of its own DistributedDataParallel
    "BuiltinCommHookType", "Logger", "ProcessGroupGloo", "Reducer",
    # groups in several dimensions, and what goes with them
    "DeviceMesh", "GroupName", "RankType", "init_device_mesh", "shrink_group",
    # its logging and debugging
    "breakpoint", "config", "record_comm",
    # others' addresses for init_process_group
    "register_rendezvous_handler",
}  # fmt: skip


def test_names_that_pytorch_has():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = importlib.import_module("torch.distributed")
    names = set(torch.distributed.distributed_c10d.__all__)
    modules = {name for name, value in vars(theirs).items() if type(value) is types.ModuleType}
    names |= {name for name in vars(theirs) if not name.startswith("_")} - modules
    names -= {"log", "timedelta", "logging_handlers"}  # what it happens to import
    assert {n for n in names if not hasattr(dist, n)} == MISSING
    assert all(hasattr(dist, name) for name in dist.__all__)


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_answers_of_a_group_of_one(alone, monkeypatch):
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, "gloo")
    assert dist.get_backend_config() == "cpu:gloo,cuda:gloo"
    assert dist.get_process_group_ranks(None) == [0] and dist.get_pg_count() == 1
    world = dist.group.WORLD
    assert dist.get_group_rank(world, 0) == dist.get_global_rank(world, 0) == 0
    with pytest.raises(ValueError, match="Global rank 1 is not part of group"):
        dist.get_group_rank(world, 1)
    with pytest.raises(ValueError, match="Group rank -1 is not part of group"):
        dist.get_global_rank(world, -1)
    outside = dist.GroupMember.NON_GROUP_MEMBER
    assert dist.get_rank(outside) == dist.get_world_size(outside) == -1
    for ask in (dist.get_backend, dist.get_backend_config, dist.get_process_group_ranks):
        with pytest.raises(ValueError, match="this process is not in it"):
            ask(outside)


def test_questions_of_the_machine(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RuntimeError, match="Consider passing fallback_rank"):
        dist.get_node_local_rank()
    assert dist.get_node_local_rank(3) == 3
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert dist.get_node_local_rank(3) == 5
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert not dist.is_torchelastic_launched()
    assert dist.is_available() and dist.is_gloo_available() and dist.is_backend_available("GLOO")
    assert not (dist.is_ucc_available() or dist.is_xccl_available())
    assert not dist.is_backend_available("telepathy")
    assert dist.is_backend_available("mpi") == dist.is_mpi_available()
    assert dist.get_default_backend_for_device(gpunn.device("cuda:1")) == "nccl"
    for ask in (dist.get_rank, dist.get_world_size, dist.get_backend):
        with pytest.raises(ValueError, match="Default process group has not been initialized"):
            ask()


def test_debug_levels(monkeypatch):
    monkeypatch.setattr(queries, "_debug", [])
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "detail")
    assert dist.get_debug_level() is dist.DebugLevel.DETAIL
    dist.set_debug_level(dist.DebugLevel.INFO)
    assert dist.get_debug_level() is dist.DebugLevel.INFO
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "loud")
    with pytest.raises(RuntimeError, match="must be one of `OFF`, `INFO`, or `DETAIL`"):
        dist.set_debug_level_from_env()


def test_operations_of_complex_numbers():
    assert dist.supports_complex(dist.ReduceOp.AVG) and dist.reduce_op is dist.ReduceOp
    assert not dist.supports_complex(dist.ReduceOp.PRODUCT)


def test_groups_of_neighbours_and_parts_of_groups():
    ours(4, """
        rank = dist.get_rank()
        mine, groups = dist.new_subgroups(2)
        dist.all_reduce(x := T.full((2,), float(rank)), group=mine)
        assert x[0] == (1 if rank < 2 else 5) and len(groups) == 2
        os.environ["LOCAL_WORLD_SIZE"] = "2"
        neighbours, _ = dist.new_subgroups()
        assert dist.get_process_group_ranks(neighbours) == [rank // 2 * 2, rank // 2 * 2 + 1]
        mine, groups = dist.new_subgroups_by_enumeration([[0, 3], [2]])
        assert (mine is None) == (rank == 1) and len(groups) == 2
        part = dist.split_group(split_ranks=[[3, 1], [0]])
        assert (part is None) == (rank == 2)
        if rank in (1, 3):
            dist.broadcast(x := T.full((1,), float(rank)), group=part, group_src=0)
            assert x[0] == 3 and dist.get_rank(part) == (3 - rank) // 2
            inner = dist.split_group(part, [[1], [0]])
            assert dist.get_process_group_ranks(inner) == [rank]
        found["refused"] = [
            error("must be divisible by 'group_size=3'", lambda: dist.new_subgroups(3)),
            error("must not exceed the world size (4)", lambda: dist.new_subgroups(8)),
            error("must be positive", lambda: dist.new_subgroups(0)),
            error("Rank 1 has appeared in both subgroup [0, 1] and [1]",
                  lambda: dist.new_subgroups_by_enumeration([[0, 1], [1]])),
            error("split_ranks cannot be None or empty", dist.split_group),
            error("duplicate ranks", lambda: dist.split_group(split_ranks=[[0], [0]])),
        ]
        assert all(f["error"] == "ValueError" and f["has"] for f in found["refused"]), found
    """)  # fmt: skip
