"""Hooks: when they run, what they see and may replace, how they are removed."""

import pytest

import gpunn


def _leaf(*values):
    return gpunn.tensor(list(values), requires_grad=True)


def test_hooks_of_a_tensor_run_in_order_and_may_replace_the_gradient():
    x, seen = _leaf(1.0, 2.0), []
    y = x * 3
    y.register_hook(lambda g: seen.append(("first", g.tolist())))
    y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: seen.append(("third", g.tolist())))
    y.sum().backward()
    assert seen == [("first", [1.0, 1.0]), ("third", [10.0, 10.0])]
    assert x.grad.tolist() == [30.0, 30.0]


def test_hooks_of_a_leaf_see_the_sum_of_all_uses_once():
    x, seen = _leaf(1.0), []
    handle = x.register_hook(lambda g: seen.append(g.item()))
    (x * 2 + x * 3).backward()
    assert seen == [5.0] and x.grad.item() == 5.0
    handle.remove()
    (x * 2).backward()
    assert seen == [5.0] and x.grad.item() == 7.0


def test_the_order_of_all_kinds_of_hooks():
    x, order = _leaf(1.0), []
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: order.append("tensor"))
    y.grad_fn.register_prehook(lambda gs: order.append("before"))
    y.grad_fn.register_hook(lambda ins, outs: order.append("after"))
    x.register_hook(lambda g: order.append("leaf"))
    x.register_post_accumulate_grad_hook(lambda p: order.append(("stored", p.grad.item())))
    (y * 3).backward()
    assert order == ["tensor", "before", "after", "leaf", ("stored", 2.0 * 3)]
    assert y.grad.item() == 3.0


def test_hooks_of_nodes_may_replace_gradients():
    x = _leaf(1.0)
    y = x * 2
    y.grad_fn.register_prehook(lambda gs: (gs[0] * 10,))
    y.grad_fn.register_hook(lambda ins, outs: (ins[0] + outs[0], *ins[1:]))
    y.backward()
    assert x.grad.item() == 30.0


def test_post_accumulate_hooks_may_step_and_drop_the_gradient():
    x = _leaf(1.0, 1.0)

    def step(p):
        with gpunn.no_grad():
            p.sub_(p.grad)
        p.grad = None

    handle = x.register_post_accumulate_grad_hook(step)
    (x * gpunn.tensor([1.0, 2.0])).sum().backward()
    assert x.tolist() == [0.0, -1.0] and x.grad is None
    x.sum().backward(inputs=[x])
    assert x.grad is None
    handle.remove()
    x.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_retained_gradients_are_those_after_hooks():
    x = _leaf(1.0)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 5)
    assert y.retains_grad and not x.retains_grad
    (y * 1).backward()
    assert y.grad.item() == 5.0


def test_hooks_run_in_grad_and_with_create_graph():
    x, seen = _leaf(2.0), []
    x.register_hook(lambda g: seen.append(g.requires_grad))
    y = x * x
    y.register_hook(lambda g: g * 2)
    (g,) = gpunn.autograd.grad(y, x, create_graph=True)
    assert g.item() == 8.0 and seen == [True]


def test_what_cannot_have_a_hook():
    with pytest.raises(RuntimeError, match="cannot register a hook on a tensor that doesn't req"):
        gpunn.ones(1).register_hook(print)
    with pytest.raises(RuntimeError, match="cannot be registered on non-leaf tensors"):
        (_leaf(1.0) * 2).register_post_accumulate_grad_hook(print)
    with pytest.raises(RuntimeError, match="can't retain_grad on Tensor that has requires_grad"):
        gpunn.ones(1).retain_grad()


@pytest.mark.parametrize(
    "new, kind, text",
    [
        (gpunn.ones(3), RuntimeError, "hook 'replace' has changed the size of value"),
        (gpunn.ones(2).double(), RuntimeError, "hook 'replace' has changed the type of value"),
        (3.0, TypeError, "expected Variable, but hook returned 'float'"),
    ],
)
def test_a_hook_must_return_a_gradient_of_the_same_tensor(new, kind, text):
    def replace(g):
        return new

    x = _leaf(1.0, 2.0)
    y = x * 2
    y.register_hook(replace)
    with pytest.raises(kind, match=text):
        y.sum().backward()
