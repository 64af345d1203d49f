"""What remote calls send."""

import numpy as np
import pytest

import gpunn
from gpunn import nn
from gpunn.distributed.autograd.contexts import Context
from gpunn.distributed.rpc import messages


def plain(obj):
    return NotImplemented


def there_and_back(obj, context=None):
    parts, number = messages.pack(obj, context, plain)
    return messages.unpack([bytearray(part) for part in parts], context, 5, number), number


def test_tensors_in_any_structure():
    x = gpunn.arange(6.0).reshape(2, 3)
    found, _ = there_and_back({"a": [x.t(), (x[:, 1], None)], "b": x > 2})
    assert gpunn.equal(found["a"][0], x.t()) and gpunn.equal(found["a"][1][0], x[:, 1])
    assert gpunn.equal(found["b"], x > 2)


def test_large_arrays_are_sent_from_where_they_are():
    x = gpunn.arange(5000.0)
    parts, number = messages.pack({"x": x, "t": x.reshape(50, 100).t()}, None, plain)
    assert len(parts) == 2 and len(parts[0]) < 2000 and parts[1].nbytes == 20000
    found, _ = there_and_back(x.reshape(50, 100).t())
    assert gpunn.equal(found, x.reshape(50, 100).t())
    found += 1  # received memory can be written
    assert found[0, 0] == 1 and x[0] == 0


def test_a_small_part_of_a_tensor_does_not_bring_the_rest():
    x = gpunn.arange(1000000.0, requires_grad=True)
    for part in (x[3:5], x.detach()[::500000], x.detach().reshape(1000, 1000)[:, 7]):
        parts, number = messages.pack(part, None, plain)
        assert sum(map(len, parts)) < 10000
        assert messages.unpack(parts, None, 5, number).tolist() == part.tolist()


def test_without_a_context_tensors_arrive_as_leaves():
    x = gpunn.ones(2, requires_grad=True)
    with gpunn.no_grad():
        assert there_and_back(x)[0].requires_grad
    for sent in (x, x * 2):
        found, _ = there_and_back(sent)
        assert found.requires_grad and found.is_leaf
    found, _ = there_and_back(nn.Parameter(gpunn.ones(2)))
    assert type(found) is nn.Parameter and found.requires_grad


def test_in_a_context_they_are_noted_on_both_sides():
    context, x, p = Context(1), gpunn.ones(2, requires_grad=True), nn.Parameter(gpunn.ones(3))
    (a, b, c, d), number = there_and_back((x * 2, gpunn.ones(1), p, x), context)
    assert len(context.sent[number]) == 3 and context.sent[number][1] is p
    assert context.sent[number][2] is x
    assert not b.requires_grad and all(t.grad_fn is not None for t in (a, c, d))
    assert sorted(context.received.values()) == [(5, number, 0), (5, number, 1), (5, number, 2)]
    assert a.grad_fn.name() == "RecvRpcBackward"


def test_a_tensor_twice_in_a_message_arrives_as_one():
    context, x = Context(1), gpunn.ones(2, requires_grad=True)
    (a, b), number = there_and_back((x, x), context)
    assert a is b and len(context.sent[number]) == 1


def test_no_grad_takes_it_out_of_the_context():
    context, x = Context(1), gpunn.ones(2, requires_grad=True)
    with gpunn.no_grad():
        found, number = there_and_back(x * 2, context)
    assert number not in context.sent and not context.received and not found.requires_grad


def test_modules_are_copied_with_their_parameters():
    context, model = Context(1), nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    found, number = there_and_back({"model": model}, context)
    assert number not in context.sent
    assert all(type(p) is nn.Parameter and p.is_leaf for p in found["model"].parameters())
    x = gpunn.tensor(np.random.default_rng(0).normal(size=(4, 2)).astype("f"))
    assert gpunn.equal(found["model"](x), model(x))


def test_what_cannot_be_pickled_is_said_at_once():
    with pytest.raises(Exception, match="pickle"):
        messages.pack(lambda: 1, None, plain)


def test_public_functions_are_sent_by_name():
    for f in (gpunn.mul, gpunn.tanh, gpunn.maximum, gpunn.sum, gpunn.cat, gpunn.tril, gpunn.eq,
              gpunn.argmax, gpunn.hstack, gpunn.Tensor.backward, nn.functional.relu):  # fmt: skip
        assert there_and_back(f)[0] is f


def test_messages_have_different_numbers():
    assert len({messages.pack(1, None, plain)[1] for _ in range(5)}) == 5
