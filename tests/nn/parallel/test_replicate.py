"""Copies of modules on several devices."""

import importlib

import pytest

import gpunn
from gpunn import nn
from gpunn.nn.parallel import replicate

CPUS = ["cpu:0", "cpu:1"]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(2, 2)
        self.two = nn.Linear(2, 2)
        self.two.weight = self.one.weight
        self.again = self.one
        self.register_parameter("none", None)
        self.register_buffer("kept", gpunn.zeros(2))
        self.register_buffer("empty", None)
        self.register_buffer("learned", gpunn.ones(2).requires_grad_(), persistent=False)
        self.missing = None
        self.add_module("nothing", None)
        self.note = {"a": 1}


def test_what_replicas_have():
    net = Tied()
    for i, copy in enumerate(replicate(net, CPUS)):
        assert type(copy) is Tied and copy is not net and copy.note is net.note
        assert copy.two.weight is copy.one.weight and copy.again is copy.one
        assert copy.one is not net.one and copy.nothing is None
        assert copy.none is None and copy.empty is None and copy.missing is None
        assert list(copy.parameters()) == [] and len(list(copy.buffers())) == 2
        assert list(copy.one._former_parameters) == ["weight", "bias"]
        assert copy.one.weight.grad_fn is not None and copy.one.weight.device.index == (i or None)
        assert not isinstance(copy.one.weight, nn.Parameter)
        assert not copy.kept.requires_grad and copy.learned.requires_grad
    assert len(list(net.parameters())) == 3 and net.one.weight.is_leaf


def test_replicas_are_pytorchs(monkeypatch):
    """PyTorch's own function, with its copies between GPUs replaced by copies on the CPU."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = importlib.import_module("torch.nn.parallel.replicate")

    def copies(tensors, devices, detach=False):
        return [[t.detach() if detach else t * 1 for t in tensors] for _ in devices]

    monkeypatch.setattr(theirs, "_broadcast_coalesced_reshape", copies)

    def tree(T):
        norm = T.nn.BatchNorm1d(2)
        net = T.nn.ModuleDict({"a": T.nn.Sequential(T.nn.Linear(2, 2, bias=False), norm)})
        net["b"], net.tied = norm, net["a"][0].weight
        net.list = T.nn.ParameterList([T.ones(2)])
        net.register_buffer("none", None)
        return net

    def looks(copy):
        modules = [
            (name, type(m).__name__, list(m._former_parameters), sorted(m._buffers), m.training,
             sorted(k for k in m._parameters), m._is_replica)
            for name, m in copy.named_modules()
        ]  # fmt: skip
        names = [n for n, _ in copy.named_parameters()], [n for n, _ in copy.named_buffers()]
        same = copy.tied is copy["a"][0].weight, copy["b"] is copy["a"][1], copy.list[0].is_leaf
        return modules, names, same, list(copy.state_dict())

    found, wanted = replicate(tree(gpunn), CPUS), theirs.replicate(tree(torch), [0, 1])
    assert list(map(looks, found)) == list(map(looks, wanted))


def test_memory():
    net = Tied()
    one, two, three = replicate(net, ["cpu", "cpu:1", "cpu"])
    assert one.one.weight.data_ptr() == net.one.weight.data_ptr()
    assert one.kept.data_ptr() == net.kept.data_ptr()
    for other in (two, three):
        assert other.one.weight.data_ptr() != net.one.weight.data_ptr()
        assert other.kept.data_ptr() != net.kept.data_ptr()
    moved = replicate(net, ["cpu:1", "cpu"])
    assert moved[1].one.weight.data_ptr() != net.one.weight.data_ptr()


def test_gradients_are_summed():
    net = Tied()
    copies = replicate(net, CPUS)
    for factor, copy in zip((1.0, 10.0), copies, strict=True):
        (factor * (copy.one.weight + copy.two.weight + copy.learned)).sum().cpu().backward()
    assert (net.one.weight.grad == 22).all() and (net.learned.grad == 22).all()
    assert net.one.bias.grad is None


def test_detached():
    net = Tied()
    for copy in replicate(net, CPUS, detach=True):
        assert not copy.one.weight.requires_grad and not copy.learned.requires_grad
    with gpunn.no_grad():
        assert not replicate(net, CPUS)[1].one.weight.requires_grad
    assert gpunn.is_grad_enabled() and replicate(net, []) == []


def test_modes_of_the_module():
    net = Tied().eval()
    net.two.train()
    copy = replicate(net, CPUS)[1]
    assert not copy.training and copy.two.training
    copy.train()
    assert not net.training


def test_a_class_with_its_own_setstate_and_copy():
    class Own(nn.Linear):
        def __setstate__(self, state):
            raise AssertionError("this is no unpickling")

        def _replicate_for_data_parallel(self):
            copy = super()._replicate_for_data_parallel()
            copy.marked = True
            return copy

    assert replicate(Own(2, 2), CPUS)[1].marked


def test_uninitialized():
    with pytest.raises(RuntimeError, match="uninitialized parameters can't be used"):
        replicate(nn.LazyLinear(2), CPUS)
