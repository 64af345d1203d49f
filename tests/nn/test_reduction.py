"""The `reduction` argument of all losses."""

import pytest

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

LOSSES = [nn.MSELoss, nn.BCELoss, nn.BCEWithLogitsLoss, nn.CrossEntropyLoss, nn.NLLLoss]


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    "average, reduce, name", [(False, None, "sum"), (True, True, "mean"), (None, False, "none")]
)
def test_deprecated_arguments_are_translated(kind, average, reduce, name):
    with pytest.warns(UserWarning, match=f"reduction='{name}'"):
        assert kind(size_average=average, reduce=reduce).reduction == name


def test_an_unknown_reduction_is_named():
    with pytest.raises(ValueError, match="avg is not a valid value for reduction"):
        F.mse_loss(gpunn.zeros(1), gpunn.zeros(1), reduction="avg")
