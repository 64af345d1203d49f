"""Every repr is PyTorch's, character by character."""

import itertools
import math

import fake_cupy
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn
from gpunn import dtypes, printing
from gpunn.device import Device
from gpunn.tensor import wrap

torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

NAMES = [d.name for d in dtypes.ALL]
FLOATING = ["float16", "bfloat16", "float32", "float64"]


@pytest.fixture(autouse=True)
def _default_options():
    yield
    for library in (torch, printing):
        library.set_printoptions(profile="default")


def _set(**options):
    for library in (torch, printing):
        library.set_printoptions(**options)


def _ours(t):
    """The gpunn tensor of the same values."""
    if t.dtype == torch.bfloat16:
        return wrap(t.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return wrap(t.detach().numpy())


def _theirs(values, name):
    values = torch.as_tensor(values, dtype=torch.float64)
    dtype = getattr(torch, name)
    if dtype.is_complex:
        return torch.complex(values, -values.flip(0) if values.dim() else values / 3).to(dtype)
    if dtype == torch.bool:
        return values > 0
    if not dtype.is_floating_point:
        values = torch.nan_to_num(values).clamp(0 if name.startswith("u") else -100, 100)
    return values.to(dtype)


def _check(t):
    assert printing.tensor_repr(_ours(t)) == repr(t)


def _normal(*shape, scale=1.0):
    return np.random.default_rng(0).standard_normal(shape) * scale


VALUES = {
    "zero": np.float64(0),
    "scalar": np.float64(-3.25),
    "large scalar": np.float64(12345678),
    "nan scalar": np.float64(np.nan),
    "empty": np.zeros(0),
    "empty 2d": np.zeros((2, 0)),
    "empty 3d": np.zeros((0, 3, 4)),
    "whole": np.arange(-4.0, 5),
    "fractions": np.arange(-4.0, 5) / 3,
    "one of each": np.array([0.0, -0.0, 1, -2.5, np.inf, -np.inf, np.nan]),
    "whole and inf": np.array([1.0, 20, -300, np.inf, -np.inf, np.nan]),
    "only inf": np.array([np.inf, -np.inf]),
    "only nan": np.array([[np.nan, np.nan]]),
    "zeros": np.zeros((2, 3)),
    "negative zeros": -np.zeros((2, 3)),
    "tiny": np.array([1e-5, 2e-6, -3e-7]),
    "below the limit": np.array([9.9e-5, 1e-2]),
    "wide range": np.array([1e-3, 1.0, 2000.5]),
    "range of 1000": np.array([1.5, 1500.0]),
    "large": np.array([1.5e9, -2e4]),
    "large whole": np.array([1e8, 3e8]),
    "rounds up": np.array([0.99999, 9.99999, -0.00004]),
    "line breaks": _normal(100, scale=40),
    "matrix": _normal(3, 40),
    "many dimensions": _normal(2, 1, 3, 2, 2),
    "cut vector": _normal(1001),
    "not cut": _normal(10, 100),
    "cut matrix": _normal(40, 60, scale=1e4),
    "cut in one dimension": _normal(3, 1000),
    "cut in three": _normal(10, 3, 40),
    "cut, edges decide": np.concatenate([np.arange(3.0), _normal(2000), np.arange(3.0)]),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("values", VALUES)
def test_values_and_dtypes(values, name):
    _check(_theirs(VALUES[values], name))


@pytest.mark.parametrize("extreme", ["max", "min", "tiny", "smallest_subnormal"])
@pytest.mark.parametrize("name", FLOATING)
def test_extreme_floats(name, extreme):
    value = float(getattr(ml_dtypes.finfo(dtypes._FROM_NAME[name].numpy), extreme))
    dtype = getattr(torch, name)
    for values in ([value], [value, 1.0], [-value, 0.5, value]):
        _check(torch.tensor(values, dtype=torch.float64).to(dtype))


@pytest.mark.parametrize("name", [n for n in NAMES if "int" in n])
def test_extreme_integers(name):
    info = torch.iinfo(getattr(torch, name))
    values = np.array([info.min, 0, info.max], dtype=name)
    _check(torch.from_numpy(values))


OPTIONS = [
    dict(precision=0),
    dict(precision=8),
    dict(threshold=5),
    dict(threshold=0, edgeitems=1),
    dict(threshold=5, edgeitems=0),
    dict(edgeitems=0),
    dict(threshold=5, edgeitems=2, linewidth=20),
    dict(linewidth=20),
    dict(linewidth=1),
    dict(linewidth=200, precision=2),
    dict(sci_mode=True),
    dict(sci_mode=False),
    dict(sci_mode=True, precision=1, linewidth=30),
    dict(profile="short"),
    dict(profile="full"),
    dict(profile="short", precision=6),
    dict(threshold=math.inf),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options(options):
    _set(**options)
    assert printing.get_printoptions() == torch._tensor_str.get_printoptions()
    for values, name in itertools.product(VALUES, ["float32", "int64", "complex64", "bool"]):
        _check(_theirs(VALUES[values], name))


def test_options_stay_except_sci_mode():
    _set(precision=2, sci_mode=True)
    _set(edgeitems=5)
    kept = printing.get_printoptions()
    assert kept == torch._tensor_str.get_printoptions()
    assert (kept["precision"], kept["edgeitems"], kept["sci_mode"]) == (2, 5, None)
    printing.set_printoptions(profile="default")
    printing.set_printoptions(**kept)
    assert printing.get_printoptions() == kept


@pytest.mark.parametrize("default", ["float64", "float16", "bfloat16"])
def test_default_dtype(default):
    torch.set_default_dtype(getattr(torch, default))
    dtypes.set_default_dtype(dtypes._FROM_NAME[default])
    try:
        for values, name in itertools.product(["fractions", "empty", "empty 2d"], NAMES):
            _check(_theirs(VALUES[values], name))
    finally:
        torch.set_default_dtype(torch.float32)
        dtypes.set_default_dtype(dtypes.float32)


@settings(max_examples=300, deadline=None)
@given(
    shape=st.lists(st.integers(0, 12), max_size=4),
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 10**6),
    exponents=st.tuples(st.integers(-30, 30), st.integers(0, 12)),
    whole=st.booleans(),
    special=st.sampled_from([None, np.nan, np.inf, -np.inf, 0.0, -0.0]),
    options=st.fixed_dictionaries(
        {
            "precision": st.integers(0, 9),
            "threshold": st.sampled_from([0, 5, 30, 1000]),
            "edgeitems": st.integers(0, 4),
            "linewidth": st.integers(1, 120),
            "sci_mode": st.sampled_from([None, None, True, False]),
        }
    ),
)
def test_any_tensor(shape, name, seed, exponents, whole, special, options):
    rng = np.random.default_rng(seed)
    low, spread = exponents
    values = rng.standard_normal(shape) * 10.0 ** (low + spread * rng.random(shape))
    values = np.round(values) if whole else values
    if special is not None:
        values = np.where(rng.random(shape) < 0.2, special, values)
    _set(**options)
    _check(_theirs(values, name))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(), max_size=8), st.sampled_from(["float32", "float64", "complex128"]))
def test_any_floats(values, name):
    _check(_theirs(np.array(values, dtype=np.float64), name))


def test_strides_do_not_matter():
    t = torch.arange(2400.0).reshape(40, 60)
    for view in (t.T, t[::2, ::3], t[3], t[:, None], t.expand(2, 40, 60)):
        _check(view)


def test_large_tensors_are_cut_before_they_are_formatted(monkeypatch):
    x = wrap(np.zeros((1000, 10, 1000), np.float32))
    shown, real = [], printing.to_host
    monkeypatch.setattr(printing, "to_host", lambda a: shown.append(a.size) or real(a))
    assert repr(x).count("0.") == 6**3 and shown == [6**3]


def test_gradients():
    for values in ([1.0, 2.0], 3.5, _normal(3, 3).tolist()):
        theirs = torch.tensor(values, requires_grad=True)
        ours = gpunn.tensor(values, requires_grad=True)
        assert repr(ours) == repr(theirs)
        assert repr(ours + 1) == repr(theirs + 1) and "grad_fn=<AddBackward0>" in repr(ours + 1)
        assert repr(ours.detach()) == repr(theirs.detach())
        assert repr((ours * 2).double()) == repr((theirs * 2).double())
    theirs, ours = torch.ones(1, 1, 8, 8), gpunn.ones(1, 1, 8, 8)
    theirs.requires_grad_(), ours.requires_grad_()
    assert repr(ours * 1.5) == repr(theirs * 1.5)


def test_parameters_and_subclasses():
    assert repr(gpunn.nn.Parameter(gpunn.ones(2))) == repr(torch.nn.Parameter(torch.ones(2)))
    special = [type("Special", (library.Tensor,), {}) for library in (gpunn, torch)]
    ours = wrap(np.ones(2, np.float32), cls=special[0])
    assert repr(ours) == repr(torch.ones(2).as_subclass(special[1])) == "Special([1., 1.])"
    kinds = [type("Kind", (library.nn.Parameter,), {}) for library in (gpunn, torch)]
    assert repr(kinds[0](gpunn.ones(2))) == repr(kinds[1](torch.ones(2)))


def test_contents_given():
    assert gpunn.ones(2).__repr__(tensor_contents="...") == "tensor(...)"


@pytest.mark.parametrize("spec", ["", ".3f", "8.2e", "+.1%", ">12"])
def test_format_of_a_number(spec):
    for value in (1.25, -3, True):
        assert format(gpunn.tensor(value), spec) == format(torch.tensor(value), spec)
    loss = gpunn.tensor(2.0, requires_grad=True)
    assert format(loss * 3, spec) == format(6.0, spec)


def test_format_of_more_numbers():
    assert f"{gpunn.ones(2)}" == f"{torch.ones(2)}"
    for library in (gpunn, torch):
        with pytest.raises(TypeError, match="unsupported format string passed to Tensor"):
            f"{library.ones(2):.3f}"


def test_devices():
    x = wrap(np.zeros(2, np.float32), Device("cpu:1"))
    assert repr(x) == "tensor([0., 0.], device='cpu:1')"
    with fake_cupy.installed(fake_cupy.make()) as cupy:
        x = wrap(cupy.zeros(2), Device("cuda:0"))
        assert repr(x) == "tensor([0., 0.], device='cuda:0')"
        x = wrap(cupy.zeros((2, 0), np.float64), Device("cuda:0"))
        assert repr(x) == "tensor([], device='cuda:0', size=(2, 0), dtype=torch.float64)"
        x = wrap(cupy.array(np.arange(2000).reshape(2, 1000)), Device("cuda:0"))
        assert repr(x) == repr(torch.arange(2000).reshape(2, 1000))[:-1] + ", device='cuda:0')"


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 2, 30])
@pytest.mark.parametrize("dense", [(), (3,)])
def test_sparse(dtype, count, dense):
    indices = torch.arange(2 * count).reshape(2, count)
    values = torch.ones(count, *dense, dtype=dtype)
    theirs = torch.sparse_coo_tensor(indices, values, (60, 60, *dense))
    fields = {"indices": _ours(indices), "values": _ours(values)}
    like = wrap(np.empty((60, 60, *dense), values.numpy().dtype))
    assert printing.sparse_repr(like, fields, count, "torch.sparse_coo") == repr(theirs)
    like.requires_grad, theirs.requires_grad = True, True
    assert printing.sparse_repr(like, fields, count, "torch.sparse_coo") == repr(theirs)
