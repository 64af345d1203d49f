"""Losses with the arguments of `torch.kl_div` and others."""

import pytest

import gpunn
import gpunn.nn.functional as F
from gpunn.nn import aten_loss

gpunn.manual_seed(0)
A, B, C = gpunn.randn(4, 3), gpunn.rand(4, 3), gpunn.randn(4, 3)
SIGN = gpunn.tensor([1, -1, 1, -1])
LOGS = gpunn.randn(5, 2, 4).log_softmax(-1)
CASES = {
    "binary_cross_entropy_with_logits": [(A, B), (A, B, C, B)],
    "cosine_embedding_loss": [(A, B, SIGN), (A, B, SIGN, 0.1)],
    "ctc_loss": [(LOGS, gpunn.tensor([[1, 2], [3, 0]]), (5, 4), (2, 1))],
    "hinge_embedding_loss": [(A, SIGN[:, None]), (A, SIGN[:, None], 0.3)],
    "kl_div": [(A, B)],
    "margin_ranking_loss": [(A, B, SIGN[:, None]), (A, B, SIGN[:, None], 0.1)],
    "poisson_nll_loss": [(A, B, True, True, 1e-8), (B, B, False, False, 0.1)],
    "triplet_margin_loss": [(A, B, C), (A, B, C, 0.5, 1.0, 0.1, True)],
}


def test_every_one_has_a_case():
    assert set(CASES) == set(aten_loss.__all__)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number, how", [(0, "none"), (1, "mean"), (2, "sum")])
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_a_reduction_by_its_number(name, number, how):
    for args in CASES[name]:
        plain = args
        options = {}
        if name == "binary_cross_entropy_with_logits":
            plain, options = args[:3], {"pos_weight": args[3]} if len(args) > 3 else {}
        elif name == "poisson_nll_loss":
            plain, options = args[:4], {"eps": args[4]}
        wanted = getattr(F, name)(*plain, reduction=how, **options)
        assert gpunn.equal(getattr(gpunn, name)(*args, reduction=number), wanted)


def test_the_divergence_warns_of_nothing():
    assert gpunn.kl_div(gpunn.zeros(1), gpunn.ones(1)).item() == 0
