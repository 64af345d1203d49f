"""The backward walk: what it accumulates, in which order, what it refuses."""

import sys
import threading

import numpy as np
import pytest

import gpunn
from gpunn.autograd import backward, grad


def _leaf(*values):
    return gpunn.tensor(list(values), dtype=gpunn.float64, requires_grad=True)


# --- what is accumulated ------------------------------------------------------------------


def test_gradients_add_up_over_calls():
    x = _leaf(1.0, 2.0)
    for _ in range(3):
        (x * x).sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]


def _apart(*arrays):
    return not any(
        np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i]
    )


@pytest.mark.parametrize(
    "f",
    [
        lambda x, y: x + y,
        lambda x, y: x + (x + y),
        lambda x, y: x * 1 + y,
        lambda x, y: (x + y).view(2, 1).view(2),
        lambda x, y: gpunn.cat([x, y])[1:3],
        lambda x, y: x.clone() + y.clone(),
    ],
)
@pytest.mark.parametrize("twice", [False, True])
def test_gradients_of_two_leaves_are_their_own_memory(f, twice):
    x, y, g = _leaf(1.0, 2.0), _leaf(3.0, 4.0), gpunn.ones(2, dtype=gpunn.float64)
    for _ in range(1 + twice):
        f(x, y).backward(g)
    assert _apart(x.grad.array, y.grad.array, g.array)
    x.grad = y.grad = None
    f(x, y).backward(g, inputs=[x, y])
    assert _apart(x.grad.array, y.grad.array, g.array)


def test_gradients_are_not_the_memory_of_what_others_hold():
    x, g, seen = _leaf(1.0, 2.0), gpunn.ones(2, dtype=gpunn.float64), []
    x.backward(g)
    assert _apart(x.grad.array, g.array)
    x.grad = None
    middle = x.clone()
    middle.retain_grad()
    x.register_hook(seen.append)
    (middle * 1).backward(g)
    assert _apart(x.grad.array, g.array, seen[0].array)
    assert _apart(x.grad.array, middle.grad.array)


def _address(array):
    return array.__array_interface__["data"][0]


def test_a_gradient_that_the_walk_alone_holds_is_not_copied():
    x, made = _leaf(1.0, 2.0), []

    @gpunn.autograd.vjp()
    def fresh(g):
        out = g * 3
        made.append(_address(out))
        return out

    y = gpunn.autograd.result(x.array * 3, x, fresh, (x,))
    y.backward(gpunn.ones(2, dtype=gpunn.float64))
    assert _address(x.grad.array) == made[0]


def test_gradients_are_summed_in_a_fixed_order():
    """The latest use first, so that rounding is the same every time."""
    x = gpunn.tensor([1.0], requires_grad=True)
    weights = [1e8, 1.0, -1e8, 3.0]
    parts = [x * w for w in weights]
    sum(parts[1:], parts[0]).backward()
    total = np.float32(0)
    for i, w in enumerate(reversed(weights)):
        total = np.float32(w) if i == 0 else np.float32(total + np.float32(w))
    assert x.grad.item() == total


# --- long chains --------------------------------------------------------------------------


@pytest.mark.parametrize("step", [lambda y: y * 1.0, lambda y: y.view(1), lambda y: y + y * 0.0])
def test_a_chain_of_100_000_operations(step):
    x = gpunn.ones(1, requires_grad=True)
    y = x
    for _ in range(100_000 if sys.gettrace() is None else 5_000):
        y = step(y)
    y.backward()
    assert x.grad.tolist() == [1.0]
    del y


def test_deleting_a_long_chain_that_was_not_walked():
    y = gpunn.ones(1, requires_grad=True)
    for _ in range(100_000):
        y = y * 1.0
    del y


# --- options ------------------------------------------------------------------------------


def test_retain_graph():
    x = _leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4.0, 8.0]
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


def test_a_part_that_keeps_no_arrays_may_be_walked_again():
    x = _leaf(1.0, 2.0)
    shared = (x.view(2, 1) + 1).t().sum(0)
    for _ in range(2):
        (shared * 3).sum().backward()
    assert x.grad.tolist() == [6.0, 6.0]
    shared = x.exp()
    shared.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        (shared * 3).sum().backward()


def test_only_inputs_is_an_argument_of_the_past():
    x = _leaf(1.0)
    assert grad(x * 2, x, None, None, False, True, True)[0].item() == 2.0
    with pytest.warns(FutureWarning, match="only_inputs argument is deprecated"):
        grad(x * 2, x, only_inputs=False)


def test_backward_inputs_fills_only_those():
    x, y = _leaf(1.0, 2.0), _leaf(3.0, 4.0)
    z = x * y
    z.sum().backward(inputs=[x, z])
    assert x.grad.tolist() == [3.0, 4.0] and y.grad is None and z.grad.tolist() == [1.0, 1.0]
    (x * y).sum().backward(inputs=x)
    assert x.grad.tolist() == [6.0, 8.0]
    with pytest.raises(RuntimeError, match=r"`inputs` argument to `backward\(\)` cannot be empty"):
        (x * y).sum().backward(inputs=[])


def test_several_roots_with_their_gradients():
    x = _leaf(1.0, 2.0)
    backward([x.sum(), x * 3], [None, gpunn.tensor([1.0, 10.0], dtype=gpunn.float64)])
    assert x.grad.tolist() == [4.0, 31.0]


def test_grad_options():
    x, y, unused = _leaf(1.0, 2.0), _leaf(3.0, 4.0), _leaf(0.0)
    middle = x * y
    out = middle.exp().sum()
    found = grad(out, [middle, x], retain_graph=True)
    np.testing.assert_allclose(found[0], np.exp([3.0, 8.0]))
    np.testing.assert_allclose(found[1], np.exp([3.0, 8.0]) * [3.0, 4.0])
    assert x.grad is None
    assert grad(out, [x, unused], allow_unused=True, retain_graph=True)[1] is None
    zeros = grad(out, [unused], materialize_grads=True, retain_graph=True)[0]
    assert zeros.tolist() == [0.0]
    with pytest.raises(RuntimeError, match="Tensor at index 1 appears to not have been used in"):
        grad(out, [x, unused], retain_graph=True)
    with pytest.raises(ValueError, match="Expected allow_unused to be True or not passed"):
        grad(out, [x], materialize_grads=True, allow_unused=False)
    with pytest.raises(RuntimeError, match="One of the differentiated Tensors does not require"):
        grad(out, gpunn.ones(2))


def test_grad_of_a_root_itself_and_of_repeated_inputs():
    x = _leaf(1.0, 2.0)
    y = x.sum()
    one, a, b = grad(y, [y, x, x])
    assert one.item() == 1.0 and a.tolist() == b.tolist() == [1.0, 1.0]


def test_batched_gradients():
    x = _leaf(1.0, 2.0)
    (rows,) = grad(x * x, x, gpunn.eye(2, dtype=gpunn.float64), is_grads_batched=True)
    assert rows.tolist() == [[2.0, 0.0], [0.0, 4.0]]


# --- errors -------------------------------------------------------------------------------


def test_what_cannot_be_a_root():
    x = _leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outp"):
        (x * 2).backward()
    z = gpunn.tensor(1j, requires_grad=True)
    with pytest.raises(RuntimeError, match="only for real scalar outputs but got torch.complex64"):
        z.backward()
    with pytest.raises(RuntimeError, match=r"grad_output\[0\] has a shape of torch.Size\(\[3\]\)"):
        (x * 2).backward(gpunn.ones(3, dtype=gpunn.float64))
    with pytest.raises(RuntimeError, match="both grad_output and output are required to have the"):
        (x * 2).backward(gpunn.ones(2, dtype=gpunn.complex128))
    with pytest.raises(RuntimeError, match="element 1 of tensors does not require grad and does"):
        backward([x.sum(), gpunn.ones(1)])
    with pytest.raises(RuntimeError, match="got 2 tensors and 1 gradients"):
        grad([x.sum(), x.sum()], x, [None])


def test_an_error_in_a_gradient_leaves_the_modes_as_they_were():
    @gpunn.autograd.vjp()
    def broken(g):
        raise ValueError("no gradient")

    x = _leaf(1.0)
    y = gpunn.autograd.result(x.array * 2, x, broken, (x,))
    with pytest.raises(ValueError, match="no gradient"):
        y.backward()
    assert gpunn.is_grad_enabled()
    (x * 2).backward()
    assert x.grad.tolist() == [2.0]


# --- threads ------------------------------------------------------------------------------


def test_walks_in_several_threads_on_separate_graphs():
    results, errors = {}, []

    def work(k):
        try:
            x = gpunn.full((50,), float(k), requires_grad=True)
            for _ in range(20):
                x.grad = None
                y = x
                for _ in range(30):
                    y = (y * 1.01).tanh() + x
                y.sum().backward()
            results[k] = x.grad.numpy().copy()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in (1, 2, 1, 2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    again = dict(results)
    for k in (1, 2):
        work(k)
        np.testing.assert_array_equal(results[k], again[k])


@pytest.mark.parametrize("size", [3, 200_000])
def test_sums_of_gradients_change_nobody_elses_array(size):
    """Gradients are added in place only where the walk alone holds the array."""
    given = gpunn.ones(size)
    x = gpunn.zeros(size, requires_grad=True)
    y = x * 1
    seen = []
    y.register_hook(lambda g: seen.append(g))
    z = y * 2
    z.retain_grad()
    ((y + z) + (y + z) * 3).backward(given)
    assert given.eq(1).all()
    assert z.grad.eq(4).all() and seen[0].eq(12).all() and x.grad.eq(12).all()
    one = gpunn.zeros(size, requires_grad=True)
    other = gpunn.zeros(size, requires_grad=True)
    a, b = one * 1, other * 1
    ((a + b) + a * 5).backward(given)  # a and b are given the same array first
    assert one.grad.eq(6).all() and other.grad.eq(1).all() and given.eq(1).all()
