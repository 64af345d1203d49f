"""Optimizers, learning-rate schedules (`lr_scheduler`) and averaged models (`swa_utils`).

Source: https://docs.pytorch.org/docs/stable/optim.html
"""

from gpunn.optim import lr_scheduler as lr_scheduler
from gpunn.optim import swa_utils as swa_utils
from gpunn.optim.adadelta import Adadelta as Adadelta
from gpunn.optim.adafactor import Adafactor as Adafactor
from gpunn.optim.adagrad import Adagrad as Adagrad
from gpunn.optim.adam import Adam as Adam
from gpunn.optim.adamax import Adamax as Adamax
from gpunn.optim.adamw import AdamW as AdamW
from gpunn.optim.asgd import ASGD as ASGD
from gpunn.optim.lbfgs import LBFGS as LBFGS
from gpunn.optim.muon import Muon as Muon
from gpunn.optim.nadam import NAdam as NAdam
from gpunn.optim.optimizer import Optimizer as Optimizer
from gpunn.optim.radam import RAdam as RAdam
from gpunn.optim.rmsprop import RMSprop as RMSprop
from gpunn.optim.rprop import Rprop as Rprop
from gpunn.optim.sgd import SGD as SGD
from gpunn.optim.sparse_adam import SparseAdam as SparseAdam
from gpunn.optim.stateless import (
    swap_in_optimizer_params_and_state as swap_in_optimizer_params_and_state,
)

__all__ = [
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon",
    "NAdam", "Optimizer", "RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam", "lr_scheduler",
    "swa_utils", "swap_in_optimizer_params_and_state",
]  # fmt: skip
