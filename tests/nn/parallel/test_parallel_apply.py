"""Modules run in threads."""

import threading

import pytest

import gpunn
from gpunn import nn
from gpunn.nn.parallel import parallel_apply
from gpunn.nn.parallel.parallel_apply import get_a_var


def test_outputs_are_in_order():
    barrier = threading.Barrier(3, timeout=20)

    class Wait(nn.Module):
        def forward(self, x, add=0):
            barrier.wait()  # all three run at the same time
            return x + add

    made = parallel_apply(
        [Wait() for _ in range(3)], [gpunn.ones(1), (gpunn.ones(1),), [gpunn.ones(1), 5]],
        [{"add": 1}, {"add": 2}, {}], ["cpu:0", "cpu:1", None],
    )  # fmt: skip
    assert [y.item() for y in made] == [2, 3, 6]


def test_context_variables_reach_the_threads():
    import contextvars

    own = contextvars.ContextVar("own", default=0)
    own.set(3)

    class Log(nn.Module):
        def forward(self, x):
            return gpunn.log(x) + own.get()  # NumPy would warn of log(0)

    made = parallel_apply([Log(), Log()], [gpunn.zeros(1), gpunn.ones(1)])
    assert [y.item() for y in made] == [-float("inf"), 3]


def test_one_module_runs_in_this_thread():
    class Who(nn.Module):
        def forward(self, x):
            return threading.get_ident()

    assert parallel_apply([Who()], [gpunn.ones(1)]) == [threading.get_ident()]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (([1],), "inputs 1"), (([1, 2], [{}]), "kwargs_tup 1"),
        (([1, 2], None, ["cpu"]), "devices 1"),
    ],
)  # fmt: skip
def test_lengths(given, name):
    with pytest.raises(AssertionError, match=f"number of modules 2 is not equal to the .* {name}"):
        parallel_apply([nn.Identity()] * 2, *given)


class Odd(Exception):
    def __init__(self, one, other):
        super().__init__(one, other)


class Fails(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


class Local(ValueError):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Local("a"), Local), (KeyError("a"), KeyError), (Odd(1, 2), RuntimeError),
     (StopIteration(), RuntimeError)],
)  # fmt: skip
def test_exceptions(error, kind):
    modules = [nn.Identity(), Fails(error)]
    with pytest.raises(kind) as raised:
        parallel_apply(modules, [gpunn.ones(1), gpunn.ones(1, device="cpu:1")])
    assert type(raised.value) is kind
    message = str(raised.value)
    start = f"Caught {type(error).__name__} in replica 1 on device cpu:1.\nOriginal Traceback"
    assert message.startswith(start) and "raise self.error" in message


def test_the_first_of_several_exceptions():
    modules = [Fails(ValueError("one")), Fails(TypeError("two"))]
    with pytest.raises(ValueError, match="Caught ValueError in replica 0 on device cpu"):
        parallel_apply(modules, [gpunn.ones(1), gpunn.ones(1)])


def test_first_tensor():
    x = gpunn.ones(1)
    assert get_a_var(x) is x and get_a_var([1, (2, {"a": x})]) is x
    assert get_a_var(["a", {}, None]) is None
    assert parallel_apply([nn.Identity()] * 2, ["a", "b"]) == ["a", "b"]
