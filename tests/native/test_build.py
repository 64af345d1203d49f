import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpunn.native import build

CXX = build.compiler()
pytestmark = pytest.mark.skipif(CXX is None, reason="these compile: they need a C++ compiler")
TEXT = """#include "answer.h"
extern "C" __attribute__((visibility("default"))) int answer() { return ANSWER; }
"""


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "answer.cpp").write_text(TEXT)
    (folder / "answer.h").write_text("constexpr int ANSWER = 42;\n")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gpunn"


LEVEL = next(iter(build.LEVELS.get(build.machine(), ["any"])))


def test_compiled_once_and_found_again(sources, cache, capfd):
    path = build.cached(sources, LEVEL, CXX)
    assert ctypes.CDLL(str(path)).answer() == 42
    assert "compiling" in capfd.readouterr().err
    before = path.stat().st_mtime_ns
    assert build.cached(sources, LEVEL, CXX) == path
    assert path.stat().st_mtime_ns == before and capfd.readouterr().err == ""
    assert list(cache.iterdir()) == [path]


def test_other_text_is_another_file(sources, cache):
    first = build.cached(sources, LEVEL, CXX)
    (sources / "answer.h").write_text("constexpr int ANSWER = 43;\n")
    second = build.cached(sources, LEVEL, CXX)
    assert first != second and ctypes.CDLL(str(second)).answer() == 43


def test_flags_and_compiler_are_part_of_the_name(sources, monkeypatch):
    plain = build.key(sources, LEVEL, CXX)
    assert build.key(sources, LEVEL, f"{CXX} -g") != plain
    assert build.key(sources, "other", CXX) != plain
    monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-g"])
    assert build.key(sources, LEVEL, CXX) != plain


def test_processes_at_once(sources, cache):
    script = (
        "import ctypes, sys; from pathlib import Path; from gpunn.native import build\n"
        f"path = build.cached(Path({str(sources)!r}), {LEVEL!r}, {CXX!r})\n"
        "sys.exit(ctypes.CDLL(str(path)).answer())"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2],
                         stderr=subprocess.PIPE)
        for _ in range(4)
    ]  # fmt: skip
    for process in running:
        said = process.communicate()[1]
        assert process.returncode == 42, said
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written(sources, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a file, where a folder is needed
    path = build.cached(sources, LEVEL, CXX)
    assert ctypes.CDLL(str(path)).answer() == 42
    assert os.stat(path.parent).st_mode & 0o077 == 0  # nobody else can put a library there


def test_what_the_compiler_says_is_in_the_error(sources, cache):
    (sources / "answer.cpp").write_text("int answer() { return unheard_of; }")
    with pytest.raises(build.BuildError, match="unheard_of"):
        build.cached(sources, LEVEL, CXX)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_compiler_that_cannot_run(sources, tmp_path):
    with pytest.raises(build.BuildError, match="cannot be run"):
        build.key(sources, LEVEL, str(tmp_path / "missing"))


def test_compiler_choice(tmp_path, monkeypatch):
    own = tmp_path / "my-cxx"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("CXX", f"{own} -m64")
    assert build.compiler() == f"{own} -m64"
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.compiler() is None


def test_cache_dir(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/nowhere")
    assert build.cache_dir() == Path("/nowhere/.cache/gpunn")
    monkeypatch.setenv("XDG_CACHE_HOME", "/else")
    assert build.cache_dir() == Path("/else/gpunn")
