"""Random tensors and seeding, against PyTorch with the same seed."""

import threading

import numpy as np
import pytest

import gpunn
from gpunn.device import _ARRAY_MODULE, CPU, Device
from gpunn.generator import default_for, defaults

torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

_ARRAY_MODULE.setdefault("emulated", lambda device: np)


def both(make, seed=0):
    """make(module) of gpunn and of PyTorch, both seeded, as arrays."""
    gpunn.manual_seed(seed)
    torch.manual_seed(seed)
    ours, theirs = make(gpunn), make(torch)
    assert str(ours.dtype) == str(theirs.dtype) and tuple(ours.shape) == tuple(theirs.shape)
    assert ours.requires_grad == theirs.requires_grad
    return ours.detach().tolist(), theirs.detach().tolist()


def close(make, seed=0):
    ours, theirs = both(make, seed)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


MAKERS = {
    "rand": lambda t: t.rand(3, 4),
    "rand of a tuple": lambda t: t.rand((3, 4)),
    "rand by keyword": lambda t: t.rand(size=(3, 4), dtype=t.float64),
    "rand of no dimensions": lambda t: t.rand(()),
    "rand that requires grad": lambda t: t.rand(3, requires_grad=True),
    "rand into out": lambda t: t.rand(3, out=t.empty(3, dtype=t.float64)),
    "rand of a generator": lambda t: t.rand(3, generator=t.Generator().manual_seed(4)),
    "randn": lambda t: t.randn(5, 7),
    "randn of few": lambda t: t.randn(5),
    "randn complex": lambda t: t.view_as_real(t.randn(20, dtype=t.complex64))
    if t is torch else gpunn.tensor(t.randn(20, dtype=t.complex64).array.view("f4").reshape(20, 2)),
    "randint of high": lambda t: t.randint(7, (5,)),
    "randint": lambda t: t.randint(-7, 7, (5, 2), dtype=t.int32),
    "randint of floats": lambda t: t.randint(0, 7, [5], dtype=t.float32),
    "randint by keyword": lambda t: t.randint(high=9, size=(4,)),
    "randint by keywords": lambda t: t.randint(low=2, high=9, size=(4,)),
    "randint of size by keyword": lambda t: t.randint(9, size=(4,)),
    "randperm": lambda t: t.randperm(50),
    "randperm of int32": lambda t: t.randperm(50, dtype=t.int32),
    "rand_like": lambda t: t.rand_like(t.zeros(2, 3)),
    "rand_like with dtype": lambda t: t.rand_like(t.zeros(2, 3, dtype=t.int64), dtype=t.float64),
    "randn_like": lambda t: t.randn_like(t.zeros(20)),
    "randn_like of a transposed one": lambda t: t.randn_like(t.zeros(5, 8).t()),
    "randn_like of a strided one": lambda t: t.randn_like(t.zeros(10, 10)[::2, ::2]),
    "randn into a strided out": lambda t: t.randn(5, 5, out=t.zeros(10, 10)[::2, ::2]),
    "randint_like": lambda t: t.randint_like(t.zeros(9), 5),
    "randint_like of two": lambda t: t.randint_like(t.zeros(9), -5, 5, dtype=t.int64),
    "normal of numbers": lambda t: t.normal(1.0, 2.0, (20,)),
    "normal by keyword": lambda t: t.normal(1, 2, size=(4, 5), dtype=t.float64),
    "normal of mean": lambda t: t.normal(t.ones(20)),
    "normal of mean and number": lambda t: t.normal(t.ones(20), 0.1),
    "normal of number and std": lambda t: t.normal(2.0, t.ones(20)),
    "normal of tensors": lambda t: t.normal(mean=t.ones(3, 1), std=t.full((2,), 0.5)),
    "normal of mixed dtypes": lambda t: t.normal(t.ones(9), t.ones(9, dtype=t.float64)),
    "bernoulli": lambda t: t.bernoulli(t.full((50,), 0.3)),
    "bernoulli of p": lambda t: t.bernoulli(t.zeros(50), 0.3),
    "bernoulli of ints": lambda t: t.zeros(50, dtype=t.int64).bernoulli(0.3),
    "bernoulli as a method": lambda t: t.full((50,), 0.7, dtype=t.float64).bernoulli(),
    "multinomial": lambda t: t.multinomial(t.ones(20), 5),
    "multinomial with replacement": lambda t: t.ones(3, 20).multinomial(30, replacement=True),
    "uniform_": lambda t: t.zeros(9).uniform_(),
    "uniform_ of bounds": lambda t: t.zeros(9).uniform_(-3, to=5),
    "normal_": lambda t: t.zeros(40).normal_(mean=1, std=2),
    "log_normal_": lambda t: t.zeros(9).log_normal_(0.5),
    "exponential_": lambda t: t.zeros(9).exponential_(lambd=2),
    "cauchy_": lambda t: t.zeros(9).cauchy_(1, sigma=2),
    "geometric_": lambda t: t.zeros(9, dtype=t.int64).geometric_(0.3),
    "bernoulli_": lambda t: t.zeros(9).bernoulli_(),
    "bernoulli_ of a tensor": lambda t: t.zeros(5, 9).bernoulli_(t.full((9,), 0.3)),
    "random_": lambda t: t.zeros(9).random_(),
    "random_ of to": lambda t: t.zeros(9).random_(7),
    "random_ of to by keyword": lambda t: t.zeros(9).random_(to=7),
    "random_ of from and to": lambda t: t.zeros(9).random_(-7, 7),
    "random_ by keywords": lambda t: t.zeros(9).random_(**{"from": 2, "to": 5}),
    "random_ of from": lambda t: t.zeros(9, dtype=t.int8).random_(100, None),
    "a strided target": lambda t: t.zeros(8, 6)[::2, 1:4].normal_(),
    "a transposed target": lambda t: t.zeros(8, 6).t().uniform_(),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_parity(name):
    close(MAKERS[name])
    close(MAKERS[name], seed=2**32 + 5)


def test_a_script_of_many_draws():
    def script(t):
        layers = [t.empty(16, 9).normal_(0, 0.1), t.empty(16).uniform_(-0.1, 0.1), t.randn(3)]
        order = t.randperm(20)
        masks = [t.empty(4, 5).bernoulli_(0.9) for _ in range(3)]
        more = [t.randn(7), t.randint(0, 10, (8,)), t.randn(1), t.rand(3)]
        pieces = [*layers, order, *masks, *more]
        return t.tensor([v for p in pieces for v in p.flatten().tolist()])

    close(script)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda t: t.rand(-1), RuntimeError, "negative dimension -1"),
        (lambda t: t.rand(), TypeError, r"rand\(\) received an invalid combination of arguments"),
        (lambda t: t.rand(2, dtype=t.int32), NotImplementedError, "not implemented for 'Int'"),
        (lambda t: t.randint(5, 3), TypeError, "argument 'size' .*must be tuple of ints, not int"),
        (lambda t: t.randint(5.0, (3,)), TypeError, "argument 'high' .* must be int, not float"),
        (lambda t: t.randint(0, 3, (-2,)), RuntimeError, "negative dimension -2"),
        (lambda t: t.randint(0, 3, (2,), requires_grad=True), RuntimeError,
         "nly Tensors of floating point"),
        (lambda t: t.randint(3, 3, (2,)), RuntimeError, "got from=3 >= to=3"),
        (lambda t: t.randperm(2.5), TypeError, "argument 'n' .* must be int, not float"),
        (lambda t: t.rand_like(t.zeros(2, dtype=t.int64)), NotImplementedError, "for 'Long'"),
        (lambda t: t.normal(0.0, 1.0), TypeError, "invalid combination of arguments"),
        (lambda t: t.normal(t.ones(3), -t.ones(3)), RuntimeError, "all elements of std >= 0.0"),
        (lambda t: t.normal(t.ones(3), t.ones(2)), RuntimeError, "he size of .* must match the s"),
        (lambda t: t.multinomial(t.ones(3), 2, out=t.ones(2)), RuntimeError, "expects Long tensor"),
        (lambda t: t.rand(3, out=t.zeros(1).expand(3)), RuntimeError, "a single memory location"),
        (lambda t: t.multinomial(t.ones(2**24 + 1), 2), RuntimeError, "cannot exceed 2.24"),
        (lambda t: t.zeros(3, requires_grad=True).normal_(), RuntimeError,
         "a leaf Variable that requires grad is being used in an in-place operation"),
        (lambda t: t.zeros(1).expand(3).normal_(), RuntimeError,
         "more than one element of the written-to tensor refers to a single memory location"),
        (lambda t: t.zeros(3).uniform_(b=3), TypeError, "uniform_"),
        (lambda t: t.zeros(3).uniform_(1, 2, 3), TypeError, "uniform_"),
        (lambda t: t.zeros(3).geometric_(), TypeError, "geometric_"),
        (lambda t: t.zeros(3).random_(0.5, 2.5), TypeError, "random_"),
        (lambda t: t.zeros(3).random_(1, 2, 3), TypeError, "random_"),
        (lambda t: t.rand(3, generator=3), TypeError, "generator"),
        (lambda t: t.manual_seed("a"), ValueError, "invalid literal for int"),
        (lambda t: t.manual_seed(2**64), ValueError, "Overflow when unpacking long long"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    for module in (gpunn, torch):
        with pytest.raises(error, match=message):
            call(module)


def test_seeds_are_made_ints():
    assert gpunn.manual_seed(1.7) is gpunn.default_generator
    assert gpunn.initial_seed() == torch.manual_seed(1.7).initial_seed() == 1
    assert gpunn.manual_seed("3").initial_seed() == torch.manual_seed("3").initial_seed() == 3


def test_seed_is_new_each_time():
    first = gpunn.seed()
    assert gpunn.initial_seed() == first != gpunn.seed()


def test_manual_seed_reaches_all_devices():
    other = default_for(Device("cpu:1"))
    gpunn.rand(3, device="cpu:1")
    gpunn.manual_seed(3)
    assert other.initial_seed() == 3
    assert gpunn.rand(3, device="cpu:1").tolist() == gpunn.rand(3).tolist()


def test_states_go_both_ways():
    torch.manual_seed(3)
    torch.randn(5)
    gpunn.set_rng_state(gpunn.from_numpy(torch.get_rng_state().numpy()))
    close_pair(gpunn.randn(40), torch.randn(40))
    gpunn.randn(3)
    torch.set_rng_state(torch.from_numpy(gpunn.get_rng_state().numpy()))
    close_pair(gpunn.randn(3), torch.randn(3))
    assert gpunn.rand(700).tolist() == torch.rand(700).tolist()


def close_pair(ours, theirs):
    np.testing.assert_allclose(ours.tolist(), theirs.tolist(), rtol=1e-6, atol=1e-6)


def test_fork_rng():
    gpunn.manual_seed(5)
    expected = gpunn.rand(4).tolist()
    gpunn.manual_seed(5)
    with pytest.raises(KeyError), gpunn.random.fork_rng():
        gpunn.manual_seed(9)
        raise KeyError
    assert gpunn.initial_seed() == 5
    assert gpunn.rand(2).tolist() == expected[:2]
    with gpunn.random.fork_rng(enabled=False):
        assert gpunn.rand(2).tolist() == expected[2:]


def test_fork_rng_of_devices():
    first, second = Device("cpu:1"), Device("emulated")
    states = [default_for(d).get_state().tolist() for d in (first, second)]
    with gpunn.random.fork_rng(devices=[first, second]):
        default_for(first).words(5)
        default_for(second).words(5)
    assert states == [default_for(d).get_state().tolist() for d in (first, second)]
    with gpunn.random.fork_rng(devices=iter([first])):
        default_for(second).words(5)
    assert default_for(second).get_offset() > 0
    with gpunn.random.fork_rng(devices=[1], device_type="cpu"):
        default_for(first).words(5)
    assert states[0] == default_for(first).get_state().tolist()


def test_fork_rng_forgets_generators_made_within():
    new = Device("cpu:7")
    assert new not in defaults
    gpunn.manual_seed(5)
    with gpunn.random.fork_rng():
        gpunn.manual_seed(9)
        gpunn.rand(2, device=new)
    assert new not in defaults and CPU in defaults
    assert gpunn.rand(2, device=new).tolist() == gpunn.rand(2).tolist()
    del defaults[new]


def test_in_place_draws_are_noticed_by_backward():
    x = gpunn.ones(3, requires_grad=True)
    y = x * 2
    z = (y * y).sum()
    y.uniform_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


@pytest.mark.parametrize(
    "make",
    [
        lambda t, x: (x * 2).normal_(),
        lambda t, x: (x * 2).bernoulli_(0.5),
        lambda t, x: t.bernoulli(x),
        lambda t, x: t.normal(x, 2.0),
        lambda t, x: t.normal(2.0, x),
        lambda t, x: t.normal(x[:, None], x.double()),
        lambda t, x: t.normal(t.zeros(3), x),
    ],
)
def test_gradients_are_zero(make):
    for t in (gpunn, torch):
        x = t.ones(3, requires_grad=True)
        y = make(t, x)
        assert y.requires_grad and y.grad_fn is not None
        (y.sum() + (x * 3).sum()).backward()
        assert x.grad.tolist() == [3, 3, 3]
        y = make(t, x)
        (gx,) = t.autograd.grad(y.sum() + (x * x).sum(), x, create_graph=True)
        assert gx.tolist() == [2, 2, 2] and gx.requires_grad


def test_threads_seeded_alone_do_not_meet():
    found = {}

    def run(seed):
        generator = gpunn.Generator().manual_seed(seed)
        found[seed] = [gpunn.randn(5, generator=generator).tolist() for _ in range(20)]

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = found.copy()
    for seed in range(4):
        run(seed)
    assert found == again
