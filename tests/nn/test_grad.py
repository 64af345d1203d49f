"""nn.grad: the gradients of convolutions that autograd takes, and PyTorch's."""

import inspect

import pytest
from both import refused, same

OPTIONS = [{}, {"stride": 2, "padding": 1}, {"groups": 2, "dilation": 2, "padding": 2}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_both_gradients_and_theirs(dims, options):
    def program(T):
        T.manual_seed(dims)
        x = T.rand(2, 4, *[6] * dims, dtype=T.float64, requires_grad=True)
        w = T.rand(6, 4 // options.get("groups", 1), *[3] * dims, dtype=T.float64).requires_grad_()
        y = getattr(T.nn.functional, f"conv{dims}d")(x, w, **options)
        g = T.rand(*y.shape, dtype=T.float64, requires_grad=True)
        gx = getattr(T.nn.grad, f"conv{dims}d_input")(x.shape, w, g, **options)
        gw = getattr(T.nn.grad, f"conv{dims}d_weight")(x, w.shape, g, **options)
        found = T.autograd.grad(y, [x, w], g.detach())
        assert T.allclose(gx, found[0]) and T.allclose(gw, found[1])
        second = T.autograd.grad((gx * gx).sum() + (gw * gw).sum(), [x, w, g])
        return [gx, gw, *second]

    same(program)


def test_refused():
    ones = lambda T: (T.ones(4, 3, 3, 3), T.ones(1, 4, 5, 5))  # noqa: E731
    refused(lambda T: T.nn.grad.conv2d_input((1, 3, 9, 9), *ones(T)), "7")
    refused(
        lambda T: T.nn.grad.conv2d_weight(T.ones(1, 3, 7, 7), (4, 2, 3, 3), ones(T)[1]),
        "to have 2 channels, but got 3 channels",
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_parameters(dims):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    from gpunn import nn

    for kind in ("input", "weight"):
        name = f"conv{dims}d_{kind}"
        ours = inspect.signature(getattr(nn.grad, name)).parameters.values()
        theirs = inspect.signature(getattr(torch.nn.grad, name)).parameters.values()
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]
