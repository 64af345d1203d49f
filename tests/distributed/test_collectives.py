"""Collective operations over real processes, against PyTorch's gloo running the same program."""

import pytest

from tests.distributed.alike import alike, compare, ours

VALUES = """
R = dist.ReduceOp
rank, world = dist.get_rank(), dist.get_world_size()

def draw(dtype, shape=(2, 3), seed=0):
    rng = np.random.default_rng(7 * rank + seed)
    x = T.tensor(rng.integers(1, 5, shape).tolist(), dtype=T.float64).reshape(shape)
    return x.to(dtype)

real = [T.float32, T.float64, T.float16, T.bfloat16]
whole = [T.int64, T.int32, T.int8, T.uint8]
for dtype in real + whole:
    for op in ("SUM", "PRODUCT", "MIN", "MAX") + ("BAND", "BOR", "BXOR") * (dtype in whole):
        x = draw(dtype)
        dist.all_reduce(x, getattr(R, op))
        found[f"all_reduce {dtype} {op}"] = x
for dtype in real + whole + [T.bool, T.complex64, T.complex128]:
    x = draw(dtype) > 2 if dtype == T.bool else draw(dtype)
    dist.broadcast(x, 1)
    found[f"broadcast {dtype}"] = x
    x = draw(dtype) > 2 if dtype == T.bool else draw(dtype)
    parts = [T.empty_like(x) for _ in range(world)]
    dist.all_gather(parts, x)
    found[f"all_gather {dtype}"] = parts
    dist.all_to_all(parts, [x + 0 if dtype != T.bool else x for _ in range(world)])
    found[f"all_to_all {dtype}"] = parts
for dtype in (T.complex64, T.complex128):
    x = T.complex(*[draw(dtype.to_real(), seed=k) for k in (1, 2)])
    dist.all_reduce(x)
    found[f"all_reduce {dtype}"] = x
    out = [T.zeros(2, 3, dtype=dtype) for _ in range(world)]
    dist.all_gather(out, x * (rank + 1))
    dist.scatter(x, out if rank == 2 else None, 2)
    found[f"scattered {dtype}"] = x

for shape in [(), (0,), (1,), (5,), (2, 0, 3), (3, 2), (40000,)]:
    def part():
        return draw(T.float32, shape)
    x = part()
    dist.all_reduce(x)
    found[f"{shape} all_reduce"] = x.sum() if x.numel() > 9 else x
    x = part()
    dist.reduce(x, 2)
    found[f"{shape} reduce"] = x.sum() if rank == 2 else x.shape
    x = part()
    dist.broadcast(x, src=2)
    found[f"{shape} broadcast"] = x.sum()
    parts = [T.zeros(shape) for _ in range(world)]
    dist.all_gather(parts, part())
    found[f"{shape} all_gather"] = [p.sum() for p in parts]
    parts = [T.zeros(shape) for _ in range(world)] if rank == 1 else None
    dist.gather(part(), parts, dst=1)
    found[f"{shape} gather"] = [p.sum() for p in parts] if parts else None
    x = T.zeros(shape)
    dist.scatter(x, [part() * k for k in range(world)] if rank == 1 else None, src=1)
    found[f"{shape} scatter"] = x.sum()
    x = T.zeros(shape)
    dist.reduce_scatter(x, [draw(T.float32, shape, k) for k in range(world)])
    found[f"{shape} reduce_scatter"] = x.sum()
    parts = [T.zeros(shape) for _ in range(world)]
    dist.all_to_all(parts, [draw(T.float32, shape, k) for k in range(world)])
    found[f"{shape} all_to_all"] = [p.sum() for p in parts]

x = T.zeros(world * 2, 3)
dist.all_gather_into_tensor(x, draw(T.float32))
found["into, joined"] = x
x = T.zeros(2, 3)
dist.reduce_scatter_tensor(x, draw(T.float32, (world * 2, 3)))
found["from one tensor"] = x
x = T.zeros(world, 2)
dist.all_to_all_single(x, draw(T.float32, (world, 2)))
found["all_to_all_single"] = x
sizes = [(k + rank) % world for k in range(world)]
x = T.zeros(sum(sizes), 2)
dist.all_to_all_single(x, draw(T.float32, (sum(sizes), 2)), sizes, sizes)
found["uneven all_to_all_single"] = x
xs = [draw(T.float32, (k + 1,), k) for k in range(3)]
dist.all_reduce_coalesced(xs)
found["all_reduce_coalesced"] = xs
rows = [[T.zeros(2, 3), T.zeros(4)] for _ in range(world)]
dist.all_gather_coalesced(rows, [draw(T.float32), draw(T.float32, (4,))])
found["all_gather_coalesced"] = rows

works = []
xs, ys = [[draw(T.float32, seed=k) for k in range(40)] for _ in range(2)]
for k, (x, y) in enumerate(zip(xs, ys)):
    works.append(dist.all_reduce(x, R.SUM if k % 2 else R.MAX, async_op=True))
    works.append(dist.broadcast(y, k % world, async_op=True))
found["many in flight"] = [[w.wait() for w in works], xs, ys, all(w.is_completed() for w in works)]
x = draw(T.float32)
work = dist.all_reduce(x, async_op=True)
found["result"] = [work.wait(), work.is_success(), work.result(), work.get_future().wait()]
x = draw(T.float32)
doubled = dist.all_reduce(x, async_op=True).get_future().then(lambda f: f.value()[0] * 2)
found["then"] = doubled.wait()
for f, args in [(dist.reduce, (x, 0)), (dist.all_gather, ([x, x + 0, x + 0], x + 0)),
                (dist.barrier, ())]:
    work = f(*args, async_op=True)
    found["async " + f.__name__] = [work.wait(), work.is_completed()]
dist.barrier()

group = dist.new_group([0, 2])
backwards = dist.new_group([2, 1, 0], sort_ranks=False)
x = draw(T.float32)
found["not a member"] = [dist.get_rank(group), dist.get_world_size(group)]
if rank != 1:
    dist.all_reduce(x, group=group)
    found["some of them"] = x
    dist.broadcast(x := draw(T.float32), 2, group)
    dist.broadcast(y := draw(T.float32), group=group, group_src=1)
    found["src, group_src"] = [x, y]
    parts = [T.zeros(2, 3)] * 2 if rank == 2 else None
    dist.gather(x, parts, group=group, group_dst=1)
else:
    found["outside"] = [dist.all_reduce(x, group=group), dist.barrier(group), x]
parts = [T.zeros(2, 3) for _ in range(3)]
dist.all_gather(parts, draw(T.float32), group=backwards)
found["backwards"] = [parts, dist.get_rank(backwards), dist.get_process_group_ranks(backwards)]
dist.reduce(x := draw(T.float32), group_dst=0, group=backwards)
found["reduced backwards"] = x if rank == 2 else None
"""

ERRORS = """
x = T.zeros(3)
R = dist.ReduceOp
group = dist.new_group([0])
found = {
    "no tensor": error("Invalid function argument. Expected parameter `tensor` of type",
                       lambda: dist.all_reduce(3)),
    "no list": error("Expected parameter `tensor_list` of type List[torch.Tensor]",
                     lambda: dist.all_gather(x, x)),
    "no tensors": error("Expected parameter `tensor_list` of type List[torch.Tensor]",
                        lambda: dist.all_gather([x, 3], x)),
    "no src": error("Must specify global_rank or group_rank", lambda: dist.broadcast(x)),
    "two src": error("Can't specify both group_rank and global_rank",
                     lambda: dist.broadcast(x, 0, group_src=0)),
    "no dst": error("Must specify global_rank or group_rank", lambda: dist.reduce(x)),
    "src is no member": error("is not part of group", lambda: dist.broadcast(x, 1, group))
                        if dist.get_rank() == 0 else None,
    "no such root": error("invalid root rank", lambda: dist.broadcast(x, 7)),
    "negative root": error("invalid root rank", lambda: dist.reduce(x, -1)),
    "dtypes": error("Invalid usage of tensors with different dtypes",
                    lambda: dist.all_gather([x, x.double()], x)),
    "sizes": error("invalid tensor size at index 1 (expected",
                   lambda: dist.all_gather([x, T.zeros(4)], x)),
    "shapes": error("invalid tensor size at index 0 (expected",
                    lambda: dist.all_gather([T.zeros(3, 1), T.zeros(3, 1)], x)),
    "length": error("", lambda: dist.all_gather([x], x)),
    "complex max": error("all_reduce does not support",
                         lambda: dist.all_reduce(T.zeros(2, dtype=T.complex64), R.MAX)),
    "bits of floats": error("Cannot use ReduceOp.BAND with non-integral dtype",
                            lambda: dist.all_reduce(x, R.BAND)),
    "gather without a list": error("Argument ``gather_list`` must be specified on destination",
                                   lambda: dist.gather(x, dst=dist.get_rank())),
    "gather with one": error("must NOT be specified on non-destination ranks",
                             lambda: dist.gather(x, [x, x], dst=1 - dist.get_rank())),
    "scatter without a list": error("Argument ``scatter_list`` must be specified on source",
                                    lambda: dist.scatter(x, src=dist.get_rank())),
    "scatter with one": error("must NOT be specified on non-source ranks",
                              lambda: dist.scatter(x, [x, x], src=1 - dist.get_rank())),
    "gather of dtypes": error("Invalid usage of tensors with different dtypes", lambda: dist.gather(
        x, [x.double(), x], dst=dist.get_rank())),
    "split sizes": error("", lambda: dist.all_to_all_single(x, x, [1, 1], [1, 1])),
    "all_to_all of dtypes": error("Invalid usage of tensors with different dtypes",
                                  lambda: dist.all_to_all([x, x], [x.double(), x.double()])),
    "all_to_all length": error("", lambda: dist.all_to_all([x], [x])),
    "op": error("", lambda: dist.all_reduce(x, "sum")),
    "group": error("", lambda: dist.all_reduce(x, group="0")),
    "coalesced": error("Invalid usage of tensors with different dtypes",
                       lambda: dist.all_reduce_coalesced([x, x.double()])),
}
"""

OURS = """
R = dist.ReduceOp
rank, world = dist.get_rank(), dist.get_world_size()

def draw(r, dtype=T.float32, shape=(4, 6)):
    x = T.tensor(np.random.default_rng(r).integers(1, 4, shape).tolist(), dtype=T.float64)
    return x.to(dtype)

def same(x, wanted):
    equal = T.allclose if x.is_complex() else T.equal
    assert x.dtype == wanted.dtype and x.shape == wanted.shape and equal(x, wanted), (x, wanted)

# Whatever PyTorch's gloo refuses: means, combinations of bools, complex gathers, stacked results.
for dtype in (T.float64, T.float32, T.float16, T.bfloat16, T.int64, T.int8, T.complex64):
    total = sum(draw(r).double() for r in range(world))
    mean = (total.long() // world if "int" in str(dtype) else total / world).to(dtype)
    dist.all_reduce(x := draw(rank, dtype), R.AVG)
    same(x, mean)
    dist.reduce(x := draw(rank, dtype), 1, R.AVG)
    same(x, mean if rank == 1 else draw(rank, dtype))
    rows = T.stack([draw(rank, dtype)] * world)
    dist.reduce_scatter_single(x := T.zeros(4, 6, dtype=dtype), rows, R.AVG)
    same(x, mean)
    dist.all_gather_single(x := T.zeros(world, 4, 6, dtype=dtype), draw(rank, dtype))
    same(x, T.stack([draw(r, dtype) for r in range(world)]))
    parts = [T.zeros(4, 6, dtype=dtype) for _ in range(world)]
    dist.gather(draw(rank, dtype), parts if rank == 1 else None, 1)
    for r, part in enumerate(parts):
        same(part, draw(r, dtype) if rank == 1 else T.zeros(4, 6, dtype=dtype))
    dist.scatter(x := T.zeros(4, 6, dtype=dtype), parts if rank == 1 else None, 1)
    same(x, draw(rank, dtype))
bools = [draw(r) > 1 for r in range(world)]
for op, wanted in [(R.SUM, T.stack(bools).any(0)), (R.MAX, T.stack(bools).any(0)),
                   (R.PRODUCT, T.stack(bools).all(0)), (R.MIN, T.stack(bools).all(0)),
                   (R.BAND, T.stack(bools).all(0)), (R.BOR, T.stack(bools).any(0))]:
    dist.all_reduce(x := bools[rank].clone(), op)
    same(x, wanted)
parts = [T.zeros(k + rank) for k in range(world)]
dist.all_to_all(parts, [T.full((k + rank,), 10.0 * rank + k) for k in range(world)])
for k, part in enumerate(parts):
    same(part, T.full((k + rank,), 10.0 * k + rank))

# Tensors that are not contiguous: transposed, every second row, and a result that is a view.
def odd(r, kind):
    x = draw(r)
    return {"t": x.t(), "step": x[::2], "column": x[:, 1], "flip": x.permute(1, 0)[1:]}[kind]

for kind in ("t", "step", "column", "flip"):
    all_of_them = [odd(r, kind) for r in range(world)]
    dist.all_reduce(x := odd(rank, kind))
    same(x, sum(all_of_them))
    dist.broadcast(x := odd(rank, kind), 1)
    same(x, all_of_them[1])
    dist.reduce(x := odd(rank, kind), 0, R.MAX)
    same(x, T.stack(all_of_them).amax(0) if rank == 0 else all_of_them[rank])
    outs = [T.zeros_like(odd(0, kind)) for _ in range(world)]
    dist.all_gather(outs, odd(rank, kind))
    for out, wanted in zip(outs, all_of_them):
        same(out, wanted)
    wide = T.zeros(2 * world, *all_of_them[0].shape)
    outs = [wide[2 * r] for r in range(world)]
    dist.all_to_all(outs, [odd(rank, kind) + k for k in range(world)])
    same(wide[::2], T.stack(all_of_them) + rank)
    dist.reduce_scatter(outs[0], [odd(rank, kind)] * world, R.PRODUCT)
    same(wide[0], T.stack(all_of_them).prod(0))
    dist.all_reduce_coalesced(xs := [odd(rank, kind), draw(rank)])
    same(xs[0], sum(all_of_them))
whole = draw(rank)
dist.all_reduce(whole[:, ::2], async_op=True).wait()
same(whole[:, ::2], sum(draw(r) for r in range(world))[:, ::2])
same(whole[:, 1::2], draw(rank)[:, 1::2])
x = T.ones(2, 2, requires_grad=True)
y = x * 2
y.sum().backward()
dist.all_reduce(x.grad)
same(x.grad, T.full((2, 2), 2.0 * world))
saved = (z := x * 1.0) * z
dist.all_reduce(z.detach())
found = [error("modified by an inplace operation", lambda: saved.sum().backward())]

x = T.zeros(3)
found += [  # refused in words, where PyTorch's gloo has none, or does not look
    error("input tensor must be the same size as output size times world size",
          lambda: dist.reduce_scatter_single(x, x)),
    error("output tensor size must be equal to world_size times input tensor size",
          lambda: dist.all_gather_single(x, x)),
    error("does not divide equally across group size",
          lambda: dist.all_to_all_single(T.zeros(world + 1), T.zeros(world + 1))),
    error("do not add up to dim 0", lambda: dist.all_to_all_single(x, x, [1, 1, 2], [1, 1, 1])),
    error("has no dim 0", lambda: dist.all_to_all_single(T.zeros(()), T.zeros(()))),
    error("ReduceOp.AVG with torch.bool", lambda: dist.all_reduce(x > 0, R.AVG)),
    error("Invalid usage of tensors with different dtypes",
          lambda: dist.scatter(x, [x.double()] * world, src=rank)),
]
"""


def test_values_are_those_of_pytorch():
    results = alike(3, VALUES)
    over_mpi = ours(3, VALUES, "mpi")
    assert not (differences := compare(results, over_mpi)), "\n".join(differences)


def test_wrong_calls_are_refused_as_by_pytorch():
    alike(2, ERRORS)


@pytest.mark.parametrize("ranks, backend", [(2, "gloo"), (4, "gloo"), (3, "mpi")])
def test_what_goes_beyond_pytorchs_gloo(ranks, backend):
    for found in ours(ranks, OURS, backend):
        assert all(f.get("has") for f in found), found
