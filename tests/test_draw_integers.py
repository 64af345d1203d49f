"""Draws of integers: PyTorch's numbers in value, dtype, shape and state after them."""

import warnings

import ml_dtypes
import numpy as np
import pytest

from gpunn import draw_integers as draw
from gpunn.device import _ARRAY_MODULE, Device
from gpunn.generator import Generator

torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

_ARRAY_MODULE.setdefault("emulated", lambda device: np)
EMULATED = Device("emulated")
FLOATS = {"float32": np.float32, "float64": np.float64, "float16": np.float16,
          "bfloat16": ml_dtypes.bfloat16}  # fmt: skip
KINDS = FLOATS | {k: np.dtype(k).type for k in ("bool", "uint8", "int8", "int16", "int32", "int64")}
SIZES = [1, 2, 15, 16, 17, 100, 4099, 70_001]


def pair(seed):
    return Generator().manual_seed(seed), torch.Generator().manual_seed(seed)


def equal(found, tensor):
    expected = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
    if tensor.dtype == torch.bfloat16:
        assert found.dtype == ml_dtypes.bfloat16
        found = found.astype(np.float32)
    return found.dtype == expected.dtype and np.array_equal(found, expected)


def same_state(ours, theirs):
    return np.array_equal(ours.get_state().array, theirs.get_state().numpy())


def check(found, expected, ours, theirs):
    assert equal(found, expected)
    assert same_state(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_randint_parity(kind):
    ours, theirs = pair(2**31)
    dtype, d = np.dtype(KINDS[kind]), getattr(torch, kind)
    low, high = (0, 2) if kind == "bool" else (0, 100) if kind == "uint8" else (-7, 100)
    for n in SIZES:
        tensor = torch.empty(n, dtype=d)
        found = draw.randint((n,), dtype, ours, low, high)
        check(found, tensor.random_(low, high, generator=theirs), ours, theirs)
        found = draw.randint((n,), dtype, ours, None)
        check(found, tensor.random_(generator=theirs), ours, theirs)
        found = draw.randint((n,), dtype, ours, low, None)
        check(found, tensor.random_(low, None, generator=theirs), ours, theirs)


RANGES = [
    (0, 1), (0, 2**28 - 1), (0, 2**28), (5, 2**28 + 5), (0, 2**32), (-(2**40), 2**41),
    (-(2**63), 2**63 - 1), (-(2**63), 0), (2**62, 2**63 - 1),
]  # fmt: skip


@pytest.mark.parametrize("low, high", RANGES)
def test_randint_ranges(low, high):
    ours, theirs = pair(-5)
    for n in (1, 5, 40_000):
        expected = torch.randint(low, high, (n,), generator=theirs)
        check(draw.randint((n,), np.int64, ours, low, high), expected, ours, theirs)


@pytest.mark.parametrize("kind", ["int64", "float32", "float64", "bfloat16"])
def test_randint_of_all_64_bits(kind):
    ours, theirs = pair(1)
    expected = torch.empty(50, dtype=getattr(torch, kind)).random_(-(2**63), None, generator=theirs)
    check(draw.randint((50,), KINDS[kind], ours, -(2**63), None), expected, ours, theirs)


@pytest.mark.parametrize(
    "kind, low, high",
    [("float16", 0, 65504), ("float16", -3000, 5000), ("float32", 2**24 + 1, 2**26 - 1),
     ("float32", -(2**30) - 1, 2**25 + 3), ("bfloat16", 0, 300), ("bfloat16", -1000, -300),
     ("float64", 0, 2**60 + 1), ("float16", 2049, 2060)],
)  # fmt: skip
def test_randint_beyond_what_a_float_holds(kind, low, high):
    ours, theirs = pair(1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = draw.randint((5000,), KINDS[kind], ours, low, high)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = torch.empty(5000, dtype=getattr(torch, kind))
        tensor.random_(low, high, generator=theirs)
    check(found, tensor, ours, theirs)
    assert "Due to precision limitations" in str(told[0].message)


@pytest.mark.parametrize(
    "kind, low, high, error, message",
    [
        ("int64", 5, 5, RuntimeError, "'from' to be less than 'to', but got from=5 >= to=5"),
        ("int64", 5, 2, RuntimeError, "'from' to be less than 'to', but got from=5 >= to=2"),
        ("uint8", 0, 300, RuntimeError, "to - 1 is out of bounds for"),
        ("uint8", -5, 3, RuntimeError, "from is out of bounds for"),
        ("bool", 0, 3, RuntimeError, "to - 1 is out of bounds for"),
        ("int32", -(2**63), None, RuntimeError,
         "random_full_64_bits_range_kernel_cpu handles only int64, double, float and bfloat16"),
    ],
)  # fmt: skip
def test_randint_errors(kind, low, high, error, message):
    with pytest.raises(error, match=message):
        draw.randint((3,), KINDS[kind], None, low, high)
    with pytest.raises(error, match=message):
        torch.empty(3, dtype=getattr(torch, kind)).random_(low, high)


@pytest.mark.parametrize("kind", ["complex64", "uint16"])
def test_dtypes_without_kernels(kind):
    tensor, dtype = torch.empty(3, dtype=getattr(torch, kind)), np.dtype(kind)
    for ours, theirs in (
        (lambda: draw.randint((3,), dtype, None, None), lambda: tensor.random_()),
        (lambda: draw.bernoulli((3,), dtype), lambda: tensor.bernoulli_(0.5)),
        (lambda: draw.bernoulli((3,), dtype, None, np.ones(3)),
         lambda: tensor.bernoulli_(torch.ones(3))),
        (lambda: draw.geometric((3,), dtype), lambda: tensor.geometric_(0.5)),
        (lambda: draw.randperm(3, dtype), lambda: torch.randperm(3, dtype=tensor.dtype)),
    ):  # fmt: skip
        with pytest.raises(NotImplementedError) as found:
            ours()
        with pytest.raises(NotImplementedError) as expected:
            theirs()
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_bernoulli_of_a_number(kind, p):
    ours, theirs = pair(0)
    for n in SIZES:
        tensor = torch.empty(n, dtype=getattr(torch, kind)).bernoulli_(p, generator=theirs)
        check(draw.bernoulli((n,), KINDS[kind], ours, p), tensor, ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chance", FLOATS)
def test_bernoulli_of_an_array(kind, chance):
    ours, theirs = pair(0)
    p = torch.rand(20, 30, generator=torch.Generator()).to(getattr(torch, chance))
    as_array = p.double().numpy().astype(FLOATS[chance])
    tensor = torch.empty(20, 30, dtype=getattr(torch, kind)).bernoulli_(p, generator=theirs)
    check(draw.bernoulli((20, 30), KINDS[kind], ours, as_array), tensor, ours, theirs)
    tensor = torch.empty(20, 30, dtype=getattr(torch, kind)).bernoulli_(p[3], generator=theirs)
    check(draw.bernoulli((20, 30), KINDS[kind], ours, as_array[3]), tensor, ours, theirs)


def test_bernoulli_errors():
    message = r"bernoulli_ expects p to be in \[0, 1\], but got p="
    for p in (1.5, -0.1, float("nan")):
        with pytest.raises(RuntimeError, match=message):
            draw.bernoulli((3,), np.float32, None, p)
        with pytest.raises(RuntimeError, match=message):
            torch.empty(3).bernoulli_(p)
        with pytest.raises(RuntimeError, match="Expected p_in >= 0 && p_in <= 1 to be true"):
            draw.bernoulli((1,), np.float32, None, np.array([p]))
        with pytest.raises(RuntimeError, match="Expected p_in >= 0 && p_in <= 1 to be true"):
            torch.bernoulli(torch.tensor([p]))
    message = "\"bernoulli_tensor_cpu_p_\" not implemented for 'Long'"
    with pytest.raises(NotImplementedError, match=message):
        draw.bernoulli((1,), np.float32, None, np.array([1]))
    with pytest.raises(NotImplementedError, match=message):
        torch.empty(1).bernoulli_(torch.tensor([1]))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "bool"])
def test_geometric(kind):
    ours, theirs = pair(4)
    for n in SIZES:
        tensor = torch.empty(n, dtype=getattr(torch, kind)).geometric_(0.2, generator=theirs)
        check(draw.geometric((n,), KINDS[kind], ours, 0.2), tensor, ours, theirs)
    for p in (0, 1):
        with pytest.raises(RuntimeError, match=rf"expects p to be in \(0, 1\), but got p={p}"):
            draw.geometric((3,), KINDS[kind], ours, p)
        with pytest.raises(RuntimeError, match=rf"expects p to be in \(0, 1\), but got p={p}"):
            torch.empty(3, dtype=getattr(torch, kind)).geometric_(p)


def test_randperm_parity():
    ours, theirs = pair(6)
    for n in [*range(101), 1000, 4099, 100_000]:
        check(draw.randperm(n, np.int64, ours), torch.randperm(n, generator=theirs), ours, theirs)
    for kind in ("uint8", "int8", "int16", "int32", *FLOATS):
        expected = torch.randperm(100, generator=theirs, dtype=getattr(torch, kind))
        check(draw.randperm(100, KINDS[kind], ours), expected, ours, theirs)


def test_randperm_limits():
    for n, kind, message in (
        (-1, "int64", "Trying to create tensor with negative dimension -1"),
        (257, "uint8", "value cannot be converted to type .* without overflow"),
        (2050, "float16", "n cannot be greater than 2049 for Half type"),
    ):
        with pytest.raises(RuntimeError, match=message):
            draw.randperm(n, np.dtype(kind))
        with pytest.raises(RuntimeError, match=message):
            torch.randperm(n, dtype=getattr(torch, kind))
    assert len(draw.randperm(256, np.uint8)) == 256
    assert len(draw.randperm(2049, np.float16)) == 2049
    assert len(draw.randperm(300, np.dtype(ml_dtypes.bfloat16))) == 300


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000])
def test_shuffle_of_huge_n(n):
    """The algorithm for n that no test can afford, on small ones, against its loop."""
    words = np.random.default_rng(n).integers(0, 2**64, n, np.uint64)
    expected = np.empty(n, np.int64)
    for i in range(n):
        z = int(words[i]) % (i + 1)
        expected[i] = i
        expected[i] = expected[z]
        expected[z] = i
    assert np.array_equal(draw._inside_out(words), expected)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("shape", [(7,), (4, 50), (1, 1), (3, 2000)])
@pytest.mark.parametrize("replacement", [False, True])
def test_multinomial(kind, shape, replacement):
    ours, theirs = pair(8)
    p = torch.rand(shape, generator=torch.Generator()).to(getattr(torch, kind))
    as_array = p.double().numpy().astype(FLOATS[kind])
    wide = kind in ("float32", "float64")  # half precision has ties, whose order is open
    for n in (1, min(5, shape[-1]), shape[-1], 100):
        if not replacement and n > shape[-1]:
            continue
        expected = torch.multinomial(p, n, replacement, generator=theirs)
        found = draw.multinomial(as_array, n, replacement, ours)
        assert same_state(ours, theirs)
        assert found.dtype == np.int64 and found.shape == tuple(expected.shape)
        if replacement or wide:
            assert np.array_equal(found, expected.numpy())


def test_multinomial_with_few_weights():
    found = draw.multinomial(np.array([0.0, 0.0, 1.0], np.float32), 2)
    assert found.tolist() == torch.multinomial(torch.tensor([0.0, 0.0, 1.0]), 2).tolist() == [2, 0]
    for replacement in (False, True):
        shape = torch.multinomial(torch.empty(0, 3), 2, replacement).shape
        assert draw.multinomial(np.empty((0, 3), np.float32), 2, replacement).shape == shape


@pytest.mark.parametrize(
    "weights, n, replacement, message",
    [
        ([1.0, 1.0, 1.0], 0, False, "cannot sample n_sample <= 0 samples"),
        ([1.0, 1.0, 1.0], 4, False,
         r"cannot sample n_sample > prob_dist.size\(-1\) samples without replacement"),
        ([[[1.0]]], 1, False, "prob_dist must be 1 or 2 dim"),
        (1.0, 1, False, "prob_dist must be 1 or 2 dim"),
        ([1.0, -1.0], 1, False, "probability tensor contains either `inf`, `nan` or element < 0"),
        ([1.0, float("inf")], 1, True, "probability tensor contains either `inf`, `nan` or"),
        ([1.0, float("nan")], 2, False, "probability tensor contains either `inf`, `nan` or"),
        ([1.0, -1.0], 2, True, r"distribution \(encountering probability entry < 0\)"),
        ([1.0, float("nan")], 2, True, r"\(encountering probability entry < 0"),
        ([1.0, float("inf")], 2, True, r"\(encountering probability entry = infinity or NaN\)"),
        ([0.0, 0.0], 1, False, r"invalid multinomial distribution \(sum of probabilities <= 0\)"),
        ([0.0, 0.0], 2, True, r"invalid multinomial distribution \(sum of probabilities <= 0\)"),
        ([], 2, True, r"invalid multinomial distribution \(sum of probabilities <= 0\)"),
        ([0, 1], 1, False, "multinomial only supports floating-point dtypes for input, got: Long"),
    ],
)  # fmt: skip
def test_multinomial_errors(weights, n, replacement, message):
    tensor = torch.tensor(weights)
    with pytest.raises(RuntimeError, match=message):
        draw.multinomial(tensor.numpy(), n, replacement)
    with pytest.raises(RuntimeError, match=message):
        torch.multinomial(tensor, n, replacement)


def test_counter_stream():
    generator = Generator(EMULATED).manual_seed(5)
    there = {"device": EMULATED}
    found = draw.randint((60_000,), np.int64, generator, -2, 4, **there)
    assert np.abs(np.bincount(found + 2, minlength=6) - 10_000).max() < 500
    order = draw.randperm(1000, np.int32, generator, **there)
    assert order.dtype == np.int32 and sorted(order) == list(range(1000))
    assert not np.array_equal(order, np.arange(1000))
    coins = draw.bernoulli((40_000,), np.float32, generator, 0.3, **there)
    assert abs(coins.mean() - 0.3) < 0.02
    weights = np.array([[1.0, 2.0, 1.0], [0.0, 1.0, 0.0]])
    found = draw.multinomial(weights, 4000, True, generator, **there)
    assert abs((found[0] == 1).mean() - 0.5) < 0.05 and (found[1] == 1).all()
    found = draw.multinomial(weights, 1, generator=generator, **there)
    assert found[1, 0] == 1
    trials = draw.geometric((40_000,), np.int64, generator, 0.25, **there)
    assert abs(trials.mean() - 4) < 0.1
