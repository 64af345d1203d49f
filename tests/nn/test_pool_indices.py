"""Max pooling with places: values and places are PyTorch's, whatever return_indices says."""

import pytest
from both import same

CALLS = {
    "max_pool": ((3,), {"stride": 2, "padding": 1}),
    "adaptive_max_pool": ((3,), {"return_indices": False}),
    "fractional_max_pool": ((2, 3), {"return_indices": True}),
}


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", CALLS)
def test_as_pytorch(kind, dims):
    if kind.startswith("fractional") and dims == 1:
        return  # there is none
    args, kwargs = CALLS[kind]

    def program(T):
        T.manual_seed(0)
        x = T.rand(2, 3, *[7] * dims)
        function = getattr(T.nn.functional, f"{kind}{dims}d_with_indices")
        return list(function(x, *args, **kwargs))

    same(program)


def test_gradient_and_missing_argument():
    def program(T):
        x = T.arange(16.0).reshape(1, 1, 4, 4).requires_grad_()
        y, places = T.nn.functional.max_pool2d_with_indices(x, kernel_size=2)
        y.sum().backward()
        with pytest.raises(TypeError, match="kernel_size"):
            T.nn.functional.max_pool2d_with_indices(x)
        return [x.grad, places]

    same(program)
