"""Which operations run in which dtype inside `autocast`: one table for CUDA, one for the CPU.

The names are those of PyTorch's operators, and of gpunn's functions where one of them does the
work of several (`cross_entropy`). An operation that is on no list takes its operands as they are.

Source: https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference
"""

from __future__ import annotations

LOW = "low"  # float operands are cast to the context's 16-bit dtype
FLOAT = "float"  # float operands are cast to float32
FLOAT_SUM = "float sum"  # as FLOAT, unless the call says dtype=
FIRST = "first"  # float operands are cast to the first one's dtype
WIDEST = "widest"  # float operands are cast to float32 where one of them is, else left in 16 bits
AS_IS = "as is"  # float operands are left alone; gpunn makes it of operations that are listed
BANNED = "banned"  # an error: in 16 bits the operation cannot be relied on

_PRODUCTS = """
    addbmm addmm baddbmm bmm conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d
    conv_transpose3d linalg_vecdot linear matmul mm prelu scaled_dot_product_attention
"""
_LOSSES = """
    binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy hinge_embedding_loss
    huber_loss kl_div l1_loss margin_ranking_loss mse_loss multi_margin_loss
    multilabel_margin_loss nll_loss poisson_nll_loss smooth_l1_loss soft_margin_loss
    triplet_margin_loss
"""


def _policies(names: dict[str, str]) -> dict[str, str]:
    """The policy of each name, of the names that each policy has."""
    return {name: policy for policy, text in names.items() for name in text.split()}


CUDA = _policies({
    LOW: _PRODUCTS + """
        addmv addr chain_matmul convolution einsum gru gru_cell linalg_multi_dot lstm lstm_cell mv
        rnn rnn_cell
    """,
    FLOAT: _LOSSES + """
        acos asin cdist cosh cosine_similarity dist erfinv exp expm1 group_norm interpolate
        layer_norm log log10 log1p log2 logsumexp norm pdist pow reciprocal renorm rms_norm rsqrt
        sinh softplus tan
    """,
    FLOAT_SUM: """
        cumprod cumsum linalg_matrix_norm linalg_vector_norm log_softmax prod softmax sum
    """,
    WIDEST: """
        addcdiv addcmul atan2 bilinear cross dot grid_sampler index_put scatter_add tensordot vdot
    """,
    AS_IS: "ldexp linalg_lu_solve nanmean nansum trace",
    BANNED: "binary_cross_entropy",
})  # fmt: skip

CPU = _policies({
    LOW: _PRODUCTS + "lstm rnn",
    FLOAT: _LOSSES + """
        adaptive_avg_pool3d adaptive_max_pool3d avg_pool3d binary_cross_entropy cdist cholesky
        cholesky_inverse cholesky_solve ctc_loss fractional_max_pool2d fractional_max_pool3d geqrf
        grid_sampler linalg_cholesky linalg_cholesky_ex linalg_cond linalg_eig linalg_eigh
        linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv linalg_inv_ex
        linalg_lstsq linalg_matrix_rank linalg_qr linalg_solve linalg_svd linalg_svdvals
        linalg_tensorinv linalg_tensorsolve lu lu_solve max_pool3d max_unpool2d max_unpool3d
        nanquantile ormqr pinverse polar prod qr quantile reflection_pad1d reflection_pad2d
        replication_pad1d replication_pad2d replication_pad3d svd trace triangular_solve
        view_as_complex
    """,
    FIRST: "gru",
    WIDEST: "cat index_copy stack",
    AS_IS: "bilinear linalg_lu_solve",
})  # fmt: skip

POLICIES = {"cuda": CUDA, "cpu": CPU}
NAMES = frozenset(CUDA) | frozenset(CPU)
