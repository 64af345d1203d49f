"""einsum, tensordot, kron, cross."""

import numpy as np
import pytest
from check import check

import gpunn

rng = np.random.default_rng(0)


def arrays(*shapes):
    return [np.asarray(rng.normal(size=s)) for s in shapes]


@pytest.mark.parametrize(
    "equation, shapes",
    [
        ("i,j->ij", ((2,), (3,))),
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("ij,kj", ((2, 3), (4, 3))),
        ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
        ("bhid,bhjd->bhij", ((2, 2, 3, 4), (2, 2, 5, 4))),
        ("bihd,bjhd->bhij", ((2, 3, 2, 4), (2, 5, 2, 4))),
        ("ij,ij->", ((2, 3), (2, 3))),
        ("ij,ij->ij", ((2, 3), (2, 3))),
        ("ii->i", ((3, 3),)),
        ("ii", ((3, 3),)),
        ("iij->j", ((3, 3, 2),)),
        ("ij->ji", ((2, 3),)),
        ("ij->", ((2, 3),)),
        ("...i,...i->...", ((2, 3, 4), (3, 4))),
        ("...ij,jk->...ik", ((2, 5, 3, 4), (4, 2))),
        ("i...->...i", ((2, 3, 4),)),
        ("i...", ((2, 3),)),
        ("a b , b c -> a c", ((2, 3), (3, 2))),
        ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 2))),
        ("ij,ik,il->jkl", ((2, 3), (2, 4), (2, 5))),
        ("bn,anm,bm->ba", ((2, 3), (4, 3, 5), (2, 5))),
        ("ij,kl->i", ((2, 3), (4, 5))),
        ("ik,jk->ij", ((2, 1), (3, 1))),
        (",i->i", ((), (3,))),
        ("iji,j->i", ((2, 3, 2), (3,))),
    ],
)
def test_einsum(equation, shapes):
    given = equation.replace(" ", "")
    check(
        lambda *x: gpunn.einsum(equation, *x), arrays(*shapes),
        lambda *x: np.einsum(given, *x), rtol=5e-2,
    )  # fmt: skip


def test_lengths_of_one_are_broadcast():
    a, b = gpunn.arange(2.0).reshape(2, 1), gpunn.ones(2, 3)
    assert gpunn.einsum("ij,ij->ij", a, b).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert gpunn.einsum("ij,ij->i", a, b).tolist() == [0, 3]
    assert gpunn.einsum("ij,ij->i", b, a).tolist() == [0, 3]
    x, y = (gpunn.tensor(v, requires_grad=True) for v in arrays((2, 1), (2, 3)))
    assert gpunn.autograd.gradcheck(lambda x, y: gpunn.einsum("ij,ij->i", x, y), (x, y))
    assert gpunn.autograd.gradcheck(lambda x, y: gpunn.einsum("ij,ij->ij", x, y), (x, y))


def test_the_other_ways_to_call_it():
    a, b = gpunn.ones(2, 3), gpunn.ones(3, 4)
    wanted = (a @ b).tolist()
    assert gpunn.einsum("ij,jk", [a, b]).tolist() == wanted
    assert gpunn.einsum(a, [0, 1], b, [1, 2]).tolist() == wanted
    assert gpunn.einsum(a, [30, 1], b, [1, 2], [2, 30]).T.tolist() == wanted
    assert gpunn.einsum(a, [..., 1], b, [1, 2], [..., 2]).tolist() == wanted


def test_complex_gradients():
    x, y = (
        gpunn.tensor(a + 1j * b, requires_grad=True)
        for a, b in (arrays((2, 3), (2, 3)), arrays((3, 2), (3, 2)))
    )
    assert gpunn.autograd.gradcheck(lambda x, y: gpunn.einsum("ij,jk->ki", x, y), (x, y))
    assert gpunn.autograd.gradgradcheck(lambda x, y: gpunn.einsum("ij,jk->ki", x, y), (x, y))


@pytest.mark.parametrize(
    "equation, shapes, message",
    [
        ("ij,jk", ((2, 2),), "fewer operands were provided than specified"),
        ("ij", ((2, 2), (2, 2)), "more operands were provided than specified"),
        ("ijk", ((2, 2),), r"subscripts in the equation \(3\) does not match .* dimensions \(2\)"),
        ("i", ((2, 2),), "for operand 0 and no ellipsis was given"),
        ("ijk...", ((2, 2),), r"\(3\) is more than the number of dimensions \(2\)"),
        ("ij->ijk", ((2, 2),), "output subscript k does not appear in the equation"),
        ("ij->ii", ((2, 2),), "output subscript i appears more than once in the output"),
        ("i.j->i", ((2, 2),), "found '.' for operand 0 that is not part of any ellipsis"),
        ("i...j...", ((2, 2),), "found '.' for operand 0 for which an ellipsis was already found"),
        ("i1", ((2, 2),), "invalid subscript given at index 1 in the equation string"),
        ("ij->i-", ((2, 2),), "invalid subscript given at index 5"),
        ("ij,ij", ((2, 2), (3, 2)), "subscript i has size 3 for operand 1 which does not broad"),
        ("ii", ((3, 2),), "subscript i is repeated for operand 0 but the sizes don't match, 2 !="),
        ("...,...", ((3, 2), (2, 2)), "covered by ellipsis in operand 1"),
    ],
)
def test_equations_that_do_not_fit(equation, shapes, message):
    with pytest.raises(RuntimeError, match=r"einsum\(\): .*" + message):
        gpunn.einsum(equation, *(gpunn.ones(s) for s in shapes))


def test_calls_that_do_not_fit():
    for args in (("ij",), ("", []), (12,), ("i", 3)):
        with pytest.raises(ValueError, match="must specify the equation string and at least one"):
            gpunn.einsum(*args)
    with pytest.raises(ValueError, match="not within the valid range"):
        gpunn.einsum(gpunn.ones(2), [60])
    with pytest.raises(RuntimeError, match="expected scalar type Float but found Double"):
        gpunn.einsum("i,i", gpunn.ones(2), gpunn.ones(2).double())


def test_integers():
    x = gpunn.full((2, 3), 200, dtype=gpunn.uint8)
    assert gpunn.einsum("ij->i", x).tolist() == [600, 600]
    assert gpunn.einsum("ij->ij", x).dtype is gpunn.uint8
    assert gpunn.tensordot(x, x).dtype is gpunn.uint8


@pytest.mark.parametrize(
    "shapes, dims",
    [
        (((2, 3, 4), (3, 4, 5)), 2),
        (((2, 3), (3, 4)), 1),
        (((2, 3), (4,)), 0),
        (((2, 3, 4), (4, 3)), ([2, 1], [0, 1])),
        (((2, 3, 4), (5, 3)), ([-2], [-1])),
    ],
)
def test_tensordot(shapes, dims):
    check(
        lambda a, b: gpunn.tensordot(a, b, dims), arrays(*shapes),
        lambda a, b: np.tensordot(a, b, dims), rtol=5e-2,
    )  # fmt: skip


def test_tensordot_that_does_not_fit():
    a = gpunn.ones(2, 3)
    assert gpunn.tensordot(a, a, gpunn.tensor([[0], [0]])).shape == (3, 3)
    assert gpunn.tensordot(gpunn.ones(1, 3), a, ([0], [0])).tolist() == [[2] * 3] * 3
    for dims, error, message in (
        (1, RuntimeError, "first has size 3 in dim 1 and second has size 2 in dim 0"),
        (3, RuntimeError, "tensordot expects dims < ndim_a or ndim_b, but got dims=3"),
        (-1, RuntimeError, "tensordot expects dims >= 0, but got dims=-1"),
        (([0], [0, 1]), RuntimeError, "both dimension lists should have same length"),
        (([5], [0]), IndexError, "Dimension out of range"),
    ):
        with pytest.raises(error, match=message):
            gpunn.tensordot(a, a, dims)
    with pytest.raises(RuntimeError, match="same dtype"):
        gpunn.tensordot(a, a.double())


def test_kron():
    for shapes in (((2, 3), (4, 1)), ((3,), (2, 2)), ((), (2,)), ((2, 1, 3), (2,))):
        check(gpunn.kron, arrays(*shapes), np.kron)
    out = gpunn.empty(4)
    assert gpunn.kron(gpunn.ones(2), gpunn.ones(2), out=out) is out


def test_cross():
    check(gpunn.cross, arrays((2, 3), (2, 3)), np.cross)
    check(lambda a, b: gpunn.cross(a, b, 0), arrays((3, 2), (3, 1)),
          lambda a, b: np.cross(a, b, axis=0))  # fmt: skip
    with pytest.raises(RuntimeError, match="no dimension of size 3 in input"):
        gpunn.cross(gpunn.ones(2, 4), gpunn.ones(2, 4))
    with pytest.raises(RuntimeError, match="dimension 0 must have length 3. Got 2 and 2"):
        gpunn.cross(gpunn.ones(2, 3), gpunn.ones(2, 3), 0)
    with pytest.raises(RuntimeError, match="'Bool'"):
        gpunn.cross(gpunn.ones(3).bool(), gpunn.ones(3).bool())
