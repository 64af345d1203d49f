"""Contexts of distributed autograd in one process."""

import pytest

import gpunn
from gpunn.distributed.autograd import contexts
from gpunn.distributed.autograd.contexts import Context, Key, Origin


def leaf(*shape):
    return gpunn.ones(*shape, requires_grad=True)


def test_contexts_are_found_by_number_until_they_are_released():
    made = contexts.new(3)
    made.workers.update({1, 2})
    assert made.number >> 48 == 3 and contexts.find(made.number) is made
    assert contexts.new(3).number != made.number
    assert contexts.release(made.number) == {1, 2}
    assert contexts.release(made.number) == set()
    with pytest.raises(RuntimeError, match=f"Could not find .* id: {made.number}"):
        contexts.find(made.number)
    late = contexts.find(made.number, create=True)  # of a call that nobody waited for
    assert late.number == made.number and made.number not in contexts._known
    other = contexts.find(made.number + 1000, create=True)
    assert contexts.find(made.number + 1000) is other
    contexts.release(made.number + 1000)


def test_leaves_of_a_graph():
    a, b, c = leaf(2), leaf(2), gpunn.ones(2)
    x = a * b + c
    assert set(contexts.leaves([x.sum(), x.mean(), a])) == {a, b}
    assert contexts.leaves([c]) == []
    parts = gpunn.split(a * 2, 1)
    assert contexts.leaves(parts) == [a]


def test_a_pass_gathers_all_that_leads_to_a_message():
    context, sent = Context(1), [leaf(2), leaf(2)]
    one = contexts.received(context, gpunn.full((2,), 2.0), Origin(4, 7, 0))
    two = contexts.received(context, gpunn.full((2,), 3.0), Origin(4, 7, 1))
    w = leaf(2)
    root, answer = (one * w).sum(), one * two * w
    sent[0] = answer
    assert contexts.plan(context, 1, 0, [root]) == [Key(4, 7)]
    assert contexts.plan(context, 1, 9, [answer]) == []  # asked for already
    assert contexts.run(context, 1, 0, [root], [None]) == {}  # the other has still to come
    ready = contexts.run(context, 1, 9, [answer], [gpunn.tensor([1.0, 10.0])])
    assert list(ready) == [Key(4, 7)]
    assert {k: g.tolist() for k, g in ready[Key(4, 7)].items()} == {0: [4, 31], 1: [2, 20]}
    assert context.gradients[w].tolist() == [8, 62]


def test_a_message_without_gradients_is_told_so():
    context = Context(1)
    x = contexts.received(context, gpunn.ones(2), Origin(2, 1, 0))
    y = x * 2
    contexts.plan(context, 1, 5, [y])
    assert contexts.run(context, 1, 5, [], []) == {Key(2, 1): {}}
    assert context.gradients == {}
