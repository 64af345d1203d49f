"""The `reduction` argument of all losses."""

import pytest

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

LOSSES = [
    nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.BCELoss, nn.BCEWithLogitsLoss, nn.CrossEntropyLoss,
    nn.NLLLoss, nn.PoissonNLLLoss, nn.KLDivLoss, nn.MarginRankingLoss, nn.HingeEmbeddingLoss,
    nn.SoftMarginLoss, nn.CosineEmbeddingLoss, nn.MultiLabelMarginLoss, nn.MultiLabelSoftMarginLoss,
    nn.MultiMarginLoss, nn.TripletMarginLoss,
]  # fmt: skip
PAIRS = [
    "mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "poisson_nll_loss", "kl_div", "hinge_embedding_loss",
    "soft_margin_loss", "multilabel_soft_margin_loss",
]  # fmt: skip


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    "average, reduce, name", [(False, None, "sum"), (True, True, "mean"), (None, False, "none")]
)
def test_deprecated_arguments_are_translated(kind, average, reduce, name):
    with pytest.warns(UserWarning, match=f"reduction='{name}'"):
        assert kind(size_average=average, reduce=reduce).reduction == name


@pytest.mark.parametrize("name", PAIRS)
def test_functions_take_them_too(name):
    loss, ones = getattr(F, name), gpunn.ones(3)
    with pytest.warns(UserWarning, match="please use reduction='sum'"):
        total = loss(ones, ones, size_average=False)
    assert total.tolist() == loss(ones, ones, reduction="sum").tolist()


@pytest.mark.parametrize("name", PAIRS)
def test_an_unknown_reduction_is_named(name):
    with pytest.raises(ValueError, match="avg is not .*valid"):
        getattr(F, name)(gpunn.zeros(1), gpunn.zeros(1), reduction="avg")
