"""A bad index on the device: the CPU's error, nothing harmed, no waiting."""

import os
import warnings

import emulated as emulation
import numpy as np
import pytest

import gpunn
import gpunn.nn.functional as F
from gpunn.cuda.kernels import faults


def picks(values, device):
    return gpunn.tensor(values, device=device)


OPERATIONS = [
    ("gather", lambda x, i: gpunn.gather(x, 0, i), RuntimeError, [0, 9, 1], "index 9"),
    ("take", lambda x, i: gpunn.take(x, i), IndexError, [0, -7, 1], "index -7"),
    ("index_select", lambda x, i: gpunn.index_select(x, 0, i), IndexError, [3, 0, 5], "index 5"),
    ("index", lambda x, i: x[i], IndexError, [0, 1, 4], "index 4"),
    ("scatter", lambda x, i: gpunn.scatter(x, 0, i, 1.0), RuntimeError, [0, -1, 2], "index -1"),
    ("index_add", lambda x, i: x.index_add(0, i, gpunn.ones(3, device=x.device)), RuntimeError,
     [0, 8, 2], "index 8"),
    ("max_unpool", lambda x, i: F.max_unpool1d(x[None, None, :3], i[None, None], 1), RuntimeError,
     [0, 1, 7], "Found an invalid max index: 7"),
    ("multi_margin", lambda x, i: F.multi_margin_loss(x.expand(3, 4), i), RuntimeError,
     [0, 3, 4], "target out of range"),
    ("multilabel_margin", lambda x, i: F.multilabel_margin_loss(x[:3], i), RuntimeError,
     [0, 3, 1], "argument #2 'target' is out of range"),
    ("nll", lambda x, i: F.nll_loss(x.expand(3, 4), i), IndexError, [0, 3, 4], "Target 4 is out"),
    ("index_fill", lambda x, i: x.index_fill(0, i, 2.0), IndexError, [0, -5, 2], "index -5"),
]  # fmt: skip


@pytest.mark.parametrize("name, f, kind, bad, words", OPERATIONS, ids=[o[0] for o in OPERATIONS])
def test_a_bad_index_is_the_cpus_error_when_the_host_looks(
    emulated, name, f, kind, bad, words
):
    x = gpunn.arange(4.0)
    with pytest.raises(kind, match=words):
        f(x, picks(bad, "cpu"))
    there = x.to(emulated)
    made = f(there, picks(bad, emulated))  # goes on
    with pytest.raises(kind, match=words):
        made.cpu()
    assert there.tolist() == [0.0, 1.0, 2.0, 3.0]  # unharmed, and the error is told once
    good = [0, 2, 1]
    np.testing.assert_array_equal(
        f(there, picks(good, emulated)).cpu().numpy(), f(x, picks(good, "cpu")).numpy()
    )


LOOKS = [lambda t: t.item(), lambda t: t.tolist(), repr, lambda t: gpunn.cuda.synchronize(), bool]


@pytest.mark.parametrize("look", LOOKS)
def test_every_way_to_look_raises(emulated, look):
    x = gpunn.ones(3, device=emulated)
    made = x[picks([7], emulated)]
    with pytest.raises(IndexError, match=r"index 7 .* size 3.*set_sync_debug"):
        look(made)


def test_sync_debug_raises_at_the_line(emulated):
    x = gpunn.ones(3, device=emulated)
    gpunn.cuda.set_sync_debug(True)
    try:
        with pytest.raises(IndexError, match="index 7") as caught:
            x[picks([7], emulated)]
        assert "set_sync_debug" not in str(caught.value)
    finally:
        gpunn.cuda.set_sync_debug(False)


def test_an_optimizer_step_looks_before_it_changes_anything(emulated):
    w = gpunn.ones(3, device=emulated, requires_grad=True)
    optimizer = gpunn.optim.SGD([w], lr=1.0)
    w[picks([5], emulated)].sum().backward()
    with pytest.raises(IndexError, match="index 5"):
        optimizer.step()
    assert w.tolist() == [1.0, 1.0, 1.0]


def test_no_bad_index_costs_no_waiting(emulated):
    log = emulation.module().cuda.runtime.log
    x = gpunn.ones(3, device=emulated)
    before = len(log)
    x[picks([2, 0], emulated)].sum()
    assert not [entry for entry in log[before:] if "synchronize" in entry[0]]


def test_the_first_of_several_is_told_with_its_place(emulated):
    x = gpunn.ones(10, device=emulated)
    index = picks([[1, 2], [3, 12]], emulated)
    with pytest.raises(IndexError, match="index 12 .* size 10.*flat position 3"):
        x[index].cpu()


def test_sync_debug_takes_a_bool():
    with pytest.raises(TypeError, match="must be bool, not int"):
        faults.set_sync_debug(1)


def test_a_record_that_is_half_written_is_not_told(emulated):
    slot = faults.slot("gather")
    record = faults._records[slot.number : slot.number + 1]
    record["taken"], record["value"] = 1, 5
    faults.raise_pending()
    record["set"] = 1
    with pytest.raises(RuntimeError, match="index 5"):
        faults.raise_pending()
    assert not record["taken"] and not record["set"]


def test_the_device_is_waited_for_before_its_records_are_reset(emulated):
    log = emulation.module().cuda.runtime.log
    gpunn.ones(3, device=emulated)[picks([7], emulated)]
    before = len(log)
    with pytest.raises(IndexError, match="index 7"):
        faults.raise_pending()
    assert log[before:] == [("synchronize", 0)]


def test_each_device_has_records_of_its_own(emulated, monkeypatch):
    here = faults.slot("gather")
    assert faults.slot("gather") is here
    runtime = emulation.module().cuda.runtime
    monkeypatch.setattr(runtime, "getDevice", lambda: 1)
    there = faults.slot("gather")
    assert there.pointer() - here.pointer() >= faults.RECORD.itemsize


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_leaves_the_errors_to_its_parent(emulated):
    made = gpunn.ones(3, device=emulated)[picks([7], emulated)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        child = os.fork()
    if child == 0:
        try:
            gpunn.optim.SGD([gpunn.ones(1, requires_grad=True)]).step()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(IndexError, match="index 7"):
        made.cpu()
