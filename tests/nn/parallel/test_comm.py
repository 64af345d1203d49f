"""Copies and sums over devices, on several CPU devices."""

import warnings

import pytest

import gpunn
from gpunn.nn.parallel import comm

CPUS = ["cpu:0", "cpu:1", "cpu:2"]


def places(tensors):
    return [t.device.index or 0 for t in tensors]


def test_the_same_functions_are_under_cuda():
    assert gpunn.cuda.comm.broadcast is comm.broadcast
    assert set(gpunn.cuda.comm.__all__) == set(comm.__all__)


def test_broadcast():
    x = gpunn.arange(3.0).requires_grad_()
    made = comm.broadcast(x, CPUS)
    assert made[0] is x and places(made) == [0, 1, 2]
    (made[0].sum() + 2 * made[1].cpu().sum()).backward()
    assert x.grad.tolist() == [3, 3, 3]
    outs = [gpunn.zeros(3, device=d) for d in CPUS]
    assert comm.broadcast(x, out=outs)[1] is outs[1] and outs[2].tolist() == [0, 1, 2]
    for given in ({}, {"devices": CPUS, "out": outs}):
        with pytest.raises(RuntimeError, match="Exactly one of 'devices' and 'out' must be"):
            comm.broadcast(x, **given)
    with pytest.raises(RuntimeError, match=r"source tensor \[3\], but output tensor at index 1"):
        comm.broadcast(x, out=[gpunn.zeros(3), gpunn.zeros(2)])


def test_broadcast_coalesced():
    xs = [gpunn.ones(2, requires_grad=True), gpunn.arange(3), gpunn.ones(2, dtype=gpunn.bfloat16)]
    made = comm.broadcast_coalesced(xs, ["cpu:1", "cpu:0", "cpu:0"])
    assert [places(ts) for ts in made] == [[1] * 3, [0] * 3, [0] * 3]
    assert all(a is b for a, b in zip(made[1], xs, strict=True))
    assert made[2][1] is not xs[1] and made[2][1].data_ptr() != xs[1].data_ptr()
    assert made[0][2].dtype == gpunn.bfloat16 and not made[0][1].requires_grad
    (made[0][0].cpu() + 3 * made[2][0]).sum().backward()
    assert xs[0].grad.tolist() == [4, 4]
    assert comm.broadcast_coalesced([], CPUS) == [[], [], []]
    with pytest.raises(RuntimeError, match="tensor 0 is on cpu, tensor 1 on cpu:1"):
        comm.broadcast_coalesced([gpunn.ones(1), gpunn.ones(1, device="cpu:1")], CPUS)


def test_copies_may_be_differentiated_twice():
    x = gpunn.tensor([2.0], requires_grad=True)
    (y,) = comm.copies([x], gpunn.device("cpu:1"))
    (g,) = gpunn.autograd.grad((y**3).cpu().sum(), x, create_graph=True)
    g.backward()
    assert g.item() == 12 and x.grad.item() == 12


def test_copies_that_share_memory():
    x = gpunn.ones(2, requires_grad=True)
    (y,) = comm.copies([x], x.device, share=True)
    assert y.data_ptr() == x.data_ptr() and not y.is_leaf
    with gpunn.no_grad():
        y += 1
    assert x.tolist() == [2, 2]


def test_a_hook_on_a_copy_gets_a_gradient_of_its_device():
    x = gpunn.ones(2, requires_grad=True)
    (y,) = comm.copies([x], gpunn.device("cpu:1"))
    seen = []
    y.register_hook(lambda g: seen.append(g.device))
    y.cpu().sum().backward()
    assert seen == [gpunn.device("cpu:1")] and x.grad.device == gpunn.device("cpu")


def test_reduce_add():
    xs = [gpunn.full((2, 3), float(i + 1), device=d) for i, d in enumerate(CPUS)]
    total = comm.reduce_add(xs, "cpu:2")
    assert total.device.index == 2 and (total == 6).all()
    assert comm.reduce_add(xs).device.index is None
    assert comm.reduce_add(xs[1:2]) is xs[1]
    with pytest.raises(ValueError, match="input 1 has invalid size: got 3, but expected 2x3"):
        comm.reduce_add([xs[0], gpunn.ones(3)])
    with pytest.raises(RuntimeError, match="expects destination to be on the same GPU with one of"):
        comm.reduce_add(xs[:2], "cpu:2")


def test_reduce_add_coalesced():
    lists = [
        [gpunn.full((2,), float(i + 1), device=d, requires_grad=True), gpunn.ones(3, device=d)]
        for i, d in enumerate(CPUS)
    ]
    one, other = comm.reduce_add_coalesced(lists, "cpu:1")
    assert one.tolist() == [6, 6] and other.tolist() == [3, 3, 3]
    assert places([one, other]) == [1, 1] and not one.requires_grad
    assert comm.reduce_add_coalesced([]) == () == comm.reduce_add_coalesced([[], []])
    with pytest.raises(ValueError):
        comm.reduce_add_coalesced([lists[0], lists[1][:1]])


def test_scatter():
    x = gpunn.arange(10).reshape(5, 2)
    made = comm.scatter(x, CPUS)
    assert [len(t) for t in made] == [2, 2, 1] and places(made) == [0, 1, 2]
    assert [len(t) for t in comm.scatter(x, CPUS, [0, 4, 1])] == [0, 4, 1]
    assert [t.shape[1] for t in comm.scatter(x, CPUS, dim=-1)] == [1, 1]
    assert comm.scatter(gpunn.ones(0, 3), CPUS)[0].shape == (0, 3)
    outs = [gpunn.zeros(n, 2, dtype=gpunn.int64, device=d) for n, d in zip((1, 4), CPUS)]  # noqa: B905
    assert comm.scatter(x, out=outs)[1].tolist() == x[1:].tolist()


def test_scatter_refuses():
    x, outs = gpunn.ones(3), [gpunn.ones(3)]
    with pytest.raises(RuntimeError, match="'devices' must not be specified when 'out' is spec"):
        comm.scatter(x, CPUS, out=outs)
    with pytest.raises(RuntimeError, match="'chunk_sizes' must not be specified when 'out' is"):
        comm.scatter(x, chunk_sizes=[3], out=outs)
    with pytest.raises(RuntimeError, match="one of 'devices' and 'out' must be specified"):
        comm.scatter(x)
    with pytest.raises(RuntimeError, match="devices and chunk_sizes to be of same length"):
        comm.scatter(x, CPUS, [1, 2])
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        comm.scatter(x, CPUS, [1, 1, 2])


def test_gather():
    xs = [gpunn.full((i, 2), float(i), device=d) for i, d in enumerate(CPUS)]
    made = comm.gather(xs, 0, "cpu:1")
    assert made[:, 0].tolist() == [1, 2, 2] and made.device.index == 1
    assert comm.gather(xs[1:]).device.index == 1
    with pytest.warns(FutureWarning, match="Using -1 to represent CPU tensor is deprecated"):
        assert comm.gather(xs, 0, -1).device.index is None
    out = gpunn.empty(3, 2)
    assert comm.gather(xs, out=out) is out and out[2, 0] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comm.gather(xs, 0, "cpu")


def test_gather_refuses():
    with pytest.raises(RuntimeError, match="Expected at least one tensor to gather from"):
        comm.gather([])
    with pytest.raises(RuntimeError, match=r"index 1 has invalid shape \[1, 3\], but expected"):
        comm.gather([gpunn.ones(1, 2), gpunn.ones(1, 3)])
    with pytest.raises(RuntimeError, match="'destination' must not be specified when 'out'"):
        comm.gather([gpunn.ones(1)], destination="cpu", out=gpunn.ones(1))


def test_devices_by_any_name():
    assert comm.as_device(gpunn.device("cpu:2")).index == 2
    assert comm.as_device(None) == gpunn.device("cpu")
    assert comm.even_sizes(2, 4) == [1, 1, 0, 0] and comm.even_sizes(9, 4) == [3, 2, 2, 2]
