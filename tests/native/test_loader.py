import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gpunn import native
from gpunn.native import build, loader

ROOT = Path(__file__).parents[2]


def run(script, **environment):
    """What a fresh process prints; an assertion error with its errors where it fails."""
    settings = {key: value for key, value in os.environ.items() if not key.startswith("GPUNN_")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**settings, **environment}, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


NONE = """
import numpy as np
from gpunn import native
x = np.ones((1, 1, 4), np.float32)
assert native.lib() is None
assert native.conv_forward(x, x, None, (1,), (0,), (1,), 1) is None
assert native.softmax_forward(x) is None and native.unary("exp", x) is None
assert native.embedding_forward(x[0], np.zeros(1, np.int64)) is None
assert native.square_sum([x]) is None and not native.sgd_step([x], [x], None, 0.1)
native.set_num_threads(3)
print(native.status())
"""


def test_switched_off():
    assert run(NONE, GPUNN_NATIVE="0") == "off (GPUNN_NATIVE=0); NumPy does the work"


def test_no_compiler(tmp_path):
    if list((ROOT / "gpunn" / "_native").glob("*.so")):
        pytest.skip("a prebuilt library needs no compiler")
    text = run(NONE, PATH=str(tmp_path), CXX="", XDG_CACHE_HOME=str(tmp_path))
    assert text.startswith("none: no C++ compiler found") and "\n" not in text


def test_a_failing_compiler(tmp_path):
    if list((ROOT / "gpunn" / "_native").glob("*.so")):
        pytest.skip("a prebuilt library needs no compiler")
    text = run(NONE, CXX="false", XDG_CACHE_HOME=str(tmp_path))
    assert text.startswith("none: ") and text.endswith("NumPy does the work")


def test_an_unknown_instruction_set():
    assert "GPUNN_NATIVE=v99 is none of" in run(NONE, GPUNN_NATIVE="v99")


def test_importing_gpunn_loads_nothing():
    script = "import gpunn; from gpunn.native import loader; print(loader._searched)"
    assert run(script) == "False"


FREED = """
import resource
import numpy as np
from gpunn import native
native.lib()
def step():
    parts = [np.empty(1 << 22, np.uint8) for _ in range(20)]
    for part in parts:
        part.fill(1)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
@pytest.mark.skipif(native.lib() is None, reason=native.status())
def test_freed_memory_stays_for_the_next_step():
    assert int(run(FREED)) < 1000  # pages; 20,480 are written
    assert int(run(FREED, MALLOC_TRIM_THRESHOLD_="131072")) > 1000  # the user's wish counts


needs_library = pytest.mark.skipif(native.lib() is None, reason=native.status())

ALL = """
import sys
import numpy as np
from gpunn import native
rng = np.random.default_rng(0)
results = []
for dtype in (np.float32, np.float64):
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)
    x, w, dw = draw(3, 20, 19, 21), draw(34, 10, 3, 3), draw(20, 1, 3, 3)
    rest = ((2, 1), (1, 1), (1, 2))
    y = native.conv_forward(x, w, None, *rest, 2)
    results += [y, native.conv_input_grad(y, w, (19, 21), *rest, 2),
                *native.conv_weight_grad(x, y, (3, 3), *rest, 2, bias=True)]
    y = native.conv_forward(x, dw, None, *rest, 20)
    results += [y, native.conv_input_grad(y, dw, (19, 21), *rest, 20),
                native.conv_weight_grad(x, y, (3, 3), *rest, 20)[0]]
    y, index = native.max_pool_forward(x, (3, 3), (2, 2), (1, 1), (1, 1), (10, 11))
    results += [y, index, native.max_pool_backward(y, index, (19, 21)),
                native.avg_pool_forward(x, (3, 3), (2, 2), (1, 1), (10, 11))]
    results += [native.softmax_forward(x), native.log_softmax_forward(x)]
    results += [native.unary(name, x) for name in ("exp", "tanh", "sigmoid", "gelu", "softplus")]
    results += [*native.batch_norm_stats(x),
                *native.row_norm_forward(x.reshape(-1, 399), None, None, 1e-5)]
    results += [native.embedding_backward(x.reshape(-1, 21), np.arange(1140) % 7, 7)]
print(native.status())
np.savez(sys.argv[1] if len(sys.argv) > 1 else OUT, *results)
"""


@needs_library
@pytest.mark.parametrize("level", native.levels()[1:])
def test_every_instruction_set_gives_the_same_numbers(level, tmp_path):
    best, other = tmp_path / "best.npz", tmp_path / "other.npz"
    run(f"OUT = {str(best)!r}\n{ALL}")
    assert f" {level}, " in run(f"OUT = {str(other)!r}\n{ALL}", GPUNN_NATIVE=level)
    a, b = np.load(best), np.load(other)
    for name in a.files:
        tolerance = 1e-12 if a[name].dtype == np.float64 else 2e-5
        scale = max(1.0, float(abs(a[name]).max()))
        np.testing.assert_allclose(b[name], a[name], rtol=tolerance, atol=tolerance * scale)


FORK = """
import os
import numpy as np
from gpunn import native
native.set_num_threads(4)
rng = np.random.default_rng(0)
x = rng.standard_normal((8, 16, 20, 20)).astype(np.float32)
w = rng.standard_normal((32, 16, 3, 3)).astype(np.float32)
compute = lambda: native.conv_forward(x, w, None, (1, 1), (1, 1), (1, 1), 1)
y = compute()
for _ in range(5):
    child = os.fork()
    if child == 0:
        same = all(np.array_equal(compute(), y) for _ in range(3))
        threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 2
        os._exit(0 if same and threads > 1 else 1)
    assert np.array_equal(compute(), y)
    assert os.waitpid(child, 0)[1] == 0
print("ok")
"""


@needs_library
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_threads_of_its_own():
    assert run(f"import warnings\nwarnings.simplefilter('ignore')\n{FORK}") == "ok"


@needs_library
def test_calls_from_several_threads_at_once():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 16, 20, 20)).astype(np.float32)
    w = rng.standard_normal((32, 16, 3, 3)).astype(np.float32)

    def compute():
        return native.conv_forward(x, w, None, (1, 1), (1, 1), (1, 1), 1)

    y, wrong = compute(), []

    def work():
        wrong.extend(1 for _ in range(20) if not np.array_equal(compute(), y))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_library
def test_number_of_threads():
    before = native.get_num_threads()
    try:
        native.set_num_threads(3)
        assert native.get_num_threads() == 3
        assert native.lib().gpunn_get_num_threads() == 3
        assert native.status().endswith(", 3 threads") and "\n" not in native.status()
    finally:
        native.set_num_threads(before)


def test_number_of_threads_before_the_library_is_loaded():
    script = (
        "from gpunn import native; before = native.get_num_threads(); native.set_num_threads(5)\n"
        "lib = native.lib(); print(before, lib.gpunn_get_num_threads() if lib else 5)"
    )
    assert run(script, OMP_NUM_THREADS="7") == "7 5"
    assert run(script, OMP_NUM_THREADS="7", GPUNN_NUM_THREADS="2") == "2 5"


def test_levels():
    levels = native.levels()
    assert levels and set(levels) <= set(build.LEVELS.get(build.machine(), ["any"]))


def test_source():
    assert "conv_forward" in native.source("conv.cpp")
    assert native.kernels_dir().is_dir()
    with pytest.raises(FileNotFoundError):
        native.source("none.cu")


def test_source_in_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "gpunn" / "kernels").mkdir(parents=True)
    (tmp_path / "gpunn" / "kernels" / "x.cu").write_text("text")
    monkeypatch.setattr(loader, "_PACKAGE", tmp_path / "gpunn")
    assert native.source("x.cu") == "text"


def test_a_prebuilt_library_comes_first(tmp_path, monkeypatch):
    folder = tmp_path / "_native"
    folder.mkdir()
    last = native.levels()[-1]
    path = folder / f"gpunn-{build.machine()}-{last}.so"
    path.write_bytes(b"")
    monkeypatch.setattr(loader, "_PACKAGE", tmp_path)
    choice = list(native.levels())
    assert loader._find(choice) == (path, "prebuilt in") and choice == [last]


def test_address_of_any_array():
    for array in (np.ones(3), np.ones(0), np.ones((2, 2)), np.array(1.0)):
        assert loader.address(array) == array.ctypes.data or array.size == 0
    array = np.ones(3)
    array.flags.writeable = False
    assert loader.address(array) == array.ctypes.data
