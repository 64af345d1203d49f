"""Identity, Flatten, Unflatten."""

import gpunn
from gpunn import nn


def test_identity(same_as_torch):
    def scenario(T):
        m = T.nn.Identity(54, unused=0.1)
        x = T.ones(2)
        return m(x) is x, repr(m), m("anything")

    same_as_torch(scenario)


def test_flatten(same_as_torch, error):
    def scenario(T):
        x = T.arange(24).reshape(2, 3, 2, 2)
        modules = [T.nn.Flatten(), T.nn.Flatten(0), T.nn.Flatten(1, 2), T.nn.Flatten(-2, -1)]
        found = [(repr(m), tuple(m(x).shape), m(x).flatten().tolist()) for m in modules]
        return found, error(T.nn.Flatten(3, 1), x)[0], tuple(T.nn.Flatten(0)(T.tensor(3)).shape)

    same_as_torch(scenario)


def test_unflatten(same_as_torch, error):
    def scenario(T):
        x = T.arange(24).reshape(2, 12)
        modules = [T.nn.Unflatten(1, (3, 4)), T.nn.Unflatten(-1, [2, -1, 3])]
        modules += [T.nn.Unflatten(1, T.Size([12, 1]))]
        found = [(repr(m), tuple(m(x).shape), m(x).flatten().tolist()) for m in modules]
        found += [error(T.nn.Unflatten, 1, size) for size in (3, {"a": 2}, (2, "b"), [("a", 2)])]
        return found, error(T.nn.Unflatten(1, (5, 2)), x)[0]

    same_as_torch(scenario)


def test_gradients_pass():
    x = gpunn.ones(2, 6, requires_grad=True)
    (nn.Flatten()(nn.Unflatten(1, (2, 3))(x)) * 2).sum().backward()
    assert x.grad.tolist() == [[2.0] * 6] * 2
