"""Each planted defect of kernels/faults.cu: what the check build says of it, and the plain build.

The correct twin of each kernel runs without complaint in every order and in both builds.
"""

import re
from typing import NamedTuple

import numpy as np
import pytest

from . import EmulatorError, RawModule, settings
from .samples import line_of, text
from .settings import ORDERS

WRONG, NAN, UNSEEN = "wrong numbers", "NaN", "nothing"


class Case(NamedTuple):
    name: str
    says: str  # the check build, a pattern
    plain: str  # the plain build: WRONG, NAN, UNSEEN or a pattern
    grid: int
    block: int
    args: tuple
    lines: tuple = ("",)  # the markers of the lines that the check build names: "" or ": word"
    shared: int = 0


def f(n):
    return np.arange(1, n + 1, dtype=np.float32)


def zeros(n):
    return np.zeros(n, np.float32)


def ints(n):
    return np.zeros(n, np.int32)


UNWRITTEN = "read of shared memory that nothing has written: byte .* of shared variable"
RACE = "data race on byte .* of "
BARRIER = "barrier divergence: "
DEADLOCK = "deadlock: 0 of 32 threads have returned, the others wait"
N = np.int32

CASES = [
    Case("missing_sync", UNWRITTEN, NAN, 1, 64, (f(64), zeros(64))),
    Case("missing_sync_before_reuse", RACE + r"shared variable t: write .* by thread .* and read",
         WRONG, 1, 64, (f(256), zeros(64), N(4)), ("", ": read")),
    Case("missing_sync_scalar", RACE + "shared variable s: read .* and write .* no barrier between",
         UNSEEN, 1, 64, (f(64), zeros(64)), ("", ": write")),
    Case("reused_scalar", RACE + "shared variable s: read .* and write", WRONG, 1, 64,
         (f(64), zeros(64)), ("", ": write")),
    Case("divergent_barrier", BARRIER + r"thread \(16, 0, 0\) .* has returned, while thread "
         r"\(0, 0, 0\) .* waits at __syncthreads", BARRIER, 1, 64, (zeros(64),)),
    Case("two_barriers", BARRIER + r"thread \(1, 0, 0\) .* is at __syncthreads at .*, but thread "
         r"\(0, 0, 0\)", BARRIER, 1, 64, (zeros(64),), ("", ": odd")),
    Case("early_return", BARRIER + r"thread \(40, 0, 0\) .* has returned", BARRIER, 1, 64,
         (zeros(64), N(40))),
    Case("divergent_sum", BARRIER + r"thread \(32, 0, 0\) .* has returned, .* waits at "
         r"__syncthreads at common.cuh:\d+ \(called at faults.cu", BARRIER, 1, 64, (zeros(64),)),
    Case("read_past_end", r"out-of-bounds read of 4 bytes by thread \(59, 0, 0\) of block "
         r"\(0, 0, 0\): byte 240 of x \(argument 0\), which has 240 bytes",
         r"out-of-bounds or misaligned access by thread \(59, 0, 0\) .*: byte 240 of x", 1, 64,
         (f(60), zeros(60), N(60))),
    Case("write_past_end", r"out-of-bounds write of 4 bytes by thread \(57, 0, .*: byte 228 of y",
         r"wrote just outside y \(argument 0\), which has 228 bytes", 1, 64, (zeros(57), N(57))),
    Case("read_before_start", "out-of-bounds read of 4 bytes .*: byte -4 of x", NAN, 1, 64,
         (f(64), zeros(64))),
    Case("shared_row", r"array index 32 is out of bounds, in thread \(31, 0, 0\)", WRONG, 1, 32,
         (zeros(32),)),
    Case("shared_pointer", r"out-of-bounds write of 4 bytes .*: byte 256 of shared variable a",
         UNSEEN, 1, 64, (zeros(64),)),
    Case("shared_dynamic", r"out-of-bounds write .* by thread \(63, 0, 0\) .*: byte 256 of dynamic "
         "shared memory, which has 256 bytes",
         "wrote past its 256 bytes of dynamic shared memory, at byte 256", 1, 64, (zeros(64),),
         shared=256),
    Case("local_memory", "out-of-bounds read of 4 bytes .*: the local memory of another thread",
         WRONG, 1, 32, (zeros(32),)),
    Case("null_pointer", "out-of-bounds read of 4 bytes .*: a null pointer",
         "out-of-bounds or misaligned access .*: a null pointer", 1, 32, (None, zeros(32))),
    Case("write_to_const", r"write to x \(argument 0\), which the kernel declares const, by thread",
         r"write to x \(argument 0\), which the kernel declares const", 1, 32,
         (ints(32), ints(32))),
    Case("misaligned", r"misaligned access: byte 4 of x .* is no multiple of 16 bytes",
         f"{WRONG}|misaligned access", 1, 16, (f(80), zeros(16))),
    Case("missing_atomic_in_block", RACE + r"y \(argument 1\): (read|write) .* and write", UNSEEN,
         1, 64, (ints(64), zeros(4))),
    Case("missing_atomic_in_grid", RACE + r"y \(argument 0\): read .* by thread \(0, 0, 0\) of "
         r"block \(1, 0, 0\), and write .* by a thread of block \(0, 0, 0\), with no __threadfence",
         UNSEEN, 8, 32, (zeros(1),)),
    Case("missing_syncwarp", UNWRITTEN, NAN, 1, 32, (f(32), zeros(32))),
    Case("missing_syncwarp_before_reuse", RACE + "shared variable s: (write|read) .* and "
         "(read|write)", WRONG, 1, 64, (zeros(64),), ("", ": read")),
    Case("syncwarp_of_half", RACE + "shared variable t: read .* and write", NAN, 1, 32,
         (f(32), zeros(32)), ("", ": write")),
    Case("missing_release", RACE + r"parts \(argument 1\): read .* of block \(7, 0, 0\), and write "
         ".* with no __threadfence", UNSEEN, 8, 1, (f(8), zeros(8), ints(1), zeros(1)),
         ("", ": write")),
    Case("missing_acquire", RACE + r"parts \(argument 1\): read .* of block \(7, 0, 0\), and write",
         UNSEEN, 8, 1, (f(8), zeros(8), ints(1), zeros(1)), ("", ": write")),
    Case("overwritten_input", RACE + r"x \(argument 0\): write .* and read .* by a thread of block",
         WRONG, 4, 1, (f(4), zeros(4)), ("", ": read")),
    Case("unlocked", RACE + r"y \(argument 1\): read", UNSEEN, 2, 128, (ints(1), ints(1))),
    Case("unwritten_shared", UNWRITTEN + " t", NAN, 1, 64, (zeros(64),)),
    Case("left_by_other_block", UNWRITTEN + " t", NAN, 2, 32, (zeros(64),)),
    Case("missing_cp_async_wait", "read before the cp.async into it was waited for", NAN, 1, 32,
         (f(128), zeros(32))),
    Case("missing_sync_after_cp_async", UNWRITTEN + " t", NAN, 1, 32, (f(128), zeros(32))),
    Case("cp_async_past_end", "out-of-bounds read of 16 bytes .* of x", "out-of-bounds", 1, 32,
         (f(100), zeros(32), N(100)), ()),
    Case("divergent_shuffle", DEADLOCK, DEADLOCK, 1, 32, (zeros(32),)),
    Case("lane_not_in_mask", r"lane 16 of thread \(16, 0, 0\) .* is not in the mask 0000ffff",
         "is not in the mask 0000ffff", 1, 32, (zeros(32),)),
    Case("masks_differ", "warp divergence: .* with mask ffffffff, but .* with mask fffffffe",
         "warp divergence: .* with mask", 1, 32, (zeros(32),)),
    Case("product_of_part_of_warp", "a lane of the warp has exited or does not exist",
         "a lane of the warp has exited", 1, 32, (zeros(32),), ()),
    Case("spin", r"time limit of 1 s: thread \(0, 0, 0\)", "time limit of 1 s: thread", 1, 32,
         (ints(1),), ()),
    Case("endless", "time limit of 1 s: thread", "time limit of 1 s: thread", 1, 1, (ints(1),), ()),
    Case("division_by_zero", r"integer division by zero, in thread \(0, 0, 0\)",
         r"integer division by zero in thread \(0, 0, 0\)", 1, 4, (ints(4), ints(4))),
    Case("false_assertion", r"assertion `threadIdx.x < 31 .*` is false, in thread \(31, 0, 0\)",
         "assertion `threadIdx.x < 31", 1, 32, (ints(32),)),
    Case("false_assumption", "is assumed and false", "is assumed and false", 1, 32,
         (ints(32), N(6))),
    Case("stack_overflow", "stack overflow in thread", "stack overflow in thread", 1, 1, (ints(1),),
         ()),
]  # fmt: skip
NAMES = [case.name for case in CASES]


def launch(case, planted):
    """The arrays after a launch."""
    module = RawModule(text("faults.cu", PLANTED=planted))
    args = [a.copy() if isinstance(a, np.ndarray) else a for a in case.args]
    kernel = module.get_function(case.name)
    kernel((case.grid,), (case.block,), args, shared_mem=case.shared)
    return [a for a in args if isinstance(a, np.ndarray)]


def outcome(case):
    """What a launch of the defect shows: the message, or what became of the numbers."""
    with settings(check=False):
        want = launch(case, planted=False)
    try:
        got = launch(case, planted=True)
    except EmulatorError as error:
        return str(error)
    if any(np.isnan(a).any() for a in got):
        return NAN
    return UNSEEN if all(map(np.array_equal, want, got)) else WRONG


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_check_build_names_fault_and_lines(case):
    with settings(check=True, timeout=1):
        says = outcome(case)
    assert re.search(case.says, says), says
    assert says.startswith(case.name + ": ")
    for marker in case.lines:
        assert line_of("faults.cu", case.name + marker) in says, says


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_plain_build(case):
    with settings(timeout=1):
        says = outcome(case)
    assert re.search(case.plain, says), says


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("check", [False, True], ids=["plain", "check"])
def test_correct_twins_are_clean(check, order):
    for case in CASES:
        if case.name == "null_pointer":  # nothing is written to y
            continue
        want = launch(case, planted=False)
        with settings(check=check, order=order, seed=3):
            got = launch(case, planted=False)
        for a, b in zip(want, got):
            np.testing.assert_array_equal(a, b, err_msg=case.name)


def test_the_fault_leaves_the_arrays_and_the_emulator_as_they_were():
    case = CASES[NAMES.index("write_past_end")]
    y = case.args[0]
    kernel = RawModule(text("faults.cu", PLANTED=True)).get_function(case.name)
    with pytest.raises(EmulatorError):
        kernel((1,), (64,), case.args)
    assert not y.any()
    assert launch(case, planted=False)[0].all()


def test_a_file_may_have_a_space_in_its_name():
    kernel = RawModule(
        '#line 1 "your kernel"\n'
        'extern "C" __global__ void past(float* y) {\n'
        "    y[threadIdx.x + 1] = 1;\n"
        "}\n"
    ).get_function("past")
    with settings(check=True), pytest.raises(EmulatorError, match="y .* at your kernel:2$"):
        kernel((1,), (8,), [zeros(8)])
