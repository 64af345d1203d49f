"""gpunn: PyTorch's neural-network API in pure Python over NumPy and CuPy.

`import gpunn as torch` runs a PyTorch training script. Start with `gpunn.tensor`, `gpunn.nn`,
`gpunn.optim` and `gpunn.utils.data`; `gpunn.doctor()` tells what this machine offers.
"""

import importlib as _importlib
import os as _os
import sys as _sys
from typing import Any as _Any

# After a product OpenBLAS's threads keep their cores busy for 2**26 cycles, in case another one
# comes: too long beside threads of ours. It reads this when NumPy is first imported.
_os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")

import numpy as _np  # noqa: E402

_np.seterr(all="ignore")  # as PyTorch: 1 / 0 is inf and log(-1) is nan, without a warning

from gpunn import amp, autograd, backends, cuda, linalg, nn, random, special  # noqa: E402
from gpunn.amp.autocast_mode import (  # noqa: E402
    autocast,
    autocast_decrement_nesting,
    autocast_increment_nesting,
    clear_autocast_cache,
    get_autocast_cpu_dtype,
    get_autocast_dtype,
    get_autocast_gpu_dtype,
    is_autocast_cache_enabled,
    is_autocast_cpu_enabled,
    is_autocast_enabled,
    set_autocast_cache_enabled,
    set_autocast_cpu_dtype,
    set_autocast_cpu_enabled,
    set_autocast_dtype,
    set_autocast_enabled,
    set_autocast_gpu_dtype,
)
from gpunn.autograd import (  # noqa: E402
    enable_grad,
    inference_mode,
    is_anomaly_enabled,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from gpunn.device import Device as device  # noqa: E402, N813
from gpunn.device import get_default_device, set_default_device  # noqa: E402
from gpunn.dtypes import (  # noqa: E402
    bfloat16,
    can_cast,
    cdouble,
    cfloat,
    complex64,
    complex128,
    double,
    dtype,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    half,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    long,
    promote_types,
    set_default_dtype,
    short,
    uint8,
    uint16,
    uint32,
    uint64,
)
from gpunn.dtypes import bool_ as bool  # noqa: E402, A004
from gpunn.dtypes import float_ as float  # noqa: E402, A004
from gpunn.dtypes import int_ as int  # noqa: E402, A004
from gpunn.layout import *  # noqa: E402, F403
from gpunn.nn.activation import relu, relu_  # noqa: E402
from gpunn.nn.adaptive_pool import adaptive_avg_pool1d  # noqa: E402
from gpunn.nn.adaptive_pool import adaptive_max_pool1d_both as adaptive_max_pool1d  # noqa: E402
from gpunn.nn.aten_dropout import *  # noqa: E402, F403
from gpunn.nn.aten_loss import *  # noqa: E402, F403
from gpunn.nn.aten_norm import (  # noqa: E402
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)
from gpunn.nn.conv import conv1d, conv2d, conv3d, conv_tbc  # noqa: E402
from gpunn.nn.conv_transpose import (  # noqa: E402
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    convolution,
)
from gpunn.nn.distance import (  # noqa: E402
    cdist,
    cosine_similarity,
    pairwise_distance,
    pdist,
)
from gpunn.nn.embedding import embedding  # noqa: E402
from gpunn.nn.embedding_bag import embedding_bag  # noqa: E402
from gpunn.nn.grid_sample import (  # noqa: E402
    affine_grid_generator,
    grid_sampler,
    grid_sampler_2d,
    grid_sampler_3d,
)
from gpunn.nn.linear import bilinear  # noqa: E402
from gpunn.nn.pad import constant_pad_nd  # noqa: E402
from gpunn.nn.pixel_shuffle import (  # noqa: E402
    channel_shuffle,
    native_channel_shuffle,
    pixel_shuffle,
    pixel_unshuffle,
)
from gpunn.nn.pool import avg_pool1d, max_pool1d, max_pool2d, max_pool3d  # noqa: E402
from gpunn.nn.rectifier import (  # noqa: E402
    hardshrink,
    prelu,
    rrelu,
    rrelu_,
    threshold,
    threshold_,
)
from gpunn.nn.rnn_cell import gru_cell, lstm_cell, rnn_relu_cell, rnn_tanh_cell  # noqa: E402
from gpunn.nn.rnn_layers import gru, lstm, rnn_relu, rnn_tanh  # noqa: E402
from gpunn.nn.smooth import celu, celu_, selu, selu_  # noqa: E402
from gpunn.nn.softmax import log_softmax, softmax  # noqa: E402
from gpunn.ops import index as _index  # noqa: E402
from gpunn.ops import operators as _operators  # noqa: E402
from gpunn.ops.addmm import *  # noqa: E402, F403
from gpunn.ops.assign import *  # noqa: E402, F403
from gpunn.ops.choose import *  # noqa: E402, F403
from gpunn.ops.complex import *  # noqa: E402, F403
from gpunn.ops.contract import *  # noqa: E402, F403
from gpunn.ops.convert import *  # noqa: E402, F403
from gpunn.ops.copies import *  # noqa: E402, F403
from gpunn.ops.count import *  # noqa: E402, F403
from gpunn.ops.create import *  # noqa: E402, F403
from gpunn.ops.cumulative import *  # noqa: E402, F403
from gpunn.ops.data import *  # noqa: E402, F403
from gpunn.ops.diagonal import *  # noqa: E402, F403
from gpunn.ops.elementwise import *  # noqa: E402, F403
from gpunn.ops.extreme import *  # noqa: E402, F403
from gpunn.ops.gather import *  # noqa: E402, F403
from gpunn.ops.index_write import *  # noqa: E402, F403
from gpunn.ops.interop import *  # noqa: E402, F403
from gpunn.ops.join import *  # noqa: E402, F403
from gpunn.ops.legacy import *  # noqa: E402, F403
from gpunn.ops.linalg import *  # noqa: E402, F403
from gpunn.ops.logic import *  # noqa: E402, F403
from gpunn.ops.mask import *  # noqa: E402, F403
from gpunn.ops.matrices import *  # noqa: E402, F403
from gpunn.ops.order import *  # noqa: E402, F403
from gpunn.ops.powers import *  # noqa: E402, F403
from gpunn.ops.query import *  # noqa: E402, F403
from gpunn.ops.ranges import *  # noqa: E402, F403
from gpunn.ops.reduce import *  # noqa: E402, F403
from gpunn.ops.scatter import *  # noqa: E402, F403
from gpunn.ops.search import *  # noqa: E402, F403
from gpunn.ops.shape import *  # noqa: E402, F403
from gpunn.ops.split import *  # noqa: E402, F403
from gpunn.ops.strided import *  # noqa: E402, F403
from gpunn.ops.transcend import *  # noqa: E402, F403
from gpunn.ops.views import *  # noqa: E402, F403
from gpunn.printing import get_printoptions, set_printoptions  # noqa: E402
from gpunn.random import *  # noqa: E402, F403
from gpunn.settings import *  # noqa: E402, F403
from gpunn.sparse import sparse_coo_tensor  # noqa: E402
from gpunn.special.bessel import *  # noqa: E402, F403
from gpunn.special.erf import *  # noqa: E402, F403
from gpunn.special.gamma import *  # noqa: E402, F403
from gpunn.storage import UntypedStorage  # noqa: E402
from gpunn.tensor import Size, Tensor  # noqa: E402

__version__ = "0.1.0"

_ON_FIRST_USE = {
    "__config__": "gpunn.__config__",
    "accelerator": "gpunn.accelerator",
    "compiler": "gpunn.compiler",
    "jit": "gpunn.jit",
    "cpu": "gpunn.cpu",
    "distributed": "gpunn.distributed",
    "func": "gpunn.func",
    "futures": "gpunn.futures",
    "multiprocessing": "gpunn.multiprocessing",
    "notebook": "gpunn.notebook",
    "optim": "gpunn.optim",
    "profiler": "gpunn.profiler",
    "utils": "gpunn.utils",
    "serialization": "gpunn.serialization",
    "native": "gpunn.native",
}
_FUNCTIONS_ON_FIRST_USE = {
    "OutOfMemoryError": "gpunn.cuda.memory",
    "compile": "gpunn.compiler",
    "save": "gpunn.serialization",
    "load": "gpunn.serialization",
    "doctor": "gpunn.diagnostics",
    "show_config": "gpunn.__config__",
    "set_num_threads": "gpunn.threads",
    "get_num_threads": "gpunn.threads",
    "summary": "gpunn.model_summary",
    "norm_except_dim": "gpunn.nn.utils.weight_norm",
    "_weight_norm": "gpunn.nn.utils.weight_norm",
}


def __getattr__(name: str) -> _Any:
    """Imports what few scripts use when it is first asked for: `import gpunn` stays quick."""
    if name in _ON_FIRST_USE:
        return _importlib.import_module(_ON_FIRST_USE[name])
    if name in _FUNCTIONS_ON_FIRST_USE:
        found = getattr(_importlib.import_module(_FUNCTIONS_ON_FIRST_USE[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'gpunn' has no attribute '{name}'")


if "IPython" in _sys.modules:  # after an error, the next cell has the failed one's memory again
    _importlib.import_module("gpunn.notebook").install()
