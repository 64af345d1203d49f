"""The lists of autocast against PyTorch: every operation of op_db, in and out of 16 bits.

PyTorch runs the CPU's list itself. Of CUDA's it tells the dtypes without a GPU: tensors without
data that say they are on one go through its dispatcher. gpunn runs on the emulated device there.
"""

import contextlib
import random
import re
from pathlib import Path

import pytest

import gpunn
from gpunn.amp.lists import CPU, CUDA, NAMES

torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

from parity import suite  # noqa: E402
from parity.convert import TORCH, Absent, Unconvertible, package  # noqa: E402
from parity.ops import elements, exists  # noqa: E402

SOURCES = list((Path(gpunn.__file__).parent).rglob("*.py"))
ASKED = re.compile(r'\b(?:autocasts|casts|casts_one)\(\s*"(\w+)"')
ROWS = re.compile(r'\b(?:unary|binary|_row|_power_row|special)\(\s*"(\w+)"')
NAMED = {  # asked for under a name that is put together
    *(f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3)), "convolution",
    "mm", "vdot", "avg_pool3d", "max_pool3d", "max_unpool2d", "max_unpool3d",
    "fractional_max_pool2d", "fractional_max_pool3d", "softmax", "log_softmax", "pow", "lstm",
    "gru", "rnn",
    *(f"re{kind}_pad{d}d" for kind in ("flection", "plication") for d in (1, 2, 3)),
}  # fmt: skip


def test_every_listed_operation_asks_and_every_one_that_asks_is_listed():
    asked = {name for p in SOURCES for name in ASKED.findall(p.read_text())}
    rows = {name for p in SOURCES for name in ROWS.findall(p.read_text())}
    assert not asked - NAMES
    assert not NAMES - asked - rows - NAMED


# --- PyTorch's registrations --------------------------------------------------------------

#: What PyTorch registers that gpunn has not, or has inside of a function with another name.
ELSEWHERE = """
    _addmm_activation _convolution _grid_sampler_2d_cpu_fallback _lu_with_info
    _native_multi_head_attention _scaled_dot_product_flash_attention _thnn_fused_gru_cell
    _thnn_fused_lstm_cell cudnn_convolution cudnn_convolution_transpose frobenius_norm
    nuclear_norm fake_quantize_per_tensor_affine grid_sampler_2d grid_sampler_3d inverse
    linalg_householder_product linalg_inv mkldnn_rnn_layer multilabel_margin_loss_forward
    native_layer_norm nll_loss2d orgqr rnn_relu_cell rnn_tanh_cell cross_entropy_loss stft
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_trilinear3d
"""


@pytest.mark.parametrize("key, ours", [("AutocastCPU", CPU), ("AutocastCUDA", CUDA)])
def test_the_lists_hold_what_pytorch_registers(key, ours):
    found = torch._C._dispatch_get_registrations_for_dispatch_key(key)
    theirs = {name.removeprefix("aten::").partition(".")[0] for name in found}
    missing = {n for n in theirs - set(ours) if not n.startswith("fft_")} - set(ELSEWHERE.split())
    assert not missing


# --- dtypes -------------------------------------------------------------------------------

#: operation -> why its dtypes differ
KNOWN = {
    "linalg.pinv": "PyTorch multiplies the factors of an SVD in 16 bits; here it is all float32",
    "nn.functional.pdist": "PyTorch gives the empty result of a single row in any dtype",
    "tensordot": "in PyTorch a result of one element is a dot product, which is on no list",
    "linalg.ldl_solve": "PyTorch lets 16-bit floats pass where nothing is solved",
    "polar": "complex numbers of two 16-bit ones", "complex": "as polar",
    "view_as_complex": "as polar", "as_strided": "PyTorch's tensors without data are not checked",
}  # fmt: skip
CUDA_LACKS_16_BITS = re.compile(
    "not implemented for 'Half'|unsupported in linalg|Low precision dtypes not supported"
)


def lowered(value):
    low = isinstance(value, torch.Tensor) and value.dtype is torch.float32
    return value.to(torch.bfloat16) if low else value


def samples_of(info):
    """Two or three samples of float32, and the same in 16 bits."""
    made = list(info.sample_inputs_func(info, "cpu", torch.float32, False))[:40]
    made = [s for s in made if 0 < elements((s.input, s.args)) < 20_000]
    for s in made[:1] + random.Random(0).sample(made[1:], min(2, len(made[1:]))):
        yield s
        yield s.transform(lowered)


def theirs_on_cpu(info, s):
    args, kwargs = TORCH.translate(((s.input, *s.args), s.kwargs), {})
    with torch.autocast("cpu"):
        return info.op(*args, **kwargs)


def theirs_on_cuda(info, s):
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._pytree import tree_map

    def without_data(value):
        if isinstance(value, torch.Tensor):
            dtype = torch.float16 if value.dtype is torch.bfloat16 else value.dtype
            return torch.empty_strided(value.shape, value.stride(), dtype=dtype, device="cuda")
        return torch.device("cuda") if isinstance(value, torch.device) else value

    with FakeTensorMode():
        args, kwargs = tree_map(without_data, ((s.input, *s.args), dict(s.kwargs)))
        torch.set_autocast_enabled("cuda", True)
        try:
            return info.op(*args, **kwargs)
        finally:
            torch.set_autocast_enabled("cuda", False)


def dtypes_of(value):
    from torch.utils._pytree import tree_leaves

    kinds = (torch.Tensor, gpunn.Tensor)
    return [str(t.dtype) for t in tree_leaves(value) if isinstance(t, kinds)]


def half_for_bfloat16(value):
    low = isinstance(value, torch.Tensor) and value.dtype is torch.bfloat16
    return value.to(torch.float16) if low else value


def compare(pkg, info, s, kind, theirs):
    """What differs, or None."""
    try:
        want = dtypes_of(theirs(info, s))
    except Exception:  # PyTorch refuses, or needs data
        return None
    s = s.transform(half_for_bfloat16) if kind == "cuda" else s
    try:
        args, kwargs = pkg.translate(((s.input, *s.args), s.kwargs), {})
    except (Unconvertible, Absent):
        return None
    try:
        with gpunn.autocast(kind):
            got = dtypes_of(pkg.translate(info.op)(*args, **kwargs))
    except Exception as error:
        if kind == "cuda" and CUDA_LACKS_16_BITS.search(str(error)):
            return None
        got = repr(error)
    return None if got == want else f"{info.name}: PyTorch {want}, gpunn {got}"


CASES = [("gpunn", "cpu", theirs_on_cpu), ("emulated", "cuda", theirs_on_cuda)]


@pytest.mark.slow
@pytest.mark.parametrize("impl, kind, theirs", CASES, ids=["cpu", "cuda"])
@pytest.mark.filterwarnings("ignore")
def test_results_have_pytorch_s_dtypes(impl, kind, theirs, caplog):
    caplog.set_level("CRITICAL")
    pkg, found, count = package(impl), [], 0
    with pkg.active() if impl == "emulated" else contextlib.nullcontext():
        for name, infos in suite.operations().items():
            for info in infos:
                if name in KNOWN or torch.float32 not in info.dtypes or not exists(pkg, info):
                    continue
                for s in samples_of(info):
                    count += 1
                    found.append(compare(pkg, info, s, kind, theirs))
    differing = "\n".join(dict.fromkeys(f for f in found if f is not None))
    assert not differing, differing
    assert count > 1500
