"""Dropout's mask: PyTorch's bits, kept or drawn again, at every size."""

import numpy as np
import pytest

import gpunn
from gpunn.device import CPU
from gpunn.nn.attention_dropout import Redrawn, draw_kept, philox_keep

SHAPES = [(3, 5), (2, 3, 100, 200), (2, 1, 400), (2, 65, 300), (1, 2, 130, 257), (1, 1, 1 << 15)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("words", [0, 1, 623])
def test_the_mask_is_pytorch_s_and_so_is_the_stream_after_it(shape, words):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    gpunn.manual_seed(7), torch.manual_seed(7)
    gpunn.rand(words), torch.rand(words)
    kept = draw_kept(shape, 0.3, CPU)
    if isinstance(kept, Redrawn):
        assert kept.marks.size < 0.2 * np.prod(shape)  # numbers of 4 bytes against bytes
        kept = kept.whole()
    want = torch.empty(shape).bernoulli_(0.3).bool()
    np.testing.assert_array_equal(kept, want)
    assert gpunn.rand(3).tolist() == torch.rand(3).tolist()


def test_blocks_of_a_mask_that_is_drawn_again():
    kept = draw_kept((2, 3, 200, 300), 0.5, CPU)
    assert isinstance(kept, Redrawn)
    whole = kept.whole().reshape(6, 200, 300)
    for heads, rows in [((0, 6), (0, 200)), ((1, 3), (64, 192)), ((5, 6), (128, 200))]:
        block = kept.block(slice(*heads), slice(*rows))
        np.testing.assert_array_equal(block, whole[slice(*heads), slice(*rows)])


def test_nothing_is_drawn_where_all_or_none_are_kept():
    gpunn.manual_seed(0)
    assert draw_kept((3, 3), 1.0, CPU) is None
    assert not draw_kept((3, 3), 0.0, CPU).any()
    first = gpunn.rand(1)
    gpunn.manual_seed(0)
    assert gpunn.equal(first, gpunn.rand(1))


def test_the_mask_of_the_gpu():
    """Words of whole tiles, so that the rest of a matrix does not depend on its edge."""
    kept = philox_keep(7, 12, (2, 40, 35), 0.25)
    assert kept.shape == (2, 40, 35) and abs(kept.mean() - 0.25) < 0.03
    np.testing.assert_array_equal(kept[0, :, :33], philox_keep(7, 12, (1, 40, 33), 0.25)[0])
    np.testing.assert_array_equal(kept[1], philox_keep(7, 12 + 9 * 64, (40, 35), 0.25))
    assert philox_keep(0, 0, (3, 3), 1.0).all() and not philox_keep(0, 0, (3, 3), 0.0).any()
