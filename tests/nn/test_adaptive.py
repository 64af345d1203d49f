"""Adaptive log-softmax against PyTorch, and its parts against each other."""

import pytest
from both import refused, same

import gpunn
from gpunn import nn


def model(T, **named):
    T.manual_seed(1)
    return T.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10, 15], div_value=2.0, **named)


def inputs(T):
    T.manual_seed(2)
    return T.randn(7, 8, requires_grad=True), T.tensor([0, 19, 5, 3, 12, 4, 9])


@pytest.mark.parametrize("head_bias", [False, True])
def test_forward_and_gradients_are_pytorchs(head_bias):
    def program(T):
        m, (x, target) = model(T, head_bias=head_bias), inputs(T)
        output, loss = m(x, target)
        (loss + output[2] * 3).backward()
        return output, loss, x.grad, [p.grad for p in m.parameters()]

    same(program)


def test_state_and_repr():
    same(lambda T: list(model(T, head_bias=True).state_dict()))
    same(lambda T: repr(model(T)))
    same(lambda T: repr(model(T)(*inputs(T)))[:9])


def test_log_prob_and_predict():
    same(lambda T: model(T).log_prob(inputs(T)[0]))
    same(lambda T: model(T).predict(inputs(T)[0]))
    m, (x, target) = model(gpunn), inputs(gpunn)
    logs = m.log_prob(x)
    assert gpunn.allclose(logs.exp().sum(1), gpunn.ones(7))
    assert gpunn.allclose(logs.gather(1, target[:, None])[:, 0], m(x, target).output)
    assert gpunn.equal(logs.argmax(1), m.predict(x))


def test_one_example_without_a_batch():
    def program(T):
        x, target = inputs(T)
        return tuple(model(T)(x[1], target[1]))

    same(program)


def test_weights_are_drawn_anew():
    m = model(gpunn)
    before = m.tail[0][1].weight.clone()
    m.reset_parameters()
    assert not gpunn.equal(before, m.tail[0][1].weight)


@pytest.mark.parametrize("cutoffs", [[], [5, 5], [6, 5], [0, 5], [5, 20], [2.5]])
def test_cutoffs_increase(cutoffs):
    refused(lambda T: T.nn.AdaptiveLogSoftmaxWithLoss(8, 20, cutoffs), "cutoffs should be a seq")


def test_what_is_refused():
    def call(x, *target):
        return lambda T: model(T)(T.ones(x), T.tensor(*target))

    refused(call((2, 8), [0, 20]), r"should be in \[0, 19\], but values in range \[0, 20\]")
    refused(call((2, 8), [0, -1]), r"values in range \[-1, 0\]")
    refused(call((3, 8), [0, 1]), "same size in the batch dimension")
    refused(call((2, 8, 1), [0, 1]), "1D target tensor expects 2D input tensors")
    refused(call((2, 8), 0), "0D target tensor expects 1D input tensors")
    refused(call((2, 8), [[0], [1]]), "0D or 1D target tensor expected, multi-target not supported")


def test_double_precision():
    assert nn.AdaptiveLogSoftmaxWithLoss(4, 6, [2], dtype=gpunn.float64).head.weight.dtype == (
        gpunn.float64
    )


def test_on_a_gpu(emulated):
    x, target = inputs(gpunn)
    wanted, m = model(gpunn)(x, target), model(gpunn).cuda()
    got = m(x.cuda(), target.cuda())
    assert gpunn.allclose(got.output.cpu(), wanted.output)
    assert gpunn.equal(m.predict(x.cuda()).cpu(), m.cpu().predict(x))
