"""What is in scope now, and the known differences from PyTorch, each with its reason.

A name in scope that is absent fails. A name of PyTorch's lists that is not in scope counts as
absent where gpunn does not have it, and is tested like any other where it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

#: Names (or patterns) of PyTorch's op_db, by group.
OPERATIONS = {
    "creation": """
        arange linspace logspace eye empty empty_like full full_like ones ones_like zeros
        zeros_like rand_like randn randn_like randint randint_like new_empty new_full new_ones
        new_zeros scalar_tensor normal bernoulli multinomial uniform exponential tril_indices
        triu_indices
        """,
    "casts": "bfloat16 bool byte char double float half int long short to",
    "elementwise": """
        abs acos acosh add addcdiv addcmul asin asinh atan atan2 atanh bitwise_* ceil clamp
        clamp_max clamp_min copysign cos cosh deg2rad digamma div eq erf erfc erfinv exp exp2
        expm1 floor floor_divide float_power fmax fmin fmod frac gcd ge gt heaviside hypot
        isclose isfinite isinf isnan isneginf isposinf isreal lcm ldexp le lerp lgamma log log10
        log1p log2 logaddexp logaddexp2 logical_* logit lt maximum minimum mul nan_to_num ne neg
        nextafter polygamma positive pow rad2deg reciprocal remainder round rsqrt rsub sgn
        sigmoid sign signbit sin sinc sinh sqrt square sub tan tanh true_divide trunc where
        xlogy angle complex conj* frexp i0 igamma igammac imag mvlgamma polar real resolve_*
        view_as_complex view_as_real special.* __r*__
        """,
    "reductions": """
        all amax amin aminmax any argmax argmin count_nonzero cummax cummin cumprod cumsum dist
        kthvalue logcumsumexp logsumexp max mean median min mode nanmean nanmedian nanquantile
        nansum norm prod quantile std std_mean sum var var_mean
        """,
    "shape": """
        T H mT mH as_strided atleast_1d atleast_2d atleast_3d block_diag broadcast_shapes
        broadcast_tensors broadcast_to cartesian_prod cat chunk clone column_stack combinations
        constant_pad_nd contiguous dsplit dstack expand expand_as fill flatten flip fliplr flipud
        hsplit hstack item meshgrid movedim narrow permute ravel repeat repeat_interleave reshape
        reshape_as resize_ resize_as_ roll rot90 select split split_with_sizes squeeze stack t
        tensor_split tile transpose unbind unflatten unfold unsqueeze view view_as vsplit vstack
        zero_
        """,
    "indexing": """
        __getitem__ argsort argwhere bincount bucketize diag diag_embed diagflat diagonal
        diagonal_scatter diff gather histc index_add index_copy index_fill index_put index_reduce
        index_select isin masked_fill masked_scatter masked_select msort nonzero put scatter
        scatter_add scatter_reduce searchsorted select_scatter slice_scatter sort take
        take_along_dim topk trace tril triu unique unique_consecutive
        """,
    "comparison": "allclose equal",
    "linear algebra": """
        addbmm addmm addmv addr baddbmm bmm cdist cholesky cholesky_inverse cholesky_solve cross
        dot einsum inner kron logdet matmul mm mv outer pinverse qr svd tensordot vdot
        linalg.cholesky linalg.cholesky_ex linalg.cond linalg.cross linalg.det linalg.diagonal
        linalg.eigh linalg.eigvalsh linalg.inv linalg.inv_ex linalg.lstsq linalg.matrix_norm
        linalg.matrix_power linalg.matrix_rank linalg.multi_dot linalg.norm linalg.pinv linalg.qr
        linalg.slogdet linalg.solve linalg.solve_triangular linalg.svd linalg.svdvals
        linalg.vecdot linalg.vector_norm
        """,
    "nn.functional": """
        softmax log_softmax
        nn.functional.bilinear nn.functional.binary_cross_entropy
        nn.functional.binary_cross_entropy_with_logits nn.functional.conv1d nn.functional.conv2d
        nn.functional.conv3d nn.functional.conv_transpose?d nn.functional.unfold
        nn.functional.cross_entropy nn.functional.dropout
        nn.functional.embedding nn.functional.embedding_bag nn.functional.gelu nn.functional.linear
        nn.functional.*pool*
        nn.functional.batch_norm nn.functional.group_norm nn.functional.instance_norm
        nn.functional.layer_norm nn.functional.local_response_norm nn.functional.rms_norm
        nn.functional.normalize nn.functional.one_hot nn.functional.pad nn.functional.relu
        nn.functional.*_loss nn.functional.kl_div nn.functional.linear_cross_entropy
        nn.functional.cosine_similarity nn.functional.pairwise_distance nn.functional.pdist
        nn.functional.scaled_dot_product_attention nn.functional.multi_head_attention_forward
        nn.functional.silu
        nn.functional.alpha_dropout nn.functional.celu nn.functional.dropout2d
        nn.functional.dropout3d nn.functional.elu nn.functional.feature_alpha_dropout
        nn.functional.glu nn.functional.hardshrink nn.functional.hardsigmoid
        nn.functional.hardswish nn.functional.hardtanh nn.functional.leaky_relu
        nn.functional.logsigmoid nn.functional.mish nn.functional.prelu
        nn.functional.relu6 nn.functional.rrelu nn.functional.selu nn.functional.softmin
        nn.functional.softplus nn.functional.softshrink nn.functional.softsign
        nn.functional.tanhshrink nn.functional.threshold
        nn.functional.pixel_shuffle nn.functional.pixel_unshuffle nn.functional.channel_shuffle
        nn.functional.grid_sample grid_sampler_2d grid_sampler_3d
        nn.functional.interpolate nn.functional.upsample_bilinear nn.functional.upsample_nearest
        """,
}

MODULES = """
    Linear Bilinear LazyLinear Embedding EmbeddingBag Conv1d Conv2d Conv3d
    ConvTranspose1d ConvTranspose2d ConvTranspose3d LazyConv1d LazyConv2d LazyConv3d
    LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d MaxPool2d AvgPool2d
    MaxPool1d MaxPool3d AvgPool1d AvgPool3d AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d
    AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d LPPool1d LPPool2d LPPool3d
    FractionalMaxPool2d FractionalMaxPool3d
    RNN LSTM GRU RNNCell LSTMCell GRUCell
    AdaptiveLogSoftmaxWithLoss AlphaDropout CELU Dropout1d Dropout2d Dropout3d ELU
    FeatureAlphaDropout GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish
    PReLU RReLU ReLU6 SELU Softmax2d Softmin Softplus Softshrink Softsign Tanhshrink Threshold
    ConstantPad1d ConstantPad2d ConstantPad3d ZeroPad1d ZeroPad2d ZeroPad3d ReflectionPad1d
    ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d
    CircularPad1d CircularPad2d CircularPad3d PixelShuffle PixelUnshuffle ChannelShuffle
    Upsample UpsamplingNearest2d UpsamplingBilinear2d
    ReLU GELU SiLU Tanh Sigmoid Softmax LogSoftmax Dropout CrossEntropyLoss NLLLoss MSELoss BCELoss
    BCEWithLogitsLoss L1Loss SmoothL1Loss HuberLoss PoissonNLLLoss GaussianNLLLoss KLDivLoss
    MarginRankingLoss HingeEmbeddingLoss SoftMarginLoss CosineEmbeddingLoss MultiLabelMarginLoss
    MultiLabelSoftMarginLoss MultiMarginLoss CTCLoss LinearCrossEntropyLoss
    Identity Flatten Unflatten BatchNorm1d BatchNorm2d BatchNorm3d GroupNorm
    InstanceNorm1d InstanceNorm2d InstanceNorm3d LayerNorm LocalResponseNorm RMSNorm
    MultiheadAttention Transformer TransformerEncoder TransformerEncoderLayer
    TransformerDecoderLayer
    """

OPTIMIZERS = "SGD Adam AdamW Adagrad Adadelta Adamax NAdam RAdam RMSprop Rprop ASGD LBFGS"

SCHEDULERS = """
    LambdaLR MultiplicativeLR StepLR MultiStepLR ConstantLR LinearLR ExponentialLR SequentialLR
    PolynomialLR CosineAnnealingLR ChainedScheduler ReduceLROnPlateau CyclicLR
    CosineAnnealingWarmRestarts OneCycleLR
    """

#: Operations whose values are not compared, only shapes, dtypes and structure.
VALUES_DIFFER = {
    "empty": "uninitialised memory",
    "empty_like": "uninitialised memory",
    "empty_permuted": "uninitialised memory",
    "empty_strided": "uninitialised memory",
    "new_empty": "uninitialised memory",
    "new_empty_strided": "uninitialised memory",
    "resize_": "uninitialised memory",
    "resize_as_": "uninitialised memory",
}

#: Multiples of the usual tolerance (compare.py), by dtype ("" for all).
TOLERANCE_FACTOR: dict[str, dict[str, float]] = {
    # PyTorch's own values are that far from the exact ones (gpunn's are compared with those of
    # mpmath and SciPy in tests/special).
    "polygamma": {"float32": 10},
    "special.polygamma": {"float32": 10},
    "special.airy_ai": {"float64": 50, "float32": 300, "int64": 300},
    "special.bessel_j0": {"float64": 50, "float32": 10},
    "special.bessel_j1": {"float64": 50, "float32": 10},
    "special.bessel_y0": {"float64": 50, "float32": 10},
    "special.bessel_y1": {"float64": 200, "float32": 10},
    "special.hermite_polynomial_h": {"float32": 10},
    "special.hermite_polynomial_he": {"float32": 10},
    # Scores of several hundred: an exponential makes much of the rounding of their last bit.
    "nn.functional.scaled_dot_product_attention": {"float32": 10},
    # Five roundings to 16 bits in a row: both are as far from the exact values as from each other.
    "nn.functional.multi_head_attention_forward": {"float16": 10, "bfloat16": 10},
    # Sums of a hundred products of up to 81 that nearly cancel, in another order.
    "nn.functional.conv_transpose3d": {"float32": 4, "complex64": 4},
    # Long products of reflections, and gradients of several hundred.
    "linalg.householder_product": {"float32": 20},
    # Products of three factors whose singular values nearly meet.
    "svd_lowrank": {"complex64": 20},
    # PyTorch keeps sums of squares of deviations in bfloat16 on their way to running_var.
    "nn.functional.instance_norm": {"bfloat16": 10},
    # The Newton-Schulz iteration runs in bfloat16: its rounding depends on the order of sums.
    "optim.Muon": {"float64": 1e5, "float32": 1e3},
    # Near the minimum its state holds differences of nearly equal numbers.
    "optim.LBFGS": {"float32": 1e2},
}

#: Random numbers: on a GPU they are Philox's, not those of PyTorch's generator on the CPU, so that
#: only shapes, dtypes and structure are compared there. (A sample with a probability of 0 is not
#: random; the low-rank decompositions start from a random matrix and are not exact.)
DRAWS = """
    bernoulli cauchy exponential geometric log_normal multinomial normal rand_like randint
    randint_like randn randn_like uniform nn.functional.*dropout* nn.functional.fractional_max_pool*
    nn.functional.rrelu nn.functional.multi_head_attention_forward
    nn.functional.scaled_dot_product_attention svd_lowrank pca_lowrank
    nn.*Dropout* nn.RReLU nn.MultiheadAttention nn.Transformer*
    """

#: Operations that run CUDA kernels of gpunn's own.
KERNELS = """
    softmax log_softmax nn.functional.*pool?d nn.functional.conv?d
    nn.functional.conv_transpose?d nn.functional.cross_entropy
    nn.functional.nll_loss nn.functional.embedding nn.functional.embedding_bag nn.functional.gelu
    nn.functional.silu nn.functional.batch_norm nn.functional.group_norm
    nn.functional.instance_norm nn.functional.layer_norm nn.functional.rms_norm
    nn.functional.dropout nn.functional.scaled_dot_product_attention index_add index_put
    scatter_add
    """

#: On a GPU: multiples of the usual tolerances.
GPU_TOLERANCE_FACTOR = {
    "nn.functional.conv1d": 4,  # sums of hundreds of products, in the order of the tiles
    "nn.functional.conv2d": 4,
    "nn.functional.conv3d": 4,
    "nn.functional.conv_transpose1d": 4,
    "nn.functional.conv_transpose2d": 4,
    "nn.functional.conv_transpose3d": 4,
}

#: Operations that may name any of several equal elements: indices are compared where the input
#: holds no value twice, or where a stable order is asked for.
ANY_OF_EQUALS = {"argsort", "kthvalue", "median", "mode", "nanmedian", "sort", "topk"}

#: Operations where the bare result is unique only up to a sign or a rotation: values are
#: compared after the sample's own output_process_fn_grad (gradients always are).
UP_TO_SIGN = {"svd", "linalg.svd", "linalg.eigh", "linalg.eig", "svd_lowrank", "pca_lowrank"}

#: Left out everywhere: dtype -> patterns of operations, with the reason.
DTYPES_OUT: dict[str, tuple[str, str]] = {}


@dataclass(frozen=True)
class Known:
    """A real difference: the patterns that say which failures it covers, and why it is."""

    name: str
    reason: str
    kind: str = "*"
    dtype: str = "*"
    text: str = ""

    def covers(self, name: str, failure: Any) -> bool:
        return (
            fnmatchcase(name, self.name)
            and fnmatchcase(failure.kind, self.kind)
            and fnmatchcase(failure.dtype, self.dtype)
            and re.search(self.text, f"{failure.sample} {failure.text}") is not None
        )


KNOWN = [
    Known(
        "special.zeta", "PyTorch gives NaN where every term of the sum underflows to 0",
        dtype="float32", text="0, PyTorch nan",
    ),
    *(
        Known(
            name,
            "LAPACK's builds order equal work differently: the eigenvalues come in another order",
            kind="value",
            dtype="complex64",
            text="values differ",
        )
        for name in ("linalg.eig", "linalg.eigvals")
    ),
    Known(
        "nn.functional.avg_pool3d",
        "PyTorch writes to the wrong places of an out= that is not contiguous",
        kind="out",
        text=r"out=\w+\[[\d,]+\]/strides",
    ),
    Known(
        "narrow_copy",
        "PyTorch writes to the wrong places of an out= that is not contiguous",
        kind="out",
        text=r"out=\w+\[[\d,]+\]/strides",
    ),
    Known(
        "as_strided_scatter",
        "PyTorch's gradient is wrong: its own gradient test is marked as expected to fail",
        kind="grad*",
    ),
    *(
        Known(
            name,
            "an out= of another shape is given new memory, which no input can share",
            kind="error",
            text="no error.*some elements of the input tensor and the written-to tensor",
        )
        for name in ("cat", "gather")
    ),
    Known(
        "nn.functional.linear_cross_entropy",
        "PyTorch's way in chunks has no second gradient, and does not say so",
        kind="gradgrad",
        text=r"(?s)chunked.*there is one, PyTorch has none",
    ),
    Known(
        "*",
        "a number where PyTorch's argument parser insists on a tensor is taken as one",
        kind="error",
        text=r"(?s)no error.*(got \(int, (Tensor|int)\)|must be Tensor, not int"
        r"|descriptor '__r\w+__' for|'int' object has no attribute)",
    ),
]


#: Differences that only a GPU shows.
KNOWN_ON_GPU = [
    Known(
        name,
        "the counts stay on the CPU, where each step reads them: no transfer to wait for",
        kind="state devices",
        text=text,
    )
    for name, text in (("optim.ASGD", ""), ("optim.Adagrad", "fused=True"))
]


def with_kernels(names: Iterable[str]) -> set[str]:
    """Those of the names that have CUDA kernels."""
    return {n for n in names if any(fnmatchcase(n, p) for p in KERNELS.split())}


def tolerance_factor(name: str, dtype: Any, on_gpu: bool = False) -> float:
    """The multiple of the usual tolerance for an operation and dtype."""
    factors = TOLERANCE_FACTOR.get(name, {})
    factor = factors.get(str(dtype).removeprefix("torch."), factors.get("", 1.0))
    return max(factor, GPU_TOLERANCE_FACTOR.get(name, 1.0)) if on_gpu else factor


def draws(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether the values of a sample are random."""
    if not any(fnmatchcase(name, p) for p in DRAWS.split()):
        return False
    probability = kwargs.get("dropout_p", 0.0 if name.endswith("attention") else 1.0)
    return probability > 0 and kwargs.get("p", 1.0) > 0 and kwargs.get("_random_samples") is None


def known(name: str, failure: Any) -> Known | None:
    """The known difference that covers a failure, or None."""
    return next((k for k in KNOWN + KNOWN_ON_GPU if k.covers(name, failure)), None)


def check_still_known(report: Any) -> None:
    """A known difference of this very name that no longer shows must be taken off the list."""
    for entry in KNOWN:
        if entry.name == report.name and report.checks:
            found = any(entry.covers(report.name, f) for f in report.known)
            gone = None if found else f"no longer differs: {entry.reason}"
            report.check("known difference", None, report.name, gone)
    report.close()


def operations(names: Iterable[str]) -> set[str]:
    """Those of the names of op_db that are in scope."""
    patterns = [p for text in OPERATIONS.values() for p in text.split()]
    return {n for n in names if any(fnmatchcase(n, p) for p in patterns)}


def out_of_scope(name: str, dtype: Any) -> bool:
    """Whether a dtype is left out for an operation."""
    patterns = DTYPES_OUT.get(str(dtype).removeprefix("torch."), ("", ""))[0].split()
    return any(fnmatchcase(name, p) for p in patterns)
