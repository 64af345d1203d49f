"""The reducer: when buckets are reduced, how much is sent, what it says of its time."""

from tests.distributed.ranks import run_ranks
from tests.nn.parallel.ddp_models import PREPARED

EVENTS = """
layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(3))).double()
events = []
for name, p in layers.named_parameters():
    p.register_post_accumulate_grad_hook(lambda p, name=name: events.append(name))
ddp = DDP(layers, bucket_cap_mb=(64 * 64 + 64) * 8 / (1 << 20))  # a layer fills a bucket
assert [b.names for b in ddp.reducer.buckets] == [
    [f"{k}.bias", f"{k}.weight"] for k in (2, 1, 0)
]

def hook(state, bucket):
    events.append(f"bucket {bucket.index()}{' is last' if bucket.is_last() else ''}")
    assert [p.shape for p in bucket.parameters()] == [(64,), (64, 64)]
    work = dist.all_reduce(bucket.buffer().div_(world), async_op=True)
    return work.get_future().then(lambda f: f.value()[0])

ddp.register_comm_hook("state", hook)
ddp(mine(rows(64))).sum().backward()
assert sorted(events[:2]) == ["2.bias", "2.weight"] and events[2] == "bucket 0", events
assert sorted(events[3:5]) == ["1.bias", "1.weight"] and events[5] == "bucket 1", events
assert sorted(events[6:8]) == ["0.bias", "0.weight"] and events[8] == "bucket 2 is last", events

# a reduction ends while the backward pass is held up: it needs nothing that comes later
layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(3))).double()
ended = []
def held(p):
    ddp.reducer.buckets[0].future.wait()
    ended.append(ddp.reducer.buckets[2].future is None)
layers[0].weight.register_post_accumulate_grad_hook(held)
for options in ({}, {"gradient_as_bucket_view": True}, {"find_unused_parameters": True}):
    ddp = DDP(layers, bucket_cap_mb=(64 * 64 + 64) * 8 / (1 << 20), **options)
    ddp(mine(rows(64))).sum().backward()
    ended.append(ddp.reducer.buckets[2].future.done())
assert ended == [True] * 6, ended

# bytes: what the engine is given is the gradients' size
comm = ddp.process_group.engine(gpunn.device("cpu"))
sent = []
def counted(x, op, before=comm.all_reduce):
    sent.append(x.nbytes)
    before(x, op)
comm.all_reduce = counted
network().double()
for make, shape in MODELS.values():
    for cap in (25, 1e-4):
        ddp, sent[:] = DDP(make().double(), bucket_cap_mb=cap), []
        ddp(mine(rows(*shape))).mean().backward()
        size = sum(p.grad.numpy().nbytes for p in ddp.parameters())
        assert sum(sent) == size == sum(ddp._get_ddp_logging_data()["bucket_sizes"])
        assert len(sent) == 1 if cap == 25 else len(sent) > 1
        with ddp.no_sync():
            ddp(mine(rows(*shape))).mean().backward()
        assert sum(sent) == size
del comm.all_reduce

# what it says of its time, in PyTorch's names and unit
data = ddp._get_ddp_logging_data()
total, part = data["backward_comm_time"], data["backward_compute_comm_overlap_time"]
assert 0 <= part <= total and data["backward_compute_time"] > 0 and isinstance(total, int)
assert data["world_size"] == world and data["rank"] == rank and data["backend_name"] == "gloo"
report([total, part])
"""


def test_buckets_are_reduced_as_soon_as_they_are_full():
    assert all(total > 0 for total, _ in run_ranks(2, PREPARED + EVENTS, timeout=60))


ERRORS = """
x = mine(rows(5)).float()

# an error in the backward pass of all ranks: it comes out, and the next pass says what is missing
class Fails(gpunn.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        raise ArithmeticError("in the middle")

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 1)

    def forward(self, x, fails):
        h = self.a(x)
        return self.b(Fails.apply(h) if fails else h).sum()

ddp = DDP(Model())
assert "in the middle" in raised(ArithmeticError, ddp(x, True).backward)
assert raised(RuntimeError, ddp, x, False).endswith(f"for rank {rank}: a.weight, a.bias")
ddp.zero_grad()
ddp(x, False).backward()
assert len({str(g) for g in by_rank(grads(ddp))}) == 1

# hooks that raise, at once or later, or return something else
def later(state, bucket):
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda f: 1 / 0)

for hook, kind, message in [
    (lambda state, bucket: 1 / 0, ZeroDivisionError, "division by zero"),
    (later, ZeroDivisionError, "division by zero"),
    (lambda state, bucket: dist.all_reduce(bucket.buffer(), async_op=True), RuntimeError,
     "must return a torch.futures.Future of the bucket's result, not Work"),
    (lambda state, bucket: None, RuntimeError, "not NoneType"),
]:
    ddp = DDP(perceptron())
    ddp.register_comm_hook(None, hook)
    assert message in raised(kind, ddp(x).sum().backward), message
    with ddp.no_sync():
        ddp(x).sum().backward()  # that it failed was said once

def wrong(state, bucket: int):
    pass

def right(state, bucket: dist.GradBucket) -> gpunn.futures.Future[gpunn.Tensor]:
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future()

ddp = DDP(perceptron())
assert "must be callable" in raised(TypeError, ddp.register_comm_hook, None, 3)
assert "bucket annotation should be dist.GradBucket" in raised(
    ValueError, ddp.register_comm_hook, None, wrong)
ddp.register_comm_hook(None, right)  # whose future's value is a list of one tensor, as PyTorch's
assert "can only be called once" in raised(RuntimeError, ddp.register_comm_hook, None, right)
ddp(x).sum().backward()
own = copy.deepcopy(ddp.module)
own.zero_grad()
own(rows(5).float()).sum().backward()
for p, q in zip(ddp.parameters(), own.parameters(), strict=True):  # a sum, as the hook wants it
    assert gpunn.allclose(p.grad, q.grad, 1e-5, 1e-5)
report(True)
"""


def test_errors_come_out_of_the_backward_pass():
    assert all(run_ranks(2, PREPARED + ERRORS, timeout=60))
