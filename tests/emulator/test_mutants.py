"""The sample kernels with one thing deleted or broken: the check build notices every time.

What it notices is an error of the emulator, or wrong numbers.
"""

import re

import pytest

from . import EmulatorError, samples, settings

RUN = {
    "embedding.cu": samples.embedding,
    "conv.cu": samples.conv,
    "attention.cu": samples.attention,
    "gemm.cu": samples.gemm,
}
REPLACED = {
    "embedding.cu": [
        (
            "atomicAdd(&table[id * dim + c], float(dy[(long long)i * dim + c]))",
            "table[id * dim + c] += float(dy[(long long)i * dim + c])",
        ),
        ("j < n && sorted[j]", "sorted[j]"),
        ("order[i + j]", "order[i + j + 1]"),
    ],
    "conv.cu": [
        ("ih < p.h", "ih <= p.h"),
        ("iw >= 0", "iw >= -1"),
        ("m < p.cout && q < NP)", "q < NP)"),
        ("buffer ^= 1;", ""),
        ("[BM + 4]", "[BM - 4]"),
        ("k < K && m", "m"),
        ("k < K && q", "q"),
    ],
    "attention.cu": [
        ("r < length ? k", "true ? k"),
        ("if (row < length)", ""),
        ("k0 + lane >= length ||", ""),
        ("fix + warp_sum(p)", "fix"),
        ("__shared__ float Ks[32]", "__shared__ float Ks[31]"),
    ],
    "gemm.cu": [
        ("cp_async_wait<1>()", "cp_async_wait<2>()"),
        ("else cp_async_wait<0>();", ""),
        ("m0 + r < M &&", ""),
        ("if (r < M && c < N)", "if (c < N)"),
        ("(lane >> 4) * 8", "(lane >> 4) * 9"),
        ("fetch(stage ^ 1", "fetch(stage"),
    ],
}


def _without_barrier(number):
    """A function that deletes the barrier of that number from a text."""

    def change(text):
        found = list(re.finditer(r"__syncthreads\(\);", text))[number]
        return text[: found.start()] + text[found.end() :]

    return change


def _with(old, new):
    """A function that replaces the first occurrence."""

    def change(text):
        if old not in text:
            raise ValueError(f"the sample no longer has {old}")
        return text.replace(old, new, 1)

    return change


def _mutants():
    for name, replaced in REPLACED.items():
        barriers = (samples.KERNELS / name).read_text().count("__syncthreads();")
        for i in range(barriers):
            yield pytest.param(name, _without_barrier(i), id=f"{name}: no barrier {i + 1}")
        for old, new in replaced:
            yield pytest.param(name, _with(old, new), id=f"{name}: {old} -> {new or 'nothing'}")


MUTANTS = list(_mutants())


def outcome(name, change):
    """What a run shows: an error's first line, "wrong numbers", or "nothing"."""
    try:
        RUN[name](change)
    except EmulatorError as error:
        return str(error).splitlines()[0]
    except AssertionError:
        return "wrong numbers"
    return "nothing"


def test_there_are_29():
    assert len(MUTANTS) == 29


@pytest.mark.parametrize("name", RUN)
@pytest.mark.parametrize("check", [False, True], ids=["plain", "check"])
def test_samples_are_right(name, check):
    with settings(check=check):
        assert outcome(name, lambda text: text) == "nothing"


@pytest.mark.parametrize("name, change", MUTANTS)
def test_check_build_notices(name, change):
    with settings(check=True, timeout=20):
        says = outcome(name, change)
    assert says != "nothing"
