"""no_grad and its relatives, and anomaly detection."""

import threading

import pytest

import gpunn


def test_no_grad_as_context_decorator_and_generator():
    x = gpunn.ones(1, requires_grad=True)

    @gpunn.no_grad
    def bare(t):
        return t * 2

    @gpunn.no_grad()
    def called(t):
        return t * 2

    @gpunn.no_grad()
    def items(t):
        yield t * 2
        yield t * 3

    assert not bare(x).requires_grad and not called(x).requires_grad
    for item in items(x):
        assert not item.requires_grad and gpunn.is_grad_enabled()
    with gpunn.no_grad():
        with gpunn.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_modes_are_left_after_an_exception():
    with pytest.raises(ValueError, match="inside"), gpunn.no_grad():
        raise ValueError("inside")
    assert gpunn.is_grad_enabled()


def test_set_grad_enabled_is_a_function_and_a_context():
    gpunn.set_grad_enabled(False)
    assert not gpunn.is_grad_enabled()
    with gpunn.set_grad_enabled(True):
        assert gpunn.is_grad_enabled()
    assert not gpunn.is_grad_enabled()
    gpunn.set_grad_enabled(True)
    assert gpunn.is_grad_enabled()


def test_inference_mode():
    x = gpunn.ones(1, requires_grad=True)
    with gpunn.inference_mode():
        assert gpunn.is_inference_mode_enabled() and not (x * 2).requires_grad
        with gpunn.inference_mode(False):
            assert (x * 2).requires_grad
    assert not gpunn.is_inference_mode_enabled()


def test_each_thread_has_its_own_mode():
    seen = []
    with gpunn.no_grad():
        thread = threading.Thread(target=lambda: seen.append(gpunn.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_anomaly_detection_names_the_line_of_the_forward():
    x = gpunn.tensor([-1.0], requires_grad=True)
    with pytest.warns(UserWarning, match="Anomaly Detection has been enabled"):  # noqa: SIM117
        with gpunn.autograd.detect_anomaly():
            y = x.sqrt()  # the culprit
            with pytest.raises(RuntimeError) as error:
                y.sum().backward()
    assert "Function 'SqrtBackward0' returned nan values in its 0th output" in str(error.value)
    assert "y = x.sqrt()  # the culprit" in str(error.value)
    assert not gpunn.is_anomaly_enabled()


def test_anomaly_detection_names_the_line_that_saved_what_was_changed():
    x = gpunn.ones(1, requires_grad=True)
    with gpunn.autograd.set_detect_anomaly(True):
        y = x.exp()  # saves its result
        y.add_(1)
        with pytest.raises(RuntimeError, match="y = x.exp\\(\\)  # saves its result"):
            y.sum().backward()


def test_without_anomaly_detection_nan_is_a_value():
    x = gpunn.tensor([-1.0], requires_grad=True)
    x.sqrt().sum().backward()
    assert x.grad.isnan().all()
