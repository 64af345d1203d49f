"""Gradients through remote calls: real processes, against the same model in one."""

from tests.distributed.ranks import run_ranks, try_ranks

START = """
import threading, time
from gpunn.distributed import autograd as dist_autograd
from gpunn.distributed import rpc
from gpunn.distributed.autograd import contexts
from gpunn.distributed.rpc import RRef, remote, rpc_async, rpc_sync
gpunn.set_default_dtype(gpunn.float64)
gpunn.manual_seed(0)

def caught(run, *args, **kwargs):
    try:
        return ["nothing", str(run(*args, **kwargs))]
    except Exception as error:
        return [type(error).__name__, str(error)]

weights = {}
def weight(name, *shape):  # a parameter of this worker
    if name not in weights:
        weights[name] = (gpunn.arange(float(np.prod(shape))).reshape(*shape) / 7 + 0.3
                         ).requires_grad_()
    return weights[name]

def gradient(context_id, name):
    return dist_autograd.get_gradients(context_id).get(weights[name])

def known():
    return len(contexts._known)

def times(x, name="w"):
    return x * weight(name, 3)

def same(x):
    return x

def through(x, *workers):
    x = x * weight("w", 3)
    return rpc_sync(workers[0], through, args=(x, *workers[1:])) if workers else x

def init():
    weight("w", 3)  # before threads ask for it
    rpc.init_rpc(f"worker{rank}", rank=rank, world_size=world)
"""


def test_gradients_equal_those_of_one_process():
    body = START + """
def two(x, y):
    return x * weight("w", 3), x + y, 5

def unused(x):
    return (x * weight("w", 3)).detach(), x * 2

def twice(x):
    return x * x * weight("w", 3) + x

def same_context():
    return contexts.current.context.number

init()
if rank == 0:
    w = weight("w", 3)
    x, y = gpunn.randn(3).requires_grad_(), gpunn.randn(3).requires_grad_()

    def compare(remote_loss, local_loss, others=()):
        with dist_autograd.context() as context_id:
            dist_autograd.backward(context_id, [remote_loss()])
            found = dist_autograd.get_gradients(context_id)
            theirs = [rpc_sync(o, gradient, args=(context_id, "w")) for o in others]
        u = {o: w.detach().clone().requires_grad_() for o in ("worker0", "worker1", "worker2")}
        want = gpunn.autograd.grad(local_loss(u), [x, y, w, *(u[o] for o in others)],
                                   allow_unused=True)
        for got, g in zip([found.get(x), found.get(y), found.get(w), *theirs], want):
            assert (got is None) == (g is None), (got, g)
            assert g is None or gpunn.allclose(got, g, rtol=1e-12, atol=0), (got, g)
        assert x.grad is None and all(isinstance(k, gpunn.Tensor) for k in found)

    both = ("worker1", "worker2")
    # PyTorch's page
    compare(lambda: rpc_sync("worker1", gpunn.add, args=(x, y)).sum(), lambda u: (x + y).sum())
    # a tensor sent twice, in one message and in several, to several workers
    compare(lambda: (rpc_sync("worker1", times, args=(x,)) * rpc_sync("worker1", times, args=(x,))
                     + rpc_sync("worker2", times, args=(x,)) + x * y).sum(),
            lambda u: ((x * u["worker1"]) ** 2 + x * u["worker2"] + x * y).sum(), both)
    compare(lambda: rpc_sync("worker1", gpunn.mul, args=(x, x)).sum(), lambda u: (x * x).sum())
    # a received tensor used twice, there and here
    def received_twice():
        z = rpc_sync("worker1", twice, args=(x * y,))
        return (z * z + z).sum()
    def local_twice(u):
        z = (x * y) ** 2 * u["worker1"] + x * y
        return (z * z + z).sum()
    compare(received_twice, local_twice, ["worker1"])
    # several results, some without gradient
    def several():
        a, b, c = rpc_sync("worker1", two, args=(x, y))
        return (a * b * c).sum()
    compare(several, lambda u: (x * u["worker1"] * (x + y) * 5).sum(), ["worker1"])
    compare(lambda: rpc_sync("worker1", two, args=(x, y))[1].sum(), lambda u: (x + y).sum())
    compare(lambda: sum(rpc_sync("worker1", unused, args=(x,))).sum(),
            lambda u: (x * 2).sum())
    # a chain over all workers, and back to this one
    compare(lambda: rpc_sync("worker1", through, args=(x, "worker2", "worker0", "worker1")).sum(),
            lambda u: (x * u["worker1"] ** 2 * u["worker2"] * w).sum(), both)
    compare(lambda: rpc_sync("worker1", through, args=(x, "worker2")).sum(),
            lambda u: (x * u["worker1"] * u["worker2"]).sum(), both)
    # results through references, made by remote, passed on
    compare(lambda: remote("worker1", times, args=(x,)).to_here().sum(),
            lambda u: (x * u["worker1"]).sum(), ["worker1"])
    compare(lambda: gpunn.stack([rpc_async("worker1", times, args=(x,)).wait() for _ in range(3)])
            .sum(), lambda u: 3 * (x * u["worker1"]).sum(), ["worker1"])
    # to itself
    compare(lambda: rpc_sync("worker0", gpunn.mul, args=(x, y)).sum(), lambda u: (x * y).sum())
    # branches that meet at every step: each message goes back once
    def ladder(far, near):
        z = x
        for _ in range(24):
            z = near(z) + far(z)
        return z.sum()
    begun = time.monotonic()
    compare(lambda: ladder(lambda z: rpc_sync("worker1", times, args=(z,)) / 4, lambda z: z / 2),
            lambda u: ladder(lambda z: z * u["worker1"] / 4, lambda z: z / 2), ["worker1"])
    assert time.monotonic() - begun < 20
    # the loss on another worker
    with dist_autograd.context() as context_id:
        assert rpc_sync("worker1", same_context) == context_id
        loss = remote("worker1", gpunn.sum, args=(x * y,))
        loss.backward(context_id)
        assert gpunn.allclose(dist_autograd.get_gradients(context_id)[x], y)
    local = RRef((x * y).sum())
    local.backward()
    assert gpunn.allclose(x.grad, y)
    # a module that is sent: its copy has the gradients
    with dist_autograd.context() as context_id:
        model = nn.Linear(3, 1)
        dist_autograd.backward(context_id, [rpc_sync("worker1", model.forward, args=(x,))])
        found = dist_autograd.get_gradients(context_id)
        assert set(found) == {x} and gpunn.allclose(found[x], model.weight[0])
    for other in ("worker0", "worker1", "worker2"):
        for _ in range(200):
            if rpc_sync(other, known) == 0: break
            time.sleep(0.02)
        assert rpc_sync(other, known) == 0, other
    report(True)
rpc.shutdown()
"""
    assert run_ranks(3, body, backend=None)[0] is True


def test_contexts_in_several_threads_and_several_passes():
    body = START + """
init()
found = {}
def one(k):
    x = gpunn.full((3,), float(k)).requires_grad_()
    with dist_autograd.context() as context_id:
        z = rpc_sync("worker1", times, args=(x,))
        dist_autograd.backward(context_id, [(z * z).sum()])
        found[k] = (rpc_sync("worker1", gradient, args=(context_id, "w")) / k ** 2).tolist()
        dist_autograd.backward(context_id, [z.sum()])  # adds
        w = rpc_sync("worker1", weight, args=("w", 3)).detach()
        assert gpunn.allclose(dist_autograd.get_gradients(context_id)[x], 2 * k * w * w + w)
if rank == 0:
    threads = [threading.Thread(target=one, args=(k,)) for k in range(1, 9)]
    for t in threads: t.start()
    for t in threads: t.join()
    w = rpc_sync("worker1", weight, args=("w", 3)).detach()
    for k in range(1, 9):
        assert np.allclose(found[k], (2 * w).tolist())
    report(len(found))
rpc.shutdown()
"""
    assert run_ranks(2, body, backend=None)[0] == 8


def test_an_rnn_split_over_workers_learns_as_in_one_process():
    """PyTorch's tutorial: embedding and output on one worker, the recurrent layer on another."""
    body = START + """
from gpunn.distributed.optim import DistributedOptimizer

class Table(nn.Module):
    def __init__(self, words, width):
        super().__init__()
        self.table = nn.Embedding(words, width)
    def forward(self, x):
        return self.table(x)

class Decoder(nn.Module):
    def __init__(self, words, width):
        super().__init__()
        self.decoder = nn.Linear(width, words)
    def forward(self, x):
        return self.decoder(x)

def refs_of(module_ref):
    return [RRef(p) for p in module_ref.local_value().parameters()]

def set_values(module_ref, values):
    for p, v in zip(module_ref.local_value().parameters(), values):
        p.data.copy_(v)

def values(module_ref):
    return [p.detach() for p in module_ref.local_value().parameters()]

class Model(nn.Module):
    def __init__(self, ps, words, width, seed):
        super().__init__()
        self.table = remote(ps, Table, args=(words, width))
        self.rnn = nn.LSTM(width, width)
        self.decoder = remote(ps, Decoder, args=(words, width))
    def forward(self, x, hidden):
        e = self.table.rpc_sync().forward(x)
        out, hidden = self.rnn(e, hidden)
        return self.decoder.rpc_sync().forward(out), hidden
    def parameter_rrefs(self):
        return [*rpc_sync(self.table.owner(), refs_of, args=(self.table,)),
                *[RRef(p) for p in self.rnn.parameters()],
                *rpc_sync(self.decoder.owner(), refs_of, args=(self.decoder,))]

init()
if rank == 0:
    model = Model("worker1", 11, 5, 0)
    a, b = Table(11, 5), Decoder(11, 5)
    rnn = nn.LSTM(5, 5)
    rnn.load_state_dict(model.rnn.state_dict())
    rpc_sync("worker1", set_values, args=(model.table, [p.detach() for p in a.parameters()]))
    rpc_sync("worker1", set_values, args=(model.decoder, [p.detach() for p in b.parameters()]))
    opt = DistributedOptimizer(gpunn.optim.SGD, model.parameter_rrefs(), lr=0.5, momentum=0.9)
    local = gpunn.optim.SGD([*a.parameters(), *rnn.parameters(), *b.parameters()], 0.5, 0.9)
    hidden = there = None
    for step in range(5):
        x, y = gpunn.randint(0, 11, (4, 3)), gpunn.randint(0, 11, (12,))
        with dist_autograd.context() as context_id:
            if there is not None: there = tuple(h.detach() for h in there)
            out, there = model(x, there)
            loss = F.cross_entropy(out.reshape(-1, 11), y)
            dist_autograd.backward(context_id, [loss])
            opt.step(context_id)
        if hidden is not None: hidden = tuple(h.detach() for h in hidden)
        e, hidden = rnn(a(x), hidden)
        want = F.cross_entropy(b(e).reshape(-1, 11), y)
        local.zero_grad(); want.backward(); local.step()
        assert abs(loss.item() - want.item()) < 1e-12
    for found, p in zip([*rpc_sync("worker1", values, args=(model.table,)), *model.rnn.parameters(),
                         *rpc_sync("worker1", values, args=(model.decoder,))],
                        [*a.parameters(), *rnn.parameters(), *b.parameters()]):
        assert gpunn.allclose(found, p, rtol=1e-12, atol=1e-14)
    report(True)
rpc.shutdown()
"""
    assert run_ranks(2, body, backend=None)[0] is True


def test_errors():
    body = START + """
class Bad(gpunn.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2
    @staticmethod
    def backward(ctx, g):
        raise ValueError("in the backward pass")

def bad(x):
    return Bad.apply(x)

def die():
    import signal
    os.kill(os.getpid(), signal.SIGKILL)

found = {"before": caught(lambda: dist_autograd.context().__enter__())}
init()
if rank == 0:
    x = gpunn.ones(3, requires_grad=True)
    def nested():
        with dist_autograd.context():
            with dist_autograd.context():
                pass
    def roots(given):
        with dist_autograd.context() as context_id:
            dist_autograd.backward(context_id, given)
    def remote_error():
        with dist_autograd.context() as context_id:
            dist_autograd.backward(context_id, [rpc_sync("worker1", bad, args=(x,)).sum()])
    def killed():
        with dist_autograd.context() as context_id:
            loss = rpc_sync("worker1", times, args=(x,)).sum()
            caught(rpc_sync, "worker1", die)
            dist_autograd.backward(context_id, [loss])
    found["unknown"] = caught(dist_autograd.backward, 77, [x.sum()])
    found["no gradients"] = caught(dist_autograd.get_gradients, 77)
    found["nested"] = caught(nested)
    found["none"] = caught(roots, [])
    found["no scalar"] = caught(roots, [x])
    found["no graph"] = caught(roots, [gpunn.ones(())])
    found["bad"] = caught(remote_error)
    found["killed"] = caught(killed)
    assert contexts._known == {} and contexts.current.context is None
    report(found)
    rpc.shutdown(graceful=False)
else:
    time.sleep(1000)
"""
    found = try_ranks(2, body, backend=None, timeout=30)[0].result
    want = {
        "before": "RPC has not been initialized",
        "unknown": "Could not find autograd context with id: 77",
        "no gradients": "Could not find autograd context with id: 77",
        "nested": "Already have an autograd context id for this thread",
        "none": "No tensors provided for gradient computation.",
        "no scalar": "is not a scalar, all roots need to be scalar",
        "no graph": "requires_grad not set on root",
        "bad": "in the backward pass",
        "killed": "worker1",
    }
    assert {k: text in found[k][1] for k, text in want.items()} == dict.fromkeys(want, True), found
    assert found["bad"][0] == "ValueError" and found["killed"][0] == "DistNetworkError"
