"""DistributedOptimizer: parameters on several workers; real processes."""

import pytest

from gpunn.distributed.optim import DistributedOptimizer
from gpunn.optim import SGD
from tests.distributed.ranks import run_ranks


def test_parameters_on_several_workers():
    body = """
from gpunn.distributed import autograd as dist_autograd
from gpunn.distributed import rpc
from gpunn.distributed.optim import DistributedOptimizer
from gpunn.distributed.rpc import RRef, remote, rpc_async, rpc_sync
gpunn.set_default_dtype(gpunn.float64)
gpunn.manual_seed(3)

def caught(run, *args, **kwargs):
    try:
        return ["nothing", str(run(*args, **kwargs))]
    except Exception as error:
        return [type(error).__name__, str(error)]

class Server:  # a parameter server, as in PyTorch's tutorial
    def __init__(self, weight):
        self.weight = nn.Parameter(weight)
        self.weight.grad = gpunn.full_like(weight, 100.0)  # the user's own, which is not used
        self.unused = nn.Parameter(gpunn.ones(2))
    def forward(self, x):
        return gpunn.tanh(x @ self.weight)
    def refs(self):
        return [RRef(self.weight), RRef(self.unused)]
    def state(self):
        return self.weight.detach(), self.weight.grad, self.unused.detach()

rpc.init_rpc(f"worker{rank}", rank=rank, world_size=world)
if rank == 0:
    weights = [gpunn.randn(4, 4) / 2 for _ in range(3)]
    x = gpunn.randn(6, 4)
    for kind, options in ((gpunn.optim.Adagrad, {"lr": 0.05}), (gpunn.optim.SGD, {"lr": 0.1}),
                          (gpunn.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1})):
        servers = [remote(f"worker{k}", Server, args=(weights[k],)) for k in (1, 2)]
        mine = weights[0].clone().requires_grad_()
        refs = [RRef(mine), *[r for s in servers for r in s.rpc_sync().refs()]]
        opt = DistributedOptimizer(kind, refs, **options)
        plain = [w.clone().requires_grad_() for w in weights]
        local = kind(plain, **options)
        for step in range(4):
            with dist_autograd.context() as context_id:
                z = servers[0].rpc_sync().forward(x @ mine)
                loss = (servers[1].rpc_sync().forward(z) ** 2).sum()
                dist_autograd.backward(context_id, [loss])
                opt.step(context_id)
            want = (gpunn.tanh(gpunn.tanh(x @ plain[0] @ plain[1]) @ plain[2]) ** 2).sum()
            local.zero_grad(); want.backward(); local.step()
            assert abs(want.item() - loss.item()) < 1e-12
        assert gpunn.allclose(mine, plain[0], rtol=1e-12) and mine.grad is None
        for s, p in zip(servers, plain[1:]):
            weight, grad, unused = s.rpc_sync().state()
            assert gpunn.allclose(weight, p, rtol=1e-12)
            assert (grad == 100).all() and unused.tolist() == [1, 1]
    report({
        "empty": caught(DistributedOptimizer, gpunn.optim.SGD, []),
        "options": caught(DistributedOptimizer, gpunn.optim.SGD, refs, lr=-1),
        "context": caught(opt.step, 77),
    })
rpc.shutdown()
"""
    found = run_ranks(3, body, backend=None)[0]
    assert found["empty"] == ["ValueError", "optimizer got an empty parameter list"]
    assert found["options"][0] == "ValueError" and "learning rate" in found["options"][1]
    assert found["context"] == ["RuntimeError", "Could not find autograd context with id: 77"]


def test_without_parameters():
    with pytest.raises(ValueError, match="empty parameter list"):
        DistributedOptimizer(SGD, [], lr=0.1)
