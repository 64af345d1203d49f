"""Models that differ between ranks are refused at once, on every rank, with the difference."""

import pytest

from tests.distributed.ranks import run_ranks
from tests.nn.parallel.ddp_models import PREPARED

DIFFERENT = """
class Named(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return x

L, told = nn.Linear, {}
pairs = {
    "shape": (Named(a=L(2, 3)), Named(a=L(3, 2))),
    "name": (Named(a=L(2, 3)), Named(b=L(2, 3))),
    "order": (Named(a=L(2, 3), b=L(3, 3)), Named(b=L(3, 3), a=L(2, 3))),
    "dtype": (Named(a=L(2, 3)), Named(a=L(2, 3).double())),
    "count": (Named(a=L(2, 3)), Named(a=L(2, 3), b=L(1, 1))),
    "frozen": (Named(a=L(2, 3), b=L(1, 1)), Named(a=L(2, 3), b=L(1, 1).requires_grad_(False))),
    "buffer": (Named(a=nn.BatchNorm1d(3)), Named(a=nn.BatchNorm1d(3, track_running_stats=False))),
}
for what, pair in pairs.items():
    told[what] = raised(RuntimeError, DDP, pair[rank])
told["options"] = raised(RuntimeError, lambda: DDP(L(2, 3), bucket_cap_mb=1 + rank))
told["unused"] = raised(RuntimeError, lambda: DDP(L(2, 3), find_unused_parameters=rank == 1))
model = DDP(L(2, 3))  # and goes on
model(gpunn.ones(1, 2)).sum().backward()
report(told)
"""


@pytest.mark.parametrize("backend", ["gloo", "mpi"])
def test_models_that_differ_are_refused_on_all_ranks(backend):
    told, same = run_ranks(2, PREPARED + DIFFERENT, backend=backend, timeout=60)
    assert told == same
    start = "DDP expects same model across all ranks, but "
    assert {k: v[len(start):] for k, v in told.items() if v.startswith(start)} == {
        "shape": "rank 0 has the parameter a.weight of shape [3, 2], torch.float32, and rank 1 in "
                 "its place the parameter a.weight of shape [2, 3], torch.float32",
        "name": "rank 0 has the parameter a.weight of shape [3, 2], torch.float32, and rank 1 in "
                "its place the parameter b.weight of shape [3, 2], torch.float32",
        "order": "rank 0 has the parameter a.weight of shape [3, 2], torch.float32, and rank 1 in "
                 "its place the parameter b.weight of shape [3, 3], torch.float32",
        "dtype": "rank 0 has the parameter a.weight of shape [3, 2], torch.float32, and rank 1 in "
                 "its place the parameter a.weight of shape [3, 2], torch.float64",
        "count": "rank 0 has 2 params, while rank 1 has 4 params; not on both are b.bias, b.weight",
        "frozen": "rank 0 has the parameter b.weight of shape [1, 1], torch.float32, and rank 1 in "
                  "its place the parameter b.weight of shape [1, 1], torch.float32, without "
                  "gradient",
        "buffer": "rank 0 has 2 params, while rank 1 has 2 params; not on both are "
                  "a.num_batches_tracked, a.running_mean, a.running_var",
        "options": "rank 0 was given bucket_cap_mb=(1048576, []), rank 1 "
                   "bucket_cap_mb=(2097152, [])",
        "unused": "rank 0 was given find_unused_parameters=False, rank 1 "
                  "find_unused_parameters=True",
    }  # fmt: skip
