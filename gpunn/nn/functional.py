"""The functions of layers: PyTorch's `torch.nn.functional`. Each lives with its layer."""

from gpunn.nn.activation import relu as relu
from gpunn.nn.activation import relu_ as relu_
from gpunn.nn.activation import sigmoid as sigmoid
from gpunn.nn.activation import tanh as tanh
from gpunn.nn.conv import conv1d as conv1d
from gpunn.nn.conv import conv2d as conv2d
from gpunn.nn.conv import conv3d as conv3d
from gpunn.nn.dropout import dropout as dropout
from gpunn.nn.embedding import embedding as embedding
from gpunn.nn.embedding import embedding_bag as embedding_bag
from gpunn.nn.linear import bilinear as bilinear
from gpunn.nn.linear import linear as linear
from gpunn.nn.loss import binary_cross_entropy as binary_cross_entropy
from gpunn.nn.loss import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
from gpunn.nn.loss import cross_entropy as cross_entropy
from gpunn.nn.loss import mse_loss as mse_loss
from gpunn.nn.loss import nll_loss as nll_loss
from gpunn.nn.pad import pad as pad
from gpunn.nn.pool import avg_pool1d as avg_pool1d
from gpunn.nn.pool import avg_pool2d as avg_pool2d
from gpunn.nn.pool import avg_pool3d as avg_pool3d
from gpunn.nn.pool import max_pool1d as max_pool1d
from gpunn.nn.pool import max_pool2d as max_pool2d
from gpunn.nn.pool import max_pool3d as max_pool3d
from gpunn.nn.softmax import log_softmax as log_softmax
from gpunn.nn.softmax import softmax as softmax
