"""`torch.dropout` and its relatives: arguments, masks and errors as PyTorch's."""

import pytest
from both import refused, same

import gpunn

NAMES = ["dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"]


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_are_pytorchs_for_the_same_seed(name):
    def program(T):
        T.manual_seed(2)
        first = getattr(T, name)(T.ones(4, 5, 2), 0.4, train=True)
        x = T.ones(4, 5, 2)
        assert getattr(T, name + "_")(x, 0.4, True) is x
        return first, x, getattr(T, name)(input=x, p=0.4, train=False)

    same(program)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused(name):
    refused(lambda T: getattr(T, name)(T.ones(2, 2), 1.5, True), "between 0 and 1, but got 1.5")
    refused(lambda T: getattr(T, name)(T.ones(2, 2), 0.5), "train")


@pytest.mark.parametrize("p, train", [(0.4, True), (0.4, None), (1.0, True), (0.4, False)])
def test_native_dropout_gives_the_mask_too(p, train):
    def program(T):
        T.manual_seed(2)
        x = T.linspace(-1, 1, 12).requires_grad_()
        y, mask = T.native_dropout(x, p, train)
        if train is None:  # PyTorch's gradient lacks the factor 1 / (1 - p) there
            return y, mask
        y.sum().backward()
        return y, mask, x.grad

    same(program)


def test_native_dropout_without_a_mode_has_the_gradient_of_what_it_did():
    x = gpunn.ones(20, requires_grad=True)
    y, _ = gpunn.native_dropout(x, 0.5, None)
    y.sum().backward()
    assert gpunn.equal(x.grad, y.detach())


def test_native_dropout_of_nothing():
    y, mask = gpunn.native_dropout(gpunn.ones(0), 0.5, True)
    assert y.shape == mask.shape == (0,)
