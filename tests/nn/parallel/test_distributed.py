"""DistributedDataParallel over real processes: what it computes, options, states."""

import copy
import inspect
import io
import pickle

import pytest

import gpunn
from gpunn import nn
from gpunn.nn.parallel import DistributedDataParallel as DDP  # noqa: N817
from gpunn.nn.parallel import distributed
from tests.distributed.ranks import run_ranks
from tests.nn.parallel.ddp_models import PREPARED

# --- it trains as one process does --------------------------------------------------------

TRAINS = """
losses = {kind: same_training(kind) for kind in MODELS}
small = {"bucket_cap_mb": 0.0005}
losses["view"] = same_training("MLP", 5, gradient_as_bucket_view=True, **small)
losses["unused"] = same_training("LSTM", 5, find_unused_parameters=True, **small)
losses["static"] = same_training("CNN", 5, static_graph=True, gradient_as_bucket_view=True, **small)
report(losses)
"""


@pytest.mark.parametrize("backend, ranks", [("gloo", 2), ("gloo", 4), ("mpi", 2), ("mpi", 4)])
def test_losses_are_those_of_one_process_with_the_whole_batch(backend, ranks):
    found = run_ranks(ranks, PREPARED + TRAINS, backend=backend, timeout=120)
    assert all(f == found[0] for f in found)
    for kind, losses in found[0].items():
        assert len(losses) == (20 if kind[0].isupper() or kind == "transformer" else 5)
        assert losses[-1] != losses[0]


# --- what is averaged, and when -----------------------------------------------------------

PASSES = """
def two_models(**options):
    gpunn.manual_seed(0)
    one = perceptron().double()
    return one, DDP(copy.deepcopy(one), **options)

def close(ddp, one, tolerance=1e-12):
    for (name, p), q in zip(ddp.module.named_parameters(), one.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=tolerance, atol=tolerance,
                                   err_msg=name)

x, z = rows(5), rows(5, seed=1)
for options in ({}, {"gradient_as_bucket_view": True}, {"find_unused_parameters": True},
                {"static_graph": True}, {"bucket_cap_mb": 1e-5}):
    for to_none in (True, False):
        one, ddp = two_models(**options)
        for step in range(3):  # accumulation: the first pass of each two stays on the rank
            one.zero_grad(set_to_none=to_none), ddp.zero_grad(set_to_none=to_none)
            with ddp.no_sync():
                ddp(mine(x)).mean().backward()
            local = grads(ddp)
            if step == 0:  # rank by rank its own
                assert len({str(g) for g in by_rank(local)}) == world
            ddp(mine(z)).mean().backward()
            (one(x).mean() + one(z).mean()).backward()
            close(ddp, one)
        if "gradient_as_bucket_view" in options:
            bucket = ddp.reducer.buckets[0]
            assert all(np.shares_memory(p.grad.numpy(), bucket.flat.numpy()) for p in bucket.params)

# two forward passes before one backward pass, as in GANs, and two losses of one forward pass
one, ddp = two_models()
(ddp(mine(x)).mean() + ddp(mine(z)).mean()).backward()
(one(x).mean() + one(z).mean()).backward()
close(ddp, one)

# several backward passes of one forward pass: the first is averaged, later ones add the rank's own
one, ddp = two_models()
y = ddp(mine(x)).mean()
y.backward(retain_graph=True)
averaged = [p.grad.clone() for p in ddp.parameters()]
y.backward()
one(mine(x)).mean().backward()
for p, a, q in zip(ddp.parameters(), averaged, one.parameters(), strict=True):
    assert gpunn.allclose(p.grad, a + q.grad)

# gradients of a part of the parameters at a time: reduced when all are there
class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 1), nn.Linear(5, 1)

    def forward(self, x):
        return self.a(x), {"b": self.b(x)}

gpunn.manual_seed(0)
one = Both().double()
ddp = DDP(copy.deepcopy(one))
for f, part in ((one, x), (ddp, mine(x))):
    a, b = f(part)
    a.mean().backward()
    b["b"].mean().backward()
close(ddp, one)

# an evaluation in between, without and with gradients that nobody asks for
one, ddp = two_models()
ddp.eval()
with gpunn.no_grad():
    ddp(mine(x))
ddp.train()
ddp(mine(z))
ddp(mine(x)).mean().backward()
one(x).mean().backward()
close(ddp, one)

# autocast and GradScaler: all ranks see the same gradients, and skip the same steps
gpunn.manual_seed(0)
ddp = DDP(perceptron())
optimizer, scaler = gpunn.optim.SGD(ddp.parameters(), 0.1), gpunn.amp.GradScaler("cpu")
for step in range(4):
    optimizer.zero_grad()
    with gpunn.autocast("cpu", gpunn.bfloat16):
        loss = ddp(mine(x).float()).float().pow(2).mean()
    if step == 1 and rank == 0:  # one rank overflows: all skip
        loss = loss * float("inf")
    scaler.scale(loss).backward()
    before = ddp.module[0].weight.detach().clone()
    scaler.step(optimizer)
    scaler.update()
    assert gpunn.equal(before, ddp.module[0].weight) == (step == 1)
assert scaler.get_scale() == 65536.0 / 2
assert len({str(p) for p in by_rank([p.tolist() for p in ddp.parameters()])}) == 1

# a group of one rank each, and ranks of another order
for group in [dist.new_group([r]) for r in range(world)]:
    if group is not dist.GroupMember.NON_GROUP_MEMBER:
        ddp = DDP(perceptron().double(), process_group=group)
        ddp(mine(x)).mean().backward()
        assert len({str(g) for g in [grads(ddp)]}) == 1
        own = copy.deepcopy(ddp.module)
        own.zero_grad()
        own(mine(x)).mean().backward()
        close(ddp, own)
    else:
        assert "not in process_group" in raised(
            ValueError, lambda g=group: DDP(perceptron(), process_group=g))
report(True)
"""


def test_accumulation_and_several_passes():
    assert all(run_ranks(2, PREPARED + PASSES, timeout=120))


BUFFERS = """
class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)
        self.register_buffer("mine", gpunn.tensor(float(rank)))

    def forward(self, x):
        self.seen = self.mine.item()
        return self.norm(self.linear(x)).sum()

x = rows(3).float()
# at the start and at each forward pass they are rank 0's
ddp = DDP(Counting())
assert ddp.module.mine.item() == 0
for _ in range(2):
    ddp.module.mine.fill_(rank + 5.0)
    ddp(mine(x) * (rank + 1)).backward()
    assert ddp.module.seen == 5
assert len({str(m) for m in by_rank(ddp.module.norm.running_mean.tolist())}) == world
# but not after a pass that reduces nothing
with ddp.no_sync():
    ddp(mine(x))
    ddp.module.mine.fill_(rank + 5.0)
    ddp(mine(x))
assert ddp.module.seen == rank + 5
ddp(mine(x)).backward()
assert ddp.module.seen == rank + 5
ddp(mine(x)).backward()
assert ddp.module.seen == 5
# turned off by PyTorch's older name: not at the start either; by its newer one: at the start
for options, start in (({"broadcast_buffers": False}, rank), ({"forward_sync_buffers": False}, 0)):
    ddp = DDP(Counting(), **options)
    assert ddp.module.mine.item() == start
    ddp.module.mine.fill_(rank + 5.0)
    ddp(mine(x)).backward()
    assert ddp.module.seen == rank + 5
# what the module asks to leave alone is left alone
model = Counting()
DDP._set_params_and_buffers_to_ignore_for_model(model, ["mine", "linear.bias"])
ddp = DDP(model)
ddp(mine(x) * (rank + 1)).backward()
assert ddp.module.seen == rank
g = by_rank(grads(ddp.module))
assert g[0]["linear.weight"] == g[1]["linear.weight"] and g[0]["norm.bias"] == g[1]["norm.bias"]
# init_sync=False: everybody's own start, averages all the same
gpunn.manual_seed(rank)
ddp = DDP(perceptron().double(), init_sync=False)
assert len({str(w) for w in by_rank(ddp.module[0].weight.tolist())}) == world
ddp(mine(rows(5))).mean().backward()
assert len({str(w) for w in by_rank(grads(ddp))}) == 1
report(True)
"""


def test_buffers_and_what_is_left_alone():
    assert all(run_ranks(2, PREPARED + BUFFERS, timeout=60))


UNUSED = """
class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.a, self.b, self.c = nn.Linear(4, 1), nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x, branches="a"):
        h = self.first(x)
        return {"loss": sum(getattr(self, n)(h).mean() for n in branches), "beside": self.c(h)}

x = rows(5)
gpunn.manual_seed(0)
one = Branches().double()
whole = grads  # by name

for options in ({}, {"gradient_as_bucket_view": True}, {"bucket_cap_mb": 1e-5}):
    ddp = DDP(copy.deepcopy(one), find_unused_parameters=True, **options)
    for step in range(3):
        ddp.zero_grad()
        # rank 0 uses a, rank 1 b: their gradients are averages; c, which no loss has, stays None
        ddp(mine(x), "a" if rank == 0 else "b")["loss"].backward()
        g, everyones = grads(ddp.module), by_rank(grads(ddp.module))
        assert everyones[0] == everyones[1]
        assert g["c.weight"] is None and g["c.bias"] is None
        assert g["a.bias"] == [0.5] and g["b.bias"] == [0.5], g
    # an older gradient of what no rank uses stays as it is
    ddp.zero_grad()
    ddp.module.c.bias.grad = gpunn.full((1,), 3.0 + rank, dtype=gpunn.float64)
    ddp(mine(x))["loss"].backward()
    assert ddp.module.c.bias.grad.item() == 3.0 + rank
    assert ddp.module.a.bias.grad.item() == 1.0 and ddp.module.b.bias.grad is None
    # all are used
    ddp.zero_grad()
    ddp(mine(x), "abc")["loss"].backward()
    assert all(g is not None for g in grads(ddp).values())
    # frozen after wrapping: PyTorch's rule is that it counts as unused
    ddp.zero_grad()
    ddp.module.a.requires_grad_(False)
    ddp(mine(x), "ab")["loss"].backward()
    g = grads(ddp.module)
    assert g["a.weight"] is None and g["b.bias"] == [1.0]
    # a rank whose loss has no parameter of the model at all
    ddp.zero_grad()
    out = ddp(mine(x), "b")
    (out["loss"] if rank == 0 else out["loss"] * 0 + 1).backward()
    assert grads(ddp.module)["b.bias"] == [0.5]

# without it: the next forward pass says which
ddp = DDP(copy.deepcopy(one))
ddp(mine(x))["loss"].backward()
told = raised(RuntimeError, ddp, mine(x))
assert told.startswith("Expected to have finished reduction in the prior iteration before starting")
assert told.endswith(f"did not receive grad for rank {rank}: b.weight, b.bias, c.weight, c.bias")
assert "find_unused_parameters=True" in told
ddp(mine(x), "abc")["loss"].backward()  # and goes on

# skip_all_reduce_unused_params: what all ranks leave out is not sent
sent = []
ddp = DDP(copy.deepcopy(one), find_unused_parameters=True, skip_all_reduce_unused_params=True,
          bucket_cap_mb=1e-5)
comm = ddp.process_group.engine(gpunn.device("cpu"))
def counted(x, op, before=comm.all_reduce):
    sent.append(x.dtype.kind)
    before(x, op)
comm.all_reduce = counted
ddp(mine(x), "a")["loss"].backward()
del comm.all_reduce
assert sent == ["f"] * 6 + ["i"], sent  # first, a, and c of the outputs; then which are used
g = by_rank(grads(ddp.module))
assert g[0] == g[1] and g[0]["b.bias"] is None and g[0]["a.bias"] == [1.0]

# static graphs: unused parameters, layers used several times, checkpoints of either kind
from gpunn.utils.checkpoint import checkpoint

class Repeated(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.start, self.again, self.never = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x):
        x = self.start(x)
        for _ in range(3):
            x = x + self.again(x).tanh() if self.reentrant is None else checkpoint(
                lambda y: self.again(y).tanh(), x, use_reentrant=self.reentrant)
        return x

for reentrant in (None, False, True):
    gpunn.manual_seed(0)
    alone = Repeated(reentrant).double()
    ddp = DDP(copy.deepcopy(alone), static_graph=True, bucket_cap_mb=1e-5)
    for step in range(3):
        alone.zero_grad(), ddp.zero_grad()
        alone(x).pow(2).mean().backward()
        ddp(mine(x)).pow(2).mean().backward()
        for (name, p), q in zip(ddp.module.named_parameters(), alone.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None) == name.startswith("never"), name
            assert p.grad is None or gpunn.allclose(p.grad, q.grad, 1e-12), name
    fires = ddp.reducer.fires
    assert fires == [1, 1, 3 if reentrant else 1, 3 if reentrant else 1, 0, 0], fires

# the same without static_graph: complete several times
ddp = DDP(Repeated(True).double(), find_unused_parameters=False)
y = ddp(mine(x)).sum()
told = raised(RuntimeError, y.backward)
assert told.startswith("Expected to mark a variable ready only once. The gradient of again."), told

# a static graph that changes
ddp = DDP(copy.deepcopy(one), static_graph=True)
ddp(mine(x), "a")["loss"].backward()
y = ddp(mine(x), "ab")["loss"]
told = raised(RuntimeError, y.backward)
assert told.startswith("Your training graph has changed in this iteration"), told
assert "b." in told and "1 times, in the first iteration 0 times" in told
report(True)
"""


@pytest.mark.parametrize("backend", ["gloo", "mpi"])
def test_unused_parameters_and_static_graphs(backend):
    assert all(run_ranks(2, PREPARED + UNUSED, backend=backend, timeout=60))


SORTS = """
# several dtypes, tied and frozen parameters, sparse gradients
class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(6, 4, sparse=True)
        self.half, self.middle = nn.Linear(4, 4).half(), nn.Linear(4, 4).double()
        self.brain, self.tied = nn.Linear(4, 4).bfloat16(), nn.Linear(4, 4)
        self.out = nn.Linear(4, 4)
        self.out.weight = self.tied.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.scale = nn.Parameter(gpunn.tensor(0.5))
        self.empty = nn.Parameter(gpunn.zeros(0, 3))

    def forward(self, i):
        x = self.middle(self.half(self.words(i).half()).double()).bfloat16()
        y = self.frozen(self.out(self.tied(self.brain(x).float())))
        return y * self.scale + self.empty.sum()

numbers = gpunn.arange(2 * world) % 5
for options in ({}, {"gradient_as_bucket_view": True}, {"bucket_cap_mb": 1e-5}):
    gpunn.manual_seed(rank)
    ddp = DDP(Mixed(), **options)
    for bucket in ddp.reducer.buckets:
        assert len({p.dtype for p in bucket.params}) == 1
    listed = [n for b in ddp.reducer.buckets for n in b.names]
    assert len(listed) == len(set(listed)) == 12 and "out.weight" not in listed
    starts = by_rank({n: p.tolist() for n, p in ddp.module.named_parameters()})
    assert starts[0] == starts[1]  # what is frozen too
    one = copy.deepcopy(ddp.module)
    for step in range(2):
        one.zero_grad(), ddp.zero_grad()
        one(numbers).float().mean().backward()
        ddp(mine(numbers)).float().mean().backward()
        for (name, p), q in zip(ddp.module.named_parameters(), one.named_parameters(), strict=True):
            q = q[1]
            if name.startswith("frozen"):
                assert p.grad is None
                continue
            assert p.grad.dtype is q.dtype and p.grad.is_sparse == (name == "words.weight"), name
            a, b = (g.to_dense() if g.is_sparse else g for g in (p.grad, q.grad))
            tolerance = 1e-5 if p.dtype in (gpunn.float32, gpunn.float64) else 2e-2
            np.testing.assert_allclose(a.float().numpy(), b.float().numpy(), rtol=tolerance,
                                       atol=tolerance / 4, err_msg=name)
    gpunn.optim.SparseAdam([ddp.module.words.weight], lr=0.1).step()
    assert len({str(w) for w in by_rank(ddp.module.words.weight.tolist())}) == 1

# a sparse gradient that one rank does not have
class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(4, 2, sparse=True), nn.Linear(2, 1)

    def forward(self, i):
        return self.out(gpunn.ones(1, 2) if i is None else self.words(i)).sum()

ddp = DDP(Words(), find_unused_parameters=True)
ddp(None if rank == 0 else gpunn.tensor([1, 1, 3])).backward()
weight = ddp.module.out.weight.detach()[0]
expected = gpunn.stack([0 * weight, weight, 0 * weight, weight / 2])
assert gpunn.allclose(ddp.module.words.weight.grad.to_dense(), expected)

# optimizers step alike whatever the gradients' memory is
for options in ({}, {"gradient_as_bucket_view": True}):
    gpunn.manual_seed(0)
    ddp = DDP(perceptron().double(), **options)
    for name in ("SGD", "Adam", "AdamW", "RMSprop"):
        optimizer = getattr(gpunn.optim, name)(ddp.parameters(), lr=0.01)
        for to_none in (True, False, True):
            optimizer.zero_grad(set_to_none=to_none)
            ddp(mine(rows(5))).pow(2).sum().backward()
            nn.utils.clip_grad_norm_(ddp.parameters(), 1.0)
            optimizer.step()
    end = [p.tolist() for p in ddp.parameters()]
    assert len({str(p) for p in by_rank(end)}) == 1
    assert "last" not in globals() or np.allclose(np.array(last[0]), np.array(end[0]), atol=1e-12)
    last = end
report(True)
"""


def test_dtypes_tied_frozen_sparse_and_optimizers():
    assert all(run_ranks(2, PREPARED + SORTS, timeout=60))


# --- states, copies, arguments ------------------------------------------------------------


def step(model):
    model.zero_grad()
    model(gpunn.ones(4, 3)).pow(2).sum().backward()
    return {name: p.grad.tolist() for name, p in model.named_parameters()}


def test_states_of_the_bare_module_and_of_the_wrapped_one(alone):
    bare, other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), None
    model = DDP(copy.deepcopy(bare))
    assert list(model.state_dict()) == [f"module.{key}" for key in bare.state_dict()]
    for target in (model, copy.deepcopy(bare)):
        for source in (bare.state_dict(), model.state_dict()):
            with gpunn.no_grad():
                target[0].weight.zero_() if target is not model else bare[0].weight.add_(1)
            if target is not model and source.keys() == model.state_dict().keys():
                source = {k.removeprefix("module."): v for k, v in source.items()}
            assert str(target.load_state_dict(source)) == "<All keys matched successfully>"
    file = io.BytesIO()
    gpunn.save(model.state_dict(), file)
    file.seek(0)
    other = DDP(copy.deepcopy(bare))
    other.load_state_dict(gpunn.load(file))
    assert gpunn.equal(other.module[0].weight, model.module[0].weight)
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({"0.weight": bare[0].weight})


@pytest.mark.parametrize("made", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_reduce_by_themselves(alone, made):
    model = DDP(nn.Linear(3, 2))
    model.register_comm_hook(None, lambda state, bucket: 1 / 0)
    other = made(model)  # hooks stay behind, as in PyTorch
    grads = step(other)
    assert model.module.weight.grad is None and other.process_group is model.process_group
    bare = copy.deepcopy(other.module)
    assert {f"module.{k}": v for k, v in step(bare).items()} == grads
    assert other.reducer.buckets[0].params[0] is other.module.bias


def test_a_module_that_was_wrapped_is_free_of_it(alone):
    linear = nn.Linear(3, 2)
    model = DDP(linear)
    model(gpunn.ones(1, 3))
    buckets = model.reducer.buckets
    del model
    assert not linear.weight._extra.post_hooks and not linear.bias._extra.post_hooks
    step(linear)
    assert all(not b.flat.any() for b in buckets)
    again = DDP(linear)
    assert step(again)
    again.reducer.remove()
    step(linear)


def test_arguments_that_change_the_buckets(alone):
    layers = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(6)))  # 256 bytes each
    mb = 1 / (1 << 20)

    def names(**options):
        return [b.names for b in DDP(layers, **options).reducer.buckets]

    assert names() == [[f"{k}.weight" for k in (5, 4, 3, 2, 1, 0)]]
    assert names(bucket_cap_mb=512 * mb) == [
        ["5.weight", "4.weight"], ["3.weight", "2.weight"], ["1.weight", "0.weight"]
    ]
    assert names(bucket_cap_mb_list=[256 * mb, 768 * mb]) == [
        ["5.weight"], ["4.weight", "3.weight", "2.weight"], ["1.weight", "0.weight"]
    ]
    late = [("5.weight", layers[5].weight), ("4.weight", layers[4].weight)]
    options = {"delay_all_reduce_named_params": late, "param_to_hook_all_reduce": layers[0].weight}
    assert names(bucket_cap_mb=256 * mb, **options) == [
        ["3.weight"], ["2.weight"], ["1.weight"], ["0.weight"], ["5.weight", "4.weight"]
    ]
    model = DDP(layers, batched_grad_copy=True, check_reduction=True, **options)
    model(gpunn.ones(2, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_signature_is_pytorchs():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = inspect.signature(torch.nn.parallel.DistributedDataParallel.__init__).parameters
    ours = inspect.signature(DDP.__init__).parameters
    assert [(p.name, p.default) for p in ours.values()] == [
        (p.name, p.default) for p in theirs.values()
    ]
    assert nn.parallel.distributed is distributed and nn.parallel.DistributedDataParallel is DDP


@pytest.mark.parametrize("as_view", [False, True])
def test_on_a_gpu(emulated, alone, as_view):
    gpunn.manual_seed(0)
    bare = nn.Sequential(nn.Linear(3, 4), nn.SyncBatchNorm(4), nn.Linear(4, 2))
    options = {"gradient_as_bucket_view": as_view, "bucket_cap_mb": 1e-5}
    model = DDP(copy.deepcopy(bare).to("cuda"), device_ids=[0], **options)
    assert model.device_ids == [0] == [model.output_device] and model.device.type == "cuda"
    optimizer = gpunn.optim.SGD(model.parameters(), 0.1)
    other = gpunn.optim.SGD(bare.parameters(), 0.1)
    for _ in range(2):
        x = gpunn.randn(5, 3)  # moved to the device
        optimizer.zero_grad(), other.zero_grad()
        model(x).pow(2).sum().backward(), bare(x).pow(2).sum().backward()
        for p, q in zip(model.parameters(), bare.parameters(), strict=True):
            assert p.grad.device.type == "cuda"
            assert gpunn.allclose(p.grad.cpu(), q.grad, 1e-4, 1e-5)
        optimizer.step(), other.step()
    model.load_state_dict(bare.state_dict())
    with pytest.raises(ValueError, match="only work with single-device"):
        DDP(model.module, output_device=1)
