"""Kernel files made complete: what is prepended, what is pasted, which variants there are."""

import numpy as np
import pytest

import gpunn
from gpunn.cuda.kernels import launch, loader
from gpunn.cuda.kernels.loader import FLOATS, INDICES, Source

F16, BF16, F32, F64 = FLOATS


def test_types_and_constants_stand_in_front():
    text = loader.prelude({"T": BF16, "I": INDICES[1], "BLOCK": 128, "CAUSAL": True})
    assert "typedef __nv_bfloat16 T;" in text
    assert "typedef long long I;" in text
    assert "constexpr int BLOCK = 128;" in text
    assert "constexpr bool CAUSAL = true;" in text
    assert "typedef float Acc;" in text


@pytest.mark.parametrize("dtype, acc", [(F16, "float"), (F32, "float"), (F64, "double")])
def test_sums_are_made_in_float_but_for_double(dtype, acc):
    assert f"typedef {acc} Acc;" in loader.prelude({"T": dtype})


def test_includes_are_pasted_once_and_lines_keep_their_origin():
    files = {"a.cuh": '#pragma once\n#include "b.cuh"\nint a;', "b.cuh": "#pragma once\nint b;"}
    text = loader.pasted("x.cu", '#include "a.cuh"\n#include "b.cuh"\nint x;\n', files.__getitem__)
    assert text.count("int b;") == 1
    assert "#include" not in text and "#pragma once" not in text
    lines = text.splitlines()
    assert lines[lines.index("int a;") + 1] == '#line 2 "x.cu"'
    assert text.index("int b;") < text.index("int a;") < text.index("int x;")


def _origin(text, wanted):
    """(file, line) that `#line` gives to a line of the text."""
    file, number = "", 0
    for line in text.splitlines():
        if line.startswith("#line"):
            _, number, file = line.split()
            number = int(number) - 1
        else:
            number += 1
            if line == wanted:
                return file.strip('"'), number
    raise AssertionError(wanted)


def test_every_line_of_a_kernel_has_its_own_number():
    source = gpunn.native.source("index.cu")
    text = loader.pasted("index.cu", source)
    for number, line in enumerate(source.splitlines(), 1):
        if len(line) > 9 and text.count(line) == 1 and "#include" not in line:
            assert _origin(text, line) == ("index.cu", number)


def test_variants_are_the_product_without_what_only_refuses():
    source = Source("index", only=lambda v: v["T"] != F64 or v["B"] == 1, T=(F32, F64), B=(1, 2))
    loader._known.remove(source)
    assert list(source.variants()) == [
        {"T": F32, "B": 1}, {"T": F32, "B": 2}, {"T": F64, "B": 1},
    ]  # fmt: skip
    assert source.serves(T=F32) and not source.serves(T=np.dtype(np.int32))
    with pytest.raises(ValueError, match="not declared for"):
        source.get("index_check", T=F64, B=2)
    with pytest.raises(TypeError, match="say which"):
        source.get("index_check", T=F64)


def test_an_edited_kernel_is_read_again_after_reload(emulated, tmp_path, monkeypatch):
    text = 'extern "C" __global__ void put(int* x) { x[0] = %d; }\n'
    file = tmp_path / "edited.cu"
    monkeypatch.setattr(loader, "read", lambda name: (tmp_path / name).read_text())
    source = Source("edited", I=INDICES[:1])
    x = launch.zeros(1, np.int32)
    try:
        for number in (1, 2):
            file.write_text(text % number)
            source.get("put", I=INDICES[0])(1, 1, (x,))
            assert x.get()[0] == 1  # compiled once
        gpunn.cuda.reload_kernels()
        source.get("put", I=INDICES[0])(1, 1, (x,))
        assert x.get()[0] == 2
    finally:
        loader._known.remove(source)
