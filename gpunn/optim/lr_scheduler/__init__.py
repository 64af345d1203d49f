"""Learning-rate schedules.

Source: https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate
"""

from gpunn.optim.lr_scheduler.base import LRScheduler as LRScheduler
from gpunn.optim.lr_scheduler.base import _LRScheduler as _LRScheduler
from gpunn.optim.lr_scheduler.compose import ChainedScheduler as ChainedScheduler
from gpunn.optim.lr_scheduler.compose import SequentialLR as SequentialLR
from gpunn.optim.lr_scheduler.cyclic import (
    CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts,
)
from gpunn.optim.lr_scheduler.cyclic import CyclicLR as CyclicLR
from gpunn.optim.lr_scheduler.cyclic import OneCycleLR as OneCycleLR
from gpunn.optim.lr_scheduler.plateau import ReduceLROnPlateau as ReduceLROnPlateau
from gpunn.optim.lr_scheduler.simple import ConstantLR as ConstantLR
from gpunn.optim.lr_scheduler.simple import CosineAnnealingLR as CosineAnnealingLR
from gpunn.optim.lr_scheduler.simple import ExponentialLR as ExponentialLR
from gpunn.optim.lr_scheduler.simple import LambdaLR as LambdaLR
from gpunn.optim.lr_scheduler.simple import LinearLR as LinearLR
from gpunn.optim.lr_scheduler.simple import MultiplicativeLR as MultiplicativeLR
from gpunn.optim.lr_scheduler.simple import MultiStepLR as MultiStepLR
from gpunn.optim.lr_scheduler.simple import PolynomialLR as PolynomialLR
from gpunn.optim.lr_scheduler.simple import StepLR as StepLR

__all__ = [
    "LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR",
    "ExponentialLR", "SequentialLR", "CosineAnnealingLR", "ChainedScheduler", "ReduceLROnPlateau",
    "CyclicLR", "CosineAnnealingWarmRestarts", "OneCycleLR", "PolynomialLR", "LRScheduler",
]  # fmt: skip
