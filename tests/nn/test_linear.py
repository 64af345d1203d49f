"""Linear layers against NumPy."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)])
def test_linear(lead):
    arrays = [rng.normal(size=(*lead, 5)), rng.normal(size=(6, 5)), rng.normal(size=6)]
    check(F.linear, arrays, lambda x, w, b: x @ w.T + b, grad=lead != (0,), rtol=3e-2)
    check(F.linear, arrays[:2], lambda x, w: x @ w.T, grad=lead != (0,), rtol=3e-2)


def test_one_output_weight_is_a_vector():
    check(F.linear, [rng.normal(size=(4, 5)), rng.normal(size=5)], lambda x, w: x @ w, rtol=3e-2)


def test_bilinear():
    arrays = [rng.normal(size=s) for s in ((4, 2), (4, 3), (5, 2, 3), (5,))]
    check(F.bilinear, arrays, lambda a, b, w, c: np.einsum("ni,oij,nj->no", a, w, b) + c, rtol=5e-2)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: F.linear(gpunn.zeros(2, 4), gpunn.zeros(6, 5)),
         r"mat1 and mat2 shapes cannot be multiplied \(2x4 and 5x6\)"),
        (lambda: F.linear(gpunn.zeros(2, 5), gpunn.zeros(6, 5), gpunn.zeros(4)), "bias"),
        (lambda: F.linear(gpunn.zeros(2, 5), gpunn.zeros(6, 5).double()), "dtype"),
        (lambda: F.bilinear(gpunn.zeros(2, 5), gpunn.zeros(3, 5), gpunn.zeros(1, 5, 5)), "batch"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, words):
    with pytest.raises(RuntimeError, match=words):
        call()


def test_an_error_in_a_model_names_the_module():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    with pytest.raises(RuntimeError) as caught:
        model(gpunn.zeros(1, 3))
    words = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "1.1" in words


def test_weights_are_drawn_within_their_bound_and_lazily():
    layer = nn.LazyLinear(8)
    layer(gpunn.zeros(2, 16))
    assert type(layer) is nn.Linear and layer.weight.abs().max() <= 0.25
    assert repr(layer) == "Linear(in_features=16, out_features=8, bias=True)"


def test_the_gradient_of_a_bias_in_half_precision_is_rounded_once():
    b = gpunn.zeros(2, dtype=gpunn.bfloat16, requires_grad=True)
    F.linear(gpunn.ones(1000, 4).bfloat16(), gpunn.ones(2, 4).bfloat16(), b).sum().backward()
    assert b.grad.tolist() == [1000, 1000]  # one by one, the sum would stop at 256


@pytest.mark.parametrize("out", [1, 9, 64])
@pytest.mark.parametrize("lead", [(64, 2), (2, 3, 16)])
def test_a_batch_of_matrices_is_one_product(lead, out):
    """Contiguous or transposed, above the size where it is done so."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(*lead, 64)), rng.normal(size=(out, 64))
    for made in (x, np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)):
        leaf = gpunn.from_numpy(made).requires_grad_()
        y = F.linear(leaf, gpunn.from_numpy(w))
        np.testing.assert_allclose(y.detach().numpy(), x @ w.T, atol=1e-12)
        y.backward(gpunn.from_numpy(np.ones(y.shape)))
        np.testing.assert_allclose(leaf.grad.numpy(), np.broadcast_to(w.sum(0), x.shape))
