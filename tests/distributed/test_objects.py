"""Python objects between ranks, against PyTorch's gloo and over MPI."""

from tests.distributed.alike import alike, compare, ours

VALUES = """
rank, world = dist.get_rank(), dist.get_world_size()
odd = {"rank": rank, "text": "x" * (1000 * rank), "list": [None, (1, 2.5)], "none": None}

out = [None] * world
dist.all_gather_object(out, odd)
found["all_gather"] = out
out = [None] * world if rank == 1 else None
dist.gather_object(odd, out, dst=1)
found["gather"] = out
dist.gather_object(rank, out := [None] * world if rank == 0 else None)
found["gather to 0"] = out
mine = ["a", {"b": 1}, rank] if rank == 2 else [None, lambda: 0, object()]
before = mine[1]
dist.broadcast_object_list(mine, src=2)
found["broadcast"] = [mine, (mine[1] is before) == (rank == 2)]
dist.broadcast_object_list(mine := [rank])
found["broadcast from 0"] = mine
given = [[k] * k for k in range(world)] if rank == 0 else [None] * world
out = [None, "kept"]
dist.scatter_object_list(out, given, src=0)
found["scatter"] = out
dist.scatter_object_list(out, [f"for {k}" for k in range(world)] if rank == 2 else None, src=2)
found["scatter from 2"] = out
if rank == 1:
    dist.send_object_list([odd, 3], dst=0)
elif rank == 0:
    got = [None, None]
    found["received"] = [dist.recv_object_list(got, src=1), got]
dist.barrier()
group = dist.new_group([2, 0])
if rank != 1:
    out = [None] * 2
    dist.all_gather_object(out, rank, group)
    dist.broadcast_object_list(mine := [rank, rank], group=group, group_src=1)
    dist.scatter_object_list(x := [None], ["p", "q"] if rank == 2 else None, src=2, group=group)
    y = [None] * 2 if rank == 2 else None
    dist.gather_object("r%d" % rank, y, group=group, group_dst=1)
    found["group"] = [out, mine, x, y]
else:
    found["group"] = [dist.all_gather_object([None], 1, group), dist.gather_object(1, group=group)]
dist.barrier()
found["refused"] = [
    error("Argument ``gather_list`` must be specified on destination rank.",
          lambda: dist.gather_object(1, None, dst=rank)),
    error("must NOT be specified on non-destination ranks",
          lambda: dist.gather_object(1, [None] * 3, dst=(rank + 1) % world)),
    error("Expected argument scatter_object_output_list to be a list of size at least 1",
          lambda: dist.scatter_object_list([], [1, 2, 3], src=rank)),
    error("source rank must provide non-None scatter_object_input_list",
          lambda: dist.scatter_object_list([None], None, src=rank)),
    error("Can't specify both group_rank and global_rank",
          lambda: dist.broadcast_object_list([1], 0, group_src=0)),
]
"""

OURS = """
# Tensors and modules go along, and large objects.
rank, world = dist.get_rank(), dist.get_world_size()
out = [None] * world
model = nn.Linear(2, 3)
dist.all_gather_object(out, {"x": T.full((2,), float(rank)), "state": model.state_dict()})
assert [o["x"].tolist() for o in out] == [[float(r)] * 2 for r in range(world)]
assert T.equal(out[rank]["state"]["weight"], model.weight)
dist.broadcast_object_list(big := [b"0" * (3 << 20) if rank == 1 else None], src=1)
assert len(big[0]) == 3 << 20
dist.send_object_list([], 1) if rank == 0 else dist.recv_object_list([], 0)
found = [error("one object for each of 2 ranks",
               lambda: dist.scatter_object_list([None], [1], src=rank))]
"""


def test_values_are_those_of_pytorch():
    results = alike(3, VALUES)
    differences = compare(results, ours(3, VALUES, "mpi"))
    assert not differences, "\n".join(differences)


def test_tensors_and_large_objects():
    for found in ours(2, OURS):
        assert all(f["has"] for f in found), found
