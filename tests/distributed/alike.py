"""The same program run by PyTorch's ranks and by ours, and what they report compared.

    alike(3, '''
        x = T.full((2,), float(rank))
        dist.all_reduce(x)
        found["sum"] = x
        found["refused"] = error("must be", lambda: dist.all_reduce(3))
    ''')

`T` is the package, `dist` its `distributed`, `found` what is compared. `error(words, f)` tells what
f() raises, whose message has these words under both packages. `only(package)` is for the few lines
that differ.
"""

import importlib.util
import math
import textwrap

import pytest

from tests.distributed.ranks import run_ranks

_BEFORE = """
import importlib, os, warnings
from datetime import timedelta
warnings.simplefilter("ignore")
T = importlib.import_module(os.environ["PACKAGE"])
dist = importlib.import_module(os.environ["PACKAGE"] + ".distributed")
mine = os.environ["PACKAGE"] == "gpunn"
found = {}

def error(words, f):
    try:
        f()
    except Exception as e:
        names = [c.__name__ for c in type(e).__mro__]
        return {"error": type(e).__name__, "is a": names, "has": words in str(e), "text": str(e)}
    return {"error": "none"}

def plain(x):
    if isinstance(x, T.Tensor):
        if x.is_complex():
            x = T.view_as_real(x)
        return [str(x.dtype), list(x.shape), x.float().tolist() if x.dtype.is_floating_point
                else x.tolist()]
    if isinstance(x, dict):
        return {str(k): plain(v) for k, v in x.items()}
    return [plain(v) for v in x] if isinstance(x, (list, tuple)) else x

"""
_AFTER = """
report(plain(found))
if dist.is_initialized() and os.environ.get("RANK"):
    dist.destroy_process_group()
"""


def ours(n, program, backend=None, timeout=60):
    """What our ranks find; `backend` "mpi" runs them under mpiexec."""
    return _ranks("gpunn", n, program, backend, timeout)


def _ranks(package, n, program, backend, timeout):
    start = "" if backend == "mpi" else f"dist.init_process_group({(backend or 'gloo')!r})\n"
    text = _BEFORE + start + textwrap.dedent(program) + _AFTER
    return run_ranks(n, text, "mpi" if backend == "mpi" else None, timeout,
                     env={"PACKAGE": package, "GLOO_SOCKET_IFNAME": "lo"})  # fmt: skip


def alike(n, program, timeout=120):
    """Runs the program under both packages; AssertionError with all that differs. Returns ours."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("parity tests need PyTorch")
    got = ours(n, program, timeout=timeout)
    differences = compare(_ranks("torch", n, program, None, timeout), got)
    assert not differences, "\n".join(differences)
    return got


def compare(wanted, got, where="rank", rtol=1e-6):
    """Lines that say where two reports differ."""
    if isinstance(wanted, dict) and "error" in wanted:
        return _compare_errors(wanted, got, where)
    if isinstance(wanted, dict) and isinstance(got, dict):
        lines = [f"{where}: keys differ: {set(wanted) ^ set(got)}"] * (set(wanted) != set(got))
        pairs = [(k, wanted[k], got[k]) for k in wanted if k in got]
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        lines, pairs = [], [(k, *pair) for k, pair in enumerate(zip(wanted, got, strict=True))]
    else:
        close = isinstance(wanted, float) and isinstance(got, float) and (
            math.isclose(wanted, got, rel_tol=rtol, abs_tol=1e-12) or wanted != wanted != got
        )  # fmt: skip
        return [] if close or wanted == got else [f"{where}: PyTorch {wanted!r}, gpunn {got!r}"]
    return lines + [line for k, w, g in pairs for line in compare(w, g, f"{where} {k}", rtol)]


def _compare_errors(wanted, got, where):
    told = f"PyTorch {wanted['error']}: {wanted.get('text')!r}\n    gpunn {got}"
    same = isinstance(got, dict) and wanted["error"] in got.get("is a", ["none"])
    if not (same and wanted.get("has", True) and got.get("has", True)):
        return [f"{where}: {told}"]
    return []
