"""Observed functions: every reference is reached, and nothing is left when they are not."""

import threading

import pytest

import gpunn
from gpunn.nn import functional as F
from gpunn.profiler.switches import Switches, twin


def plain(a, b=2, *, c=3):
    return a, b, c


def closure():
    first, second = 10, 20

    def inner(x, *, y=1):
        return first + second + x + y

    return inner


def test_a_reference_kept_elsewhere_is_observed_too():
    kept, seen, switches, inner = [plain], [], Switches(), twin(plain)

    def observe(args, kwargs):
        seen.append((args, kwargs))
        return inner(*args, **kwargs)

    switches.on(plain, observe)
    assert kept[0](1, c=5) == (1, 2, 5) and seen == [((1,), {"c": 5})]
    switches.off()
    assert kept[0](1) == (1, 2, 3) and len(seen) == 1


def test_functions_with_free_variables():
    function, switches = closure(), Switches()
    inner = twin(function)
    switches.on(function, lambda args, kwargs: -inner(*args, **kwargs))
    assert function(1) == -32 and function(1, y=2) == -33
    switches.off()
    assert function(1) == 32


def test_each_of_two_closures_of_one_code_has_its_own_observer():
    one, two, switches = closure(), closure(), Switches()
    switches.on(one, lambda args, kwargs: "one")
    switches.on(two, lambda args, kwargs: "two")
    assert (one(0), two(0)) == ("one", "two")
    switches.off()


def test_off_restores_the_code_itself():
    functions = [plain, closure(), F.relu, gpunn.exp, gpunn.Tensor.__add__, F.linear]
    codes, switches = [f.__code__ for f in functions], Switches()
    for function in functions:
        switches.on(function, lambda args, kwargs: None)
    assert all(f.__code__ is not c for f, c in zip(functions, codes, strict=True))
    switches.off()
    assert all(f.__code__ is c for f, c in zip(functions, codes, strict=True))


def test_errors_pass_through():
    switches, inner = Switches(), twin(plain)
    switches.on(plain, lambda args, kwargs: inner(*args, **kwargs))
    try:
        with pytest.raises(TypeError, match="plain"):
            plain()
    finally:
        switches.off()


def test_a_call_under_way_in_another_thread_ends_as_it_began():
    inside, go, found = threading.Event(), threading.Event(), []

    def slow(x):
        inside.set()
        assert go.wait(10)
        return x + 1

    thread = threading.Thread(target=lambda: found.append(slow(1)))
    thread.start()
    assert inside.wait(10)
    switches = Switches()
    switches.on(slow, lambda args, kwargs: "observed")
    assert slow(1) == "observed"
    go.set()
    thread.join()
    switches.off()
    assert found == [2]
