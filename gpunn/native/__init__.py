"""The CPU's C++ code (kernels/*.cpp): loading it, and one thin function for each thing it does.

The functions take and return NumPy arrays, and return None where there is no library or it does
not serve the dtype: the caller then lets NumPy do the work.
"""

from gpunn.native.attention import attention_backward, attention_forward, attention_marks
from gpunn.native.conv import conv_forward, conv_input_grad, conv_size, conv_weight_grad
from gpunn.native.dropout import coins, dropout
from gpunn.native.elementwise import add, add_to_rows, column_sums, unary, unary_grad
from gpunn.native.embedding import embedding_backward, embedding_forward
from gpunn.native.loader import (
    get_num_threads,
    kernels_dir,
    levels,
    lib,
    set_num_threads,
    source,
    status,
)
from gpunn.native.norm import (
    batch_norm_apply,
    batch_norm_backward,
    batch_norm_stats,
    row_norm_backward,
    row_norm_forward,
)
from gpunn.native.optim import adam_step, sgd_step, square_sum
from gpunn.native.pointwise import pointwise, pointwise_grad
from gpunn.native.pool import (
    avg_pool_backward,
    avg_pool_forward,
    max_pool_backward,
    max_pool_forward,
)
from gpunn.native.softmax import (
    cross_entropy_backward,
    cross_entropy_forward,
    log_softmax_backward,
    log_softmax_forward,
    softmax_backward,
    softmax_forward,
)

__all__ = [
    "adam_step",
    "add",
    "add_to_rows",
    "attention_backward",
    "attention_forward",
    "attention_marks",
    "avg_pool_backward",
    "avg_pool_forward",
    "batch_norm_apply",
    "batch_norm_backward",
    "batch_norm_stats",
    "coins",
    "column_sums",
    "conv_forward",
    "conv_input_grad",
    "conv_size",
    "conv_weight_grad",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "dropout",
    "embedding_backward",
    "embedding_forward",
    "get_num_threads",
    "kernels_dir",
    "levels",
    "lib",
    "log_softmax_backward",
    "log_softmax_forward",
    "max_pool_backward",
    "max_pool_forward",
    "pointwise",
    "pointwise_grad",
    "row_norm_backward",
    "row_norm_forward",
    "set_num_threads",
    "sgd_step",
    "softmax_backward",
    "softmax_forward",
    "source",
    "square_sum",
    "status",
    "unary",
    "unary_grad",
]
