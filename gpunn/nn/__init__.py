"""Neural networks: modules, their functions (`nn.functional`) and initial values (`nn.init`).

Source: https://docs.pytorch.org/docs/stable/nn.html
"""

import typing as _typing

from gpunn.nn import functional as functional
from gpunn.nn import init as init
from gpunn.nn import parameter as parameter
from gpunn.nn.activation import GELU as GELU
from gpunn.nn.activation import ReLU as ReLU
from gpunn.nn.activation import Sigmoid as Sigmoid
from gpunn.nn.activation import SiLU as SiLU
from gpunn.nn.activation import Tanh as Tanh
from gpunn.nn.adaptive import AdaptiveLogSoftmaxWithLoss as AdaptiveLogSoftmaxWithLoss
from gpunn.nn.adaptive_pool import AdaptiveAvgPool1d as AdaptiveAvgPool1d
from gpunn.nn.adaptive_pool import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from gpunn.nn.adaptive_pool import AdaptiveAvgPool3d as AdaptiveAvgPool3d
from gpunn.nn.adaptive_pool import AdaptiveMaxPool1d as AdaptiveMaxPool1d
from gpunn.nn.adaptive_pool import AdaptiveMaxPool2d as AdaptiveMaxPool2d
from gpunn.nn.adaptive_pool import AdaptiveMaxPool3d as AdaptiveMaxPool3d
from gpunn.nn.container import Container as Container
from gpunn.nn.container import ModuleDict as ModuleDict
from gpunn.nn.container import ModuleList as ModuleList
from gpunn.nn.container import Sequential as Sequential
from gpunn.nn.conv_modules import Conv1d as Conv1d
from gpunn.nn.conv_modules import Conv2d as Conv2d
from gpunn.nn.conv_modules import Conv3d as Conv3d
from gpunn.nn.conv_modules import LazyConv1d as LazyConv1d
from gpunn.nn.conv_modules import LazyConv2d as LazyConv2d
from gpunn.nn.conv_modules import LazyConv3d as LazyConv3d
from gpunn.nn.conv_transpose import ConvTranspose1d as ConvTranspose1d
from gpunn.nn.conv_transpose import ConvTranspose2d as ConvTranspose2d
from gpunn.nn.conv_transpose import ConvTranspose3d as ConvTranspose3d
from gpunn.nn.conv_transpose import LazyConvTranspose1d as LazyConvTranspose1d
from gpunn.nn.conv_transpose import LazyConvTranspose2d as LazyConvTranspose2d
from gpunn.nn.conv_transpose import LazyConvTranspose3d as LazyConvTranspose3d
from gpunn.nn.cross_entropy import CrossEntropyLoss as CrossEntropyLoss
from gpunn.nn.cross_entropy import NLLLoss as NLLLoss
from gpunn.nn.ctc_loss import CTCLoss as CTCLoss
from gpunn.nn.distance import CosineSimilarity as CosineSimilarity
from gpunn.nn.distance import PairwiseDistance as PairwiseDistance
from gpunn.nn.dropout import Dropout as Dropout
from gpunn.nn.embedding import Embedding as Embedding
from gpunn.nn.embedding_bag import EmbeddingBag as EmbeddingBag
from gpunn.nn.factory import factory_kwargs as factory_kwargs
from gpunn.nn.feature_dropout import AlphaDropout as AlphaDropout
from gpunn.nn.feature_dropout import Dropout1d as Dropout1d
from gpunn.nn.feature_dropout import Dropout2d as Dropout2d
from gpunn.nn.feature_dropout import Dropout3d as Dropout3d
from gpunn.nn.feature_dropout import FeatureAlphaDropout as FeatureAlphaDropout
from gpunn.nn.fold import Fold as Fold
from gpunn.nn.fold import Unfold as Unfold
from gpunn.nn.fractional_pool import FractionalMaxPool2d as FractionalMaxPool2d
from gpunn.nn.fractional_pool import FractionalMaxPool3d as FractionalMaxPool3d
from gpunn.nn.gate import GLU as GLU
from gpunn.nn.group_norm import GroupNorm as GroupNorm
from gpunn.nn.instance_norm import InstanceNorm1d as InstanceNorm1d
from gpunn.nn.instance_norm import InstanceNorm2d as InstanceNorm2d
from gpunn.nn.instance_norm import InstanceNorm3d as InstanceNorm3d
from gpunn.nn.instance_norm import LazyInstanceNorm1d as LazyInstanceNorm1d
from gpunn.nn.instance_norm import LazyInstanceNorm2d as LazyInstanceNorm2d
from gpunn.nn.instance_norm import LazyInstanceNorm3d as LazyInstanceNorm3d
from gpunn.nn.interpolate import Upsample as Upsample
from gpunn.nn.interpolate import UpsamplingBilinear2d as UpsamplingBilinear2d
from gpunn.nn.interpolate import UpsamplingNearest2d as UpsamplingNearest2d
from gpunn.nn.layer_norm import LayerNorm as LayerNorm
from gpunn.nn.layer_norm import RMSNorm as RMSNorm
from gpunn.nn.likelihood_loss import GaussianNLLLoss as GaussianNLLLoss
from gpunn.nn.likelihood_loss import KLDivLoss as KLDivLoss
from gpunn.nn.likelihood_loss import NLLLoss2d as NLLLoss2d
from gpunn.nn.likelihood_loss import PoissonNLLLoss as PoissonNLLLoss
from gpunn.nn.linear import Bilinear as Bilinear
from gpunn.nn.linear import LazyLinear as LazyLinear
from gpunn.nn.linear import Linear as Linear
from gpunn.nn.linear_cross_entropy import LinearCrossEntropyLoss as LinearCrossEntropyLoss
from gpunn.nn.linear_cross_entropy import LinearCrossEntropyOptions as LinearCrossEntropyOptions
from gpunn.nn.local_response_norm import CrossMapLRN2d as CrossMapLRN2d
from gpunn.nn.local_response_norm import LocalResponseNorm as LocalResponseNorm
from gpunn.nn.loss import BCELoss as BCELoss
from gpunn.nn.loss import BCEWithLogitsLoss as BCEWithLogitsLoss
from gpunn.nn.loss import HuberLoss as HuberLoss
from gpunn.nn.loss import L1Loss as L1Loss
from gpunn.nn.loss import MSELoss as MSELoss
from gpunn.nn.loss import SmoothL1Loss as SmoothL1Loss
from gpunn.nn.lp_pool import LPPool1d as LPPool1d
from gpunn.nn.lp_pool import LPPool2d as LPPool2d
from gpunn.nn.lp_pool import LPPool3d as LPPool3d
from gpunn.nn.margin_loss import CosineEmbeddingLoss as CosineEmbeddingLoss
from gpunn.nn.margin_loss import HingeEmbeddingLoss as HingeEmbeddingLoss
from gpunn.nn.margin_loss import MarginRankingLoss as MarginRankingLoss
from gpunn.nn.margin_loss import MultiLabelMarginLoss as MultiLabelMarginLoss
from gpunn.nn.margin_loss import MultiLabelSoftMarginLoss as MultiLabelSoftMarginLoss
from gpunn.nn.margin_loss import MultiMarginLoss as MultiMarginLoss
from gpunn.nn.margin_loss import SoftMarginLoss as SoftMarginLoss
from gpunn.nn.module import Module as Module
from gpunn.nn.multihead import MultiheadAttention as MultiheadAttention
from gpunn.nn.norm import BatchNorm1d as BatchNorm1d
from gpunn.nn.norm import BatchNorm2d as BatchNorm2d
from gpunn.nn.norm import BatchNorm3d as BatchNorm3d
from gpunn.nn.norm import LazyBatchNorm1d as LazyBatchNorm1d
from gpunn.nn.norm import LazyBatchNorm2d as LazyBatchNorm2d
from gpunn.nn.norm import LazyBatchNorm3d as LazyBatchNorm3d
from gpunn.nn.pad import CircularPad1d as CircularPad1d
from gpunn.nn.pad import CircularPad2d as CircularPad2d
from gpunn.nn.pad import CircularPad3d as CircularPad3d
from gpunn.nn.pad import ConstantPad1d as ConstantPad1d
from gpunn.nn.pad import ConstantPad2d as ConstantPad2d
from gpunn.nn.pad import ConstantPad3d as ConstantPad3d
from gpunn.nn.pad import ReflectionPad1d as ReflectionPad1d
from gpunn.nn.pad import ReflectionPad2d as ReflectionPad2d
from gpunn.nn.pad import ReflectionPad3d as ReflectionPad3d
from gpunn.nn.pad import ReplicationPad1d as ReplicationPad1d
from gpunn.nn.pad import ReplicationPad2d as ReplicationPad2d
from gpunn.nn.pad import ReplicationPad3d as ReplicationPad3d
from gpunn.nn.pad import ZeroPad1d as ZeroPad1d
from gpunn.nn.pad import ZeroPad2d as ZeroPad2d
from gpunn.nn.pad import ZeroPad3d as ZeroPad3d
from gpunn.nn.parameter import Buffer as Buffer
from gpunn.nn.parameter import Parameter as Parameter
from gpunn.nn.parameter import UninitializedBuffer as UninitializedBuffer
from gpunn.nn.parameter import UninitializedParameter as UninitializedParameter
from gpunn.nn.parameter_container import ParameterDict as ParameterDict
from gpunn.nn.parameter_container import ParameterList as ParameterList
from gpunn.nn.pixel_shuffle import ChannelShuffle as ChannelShuffle
from gpunn.nn.pixel_shuffle import PixelShuffle as PixelShuffle
from gpunn.nn.pixel_shuffle import PixelUnshuffle as PixelUnshuffle
from gpunn.nn.pool import AvgPool1d as AvgPool1d
from gpunn.nn.pool import AvgPool2d as AvgPool2d
from gpunn.nn.pool import AvgPool3d as AvgPool3d
from gpunn.nn.pool import MaxPool1d as MaxPool1d
from gpunn.nn.pool import MaxPool2d as MaxPool2d
from gpunn.nn.pool import MaxPool3d as MaxPool3d
from gpunn.nn.rectifier import Hardshrink as Hardshrink
from gpunn.nn.rectifier import Hardsigmoid as Hardsigmoid
from gpunn.nn.rectifier import Hardswish as Hardswish
from gpunn.nn.rectifier import Hardtanh as Hardtanh
from gpunn.nn.rectifier import LeakyReLU as LeakyReLU
from gpunn.nn.rectifier import PReLU as PReLU
from gpunn.nn.rectifier import ReLU6 as ReLU6
from gpunn.nn.rectifier import RReLU as RReLU
from gpunn.nn.rectifier import Softshrink as Softshrink
from gpunn.nn.rectifier import Threshold as Threshold
from gpunn.nn.rnn import GRU as GRU
from gpunn.nn.rnn import LSTM as LSTM
from gpunn.nn.rnn import RNN as RNN
from gpunn.nn.rnn import RNNBase as RNNBase
from gpunn.nn.rnn_cell import GRUCell as GRUCell
from gpunn.nn.rnn_cell import LSTMCell as LSTMCell
from gpunn.nn.rnn_cell import RNNCell as RNNCell
from gpunn.nn.rnn_cell import RNNCellBase as RNNCellBase
from gpunn.nn.shape import Flatten as Flatten
from gpunn.nn.shape import Identity as Identity
from gpunn.nn.shape import Unflatten as Unflatten
from gpunn.nn.smooth import CELU as CELU
from gpunn.nn.smooth import ELU as ELU
from gpunn.nn.smooth import SELU as SELU
from gpunn.nn.smooth import LogSigmoid as LogSigmoid
from gpunn.nn.smooth import Mish as Mish
from gpunn.nn.smooth import Softplus as Softplus
from gpunn.nn.smooth import Softsign as Softsign
from gpunn.nn.smooth import Tanhshrink as Tanhshrink
from gpunn.nn.softmax import LogSoftmax as LogSoftmax
from gpunn.nn.softmax import Softmax as Softmax
from gpunn.nn.softmin import Softmax2d as Softmax2d
from gpunn.nn.softmin import Softmin as Softmin
from gpunn.nn.switchable_norm import SwitchableNorm1d as SwitchableNorm1d
from gpunn.nn.switchable_norm import SwitchableNorm2d as SwitchableNorm2d
from gpunn.nn.switchable_norm import SwitchableNorm3d as SwitchableNorm3d
from gpunn.nn.sync_norm import SyncBatchNorm as SyncBatchNorm
from gpunn.nn.transformer import Transformer as Transformer
from gpunn.nn.transformer import TransformerDecoder as TransformerDecoder
from gpunn.nn.transformer import TransformerDecoderLayer as TransformerDecoderLayer
from gpunn.nn.transformer import TransformerEncoder as TransformerEncoder
from gpunn.nn.transformer import TransformerEncoderLayer as TransformerEncoderLayer
from gpunn.nn.triplet import TripletMarginLoss as TripletMarginLoss
from gpunn.nn.triplet import TripletMarginWithDistanceLoss as TripletMarginWithDistanceLoss
from gpunn.nn.unpool import MaxUnpool1d as MaxUnpool1d
from gpunn.nn.unpool import MaxUnpool2d as MaxUnpool2d
from gpunn.nn.unpool import MaxUnpool3d as MaxUnpool3d

from gpunn.nn import modules as modules  # isort: skip  (names what is above)


if _typing.TYPE_CHECKING:
    from gpunn.nn import common_types as common_types
    from gpunn.nn import grad as grad
    from gpunn.nn import parallel as parallel
    from gpunn.nn import utils as utils
    from gpunn.nn.parallel import DataParallel as DataParallel


def __getattr__(name: str) -> _typing.Any:
    """`gpunn.nn.utils` and other parts that few scripts use, imported on first use."""
    import importlib

    if name in ("common_types", "grad", "parallel", "utils"):
        return importlib.import_module(f"gpunn.nn.{name}")
    if name == "DataParallel":
        return importlib.import_module("gpunn.nn.parallel").DataParallel
    raise AttributeError(f"module 'gpunn.nn' has no attribute '{name}'")
