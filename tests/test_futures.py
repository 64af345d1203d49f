"""Futures, against PyTorch's."""

import threading

import pytest
from both import packages

import gpunn
from gpunn.futures import Future, collect_all, wait_all


def test_values_callbacks_and_errors_as_pytorch():
    found = []
    for package in packages():
        futures = importlib_futures(package)
        log = []
        future = futures.Future()
        doubled = future.then(lambda f: f.value() * 2)
        failed = future.then(lambda f: 1 / 0)
        future.add_done_callback(lambda f, log=log: log.append(f.wait()))
        log.append(future.done())
        future.set_result(21)
        later = future.then(lambda f: f.value() + 1)
        log += [future.done(), doubled.wait(), later.wait(), future.value()]
        many = [futures.Future() for _ in range(3)]
        joined = futures.collect_all(many)
        for k, one in enumerate(many):
            log.append(joined.done())
            one.set_result(k)
        log += [[f.value() for f in joined.wait()], futures.wait_all(many)]
        log.append(futures.wait_all([]) if package is gpunn else [])
        for action in (
            lambda failed=failed: failed.wait(),
            lambda future=future: future.set_result(3),
            lambda futures=futures: futures.Future().value(),
            lambda futures=futures: futures.Future().set_exception("no exception"),
        ):
            try:
                action()
            except Exception as error:
                log.append([c.__name__ for c in type(error).__mro__ if c is not object])
        found.append(log)
    theirs, mine = found
    for wanted, got in zip(theirs, mine, strict=True):
        if isinstance(wanted, list) and wanted[-1:] == ["BaseException"]:
            assert wanted[0] in got or got[0] == "ZeroDivisionError", (wanted, got)
        else:
            assert wanted == got, (theirs, mine)


def importlib_futures(package):
    import importlib

    return importlib.import_module(f"{package.__name__}.futures")


def test_an_error_is_raised_by_all_who_ask():
    future = Future()
    after = future.then(lambda f: f.value())
    future.set_exception(ValueError("out of range"))
    for ask in (future.wait, future.value, after.wait):
        with pytest.raises(ValueError, match="out of range"):
            ask()
    with pytest.raises(RuntimeError, match="can only be set once"):
        future.set_exception(ValueError())
    with pytest.raises(AssertionError, match="is of type <class 'str'>, not an Exception"):
        Future().set_exception("text")
    joined = collect_all([future, after])
    with pytest.raises(ValueError, match="out of range"):
        joined.wait()
    with pytest.raises(ValueError, match="out of range"):
        wait_all([future])


def test_collected_ones_fail_only_when_all_are_done():
    first, second = Future(), Future()
    joined = collect_all([first, second])
    first.set_exception(KeyError("a"))
    assert not joined.done()
    second.set_result(1)
    with pytest.raises(KeyError):
        joined.wait()


def test_what_a_callback_raises_is_printed(capsys):
    future = Future()
    future.add_done_callback(lambda f: 1 / 0)
    future.add_done_callback(lambda f: print("and on"))
    future.set_result(None)
    out, err = capsys.readouterr()
    assert "ZeroDivisionError" in err and "and on" in out


def test_many_threads():
    future, found = Future(devices=["cpu"]), []
    threads = [threading.Thread(target=lambda: found.append(future.wait())) for _ in range(8)]
    for t in threads:
        t.start()
    for _ in range(100):
        future.add_done_callback(lambda f: found.append(f.value()))
    future.set_result("here")
    for t in threads:
        t.join(10)
    assert found == ["here"] * 108
