"""Parameter, Buffer and their uninitialised forms."""

import copy
import pickle

import pytest

import gpunn
from gpunn import nn
from gpunn.nn.parameter import is_lazy
from gpunn.tensor import Tensor, wrap


def test_parameters_share_memory_and_require_a_gradient(same_as_torch):
    def scenario(T):
        data = T.ones(2)
        p = T.nn.Parameter(data)
        data[0] = 5
        with T.no_grad():
            q = T.nn.Parameter(data, requires_grad=False)
            r = T.nn.Parameter(p)
        return [
            p.tolist(), p.requires_grad, q.requires_grad, r.requires_grad, p.is_leaf,
            tuple(T.nn.Parameter().shape), repr(p), repr(T.nn.Parameter(T.ones(()), False)),
            [type(t).__name__ for t in (p, p.data, p.detach(), p * 1, p[:1])],
            isinstance(p, T.Tensor), isinstance(p, T.nn.Parameter), isinstance(data, type(p)),
        ]  # fmt: skip

    same_as_torch(scenario)


def test_a_parameter_of_a_computed_tensor_is_a_leaf(same_as_torch):
    def scenario(T):
        x = T.ones(2, requires_grad=True)
        p = T.nn.Parameter(x * 2)
        (p * 3).sum().backward()
        return p.grad.tolist(), x.grad, p.is_leaf

    same_as_torch(scenario)


def test_integers_have_no_gradient(same_as_torch, error):
    def scenario(T):
        whole = T.nn.Parameter(T.ones(2, dtype=T.int64), requires_grad=False)
        found = error(T.nn.Parameter, T.ones(2, dtype=T.int64))
        core = "Only Tensors of floating point and complex dtype can require gradients"
        return whole.tolist(), found[0], found[1].startswith(core)

    same_as_torch(scenario)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies(duplicate):
    p = nn.Parameter(gpunn.ones(2), requires_grad=False)
    p.grad = gpunn.ones(2)
    p.note = "kept"
    pair = duplicate([p, p])
    assert pair[0] is pair[1] and pair[0] is not p
    assert type(pair[0]) is nn.Parameter and not pair[0].requires_grad
    assert pair[0].grad is None
    with gpunn.no_grad():
        pair[0].add_(1)
    assert p.tolist() == [1, 1] and pair[0].tolist() == [2, 2]


def test_pickling_keeps_attributes():
    p = nn.Parameter(gpunn.ones(2))
    p.note = "kept"
    assert pickle.loads(pickle.dumps(p)).note == "kept"


def test_deepcopy_keeps_the_layout_in_memory():
    p = nn.Parameter(gpunn.ones(2, 3).t())
    assert copy.deepcopy(p).stride() == p.stride() == (1, 3)


class Tagged(Tensor):
    """A tensor of a class of its own, whose detach keeps it."""

    def detach(self):
        return wrap(self.array, self.device, Tagged)


def test_parameters_of_other_tensor_classes():
    p = nn.Parameter(Tagged([1.0, 2.0]))
    assert type(p) is Tagged and isinstance(p, nn.Parameter) and p.requires_grad
    m = nn.Module()
    m.p = p
    assert list(m.parameters()) == [p]
    assert not isinstance(Tagged([1.0]), nn.Parameter)


def test_a_class_whose_detach_loses_it_is_refused():
    class Plain(Tensor):
        pass

    with pytest.raises(RuntimeError, match="requires that detach.. returns an instance of"):
        nn.Parameter(Plain([1.0]))


def test_subclasses_of_parameter():
    class Mine(nn.Parameter):
        pass

    p = Mine(gpunn.ones(1))
    assert type(p) is Mine and type(copy.deepcopy(p)) is Mine and isinstance(p, nn.Parameter)
    assert not isinstance(nn.Parameter(gpunn.ones(1)), Mine)


def test_buffers(same_as_torch):
    def scenario(T):
        data = T.ones(2)
        b = T.nn.Buffer(data, persistent=False)
        data[0] = 3
        m = T.nn.Module()
        m.b = b
        return [
            b.tolist(), isinstance(b, T.nn.Buffer), isinstance(data, T.nn.Buffer), b.persistent,
            b.requires_grad, repr(b), type(b).__name__, T.nn.Buffer().shape.numel(),
            list(m.state_dict()), [n for n, _ in m.named_buffers()],
            isinstance(b * 1, T.nn.Buffer), T.nn.Buffer(data).persistent,
        ]  # fmt: skip

    same_as_torch(scenario)


def test_buffers_are_no_parameters():
    assert not isinstance(nn.Buffer(gpunn.ones(1)), nn.Parameter)
    assert not isinstance(nn.Parameter(gpunn.ones(1)), nn.Buffer)


def test_uninitialized(same_as_torch, error):
    def scenario(T):
        u = T.nn.UninitializedParameter(dtype=T.float64)
        b = T.nn.UninitializedBuffer()
        found = [repr(u), repr(b), str(u.dtype), u.requires_grad, b.requires_grad, b.persistent]
        found += [isinstance(u, T.nn.Parameter), isinstance(b, T.nn.Buffer), str(u.device)]
        found += [u.grad, T.nn.parameter.is_lazy(u), T.nn.parameter.is_lazy(T.ones(1))]
        found += [error(lambda: u.shape), error(u.share_memory_)]
        for use in (lambda: u + 1, lambda: u.numel(), lambda: T.add(b, 1), lambda: u.sum(),
                    lambda: u.clone(), lambda: u.zero_(), lambda: len(u)):  # fmt: skip
            with T.no_grad():
                kind, message = error(use)
            found += [kind, message[:42]]
        return found

    same_as_torch(scenario)


def test_the_error_of_an_uninitialized_parameter_names_the_operation():
    with pytest.raises(ValueError, match="uninitialized parameter in numel"):
        nn.UninitializedParameter().numel()


def test_materialize(same_as_torch):
    def scenario(T):
        u, b = T.nn.UninitializedParameter(requires_grad=False), T.nn.UninitializedBuffer()
        u.materialize((2, 3))
        b.materialize([4], dtype=T.float64, device="cpu")
        return [
            type(u).__name__, type(b).__name__, tuple(u.shape), tuple(b.shape), str(b.dtype),
            u.requires_grad, isinstance(b, T.nn.Buffer), T.nn.parameter.is_lazy(u),
        ]  # fmt: skip

    same_as_torch(scenario)


def test_uninitialized_parameters_convert(same_as_torch):
    def scenario(T):
        m = T.nn.Module()
        m.u, m.b = T.nn.UninitializedParameter(), T.nn.UninitializedBuffer()
        m.to("cpu").double()
        first = str(m.u.dtype), str(m.b.dtype), repr(m.u)
        m.to(T.float16)
        kinds = type(m.u).__name__, type(m.b).__name__
        return first, str(m.u.dtype), T.nn.parameter.is_lazy(m.u), kinds

    same_as_torch(scenario)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
@pytest.mark.parametrize("kind", [nn.UninitializedParameter, nn.UninitializedBuffer])
def test_copies_of_the_uninitialized(duplicate, kind):
    pair = duplicate([kind(dtype=gpunn.float64)] * 2)
    assert is_lazy(pair[0]) and pair[0] is pair[1] and pair[0].dtype is gpunn.float64


def test_uninitialized_on_another_device():
    u = nn.UninitializedParameter(device="cpu:1")
    u.materialize((2,))
    assert str(u.device) == "cpu:1"
