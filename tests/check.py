"""One way to test an operation: values, gradients, layouts, dtypes, inputs left as they are.

`check(f, arrays, reference)` calls f on Tensors made of the arrays, contiguous and strided, in each
dtype, and compares with `reference` on the float64 arrays. In float64 the gradient is compared with
a finite difference along a random direction, and so is the gradient of the gradient.
"""

import ml_dtypes
import numpy as np

import gpunn

TOLERANCE = {"float64": 1e-10, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def strided(array):
    """The same values, every other element of a longer memory."""
    if array.ndim == 0:
        return array
    wide = np.zeros((*array.shape[:-1], array.shape[-1] * 2), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def in_dtype(array, name):
    """Floating arrays in another dtype, others as they are."""
    if array.dtype.kind != "f":
        return array
    return array.astype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def check(
    f, arrays, reference, *, dtypes=("float64", "float32", "float16", "bfloat16"), grad=True,
    second=True, rtol=None,
):  # fmt: skip
    arrays = [np.asarray(a) for a in arrays]
    for name in dtypes:
        cast = [in_dtype(a, name) for a in arrays]
        wanted = reference(*(a.astype(np.float64) if a.dtype.kind in "fV" else a for a in cast))
        for layout in (np.ascontiguousarray, strided):
            inputs = [layout(a) if a.ndim else a.copy() for a in cast]
            before = [a.copy() for a in inputs]
            got = f(*(gpunn.from_numpy(a) for a in inputs))
            tolerance = TOLERANCE[name] if rtol is None or name == "float64" else rtol
            np.testing.assert_allclose(
                np.asarray(got.tolist(), np.float64).reshape(got.shape), wanted, rtol=tolerance,
                atol=tolerance, err_msg=f"{name}, {layout.__name__}",
            )  # fmt: skip
            for a, b in zip(inputs, before, strict=True):
                np.testing.assert_array_equal(a.astype(np.float64), b.astype(np.float64))
    if grad:
        check_grad(f, arrays, second)


def check_grad(f, arrays, second=True):
    """The gradient of a weighted sum of f against finite differences, along one direction."""
    rng = np.random.default_rng(0)
    floating = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    arrays = [a.astype(np.float64) if i in floating else a for i, a in enumerate(arrays)]
    weights = gpunn.from_numpy(np.asarray(rng.normal(size=tuple(_shape(f, arrays)))))

    def total(parts):
        return (f(*parts) * weights).sum()

    _along_a_line(total, arrays, floating, rng)
    if second:
        lines = [gpunn.from_numpy(np.asarray(rng.normal(size=arrays[i].shape))) for i in floating]

        def slope(parts):
            leaves = [parts[i] for i in floating]
            leaves = [x if x.requires_grad else x.requires_grad_() for x in leaves]
            gs = gpunn.autograd.grad(total(parts), leaves, create_graph=True, allow_unused=True)
            found = [(g * v).sum() for g, v in zip(gs, lines, strict=True) if g is not None]
            return sum(found[1:], found[0])

        _along_a_line(slope, arrays, floating, rng)


def _shape(f, arrays):
    return f(*(gpunn.from_numpy(a.copy()) for a in arrays)).shape


def _along_a_line(function, arrays, floating, rng, eps=1e-6):
    direction = {i: rng.normal(size=arrays[i].shape) for i in floating}

    def at(t):
        moved = [
            np.asarray(a + t * direction[i]) if i in direction else a for i, a in enumerate(arrays)
        ]
        return function([gpunn.from_numpy(a) for a in moved]).item()

    numerical = (at(eps) - at(-eps)) / (2 * eps)
    parts = [gpunn.from_numpy(a.copy()) for a in arrays]
    for i in floating:
        parts[i].requires_grad_()
    made = function(parts)
    if not made.requires_grad:
        assert abs(numerical) < 1e-6, f"no gradient is recorded, the slope is {numerical}"
        return
    gs = gpunn.autograd.grad(made, [parts[i] for i in floating], allow_unused=True)
    analytical = sum(
        float((g.numpy() * direction[i]).sum()) for i, g in zip(floating, gs, strict=True)
        if g is not None
    )  # fmt: skip
    assert np.isclose(analytical, numerical, rtol=1e-4, atol=1e-5), (analytical, numerical)
